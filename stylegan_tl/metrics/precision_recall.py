"""Improved precision and recall (Kynkäänniemi et al. 2019, §2): is a fake among the reals?

The manifold of a set is the union of balls around its rows, each as wide as the distance to the
row's k-th nearest other row. Precision is the share of fakes on the reals' manifold, recall the
share of reals on the fakes'.
"""

from __future__ import annotations

from torch import Tensor

from stylegan_tl.metrics.neighbours import CHUNK_BYTES, ball_hits, check_sets, nearest
from stylegan_tl.metrics.shell import FeatureMetric, scalars

__all__ = ["PrecisionRecall", "precision_recall"]


def precision_recall(
    fake: Tensor, real: Tensor, k: int = 3, *, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, float]:
    """Precision and recall, in [0, 1], of features fake [N, F] and real [M, F].

    Balls are closed (≤), as in NVIDIA's `pr50k3_full`, which takes 50 000 fakes, all reals, k = 3
    and rounds features to float16 first; here distances are float64. Each side needs k + 1 rows.
    """
    check_sets(fake=fake, real=real)
    for name, rows in (("fake", fake), ("real", real)):
        if len(rows) <= k:
            raise ValueError(f"k={k} needs at least {k + 1} {name} images, got {len(rows)}")
    return {
        "precision": _share_on_manifold(fake, real, k, chunk_bytes),
        "recall": _share_on_manifold(real, fake, k, chunk_bytes),
    }


def _share_on_manifold(rows: Tensor, manifold: Tensor, k: int, chunk_bytes: int) -> float:
    distances, _ = nearest(manifold, manifold, k, same=True, chunk_bytes=chunk_bytes)
    hits, _ = ball_hits(rows, manifold, distances[:, -1], chunk_bytes=chunk_bytes)
    return (hits > 0).double().mean().item()


class PrecisionRecall(FeatureMetric):
    """Precision and recall of all features seen, on all ranks."""

    higher_is_better = True

    def __init__(self, k: int = 3, *, keep_reals: bool = False) -> None:
        super().__init__(keep_reals=keep_reals)
        self.k = k

    def compute(self) -> dict[str, Tensor]:
        """Return {"precision", "recall"}, float64 scalars."""
        return scalars(precision_recall(self.rows(real=False), self.rows(real=True), self.k))
