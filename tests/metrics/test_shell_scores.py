"""Shells of FID, KID and SWD against torchmetrics, and on sets that hold next to nothing."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.image import fid as their_fid
from torchmetrics.image import kid as their_kid

from stylegan_tl.metrics.density_coverage import DensityCoverage
from stylegan_tl.metrics.diversity import Diversity
from stylegan_tl.metrics.fid import (
    FrechetInceptionDistance,
    FrechetInceptionDistanceInfinity,
    feature_distance,
    frechet_distance,
    gaussian_distance,
)
from stylegan_tl.metrics.inception_score import InceptionScore
from stylegan_tl.metrics.kid import KernelInceptionDistance, kernel_distance, polynomial_mmd
from stylegan_tl.metrics.memory import NearerShare
from stylegan_tl.metrics.precision_recall import PrecisionRecall
from stylegan_tl.metrics.statistics import FeatureStatistics
from stylegan_tl.metrics.swd import SlicedWasserstein, sliced_wasserstein


class _Network(torch.nn.Module):
    num_features = 12

    def forward(self, images):
        return images.flatten(1)[:, : self.num_features].float() / 64


def _images(n, seed, high=256, size=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def _normal(n, f, seed=0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def _shell(metric, fake, real):
    metric.update(fake, real=False)
    metric.update(real, real=True)
    return {name: value.item() for name, value in metric.compute().items()}


def _theirs(metric, fake, real):
    metric.update(fake, real=False)
    metric.update(real, real=True)
    return metric.compute()


def test_shells_say_which_way_is_better_and_that_they_have_no_gradient():
    shells = (
        FrechetInceptionDistance,
        FrechetInceptionDistanceInfinity,
        KernelInceptionDistance,
        SlicedWasserstein,
        NearerShare,
        InceptionScore,
        PrecisionRecall,
        DensityCoverage,
        Diversity,
    )
    assert [s.higher_is_better for s in shells] == [False] * 5 + [True] * 4
    assert not any(s.is_differentiable or s.full_state_update for s in shells)


def test_fid_is_torchmetrics():
    fake, real = _images(90, 0, 200), _images(70, 1)
    wanted = _theirs(their_fid.FrechetInceptionDistance(feature=_Network()), fake, real).item()
    found = _shell(FrechetInceptionDistance(12), _Network()(fake), _Network()(real))
    assert found == {"value": pytest.approx(wanted, rel=1e-5)}


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_kid_is_torchmetrics():
    fake, real = _images(80, 0, 200), _images(80, 1)
    features = _Network()(fake), _Network()(real)
    for size in (80, 40):
        theirs = their_kid.KernelInceptionDistance(_Network(), subsets=200, subset_size=size)
        torch.manual_seed(0)
        wanted, deviation = (x.item() for x in _theirs(theirs, fake, real))
        metric = KernelInceptionDistance(
            subset_size=None if size == 80 else size, num_subsets=200, seed=1
        )
        found = _shell(metric, *features)["value"]
        assert found == pytest.approx(wanted, rel=1e-4, abs=5 * deviation / 200**0.5)


def test_fid_in_batches_far_from_zero_keeps_its_digits():
    x, y = _normal(300, 8).double() * 1e-3 + 1e3, _normal(200, 8, 1).double() * 2e-3 + 1e3
    metric = FrechetInceptionDistance(8)
    for part in x.split(7):
        metric.update(part, real=False)
    metric.update(y, real=True)
    zero_mean = feature_distance(x - 1e3, FeatureStatistics.from_features(y - 1e3))
    assert metric.compute()["value"].item() == pytest.approx(zero_mean, rel=1e-6)
    naive = [z.T @ z / len(z) - torch.outer(z.mean(0), z.mean(0)) for z in (x, y)]
    sums = gaussian_distance(x.mean(0), naive[0], y.mean(0), naive[1])
    assert sums != pytest.approx(zero_mean, rel=1e-3)  # what sums of squares would have given


def test_fid_keeps_reals_through_a_reset_when_told():
    fake, real = _normal(40, 5), _normal(30, 5, 1)
    metric = FrechetInceptionDistance(5, keep_reals=True)
    wanted = _shell(metric, fake, real)
    metric.reset()
    metric.update(fake, real=False)
    assert metric.compute()["value"].item() == wanted["value"]
    forgetful = FrechetInceptionDistance(5)
    _shell(forgetful, fake, real)
    forgetful.reset()
    forgetful.update(fake, real=False)
    with pytest.raises(ValueError, match="at least 2 images, got 0"):
        forgetful.compute()


# --- sets that hold next to nothing -------------------------------------------------------------


@pytest.mark.parametrize(("n", "f"), [(100, 20), (20, 100), (2, 5), (100, 99)])
def test_fid_of_one_set_in_two_orders_is_zero_to_nine_digits(n, f):
    x = _normal(n, f).relu() + 3
    turned = x[torch.randperm(n, generator=torch.Generator().manual_seed(1))]
    a, b = FeatureStatistics.from_features(x), FeatureStatistics.from_features(turned, chunk=7)
    scale = a.cov.trace().item()
    for found in (frechet_distance(a, b), feature_distance(turned, a), feature_distance(x, x)):
        assert 0 <= found < 1e-9 * scale


@pytest.mark.parametrize(("n", "m", "f"), [(50, 30, 200), (300, 30, 200), (30, 300, 200)])
@pytest.mark.parametrize("decades", [0, 3])
def test_fid_of_few_images_is_the_nuclear_norm_to_nine_digits(n, m, f, decades):
    # Tr (Σ₁Σ₂)^½ is the sum of the singular values of A Bᵀ: no root of a rounded zero
    scale = torch.logspace(0, -decades, f, dtype=torch.float64)
    x, y = _normal(n, f).double() * scale, _normal(m, f, 1).double() * scale
    a, b = ((z - z.mean(0)).numpy() / (len(z) - 1) ** 0.5 for z in (x, y))
    singular = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    wanted = float(((x.mean(0) - y.mean(0)) ** 2).sum()) + (a**2).sum() + (b**2).sum()
    wanted -= 2 * singular
    first, second = FeatureStatistics.from_features(x), FeatureStatistics.from_features(y)
    assert frechet_distance(first, second) == pytest.approx(wanted, rel=1e-9)
    assert feature_distance(x, second) == pytest.approx(wanted, rel=1e-9)


def test_constant_features_give_the_distance_of_the_means():
    x, y = torch.ones(9, 4), torch.ones(7, 4) * 3
    assert _shell(FrechetInceptionDistance(4), x, y)["value"] == pytest.approx(16)
    assert _shell(FrechetInceptionDistance(4), x, x)["value"] == 0
    assert _shell(KernelInceptionDistance(), x, x) == pytest.approx({"value": 0, "stderr": 0})
    kernel = lambda a, b: (a * b + 1) ** 3  # noqa: E731
    wanted = kernel(1, 1) + kernel(3, 3) - 2 * kernel(1, 3)
    assert _shell(KernelInceptionDistance(), x, y)["value"] == pytest.approx(wanted)
    # of constant and varying features: Σ₁ = 0
    z = _normal(50, 4)
    wanted = ((z.double().mean(0) - 1) ** 2).sum() + torch.cov(z.double().T).trace()
    assert _shell(FrechetInceptionDistance(4), x, z)["value"] == pytest.approx(wanted.item())


def test_kid_of_one_set_on_both_sides_is_not_above_zero():
    # the diagonal is left out within the sets but is there across them
    x = _normal(40, 6)
    value, stderr = polynomial_mmd(x, x)
    diagonal = ((x.double().square().sum(1) / 6 + 1) ** 3).mean()
    kernel = (x.double() @ x.double().T / 6 + 1) ** 3
    off = (kernel.sum() - kernel.diagonal().sum()) / (40 * 39)
    assert value == pytest.approx(-2 * (diagonal - off).item() / 40, rel=1e-9)
    assert math.isfinite(stderr)


@pytest.mark.parametrize("metric", [lambda: FrechetInceptionDistance(3), KernelInceptionDistance])
def test_one_image_is_refused_with_its_number(metric):
    with pytest.raises(ValueError, match=r"at least [23] images.*1"):
        _shell(metric(), torch.ones(1, 3), _normal(9, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_never_a_good_score(bad):
    x, nan = _normal(20, 3), _normal(20, 3).index_fill(0, torch.tensor([4]), bad)
    good = FeatureStatistics.from_features(x)
    for score in (
        lambda: feature_distance(nan, good),
        lambda: feature_distance(nan[:2].fill_(bad), good),
        lambda: feature_distance(x, nan),
        lambda: polynomial_mmd(x, nan),
        lambda: kernel_distance(nan, x),
        lambda: FrechetInceptionDistance(3).update(nan, real=True),
    ):
        with pytest.raises(ValueError, match="NaN"):
            score()
    with pytest.raises(ValueError, match="holds NaN"):
        frechet_distance(good, FeatureStatistics(20, good.mean * bad, good.scatter))
    broken = good.cov.clone()
    broken[0, 1] = broken[1, 0] = bad
    for covs in ((broken, good.cov), (good.cov, broken)):
        with pytest.raises(ValueError, match="holds NaN or infinity"):
            gaussian_distance(good.mean, covs[0], good.mean, covs[1])


def test_another_number_of_features_is_refused():
    with pytest.raises(ValueError, match="cannot merge [34] with [34] features"):
        FrechetInceptionDistance(4).update(_normal(9, 3), real=True)


def test_swd_on_next_to_nothing():
    grey = torch.full((3, 3, 16, 16), 7, dtype=torch.uint8)
    for some in (grey, grey[:1]):
        with pytest.raises(ValueError, match="real images at 16 px are constant"):
            _shell(SlicedWasserstein(seed=0, patches=4, projections=8), some, some)
    one = _images(1, 0, size=16)
    assert _shell(SlicedWasserstein(seed=0, projections=8), one, one)["value"] > 0  # other patches
    fake, real = _images(2, 0, size=32), _images(2, 1, size=32)
    with pytest.raises(ValueError, match="as many real as fake"):
        _shell(SlicedWasserstein(seed=0), fake, real[:1])
    with pytest.raises(ValueError, match="must be uint8"):
        SlicedWasserstein(seed=0).update(fake.float(), real=False)


def test_swds_shell_names_the_mean_value():
    fake, real = _images(5, 0, size=32), _images(5, 1, size=32)
    found = _shell(SlicedWasserstein(seed=4, patches=3, projections=8), fake, real)
    assert list(found) == ["value", "32", "16"]
    assert found["value"] == pytest.approx((found["32"] + found["16"]) / 2)
    other = sliced_wasserstein(
        real, fake, generator=torch.Generator().manual_seed(4), patches=3, projections=8
    )
    assert found["value"] == pytest.approx(other["mean"], rel=0.3)
