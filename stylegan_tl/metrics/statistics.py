"""Mean and covariance of features in float64, from chunks that merge without cancellation.

Chan, Golub & LeVeque 1983: the scatter (sum of outer products of the deviations from the mean) of
two sets together is `S = S_a + S_b + n_a n_b / (n_a + n_b) · δ δᵀ` with `δ = mean_b − mean_a`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FeatureStatistics", "StatisticsAccumulator", "check_features", "draw"]


@dataclass(frozen=True)
class FeatureStatistics:
    """`count` rows with float64 `mean` [F] and `scatter` [F, F]; `cov = scatter / (count - 1)`."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, num_features: int) -> FeatureStatistics:
        """Return the statistics of no rows: the neutral element of `merge`."""
        zeros = torch.zeros(num_features, num_features, dtype=torch.float64)
        return cls(0, zeros[0].clone(), zeros)

    @classmethod
    def from_features(cls, features: Tensor, *, chunk: int = 4096) -> FeatureStatistics:
        """Statistics of `features` [N, F], any float dtype, finite; float64 inside."""
        check_features(features)
        total = cls.empty(features.shape[1])
        for part in features.split(chunk):
            total = total.merge(_two_pass(part))
        return total

    @property
    def num_features(self) -> int:
        """F."""
        return self.mean.shape[0]

    @property
    def cov(self) -> Tensor:
        """Unbiased covariance [F, F]; ValueError below two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.count}")
        return self.scatter / (self.count - 1)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of both sets of rows together (Chan et al. 1983, eq. 2.1)."""
        if self.num_features != other.num_features:
            raise ValueError(f"cannot merge {self.num_features} with {other.num_features} features")
        if self.count == 0 or other.count == 0:
            return self if other.count == 0 else other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        scatter = self.scatter + other.scatter
        scatter.addr_(delta, delta, alpha=self.count * other.count / count)
        return FeatureStatistics(count, mean, scatter)


class StatisticsAccumulator:
    """Takes batches of any size, merged `chunk` rows at a time, so small batches cost little."""

    def __init__(self, num_features: int, *, chunk: int = 1024) -> None:
        self._merged = FeatureStatistics.empty(num_features)
        self._waiting: list[Tensor] = []
        self._chunk = chunk

    def update(self, features: Tensor) -> None:
        """Add `features` [N, F]."""
        check_features(features)
        self._waiting.append(features.detach().cpu())
        if sum(len(part) for part in self._waiting) >= self._chunk:
            self._flush()

    def compute(self) -> FeatureStatistics:
        """Return the statistics of everything seen so far."""
        if self._waiting:
            self._flush()
        return self._merged

    def _flush(self) -> None:
        rows = torch.cat(self._waiting)
        self._merged = self._merged.merge(FeatureStatistics.from_features(rows))
        self._waiting = []


def draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of `rows` [N, …] without replacement, in random order, from a CPU generator."""
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]


def _two_pass(features: Tensor) -> FeatureStatistics:
    rows = features.double()
    mean = rows.mean(0)
    deviation = rows - mean
    return FeatureStatistics(len(rows), mean, deviation.T @ deviation)


def check_features(features: Tensor) -> None:
    """ValueError for what is not floats [N, F], or not finite."""
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"features must be floats of shape [N, F], got {features.dtype} {tuple(features.shape)}"
        )
    if not torch.isfinite(features).all():
        raise ValueError("features hold NaN or infinity: look at the images and the extractor")
