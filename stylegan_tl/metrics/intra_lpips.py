"""Intra-cluster LPIPS: how much fakes differ that resemble the same training image.

Ojha et al. 2021 (CDC), section 4: each fake belongs to the nearest of the K training images; in
each cluster the mean perceptual distance of pairs of fakes is taken, then the mean of the clusters.
A generator that repeats its few training images scores near zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.metrics.pixels import within

__all__ = ["assign", "balance", "intra_cluster", "mean_pair_distance"]

Embed = Callable[[Tensor], Tensor]


@torch.no_grad()
def intra_cluster(
    images: Tensor,
    anchors: Tensor,
    embed: Embed,
    *,
    per_cluster: int = 50,
    generator: torch.Generator,
    batch: int = 16,
) -> dict[str, Any]:
    """Mean perceptual distance within the clusters of fakes around the anchors.

    images:  fakes, uint8 [N, 3, R, R]; 1 000 in the published protocol.
    anchors: training images, uint8 [K, 3, R, R]; 10 there.
    embed:   images → rows whose squared distance is perceptual.

    Images above 256 px are averaged down. Of a cluster with more than `per_cluster` fakes that
    many are drawn by `generator`. Returns `value`; `std`, the deviation over clusters; `stderr`, of
    the mean over clusters, as if drawn from many (None for one); `balance`,
    the entropy of the cluster sizes over log K (1: all equal, 0: one cluster has all; 1 for K = 1);
    `nonempty`, how many clusters have fakes; `clusters`, for each anchor {"anchor", "images",
    "used", "distance"}. A cluster with fewer than two fakes has distance None and no part in
    `value`. Memory: the anchors' rows and those of `batch` images. ValueError if no cluster has
    two fakes, or for other shapes.
    """
    _check(images, anchors, per_cluster)
    nearest = assign(images, anchors, embed, batch=batch)
    clusters = []
    for anchor in range(len(anchors)):
        members = (nearest == anchor).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)[:per_cluster]
        used = members[order.sort().values]
        distance = mean_pair_distance(images[used], embed, batch=batch) if len(used) > 1 else None
        sizes = {"images": len(members), "used": len(used)}
        clusters.append({"anchor": anchor, **sizes, "distance": distance})
    sizes = [c["images"] for c in clusters]
    return {
        **_summary([c["distance"] for c in clusters if c["distance"] is not None], len(images)),
        "balance": balance(sizes),
        "nonempty": sum(size > 0 for size in sizes),
        "clusters": clusters,
    }


def assign(images: Tensor, anchors: Tensor, embed: Embed, *, batch: int = 16) -> Tensor:
    """Index int64 [N] of the nearest anchor of each image; the first of equally near ones."""
    centres = torch.cat(list(_rows(anchors, embed, batch)))
    found = []
    for rows in _rows(images, embed, batch):
        for row in rows:  # one at a time: a row of lpips at 256 px has 8 million numbers
            distances = torch.stack([(row - centre).square().sum() for centre in centres])
            found.append(distances.argmin())
    return torch.stack(found).cpu()


def mean_pair_distance(images: Tensor, embed: Embed, *, batch: int = 16) -> float:
    """Mean squared distance of the rows of all pairs of images [N ≥ 2, 3, R, R].

    It is twice the rows' unbiased total variance, so no rows are kept: sums are enough.
    """
    first = total = None
    squares = 0.0
    for row in (row for rows in _rows(images, embed, batch) for row in rows):
        if first is None:
            first, total = row.clone(), torch.zeros_like(row, dtype=torch.float64)
        moved = row - first  # near zero: the sums below do not cancel
        squares += moved.square().sum(dtype=torch.float64).item()
        total += moved
    n = len(images)
    scatter = squares - total.square().sum().item() / n
    return max(2 * scatter / (n - 1), 0.0)


def balance(sizes: list[int]) -> float:
    """Entropy of the shares of `sizes` over its maximum, log K; 1 for a single cluster."""
    if len(sizes) == 1:
        return 1.0
    shares = [size / sum(sizes) for size in sizes if size]
    return max(-sum(p * math.log(p) for p in shares), 0.0) / math.log(len(sizes))


def _rows(images: Tensor, embed: Embed, batch: int) -> Iterator[Tensor]:
    for part in images.split(batch):
        rows = embed(within(part))
        if not torch.isfinite(rows).all():
            raise ValueError("intra-cluster distance: the embedding of an image is not finite")
        yield rows


def _summary(distances: list[float], count: int) -> dict[str, float | None]:
    if not distances:
        raise ValueError(
            f"intra-cluster distance: no cluster has two of the {count} fakes: make more of them"
        )
    found = torch.tensor(distances, dtype=torch.float64)
    error = (found.std() / len(found) ** 0.5).item() if len(found) > 1 else None
    return {
        "value": found.mean().item(),
        "std": found.std(correction=0).item(),
        "stderr": error,
    }


def _check(images: Tensor, anchors: Tensor, per_cluster: int) -> None:
    for name, given in (("images", images), ("anchors", anchors)):
        if given.dtype != torch.uint8 or given.ndim != 4 or len(given) == 0:
            raise ValueError(
                f"intra-cluster distance: {name} are uint8 [N ≥ 1, 3, R, R], "
                f"got {given.dtype} {tuple(given.shape)}"
            )
    if images.shape[1:] != anchors.shape[1:]:
        raise ValueError(
            f"intra-cluster distance: images are {tuple(images.shape[1:])}, anchors "
            f"{tuple(anchors.shape[1:])}: give both at one resolution"
        )
    if per_cluster < 2:
        raise ValueError(f"intra-cluster distance: per_cluster={per_cluster}; a pair takes 2")
