"""Intervals: how often they hold the truth, over seeded repetitions against closed forms."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from stylegan_tl.metrics.interval import interval
from stylegan_tl.metrics.kid import polynomial_mmd

REPETITIONS = 200


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _normal(n, f, generator, shift=0.0):
    return torch.randn(n, f, generator=generator, dtype=torch.float64) + shift


def _repeat(score, make, rounds=100):
    """Intervals [REPETITIONS, 2] and the scores of the whole sets."""
    found = []
    for seed in range(REPETITIONS):
        samples = make(_generator(seed))
        bounds = interval(score, *samples, generator=_generator(seed + 10**6), rounds=rounds)[
            "value"
        ]
        found.append([*bounds, score(*samples)["value"]])
    found = np.array(found)
    return found[:, :2], found[:, 2]


def _assert_covers(intervals, truth):
    hits = int(((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])).sum())
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], REPETITIONS, 0.95)
    assert low <= hits <= high, f"{hits} of {REPETITIONS}"


def _mean(x):
    return {"value": x.mean().item()}


def _kid(x, y):
    return {"value": polynomial_mmd(x, y)[0]}


def _diagonal_fid(x, y):
    """FID with diagonal covariances: a sum over features."""
    distance = (x.mean(0) - y.mean(0)) ** 2 + (x.std(0) - y.std(0)) ** 2
    return {"value": distance.sum().item()}


def _kernel_mean(f, a, b):
    """E (x·y / F + 1)³ for x ~ N(a, I), y ~ N(b, I): the moments of x·y, given x a Gaussian."""
    s, a2, b2 = a @ b, a @ a, b @ b
    second = s**2 + a2 + b2 + f
    third = s**3 + 3 * s * b2 + 3 * (s * (f + a2) + 2 * s)
    return 1 + 3 * s / f + 3 * second / f**2 + third / f**3


def test_the_interval_of_a_mean_covers_it():
    intervals, _ = _repeat(_mean, lambda g: [_normal(100, 1, g)])
    _assert_covers(intervals, 0.0)
    width = 2 * 1.96 / 100**0.5
    assert np.diff(intervals).mean() == pytest.approx(width, rel=0.05)


def test_the_interval_of_kid_covers_its_closed_form():
    f, zero, shifted = 8, np.zeros(8), np.full(8, 0.5)
    truth = _kernel_mean(f, zero, zero) + _kernel_mean(f, shifted, shifted)
    truth -= 2 * _kernel_mean(f, zero, shifted)
    intervals, values = _repeat(
        _kid, lambda g: [_normal(60, f, g), _normal(60, f, g, 0.5)], rounds=50
    )
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / REPETITIONS**0.5)
    _assert_covers(intervals, truth)


def test_the_bias_of_fid_in_smaller_sets_does_not_move_the_interval():
    n, f, shift = 40, 64, 1.0
    expected_deviation = math.sqrt(2 / (n - 1)) * math.gamma(n / 2) / math.gamma((n - 1) / 2)
    bias = f * (2 / n + 2 * (1 - expected_deviation**2))  # a half has twice as much
    expected = f * shift**2 + bias
    intervals, values = _repeat(
        _diagonal_fid, lambda g: [_normal(n, f, g), _normal(n, f, g, shift)]
    )
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / REPETITIONS**0.5)
    assert abs((intervals.mean(1) - values).mean()) < 0.1 * bias
    assert np.diff(intervals).mean() == pytest.approx(2 * 1.96 * values.std(), rel=0.2)
    _assert_covers(intervals, expected)


def test_a_score_that_spreads_upwards_has_the_longer_side_above():
    """exp(3 · mean) of 100 normal values: a half's is the whole's times a log-normal of σ = 0.3."""
    z = 1.96 * 0.3
    up, down = math.exp(z) - math.exp(0.3**2 / 2), math.exp(0.3**2 / 2) - math.exp(-z)
    intervals, values = _repeat(
        lambda x: {"value": math.exp(3 * x.mean().item())}, lambda g: [_normal(100, 1, g)]
    )
    assert (intervals[:, 1] / values - 1).mean() == pytest.approx(up, rel=0.08)
    assert (1 - intervals[:, 0] / values).mean() == pytest.approx(down, rel=0.08)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_some_half_does_not_have_has_no_interval(bad):
    x = _normal(20, 1, _generator(0))
    rounds = iter(range(101))

    def score(x):
        return {"value": x.mean().item(), "at times": bad if next(rounds) == 57 else 1.0}

    found = interval(score, x, generator=_generator(1))
    assert found["at times"] is None
    assert found["value"] == interval(_mean, x, generator=_generator(1))["value"]
    assert interval(lambda _: {"value": bad}, x, generator=_generator(1)) == {"value": None}


def test_samples_are_halved_without_replacement():
    seen = []

    def score(x, y):
        seen.append((x.tolist(), y.shape))
        return {"value": x.mean().item(), "other": 1.0}

    found = interval(score, torch.arange(21.0), torch.zeros(12, 3, 2), generator=_generator(0))
    assert len(seen) == 101
    assert all(len(x) == len(set(x)) == 10 and y == (6, 3, 2) for x, y in seen[1:])
    assert len({tuple(sorted(x)) for x, _ in seen[1:]}) > 95
    assert found["other"] == (1, 1)


def test_intervals_follow_the_generator_alone_and_widen_with_the_level():
    x = _normal(50, 2, _generator(0))
    torch.manual_seed(1)
    first = interval(_mean, x, generator=_generator(4))
    torch.manual_seed(2)
    assert interval(_mean, x, generator=_generator(4)) == first
    assert interval(_mean, x, generator=_generator(5)) != first
    low, high = interval(_mean, x, generator=_generator(4), level=0.5)["value"]
    assert first["value"][0] < low < x.mean() < high < first["value"][1]


def test_bad_requests_are_refused():
    x, generator = torch.zeros(20, 2), _generator(0)
    with pytest.raises(ValueError, match=r"at least 10 images, got \[20, 9\]"):
        interval(lambda x, y: {"value": 0.0}, x, x[:9], generator=generator)
    with pytest.raises(ValueError, match="samples of at least 10"):
        interval(_mean, generator=generator)
    with pytest.raises(ValueError, match="rounds=38: a level of 0.95 needs at least 39"):
        interval(_mean, x, generator=generator, rounds=38)
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval(_mean, x, generator=generator, level=95)
