"""FID∞ on Gaussians of known distance: nearer to it than FID, for both kinds of reals."""

import numpy as np
import pytest
import scipy.stats
import torch

from stylegan_tl.metrics.fid import (
    FrechetInceptionDistanceInfinity,
    feature_distance,
    fid_infinity,
    gaussian_distance,
)
from stylegan_tl.metrics.statistics import FeatureStatistics

F = 32
SHIFT = 0.05
SCALE = 1.2
DEVIATIONS = torch.logspace(0, -1, F, dtype=torch.float64)
TRUTH = F * SHIFT**2 + ((SCALE - 1) * DEVIATIONS).square().sum().item()


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _fakes(n, generator):
    noise = torch.randn(n, F, generator=generator, dtype=torch.float64)
    return SCALE * DEVIATIONS * noise + SHIFT


def _reals(n, generator):
    return DEVIATIONS * torch.randn(n, F, generator=generator, dtype=torch.float64)


def _errors(n, m, seeds=20):
    """Errors of FID and FID∞ [seeds] against the distance of the two populations."""
    plain, extrapolated = [], []
    for seed in range(seeds):
        g = _generator(seed)
        fake, real = _fakes(n, g), _reals(m, g)
        plain.append(feature_distance(fake, real) - TRUTH)
        extrapolated.append(fid_infinity(fake, real, generator=g)["value"] - TRUTH)
    return np.array(plain), np.array(extrapolated)


@pytest.mark.parametrize(("n", "m"), [(600, 600), (600, 200), (200, 800), (60, 60)])
def test_both_biases_go_where_features_of_reals_are_given(n, m):
    plain, extrapolated = _errors(n, m)
    assert abs(extrapolated.mean()) < 0.2 * plain.mean()
    assert np.sqrt((extrapolated**2).mean()) < 0.6 * np.sqrt((plain**2).mean())


def test_with_statistics_the_fakes_bias_goes_and_the_reals_stays():
    plain, against_these, found = [], [], []
    for seed in range(20):
        g = _generator(seed)
        fake, reals = _fakes(500, g), FeatureStatistics.from_features(_reals(300, g))
        cov = (SCALE * DEVIATIONS).square().diag()
        against_these.append(gaussian_distance(torch.full((F,), SHIFT), cov, reals.mean, reals.cov))
        plain.append(feature_distance(fake, reals))
        found.append(fid_infinity(fake, reals, generator=g)["value"])
    plain, found = (np.array(x) - np.array(against_these) for x in (plain, found))
    assert np.mean(against_these) > TRUTH + 0.05
    assert abs(found.mean()) < 0.2 * plain.mean()


def test_the_line_and_its_error_are_scipys():
    g = _generator(0)
    fake, real = _fakes(70, g), _reals(50, g)
    found = fid_infinity(fake, real, generator=_generator(1), points=6)
    sizes, draws, values = [35, 42, 49, 56, 63, 70], _generator(1), []
    for size in sizes:
        x = fake[torch.randperm(70, generator=draws)[:size]]
        y = real[torch.randperm(50, generator=draws)[: round(size * 50 / 70)]]
        values.append(feature_distance(x, y))
    wanted = scipy.stats.linregress(1 / np.array(sizes), values)
    assert found["value"] == pytest.approx(wanted.intercept, rel=1e-9)
    assert found["slope"] == pytest.approx(wanted.slope, rel=1e-9)
    assert found["regression_stderr"] == pytest.approx(wanted.intercept_stderr, rel=1e-9)


def test_sizes_start_at_5000_where_there_are_enough(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "stylegan_tl.metrics.fid.feature_distance", lambda x, _: seen.append(len(x)) or 1.0
    )
    reals = FeatureStatistics.from_features(torch.randn(9, 1, generator=_generator(0)))
    for count in (50_000, 4_000):
        found = fid_infinity(torch.zeros(count, 1), reals, generator=_generator(0), points=4)
        assert found == pytest.approx({"value": 1, "regression_stderr": 0, "slope": 0}, abs=1e-9)
    assert seen == [5_000, 20_000, 35_000, 50_000, 2_000, 2_667, 3_333, 4_000]


def test_draws_come_from_the_generator_alone():
    g = _generator(0)
    fake, real = _fakes(80, g), _reals(60, g)
    found = [fid_infinity(fake, real, generator=_generator(s))["value"] for s in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_the_shell_keeps_points_and_seed():
    g = _generator(0)
    fake, real = _fakes(80, g), _reals(60, g)
    found = []
    for seed, points in ((1, 5), (1, 5), (2, 5), (1, 7)):
        metric = FrechetInceptionDistanceInfinity(points=points, seed=seed)
        metric.update(fake, real=False)
        metric.update(real, real=True)
        found.append(metric.compute()["value"].item())
        assert set(metric.compute()) == {"value", "regression_stderr", "slope"}
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_one_set_on_both_sides_gives_less_than_fid_of_two():
    g = _generator(0)
    x, other = _reals(200, g), _reals(200, g)
    value = fid_infinity(x, x, generator=g)["value"]
    assert abs(value) < 1.5 * feature_distance(x, other)
    constant = torch.ones(40, F)
    found = fid_infinity(constant, constant, generator=g)
    assert found == pytest.approx({"value": 0, "regression_stderr": 0, "slope": 0}, abs=1e-12)


def test_bad_requests_are_refused():
    g = _generator(0)
    x = _fakes(40, g)
    with pytest.raises(ValueError, match="at least 30 images on each side, got 29 fake"):
        fid_infinity(x[:29], x, generator=g)
    with pytest.raises(ValueError, match="got 1 real"):
        fid_infinity(x, x[:1], generator=g)
    with pytest.raises(ValueError, match="at least 3"):
        fid_infinity(x, x, generator=g, points=2)
    with pytest.raises(ValueError, match="NaN"):
        fid_infinity(torch.full((40, F), float("nan")), x, generator=g)
