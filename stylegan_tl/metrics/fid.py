"""Fréchet inception distance (Heusel et al. 2017) in float64 by symmetric eigen-decompositions.

`d² = |μ₁ − μ₂|² + Tr Σ₁ + Tr Σ₂ − 2 Tr (Σ₁ Σ₂)^½`. With any factor Σ₁ = L Lᵀ (Cholesky's, or
scaled eigenvectors where Σ₁ is singular), Σ₁ Σ₂ has the eigenvalues of the symmetric Lᵀ Σ₂ L. Their
roots add up to the last trace, where a general matrix root of Σ₁ Σ₂ loses digits and minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.metrics.shell import FeatureMetric, TwoSidedMetric, arranged, scalars
from stylegan_tl.metrics.statistics import FeatureStatistics, check_features, draw

__all__ = [
    "FrechetInceptionDistance",
    "FrechetInceptionDistanceInfinity",
    "feature_distance",
    "fid_infinity",
    "frechet_distance",
    "gaussian_distance",
]

_NOT_FINITE = "FID is not defined: a mean or a covariance holds NaN or infinity"
SMALLEST_SET = 5_000  # of FID∞'s regression (Chong & Forsyth 2020)


def gaussian_distance(
    mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor, *, rank: int | None = None
) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians: means [F], covariances [F, F].

    rank: the most that either covariance can have (rows − 1). The eigenvalues beyond it are zeros
          that rounding moves, and their roots would be 10⁻⁸ each, so they are left out.

    ValueError for numbers that are not finite.
    """
    moments = (mean_x, cov_x, mean_y, cov_y)
    mean_x, cov_x, mean_y, cov_y = (t.to(mean_x.device, torch.float64) for t in moments)
    _require_finite(mean_x, cov_x, mean_y, cov_y)
    factor = _factor(cov_x)
    cross = _sum_of_roots(factor.T @ cov_y @ factor, rank)
    return _distance(mean_x - mean_y, cov_x.trace() + cov_y.trace(), cross)


def frechet_distance(x: FeatureStatistics, y: FeatureStatistics) -> float:
    """FID of two sets from their statistics; ValueError if the numbers of features differ."""
    _check(x.num_features, y.num_features)
    rank = min(x.count, y.count) - 1
    return gaussian_distance(x.mean, x.cov, y.mean, y.cov, rank=rank)


def feature_distance(features: Tensor, reference: FeatureStatistics | Tensor) -> float:
    """FID of `features` [N, F] against `reference`: statistics, or rows [M, F].

    For N < F by an N × N problem, as exact: with the centred rows A, Σ₁ = AᵀA / (N−1), and Σ₁Σ₂
    shares its non-zero eigenvalues with A Σ₂ Aᵀ / (N−1).
    """
    check_features(features)
    if isinstance(reference, Tensor):
        reference = FeatureStatistics.from_features(reference)
    _check(features.shape[1], reference.num_features)
    if len(features) >= reference.num_features:
        return frechet_distance(FeatureStatistics.from_features(features), reference)
    if len(features) < 2:
        raise ValueError(f"FID needs at least 2 images, got {len(features)}")
    mean = features.double().mean(0)
    rows = (features.double() - mean) / (len(features) - 1) ** 0.5
    cov = reference.cov.to(rows.device)
    rank = min(len(features), reference.count) - 1
    cross = _sum_of_roots(rows @ cov @ rows.T, rank)
    traces = rows.square().sum() + cov.trace()
    return _distance(mean - reference.mean.to(rows.device), traces, cross)


def fid_infinity(
    fake: Tensor,
    real: Tensor | FeatureStatistics,
    *,
    generator: torch.Generator,
    points: int = 15,
) -> dict[str, float]:
    """FID extrapolated to infinitely many images (Chong & Forsyth 2020): {value, slope, …}.

    FID's bias is nearly linear in 1/N. FID is taken at `points` numbers of fakes n, evenly spaced
    from 5 000 (from N/2 below 10 000 fakes) to N, each a random subset; `value` is the intercept of
    the least-squares line over 1/n and `slope` its slope, so FID(n) ≈ value + slope / n.

    fake: features [N, F]; real: features [M, F], or statistics alone. With features, n·M/N reals
    are drawn beside every n fakes, so that the biases of both sides go. With statistics the fakes'
    bias goes alone: the value is FID of the generator against those very reals.

    `regression_stderr` is the error of the line's intercept alone; what other images would give is
    in `interval`. The value may
    be a little below 0, and is so where both sides hold the same images. Evenly spaced from N/2,
    because 1/N² counts in smaller sets: below about F images they lie above the line.
    """
    _check_enough(fake, real, points)
    n = len(fake)
    sizes = np.linspace(min(SMALLEST_SET, n // 2), n, points).round().astype(int)
    values = []
    for size in sizes.tolist():
        fakes, reals = draw(fake, size, generator), real
        if isinstance(real, Tensor):
            reals = draw(real, round(size * len(real) / n), generator)
        values.append(feature_distance(fakes, reals))
    return _line(1 / sizes, np.array(values))


class FrechetInceptionDistance(TwoSidedMetric):
    """FID of features `[N, num_features]`: {"value"}.

    Keeps no features. A state is the count, mean and scatter of a side in one float64 tensor
    [2 + F, F], which ranks merge without cancellation (Chan et al. 1983): sums of x and x·xᵀ would
    lose the digits of a variance that is small beside the mean.
    """

    higher_is_better = False

    def __init__(self, num_features: int, *, keep_reals: bool = False) -> None:
        super().__init__(keep_reals=keep_reals)
        for side in ("fakes", "reals"):
            empty = _pack(FeatureStatistics.empty(num_features))
            self.add_state(side, empty, dist_reduce_fx=_merge_packed)

    def update(self, features: Tensor, *, real: bool) -> None:
        """Add `features` [N, F], finite floats, of reals or of fakes; ValueError for others."""
        side = "reals" if real else "fakes"
        packed = getattr(self, side)
        found = _pack(FeatureStatistics.from_features(features)).to(packed.device)
        setattr(self, side, _merge_packed([packed, found]))

    def compute(self) -> dict[str, Tensor]:
        """Return {"value"} of everything seen on all ranks; ValueError below 2 images a side."""
        value = frechet_distance(_unpack(self.fakes), _unpack(self.reals))
        return scalars({"value": value})


class FrechetInceptionDistanceInfinity(FeatureMetric):
    """`fid_infinity` of both sides' features: its three numbers; draws from `seed`."""

    higher_is_better = False

    def __init__(self, *, points: int = 15, seed: int = 0, keep_reals: bool = False) -> None:
        super().__init__(keep_reals=keep_reals)
        self.points, self.seed = points, seed

    def compute(self) -> dict[str, Tensor]:
        """Return the extrapolation from everything seen on all ranks."""
        found = fid_infinity(
            arranged(self.rows(real=False)),
            arranged(self.rows(real=True)),
            generator=torch.Generator().manual_seed(self.seed),
            points=self.points,
        )
        return scalars(found)


def _factor(cov: Tensor) -> Tensor:
    """L with L Lᵀ = cov: lower triangular, or [F, rank] of a singular covariance."""
    triangle, failed = torch.linalg.cholesky_ex(cov)
    if not failed:
        return triangle
    values, vectors = torch.linalg.eigh(cov)
    positive = values > 0
    return vectors[:, positive] * values[positive].sqrt()


def _sum_of_roots(matrix: Tensor, rank: int | None) -> Tensor:
    # Rounding leaves the zero eigenvalues of a rank-deficient matrix a little below zero.
    values = torch.linalg.eigvalsh(matrix)  # ascending
    kept = len(values) if rank is None else min(rank, len(values))
    return values[len(values) - kept :].clamp_min(0).sqrt().sum()


def _distance(delta: Tensor, traces: Tensor, cross: Tensor) -> float:
    value = float(delta.square().sum() + traces - 2 * cross)
    if not math.isfinite(value):
        raise ValueError(_NOT_FINITE)
    return max(0.0, value)


def _require_finite(*moments: Tensor) -> None:
    if not all(torch.isfinite(moment).all() for moment in moments):
        raise ValueError(_NOT_FINITE)


def _line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Least squares of y = value + slope · x, and the intercept's standard error."""
    centred = x - x.mean()
    slope = centred @ y / (centred @ centred)
    value = y.mean() - slope * x.mean()
    variance = np.square(y - value - slope * x).sum() / (len(x) - 2)
    stderr = np.sqrt(variance * (1 / len(x) + x.mean() ** 2 / (centred @ centred)))
    return {"value": float(value), "regression_stderr": float(stderr), "slope": float(slope)}


def _pack(statistics: FeatureStatistics) -> Tensor:
    count = torch.full_like(statistics.mean, statistics.count)
    return torch.cat([count[None], statistics.mean[None], statistics.scatter])


def _unpack(packed: Tensor) -> FeatureStatistics:
    return FeatureStatistics(int(packed[0, 0]), packed[1], packed[2:])


def _merge_packed(parts: Iterable[Tensor]) -> Tensor:
    return _pack(reduce(FeatureStatistics.merge, map(_unpack, parts)))


def _check_enough(fake: Tensor, real: Tensor | FeatureStatistics, points: int) -> None:
    if points < 3:
        raise ValueError(f"points={points}: a line with an error needs at least 3")
    for side, rows in (("fake", fake), ("real", real)):
        if isinstance(rows, Tensor) and len(rows) < 2 * points:
            raise ValueError(
                f"FID∞ over {points} points needs at least {2 * points} images on each side, "
                f"got {len(rows)} {side} ones"
            )


def _check(num_x: int, num_y: int) -> None:
    if num_x != num_y:
        raise ValueError(f"{num_x} features against {num_y}: both sides need the same extractor")
