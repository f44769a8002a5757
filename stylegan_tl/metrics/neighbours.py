"""Exact nearest neighbours and ball membership of feature sets, in blocks of bounded memory.

`|x − y|² = |x|² + |y|² − 2 x·y` turns distances into float64 matrix products of rows centred on
y's mean. Its rounding error is at most `(F + 8) ε (|x|² + |y|²)` in any order of summation (Higham
2002, §3.1), too much for near duplicates; there the differences x − y decide, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["CHUNK_BYTES", "TIE", "ball_hits", "check_sets", "distance_sums", "nearest"]

CHUNK_BYTES = 2**28
TIE = 1e-12  # relative: squared distances nearer to each other than this are equal
_SPARE = 8  # more candidates than k, since products order near duplicates by their rounding


@torch.no_grad()
def nearest(
    x: Tensor, y: Tensor, k: int = 1, *, same: bool = False, chunk_bytes: int = CHUNK_BYTES
) -> tuple[Tensor, Tensor]:
    """Euclidean distances [N, k] (float64, ascending) and indices [N, k] of x's rows' nearest in y.

    x [N, F], y [M, F]: finite floats on one device. `same`: y is x, and a row is not its own
    neighbour (an equal row is). `chunk_bytes` bounds the memory beyond inputs and results.
    Distances are sums of squared differences in float64; identical rows give 0. Of rows equally far
    any may be named. A neighbour can be missed only for one as near within about 1e-6 of the
    largest |x − mean|, and only if more than 8 others are that near too. ValueError if y has fewer
    than k neighbours.
    """
    check_sets(x=x, y=y)
    if same and x.shape != y.shape:
        raise ValueError(f"same=True, but x is {tuple(x.shape)} and y is {tuple(y.shape)}")
    if not 1 <= k <= len(y) - same:
        raise ValueError(f"k={k}: {len(y)} rows have 1 to {len(y) - same} neighbours")
    size = _block_size(x.shape[1], chunk_bytes)
    centre = _mean(y, size)
    found = [_search(x, rows, y, centre, k, same, size) for rows in _blocks(len(x), size)]
    distances, indices = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(indices)


@torch.no_grad()
def ball_hits(
    x: Tensor,
    y: Tensor,
    radii: Tensor,
    *,
    closed: bool = True,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Tensor, Tensor]:
    """Count, for x [N, F] and balls of `radii` [M] around y [M, F], who lies in what (int64).

    Returns the number of balls that hold each row of x [N], and of rows that each ball holds [M]. A
    distance equal to the radius is inside if `closed`; equal means that the squares differ by no
    more than 1e-12 of the radius's. So a ball that is not closed and has no radius is empty.
    ValueError for radii that are not M numbers ≥ 0.
    """
    check_sets(x=x, y=y)
    if radii.shape != (len(y),) or not bool((radii >= 0).all()):
        raise ValueError(f"radii must be {len(y)} numbers ≥ 0, got {tuple(radii.shape)}")
    size = _block_size(x.shape[1], chunk_bytes)
    centre, squared = _mean(y, size), radii.double().square()
    per_x = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    per_y = torch.zeros(len(y), dtype=torch.int64, device=x.device)
    for rows in _blocks(len(x), size):
        for columns in _blocks(len(y), size):
            inside = _inside(x[rows], y[columns], squared[columns], centre, closed)
            per_x[rows] += inside.sum(1)
            per_y[columns] += inside.sum(0)
    return per_x, per_y


@torch.no_grad()
def distance_sums(x: Tensor, *, chunk_bytes: int = CHUNK_BYTES) -> Tensor:
    """Sum [N] of each row's Euclidean distances to all rows of x [N, F], in float64.

    Straight from the products: each distance is good to about 1e-6 of the largest |x − mean|.
    """
    check_sets(x=x)
    size = _block_size(x.shape[1], chunk_bytes)
    centre = _mean(x, size)
    sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for rows in _blocks(len(x), size):
        for columns in _blocks(len(x), size):
            a, b = _centred(x[rows], centre), _centred(x[columns], centre)
            squared = _products(a, b, _norms(b)).add_(_norms(a)[:, None]).clamp_min_(0)
            if rows == columns:
                squared.fill_diagonal_(0)
            sums[rows] += squared.sqrt_().sum(1)
    return sums


def check_sets(**sets: Tensor) -> None:
    """ValueError unless all sets are finite floats [N ≥ 1, F] with one F; it names the set."""
    widths = {name: tuple(rows.shape) for name, rows in sets.items()}
    for name, rows in sets.items():
        if rows.ndim != 2 or not rows.is_floating_point() or 0 in rows.shape:
            raise ValueError(
                f"{name}: features must be floats [N, F] with at least one row, "
                f"got {rows.dtype} {tuple(rows.shape)}"
            )
        if not all(bool(torch.isfinite(part).all()) for part in rows.split(4096)):
            raise ValueError(f"{name}: features hold NaN or infinity: look at the images")
    if len({shape[1] for shape in widths.values()}) > 1:
        raise ValueError(f"one extractor for all sets, got {widths}")


def _search(
    x: Tensor, rows: slice, y: Tensor, centre: Tensor, k: int, same: bool, size: int
) -> tuple[Tensor, Tensor]:
    """Distances and indices [n, k] for the block x[rows]."""
    count = min(k + _SPARE, len(y) - same)
    indices = _candidates(_centred(x[rows], centre), y, centre, count, rows if same else None, size)
    few = max(1, size // (8 * count))  # rows at a time, so that their differences stay in cache
    pieces = zip(x[rows, None].split(few), indices.split(few), strict=True)
    exact, order = torch.cat([_exact(part, y[i]) for part, i in pieces]).sort(1)
    return exact[:, :k].sqrt(), indices.gather(1, order[:, :k])


def _candidates(
    a: Tensor, y: Tensor, centre: Tensor, count: int, own: slice | None, size: int
) -> Tensor:
    """Indices [n, count] of the nearest rows of y by products; `own` is where a's rows are in y."""
    values = a.new_empty(len(a), 0)
    indices = values.long()
    for columns in _blocks(len(y), size):
        b = _centred(y[columns], centre)
        squared = _products(a, b, _norms(b))  # less |x|², which orders nothing
        if own == columns:
            squared.fill_diagonal_(torch.inf)
        near, which = squared.topk(min(count, len(b)), largest=False)
        values = torch.cat([values, near], 1)
        indices = torch.cat([indices, which + columns.start], 1)
        values, kept = values.topk(min(count, values.shape[1]), largest=False)
        indices = indices.gather(1, kept)
    return indices


def _inside(part: Tensor, other: Tensor, limits: Tensor, centre: Tensor, closed: bool) -> Tensor:
    """Whether |x_i − y_j|² is below `limits[j]`: bool [n, m]."""
    a, b = _centred(part, centre), _centred(other, centre)
    norms_a, norms_b = _norms(a)[:, None], _norms(b)
    margin = _products(a, b, norms_b - limits).add_(norms_a)
    inside = margin <= 0 if closed else margin < 0
    error = (a.shape[1] + 8) * torch.finfo(torch.float64).eps
    unsure = margin.abs_().sub_(error * norms_a) < error * norms_b + (error + TIE) * limits
    slack = 1 + TIE if closed else 1 - TIE
    for pairs in unsure.nonzero().split(max(1, len(a) // 8)):
        i, j = pairs.unbind(1)
        exact, limit = _exact(part[i], other[j]), limits[j] * slack
        inside[i, j] = exact <= limit if closed else exact < limit
    return inside


def _centred(rows: Tensor, centre: Tensor) -> Tensor:
    return rows.to(torch.float64, copy=True).sub_(centre)


def _products(a: Tensor, b: Tensor, offset: Tensor) -> Tensor:
    return torch.addmm(offset, a, b.T, alpha=-2)


def _norms(a: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a, dim=1).square_()


def _exact(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [...] of rows a and b [..., F]."""
    return (a.double() - b.double()).square_().sum(-1)


def _mean(rows: Tensor, size: int) -> Tensor:
    return sum(part.double().sum(0) for part in rows.split(size)) / len(rows)


def _block_size(num_features: int, chunk_bytes: int) -> int:
    """Largest n whose products and masks (32 n²) and four blocks (32 n F) fit in `chunk_bytes`."""
    found = (num_features**2 + chunk_bytes / 8) ** 0.5 - num_features
    return max(1, int(found / 2))


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
