"""What is left of the source: against SciPy's optimum, and mixtures whose share is known."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from stylegan_tl.metrics.residue import (
    LEAST,
    logistic_regression,
    paired_distance,
    source_residue,
)


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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("penalty", [1e-4, 1e-2])
def test_heavy_tails_that_a_full_step_of_newton_leaps_over(seed, penalty):
    """The gradient of a convex objective is zero at its optimum alone."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 10)) * np.exp(2 * rng.normal(size=(40, 1)))
    y = (x @ rng.normal(size=10) + rng.logistic(size=40) > 0).astype(float)
    weights, bias = logistic_regression(*map(torch.from_numpy, (x, y)), penalty=penalty)
    sign = 2 * y - 1
    pull = sign * expit(-sign * (x @ weights.numpy() + bias.item()))
    scale = np.abs(x).sum(0)  # of the gradient at zero
    assert np.all(np.abs(x.T @ pull - penalty * weights.numpy()) < 1e-5 * scale)
    assert abs(pull.sum()) < 1e-5 * len(y)


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


def _share_variance(count, total):
    share = (count + 0.5) / (total + 1)
    return share * (1 - share) / total


@pytest.mark.parametrize("fakes", [30, 3000])
def test_the_error_is_the_delta_methods(fakes):
    """By finite differences; a narrow target within a wide source, so that the rates differ."""
    n = 80
    source, target = 3 * _gaussian(n, 0.0, 1, 4) + 3, _gaussian(n, 0.0, 2, 4)
    fake = torch.cat([_gaussian(fakes * 8 // 10, 0.0, 3, 4), source.repeat(8, 1)[: fakes // 5]])
    found = source_residue(fake, source, target, generator=_generator())
    at = np.array([found["observed"], found["tpr"], found["fpr"]])
    variances = [_share_variance(p * m, m) for p, m in zip(at, (len(fake), n, n), strict=True)]
    share = lambda observed, tpr, fpr: (observed - fpr) / (tpr - fpr)  # noqa: E731
    slopes = [(share(*(at + h)) - share(*(at - h))) / 2e-6 for h in 1e-6 * np.eye(3)]
    assert found["value"] == pytest.approx(share(*at))
    assert found["stderr"] == pytest.approx(np.sqrt(np.square(slopes) @ variances), rel=1e-5)
    swapped = [slopes[0], slopes[2], slopes[1]]  # so unlike each other that it shows
    assert abs(np.sqrt(np.square(swapped) @ variances) / found["stderr"] - 1) > 0.02


def test_a_share_is_given_from_two_standard_errors_between_the_rates():
    gaps, defined = [], []
    for seed in range(40):
        source, target = _gaussian(60, 0.1, 3 * seed, 4), _gaussian(60, 0.0, 3 * seed + 1, 4)
        fake = _gaussian(20, 0.1, 3 * seed + 2, 4)
        found = source_residue(fake, source, target, generator=_generator(seed))
        error = sum(_share_variance(60 * found[rate], 60) for rate in ("tpr", "fpr")) ** 0.5
        gaps.append((found["tpr"] - found["fpr"]) / error)
        defined.append(not math.isnan(found["value"]))
        assert defined[-1] == ("note" not in found)
    gaps = np.array(gaps)
    assert defined == (gaps > 2).tolist()
    assert min(sum(gaps > 2), sum((0.5 < gaps) & (gaps <= 2)), sum(gaps <= 0.5)) > 2


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
    level = np.float64(1e6 + 0.1)  # apart by the last bit of the sums that made them
    last_bit = [level, np.nextafter(level, 2e6), level]
    with_rounding = [
        torch.cat([x.double(), torch.full((len(x), 1), v, dtype=torch.float64)], 1)
        for x, v in zip((fake, target, source), last_bit, strict=True)
    ]
    rounded = source_residue(
        with_rounding[0], with_rounding[2], with_rounding[1], generator=_generator()
    )
    assert rounded == source_residue(fake, source, target, generator=_generator())
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


def test_pairs_are_shown_in_small_batches_at_no_more_than_256_px():
    seen = []

    def embed(images):
        seen.append(tuple(images.shape))
        return images.float().mean((2, 3))

    images = torch.zeros(20, 3, 512, 512, dtype=torch.uint8)
    assert paired_distance(images, images, embed)["value"] == 0
    assert max(n for n, *_ in seen) <= 16
    assert {shape[1:] for shape in seen} == {(3, 256, 256)}


def test_the_fewest_images_of_a_domain_are_named():
    source, target = _gaussian(LEAST, 5.0, 1), _gaussian(LEAST, 0.0, 2)
    found = source_residue(source, source, target, generator=_generator())
    assert found["accuracy"] == 1
    with pytest.raises(ValueError, match=f"at least {LEAST} of each domain"):
        source_residue(source, source[1:], target, generator=_generator())


def test_pairs_that_are_degenerate():
    images = torch.zeros(4, 3, 4, 4, dtype=torch.uint8)
    assert paired_distance(images, images, _embed) == {"value": 0.0, "stderr": 0.0}
    assert math.isnan(paired_distance(images[:1], images[:1], _embed)["stderr"])
    for a, b in ((images, images[:3]), (images[:0], images[:0])):
        with pytest.raises(ValueError, match="two equal sets"):
            paired_distance(a, b, _embed)
