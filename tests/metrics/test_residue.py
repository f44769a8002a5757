"""What is left of the source: against SciPy's optimum, and mixtures whose share is known."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm

from stylegan_tl.metrics.residue import logistic_regression, paired_distance, source_residue


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _gaussian(count, centre, seed, width=8):
    return torch.randn(count, width, generator=_generator(seed)) + torch.tensor(centre)


def _reference_scipy_optimum(x, y, penalty):
    sign = 2 * y - 1

    def objective(theta):
        margin = sign * (x @ theta[:-1] + theta[-1])
        loss = np.logaddexp(0, -margin).sum() + penalty / 2 * theta[:-1] @ theta[:-1]
        pull = -sign / (1 + np.exp(margin))
        return loss, np.append(x.T @ pull + penalty * theta[:-1], pull.sum())

    start = np.zeros(x.shape[1] + 1)
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x, found.fun


@pytest.mark.parametrize(
    ("count", "width", "shift", "penalty"),
    [(80, 5, 0.5, 1.0), (60, 3, 6.0, 1.0), (20, 30, 0.3, 1.0), (50, 4, 0.0, 0.01)],
    ids=["overlapping", "separable", "fewer rows than features", "inseparable"],
)
def test_scipy_finds_the_same_optimum(count, width, shift, penalty):
    rng = np.random.default_rng(0)
    y = (np.arange(count) % 3 == 0).astype(float)
    x = rng.normal(size=(count, width)) + shift * y[:, None]
    wanted, _ = _reference_scipy_optimum(x, y, penalty)
    weights, bias = logistic_regression(*map(torch.from_numpy, (x, y)), penalty=penalty)
    np.testing.assert_allclose(np.append(weights.numpy(), bias), wanted, rtol=1e-5, atol=1e-6)


def test_one_class_is_no_classification():
    with pytest.raises(ValueError, match="both classes"):
        logistic_regression(torch.zeros(3, 2).double(), torch.ones(3))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.8, 1.0])
@pytest.mark.parametrize("shift", [0.35, 3.0])
def test_a_known_mixture_is_recovered_by_weak_and_strong_classifiers(share, shift):
    """Two Gaussians: the best accuracy is Φ(distance / 2), and the correction undoes its errors."""
    source, target = _gaussian(2000, shift, 1), _gaussian(2000, 0.0, 2)
    of_source = round(1500 * share)
    fake = torch.cat([_gaussian(of_source, shift, 3), _gaussian(1500 - of_source, 0.0, 4)])
    found = source_residue(fake, source, target, generator=_generator())
    best = norm.cdf(shift * 8**0.5 / 2)
    assert found["accuracy"] == pytest.approx(best, abs=0.02)
    assert abs(found["value"] - share) < 3 * found["stderr"]
    assert found["stderr"] < 0.05
    if shift == 0.35 and share in (0.0, 1.0):  # without the correction it would be far off
        assert abs(found["observed"] - share) > 0.2


def test_the_error_is_that_of_repeated_draws():
    """40 fresh data sets: the spread of the value is what `stderr` says."""
    values, errors = [], []
    for seed in range(40):
        source, target = _gaussian(150, 0.5, 4 * seed, 4), _gaussian(150, 0.0, 4 * seed + 1, 4)
        fake = torch.cat([_gaussian(60, 0.5, 4 * seed + 2, 4), _gaussian(90, 0.0, 4 * seed + 3, 4)])
        found = source_residue(fake, source, target, generator=_generator(seed))
        values.append(found["value"])
        errors.append(found["stderr"])
    assert np.mean(values) == pytest.approx(0.4, abs=0.06)
    assert 0.6 < np.mean(errors) / np.std(values, ddof=1) < 1.6


def test_domains_that_are_one_give_no_share():
    source, target, fake = (_gaussian(400, 0.0, seed) for seed in (1, 2, 3))
    found = source_residue(fake, source, target, generator=_generator())
    assert found["accuracy"] == pytest.approx(0.5, abs=0.06)
    assert math.isnan(found["value"])
    assert math.isnan(found["stderr"])
    assert "cannot tell" in found["note"]


def test_the_draw_is_the_generators_alone():
    source, target, fake = _gaussian(90, 0.4, 1), _gaussian(60, 0.0, 2), _gaussian(50, 0.2, 3)
    first, again, other = (
        source_residue(fake, source, target, generator=_generator(seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first["value"] != other["value"]


def test_scale_and_offset_of_features_do_not_matter():
    source, target, fake = (
        _gaussian(100, shift, seed).double() for shift, seed in ((0.6, 1), (0.0, 2), (0.3, 3))
    )
    scale = torch.logspace(-3, 3, 8, dtype=torch.float64)
    plain = source_residue(fake, source, target, generator=_generator())
    scaled = source_residue(
        *(7 * scale + scale * x for x in (fake, source, target)), generator=_generator()
    )
    assert scaled == pytest.approx(plain)


def test_degenerate_features():
    source, target, fake = _gaussian(30, 2.0, 1), _gaussian(30, 0.0, 2), _gaussian(30, 2.0, 3)
    constant = source_residue(*[torch.ones(10, 4)] * 3, generator=_generator())
    assert constant["accuracy"] == 0.5
    assert math.isnan(constant["value"])
    sets = (fake, source, target)
    with_constant = [torch.cat([x, torch.full((len(x), 1), 0.3)], 1) for x in sets]
    found = source_residue(*with_constant, generator=_generator())
    assert found == source_residue(fake, source, target, generator=_generator())
    assert 0.5 < source_residue(fake[:1], source, target, generator=_generator())["value"] <= 1
    for wrong, message in (
        ((fake, source[:4], target), "4 source, 30 target and 30 fake images: at least 5"),
        ((fake[:0], source, target), "0 fake images"),
        ((fake[:, :3], source, target), "features .N, F. of one F"),
        ((fake * math.nan, source, target), "features of fakes are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            source_residue(*wrong, generator=_generator())


def _embed(images):
    return images.flatten(1).float() / 255


def test_paired_distance_is_the_mean_over_pairs_whatever_the_batch():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (10, 3, 4, 4), np.uint8) for _ in range(2))
    each = (((a / 255 - b / 255) ** 2).reshape(10, -1)).sum(1)
    for batch in (3, 64):
        found = paired_distance(*map(torch.from_numpy, (a, b)), _embed, batch=batch)
        assert found["value"] == pytest.approx(each.mean(), rel=1e-6)
        assert found["stderr"] == pytest.approx(each.std(ddof=1) / 10**0.5, rel=1e-6)


def test_pairs_that_are_degenerate():
    images = torch.zeros(4, 3, 4, 4, dtype=torch.uint8)
    assert paired_distance(images, images, _embed) == {"value": 0.0, "stderr": 0.0}
    assert math.isnan(paired_distance(images[:1], images[:1], _embed)["stderr"])
    for a, b in ((images, images[:3]), (images[:0], images[:0])):
        with pytest.raises(ValueError, match="two equal sets"):
            paired_distance(a, b, _embed)
