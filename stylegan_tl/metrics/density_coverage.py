"""Density and coverage (Naeem et al. 2020, §3): outliers widen no manifold.

With the ball of each real as wide as the distance to its k-th nearest other real: density is the
number of balls that hold a fake, averaged over fakes and divided by k; coverage is the share of
reals whose ball holds a fake.
"""

from __future__ import annotations

from torch import Tensor

from stylegan_tl.metrics.neighbours import CHUNK_BYTES, ball_hits, check_sets, nearest
from stylegan_tl.metrics.shell import FeatureMetric, scalars

__all__ = ["DensityCoverage", "density_coverage"]


def density_coverage(
    fake: Tensor, real: Tensor, k: int = 5, *, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, float]:
    """Density (≥ 0) and coverage (in [0, 1]) of features fake [N, F] against real [M, F].

    For N fakes from the reals' own distribution density is 1 on average, and coverage
    `1 − (M−1)⋯(M−k) / ((M+N−1)⋯(M+N−k))`. Balls are open (<), as in the authors' code: a real with
    k copies of itself is never covered. Reals must be at least k + 1.
    """
    check_sets(fake=fake, real=real)
    if len(real) <= k:
        raise ValueError(f"k={k} needs at least {k + 1} real images, got {len(real)}")
    distances, _ = nearest(real, real, k, same=True, chunk_bytes=chunk_bytes)
    per_fake, per_real = ball_hits(
        fake, real, distances[:, -1], closed=False, chunk_bytes=chunk_bytes
    )
    return {
        "density": per_fake.double().mean().item() / k,
        "coverage": (per_real > 0).double().mean().item(),
    }


class DensityCoverage(FeatureMetric):
    """Density and coverage of all features seen, on all ranks."""

    higher_is_better = True

    def __init__(self, k: int = 5, *, keep_reals: bool = False) -> None:
        super().__init__(keep_reals=keep_reals)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        """Return {"density", "coverage"}, float64 scalars."""
        return scalars(density_coverage(self.rows(real=False), self.rows(real=True), self.k))
