"""How spread out one set of features is: neighbour radius, mean distance, Vendi score."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_tl.metrics.neighbours import CHUNK_BYTES, check_sets, distance_sums, nearest
from stylegan_tl.metrics.shell import FeatureMetric, scalars

__all__ = ["Diversity", "mean_distance", "neighbour_radius", "vendi_score"]


def neighbour_radius(x: Tensor, k: int = 5, *, chunk_bytes: int = CHUNK_BYTES) -> float:
    """Mean Euclidean distance of the rows of x [N, F] to their k-th nearest other row; N > k.

    The smaller, the denser the set; it falls as N grows, so compare it at equal N.
    """
    check_sets(x=x)
    if len(x) <= k:
        raise ValueError(f"k={k} needs at least {k + 1} images, got {len(x)}")
    return nearest(x, x, k, same=True, chunk_bytes=chunk_bytes)[0][:, -1].mean().item()


def mean_distance(x: Tensor, *, chunk_bytes: int = CHUNK_BYTES) -> float:
    """Mean Euclidean distance of all pairs of different rows of x [N, F]; N ≥ 2."""
    check_sets(x=x)
    if len(x) < 2:
        raise ValueError(f"a mean distance needs at least 2 images, got {len(x)}")
    sums = distance_sums(x, chunk_bytes=chunk_bytes)
    return sums.sum().item() / (len(x) * (len(x) - 1))


def vendi_score(x: Tensor) -> float:
    """Vendi score (Friedman & Dieng 2022) of x [N, F]: the effective number of distinct rows.

    The exponential of the entropy of the eigenvalues of K / N, K the cosine kernel: 1 for parallel
    rows, N for orthogonal ones. K and the F × F matrix of the same non-zero eigenvalues give the
    same score; the smaller is used. ValueError for a row of zeros, which has no direction.
    """
    check_sets(x=x)
    empty = int((x == 0).all(1).sum())
    if empty:
        raise ValueError(f"{empty} of {len(x)} rows are all zeros: their cosine is undefined")
    values = torch.linalg.eigvalsh(_cosine_matrix(x)).clamp_min(0)
    return torch.special.entr(values / values.sum()).sum().exp().item()


class Diversity(FeatureMetric):
    """The three measures of the fakes, and of the reals (`real_…`) if there are any."""

    higher_is_better = True

    def __init__(self, k: int = 5, *, keep_reals: bool = False) -> None:
        super().__init__(keep_reals=keep_reals)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        """Return "neighbour_radius", "mean_distance", "vendi", float64 scalars."""
        found = self._measure("", self.rows(real=False))
        if len(self.reals):
            found |= self._measure("real_", self.rows(real=True))
        return scalars(found)

    def _measure(self, prefix: str, x: Tensor) -> dict[str, float]:
        return {
            f"{prefix}neighbour_radius": neighbour_radius(x, self.k),
            f"{prefix}mean_distance": mean_distance(x),
            f"{prefix}vendi": vendi_score(x),
        }


def _cosine_matrix(x: Tensor) -> Tensor:
    """X Xᵀ of the unit rows, or Xᵀ X, whichever is smaller."""
    if len(x) <= x.shape[1]:
        rows = _unit(x)
        return rows @ rows.T
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(4096):
        rows = _unit(part)
        total.addmm_(rows.T, rows)
    return total


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x.double(), dim=1, eps=0)
