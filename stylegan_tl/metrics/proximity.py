"""How near one set of images lies to another: nearest neighbours at equal numbers.

A nearest neighbour comes closer the more images there are to choose from, so distances to sets of
different sizes say nothing about each other. Here every distance is the one to the nearest of `m`
images, in expectation over all choices of `m` of them: of the M sorted distances, the i-th is the
nearest of a choice with probability C(M − i, m − 1) / C(M, m). Nothing is drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["expected_nearest", "nearest_ratio"]


def expected_nearest(
    x: Tensor, y: Tensor, m: int, *, same: bool = False, chunk_bytes: int = 2**28
) -> Tensor:
    """Distance of each row of `x` [N, F] to the nearest of `m` rows of `y` [M, F]: float64 [N].

    The mean over all choices of `m` of the M rows without replacement. `same`: `y` is `x`, and no
    row is its own neighbour. ValueError if fewer than `m` rows are there to choose from.
    """
    _check(x, y)
    rows = len(y) - same
    if not 1 <= m <= rows:
        raise ValueError(f"m={m}: there are {rows} images to choose from")
    weights = _first_of(m, rows).to(y.device)
    centre = y.double().mean(0)  # distances stay, digits are not lost
    x, y = x.double() - centre, y.double() - centre
    found = []
    for start in range(0, len(x), step := max(1, chunk_bytes // (8 * len(y)))):
        distances = _distances(x[start : start + step], y)
        if same:
            distances[:, start:].fill_diagonal_(torch.inf)  # sorted to the end and left out
        nearest = distances.sort(dim=1).values[:, : len(weights)]
        found.append(nearest @ weights)
    return torch.cat(found)


def nearest_ratio(target: Tensor, source: Tensor) -> dict[str, float]:
    """How far target images are from the source, in units of how far they are from each other.

    `target` [N, F] and `source` [M, F] are features. Every image looks for its nearest among
    m = min(M, N − 1) images on either side, so the ratio is about 1 where both sets are drawn from
    one distribution. Returns `mean` and `median` over the target's images (each a ratio of means or
    of medians), `distance` and `own` (mean distances in feature units) and `m`.
    `median` is NaN if the target's own is 0. ValueError for fewer than two target images, or if
    none of them is at any distance from its nearest.
    """
    if len(target) < 2:
        raise ValueError(f"the target's own distances need at least 2 images, got {len(target)}")
    m = min(len(source), len(target) - 1)
    across = expected_nearest(target, source, m)
    own = expected_nearest(target, target, m, same=True)
    if not own.mean() > 0:
        raise ValueError(
            "every target image has the features of another one: their distances have no scale"
        )
    medians = [torch.quantile(x, 0.5) for x in (across, own)]
    return {
        "mean": (across.mean() / own.mean()).item(),
        "median": (medians[0] / medians[1]).item() if medians[1] > 0 else float("nan"),
        "distance": across.mean().item(),
        "own": own.mean().item(),
        "m": m,
    }


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances [N, M] from differences: matrix products leave 1e-7 for equal rows."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _first_of(m: int, rows: int) -> Tensor:
    """P(the i-th nearest of `rows` is the nearest of m chosen), i = 1 … rows − m + 1: [i]."""
    left = torch.arange(rows, m - 1, -1, dtype=torch.float64)  # rows − i + 1
    kept = torch.cat([left.new_ones(1), (left[:-1] - m) / left[:-1]])
    return kept.cumprod(0) * m / left


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features {tuple(x.shape)} against {tuple(y.shape)}: use one extractor for both"
        )
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("features hold NaN or infinity: look at the images and the extractor")
