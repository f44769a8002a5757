"""Memorisation: a loop over scipy distances, what copies give, and what chance gives."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from stylegan_tl.metrics.memory import NearerShare, nearer_share, nearest_training


def _rows(n, f=6, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def _share(fake, train, held_out, seed=0):
    return nearer_share(fake, train, held_out, generator=torch.Generator().manual_seed(seed))


def _reference_scipy_share(fake, train, held_out):
    near, far = (cdist(fake.numpy(), x.numpy()).min(1) for x in (train, held_out))
    pairs = zip(near, far, strict=True)
    return float(np.mean([1.0 if a < b else 0.5 if a == b else 0.0 for a, b in pairs]))


def test_share_agrees_with_a_loop():
    fake, train, held_out = (_rows(n, seed=s).double() for s, n in enumerate((80, 50, 50)))
    fake[:20] = train[:20] + 0.1 * fake[:20]
    found = _share(fake, train, held_out)
    assert found["value"] == pytest.approx(_reference_scipy_share(fake, train, held_out), abs=1e-12)
    assert found["value"] > 0.5
    near, far = (cdist(fake.numpy(), x.numpy()).min(1) for x in (train, held_out))
    assert found["ratio"] == pytest.approx(np.exp(np.median(np.log(near / far))), rel=1e-12)
    assert found["count"] == 50


def test_copies_of_training_images_give_one():
    train, held_out = _rows(60), _rows(60, seed=1)
    found = _share(train.repeat(2, 1), train, held_out)
    assert (found["value"], found["stderr"], found["ratio"]) == (1.0, 0.0, 0.0)
    assert _share(held_out, train, held_out)["value"] == 0.0
    assert _share(held_out, train, held_out)["ratio"] is None  # infinite
    half = torch.cat([train[:30], held_out[:30]])
    assert _share(half, train, held_out)["ratio"] is None  # 0 and infinity in the middle
    noisy = _share(train + 0.05 * _rows(60, seed=2), train, held_out)
    assert noisy["value"] > 0.9
    assert noisy["ratio"] < 0.3


@pytest.mark.parametrize("sizes", [(40, 40, 40), (400, 30, 30), (60, 300, 30)])
def test_chance_gives_one_half_within_its_standard_error(sizes):
    scores = []
    for s in range(150):
        sets = (_rows(n, f=4, seed=7 * s + i) for i, n in enumerate(sizes))
        found = _share(*sets, seed=s)
        scores.append((found["value"] - 0.5) / found["stderr"])
    scores = np.array(scores)
    assert abs(scores.mean()) < 4 / len(scores) ** 0.5
    assert 0.8 < scores.std(ddof=1) < 1.25
    assert np.mean(np.abs(scores) < 1.96) > 0.88


def test_more_training_images_would_not_be_fair_without_thinning():
    fake, train, held_out = _rows(500, f=4), _rows(600, f=4, seed=1), _rows(60, f=4, seed=2)
    assert _reference_scipy_share(fake.double(), train.double(), held_out.double()) > 0.8
    found = _share(fake, train, held_out)
    assert found["count"] == 60
    assert abs(found["value"] - 0.5) < 4 * found["stderr"]
    mirrored = _share(fake, held_out, train)
    assert mirrored["value"] == pytest.approx(1 - found["value"])


def test_error_is_binomial_where_no_fakes_share_an_image():
    train, held_out = 100 * torch.eye(200), 100 * torch.eye(200).roll(1, 1)[:, :199]
    held_out = torch.cat([held_out, torch.full((200, 1), 50.0)], 1)
    fake = torch.cat([train[:6], held_out[10:20]])
    found = _share(fake, train, held_out)
    p, n = 6 / 16, 16
    assert found["value"] == p
    assert found["stderr"] == pytest.approx((p * (1 - p) / n) ** 0.5, rel=0.03)


def test_an_image_on_both_sides_counts_half():
    train, held_out = _rows(30), _rows(30, seed=1)
    held_out[:10] = train[:10]
    found = _share(train[:10], train, held_out)
    assert (found["value"], found["ratio"]) == (0.5, 1.0)
    same = torch.ones(5, 3)
    assert _share(same, same, same)["value"] == 0.5


@pytest.mark.parametrize("count", [40, 41])
def test_the_ratio_of_the_sides_the_other_way_round_is_its_inverse(count):
    fake, train, held_out = _rows(count), _rows(50, seed=1), _rows(50, seed=2)
    found, mirrored = _share(fake, train, held_out), _share(fake, held_out, train)
    assert found["ratio"] * mirrored["ratio"] == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("larger", ["train", "held_out"])
def test_order_changes_nothing_even_with_thinning(larger):
    fake, train, held_out = _rows(70), _rows(90, seed=1), _rows(50, seed=2)
    if larger == "held_out":
        train, held_out = held_out, train
    found = _share(fake, train, held_out)
    moved = _share(fake.flip(0), train.roll(17, 0), held_out.flip(0))
    assert moved == pytest.approx(found, rel=1e-12)
    values = {_share(fake, train, held_out, seed=s)["value"] for s in range(8)}
    assert len(values) > 1


def test_nearest_training_pairs_agree_with_scipy():
    fake, train = _rows(40), _rows(30, seed=1)
    fake[17] = train[4]
    distances, which, match = nearest_training(fake, train, 5)
    every = cdist(fake.double().numpy(), train.double().numpy())
    order = np.argsort(every.min(1))[:5]
    np.testing.assert_array_equal(which.numpy(), order)
    np.testing.assert_array_equal(match.numpy(), every.argmin(1)[order])
    np.testing.assert_allclose(distances.numpy(), every.min(1)[order], rtol=1e-12)
    assert (distances[0].item(), which[0].item(), match[0].item()) == (0, 17, 4)
    assert len(nearest_training(fake, train, 100)[0]) == 40


def test_bad_sets_are_refused():
    x = _rows(10)
    generator = torch.Generator()
    with pytest.raises(ValueError, match="at least 2 training and 2 held-out images, got 10 and 1"):
        nearer_share(x, x, x[:1], generator=generator)
    with pytest.raises(ValueError, match="held_out: features hold NaN"):
        nearer_share(x, x, x * float("nan"), generator=generator)
    with pytest.raises(ValueError, match="fake: .*at least one row"):
        nearer_share(x[:0], x, x, generator=generator)
    with pytest.raises(ValueError, match="count=0"):
        nearest_training(x, x, 0)
    with pytest.raises(ValueError, match="held_out=True goes with real=True"):
        NearerShare().update(x, real=False, held_out=True)


def test_shell_gives_what_the_function_gives():
    fake, train, held_out = _rows(40), _rows(60, seed=1), _rows(30, seed=2)
    metric = NearerShare(seed=3)
    for part in train.split(10):
        metric.update(part, real=True)
    for part, other in zip(fake.split(8), held_out.split(6), strict=True):
        metric.update(part, real=False)
        metric.update(other, real=True, held_out=True)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == _share(fake, train, held_out, seed=3)
    metric.reset()
    assert len(metric.held_out) == len(metric.reals) == 0


def test_shell_checks_held_out_images_as_the_others():
    metric = NearerShare()
    for bad, message in (
        (torch.full((2, 3), float("nan")), "NaN"),
        (torch.zeros(3), r"shape \[N, F\]"),
        (torch.zeros(3, 2, dtype=torch.uint8), "must be floats"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.update(bad, real=True, held_out=True)
    metric.update(_rows(4), real=True)
    metric.update(_rows(4), real=False)
    metric.update(_rows(0), real=True, held_out=True)
    assert metric.held_out == []
    with pytest.raises(ValueError, match="NearerShare has no held-out images"):
        metric.compute()


def test_a_ratio_that_is_none_is_nan_in_the_shell():
    metric, train, held_out = NearerShare(), _rows(30), _rows(30, seed=1)
    metric.update(train, real=True)
    for real in (True, False):
        metric.update(held_out, real=real, held_out=real)
    found = metric.compute()
    assert found["value"] == 0
    assert found["ratio"].isnan()


def test_shell_can_keep_both_kinds_of_reals():
    metric = NearerShare(keep_reals=True)
    fake, train, held_out = _rows(40), _rows(30, seed=1), _rows(30, seed=2)
    metric.update(train, real=True)
    metric.update(held_out, real=True, held_out=True)
    for rows in (train, fake):
        metric.update(rows, real=False)
        found = {name: value.item() for name, value in metric.compute().items()}
        assert found == _share(rows, train, held_out)
        metric.reset()
