"""Mean and covariance against numpy, and FID against closed forms, scipy and torchmetrics."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from stylegan_tl.metrics.fid import feature_distance, frechet_distance, gaussian_distance
from stylegan_tl.metrics.statistics import FeatureStatistics, StatisticsAccumulator


def _features(n, f, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(f, f, generator=generator) / f**0.5
    return (torch.randn(n, f, generator=generator) @ mix) * scale + shift


def _reference_scipy_fid(x, y):
    x, y = np.float64(x), np.float64(y)
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    delta = x.mean(0) - y.mean(0)
    return float(delta @ delta + np.trace(cov_x + cov_y - 2 * root.real))


class _Passthrough(torch.nn.Module):
    num_features = 24

    def forward(self, images):
        return images.flatten(1)[:, : self.num_features].float()


@pytest.mark.parametrize("batches", [[500], [1, 499], [7] * 10 + [430], [0, 2, 498]])
def test_chunks_merge_to_numpys_covariance_even_far_from_zero(batches):
    x = _features(500, 12, shift=1e4).double()
    accumulator = StatisticsAccumulator(12, chunk=64)
    for part in x.split(batches):
        accumulator.update(part)
    found = accumulator.compute()
    assert found.count == 500
    np.testing.assert_allclose(found.mean.numpy(), x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.cov.numpy(), np.cov(x.numpy(), rowvar=False), rtol=1e-9)


def test_bad_features_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        FeatureStatistics.from_features(torch.full((3, 2), float("nan")))
    with pytest.raises(ValueError, match=r"shape \[N, F\]"):
        FeatureStatistics.from_features(torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match="at least 2"):
        _ = FeatureStatistics.from_features(torch.zeros(1, 2)).cov


def test_fid_of_diagonal_gaussians_has_a_closed_form():
    generator = torch.Generator().manual_seed(3)
    mean_x, mean_y, std_x, std_y = torch.rand(4, 50, generator=generator, dtype=torch.float64)
    wanted = ((mean_x - mean_y) ** 2).sum() + ((std_x - std_y) ** 2).sum()
    found = gaussian_distance(mean_x, std_x.square().diag(), mean_y, std_y.square().diag())
    assert found == pytest.approx(wanted.item(), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0, 1e3])
def test_fid_of_a_scaled_gaussian_has_a_closed_form(scale):
    x = FeatureStatistics.from_features(_features(300, 20).double())
    y = FeatureStatistics(x.count, x.mean + 1, x.scatter * scale**2)
    wanted = 20 + (1 - scale) ** 2 * x.cov.trace()
    assert frechet_distance(x, y) == pytest.approx(wanted.item(), rel=1e-9)


def test_fid_of_a_set_with_itself_is_zero():
    x = FeatureStatistics.from_features(_features(100, 40))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6 * x.cov.trace().item())


@pytest.mark.parametrize(("n", "m"), [(400, 300), (400, 40), (30, 400), (30, 20)])
def test_fid_agrees_with_scipys_square_root_also_for_fewer_images_than_features(n, m):
    x, y = _features(n, 64), _features(m, 64, seed=1, scale=1.3, shift=0.2)
    reference = FeatureStatistics.from_features(y)
    wanted = _reference_scipy_fid(x, y)
    assert feature_distance(x, reference) == pytest.approx(wanted, rel=1e-4)
    found = frechet_distance(FeatureStatistics.from_features(x), reference)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert feature_distance(x, reference) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("decades", [1, 3, 6])
def test_fid_of_an_ill_conditioned_pair_agrees_with_a_singular_value_decomposition(decades):
    # Tr (Σ₁Σ₂)^½ is the sum of the singular values of L₁ᵀL₂: no root of a rounded zero
    scale = torch.logspace(0, -decades, 100, dtype=torch.float64)
    covs = [torch.cov((_features(400, 100, seed).double() * scale).T) for seed in (0, 1)]
    factors = [np.linalg.cholesky(c.numpy()) for c in covs]
    singular = np.linalg.svd(factors[0].T @ factors[1], compute_uv=False)
    wanted = float(covs[0].trace() + covs[1].trace()) - 2 * singular.sum()
    zero = torch.zeros(100)
    assert gaussian_distance(zero, covs[0], zero, covs[1]) == pytest.approx(wanted, rel=1e-9)


def test_fid_agrees_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (200, 3, 4, 4), generator=generator, dtype=torch.uint8)
    fake = torch.randint(0, 128, (150, 3, 4, 4), generator=generator, dtype=torch.uint8)
    network = _Passthrough()
    theirs = FrechetInceptionDistance(feature=network)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    found = feature_distance(network(fake), FeatureStatistics.from_features(network(real)))
    assert found == pytest.approx(theirs.compute().item(), rel=1e-5)
