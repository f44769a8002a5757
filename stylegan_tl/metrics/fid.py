"""Fréchet inception distance (Heusel et al. 2017) in float64 by symmetric eigen-decompositions.

`d² = |μ₁ − μ₂|² + Tr Σ₁ + Tr Σ₂ − 2 Tr (Σ₁ Σ₂)^½`. With any factor Σ₁ = L Lᵀ (Cholesky's, or Σ₁^½
where Σ₁ is singular), Σ₁ Σ₂ has the eigenvalues of the symmetric Lᵀ Σ₂ L. Their roots add up to the
last trace, where a general matrix root of Σ₁ Σ₂ loses digits and minutes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_tl.metrics.statistics import FeatureStatistics

__all__ = ["feature_distance", "frechet_distance", "gaussian_distance"]


def gaussian_distance(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians: means [F], covariances [F, F]."""
    mean_x, cov_x, mean_y, cov_y = (t.double() for t in (mean_x, cov_x, mean_y, cov_y))
    factor = _factor(cov_x)
    cross = _sum_of_roots(factor.T @ cov_y @ factor)
    return _distance(mean_x - mean_y, cov_x.trace() + cov_y.trace(), cross)


def frechet_distance(x: FeatureStatistics, y: FeatureStatistics) -> float:
    """FID of two sets from their statistics; ValueError if the numbers of features differ."""
    _check(x.num_features, y.num_features)
    return gaussian_distance(x.mean, x.cov, y.mean, y.cov)


def feature_distance(features: Tensor, reference: FeatureStatistics) -> float:
    """FID of `features` [N, F] against `reference`; for N < F by an N × N problem, as exact.

    With the centred rows A, Σ₁ = AᵀA / (N−1), and Σ₁Σ₂ shares its non-zero eigenvalues with
    A Σ₂ Aᵀ / (N−1).
    """
    _check(features.shape[1], reference.num_features)
    if len(features) >= reference.num_features:
        return frechet_distance(FeatureStatistics.from_features(features), reference)
    if len(features) < 2:
        raise ValueError(f"FID needs at least 2 images, got {len(features)}")
    mean = features.double().mean(0)
    rows = (features.double() - mean) / (len(features) - 1) ** 0.5
    cross = _sum_of_roots(rows @ reference.cov @ rows.T)
    traces = rows.square().sum() + reference.cov.trace()
    return _distance(mean - reference.mean, traces, cross)


def _factor(cov: Tensor) -> Tensor:
    """L with L Lᵀ = cov: lower triangular, or the symmetric root of a singular covariance."""
    triangle, failed = torch.linalg.cholesky_ex(cov)
    if not failed:
        return triangle
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _sum_of_roots(matrix: Tensor) -> Tensor:
    # Rounding leaves the zero eigenvalues of a rank-deficient matrix a little below zero.
    return torch.linalg.eigvalsh(matrix).clamp_min(0).sqrt().sum()


def _distance(delta: Tensor, traces: Tensor, cross: Tensor) -> float:
    return max(0.0, float(delta.square().sum() + traces - 2 * cross))


def _check(num_x: int, num_y: int) -> None:
    if num_x != num_y:
        raise ValueError(f"{num_x} features against {num_y}: both sides need the same extractor")
