"""The Inception score against closed forms, the definition in numpy, and torchmetrics."""

import numpy as np
import pytest
import torch
import torchmetrics.image.inception

from stylegan_tl.metrics.inception_score import InceptionScore, inception_score


def _logits(n, c=7, seed=0, scale=2.0):
    return scale * torch.randn(n, c, generator=torch.Generator().manual_seed(seed))


def _reference_numpy(logits, splits):
    p = np.exp(np.float64(logits))
    p /= p.sum(1, keepdims=True)
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        divergence = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        scores.append(np.exp(divergence.sum(1).mean()))
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_it_agrees_with_its_definition(splits):
    logits = _logits(47)
    value, deviation = _reference_numpy(logits, splits)
    found = inception_score(logits, splits=splits)
    assert found["value"] == pytest.approx(value, rel=1e-10)
    assert found["stderr"] == pytest.approx(deviation, rel=1e-8, abs=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save:UserWarning")
def test_it_agrees_with_torchmetrics(monkeypatch):
    logits = _logits(60)
    theirs = torchmetrics.image.inception.InceptionScore(feature=torch.nn.Identity(), splits=6)
    theirs.update(logits)
    monkeypatch.setattr(torch, "randperm", torch.arange)  # theirs shuffles from the global RNG
    mean, deviation = (x.item() for x in theirs.compute())
    found = inception_score(logits, splits=6)
    assert found["value"] == pytest.approx(mean, rel=1e-5)
    assert found["stderr"] == pytest.approx(deviation * (5 / 6) ** 0.5, rel=1e-4)


def test_classes_that_are_all_sure_and_all_met_score_their_number():
    logits = torch.full((40, 8), -2000.0)  # probabilities that underflow
    logits[torch.arange(40), torch.arange(40) % 8] = 0
    found = inception_score(logits, splits=5)
    assert found == pytest.approx({"value": 8, "stderr": 0}, rel=1e-12)


@pytest.mark.parametrize("count", [1, 30])
def test_equal_images_score_one(count):
    logits = _logits(1).repeat(count, 1)
    found = inception_score(logits, splits=1)
    assert found == pytest.approx({"value": 1, "stderr": 0}, rel=1e-12)


def test_the_shell_draws_its_splits_from_the_seed():
    ordered = torch.eye(10).repeat_interleave(30, 0) * 20
    found = []
    for seed in (0, 0, 1):
        metric = InceptionScore(splits=10, seed=seed)
        metric.update(ordered + 0.01 * _logits(300, 10))
        found.append(metric.compute()["value"].item())
    assert inception_score(ordered)["value"] == pytest.approx(1)  # one class a split
    assert found[0] == found[1] != found[2]
    assert min(found) > 7


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="splits=10: allowed are 1 to 9"):
        inception_score(_logits(9))
    with pytest.raises(ValueError, match="splits=0"):
        inception_score(_logits(9), splits=0)
    with pytest.raises(ValueError, match="NaN"):
        inception_score(torch.full((20, 3), float("nan")))
    with pytest.raises(ValueError, match="fakes alone"):
        InceptionScore().update(_logits(9), real=True)
    with pytest.raises(ValueError, match="no fake images"):
        InceptionScore().rows(real=False)
