"""Equivariance: does the picture move as a whole when the input of the synthesis is moved?

EQ-T, EQ-T_frac and EQ-R of Karras et al. 2021 (arXiv:2106.12423), section 2 and appendix E: the
signal-to-noise ratio, in decibels, between the image of a moved input and the moved image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from stylegan_tl.metrics.pixels import float32_arithmetic
from stylegan_tl.metrics.transforms import (
    band_limited,
    rotation,
    shifted,
    shifted_finely,
    turned,
)

__all__ = ["MOTIONS", "equivariance", "psnr", "takes_transform"]

MOTIONS = ("int", "frac", "rotation")
_FARTHEST = 1 / 8  # of the side of the image, in either direction
_RANGE = 2.0  # of pixel values, from -1 to 1

Latents = Callable[[int, int], Tensor]


@torch.no_grad()
def equivariance(
    G: nn.Module,
    motion: str,
    *,
    latents: Latents,
    count: int,
    seed: int = 0,
    batch: int = 16,
    labels: Latents | None = None,
) -> dict[str, float]:
    """PSNR in dB over `count` latents, each moved in its own way, and its standard error.

    G: in evaluation mode; `mapping`, and a `synthesis` that takes `transform` (StyleGAN3).
    motion: "int", a shift by whole pixels of up to an eighth of the side; "frac", by any part of
        one; "rotation", about the centre by any angle.
    latents, labels: (start, count) → z [count, z_dim], and c for a conditional generator.

    Errors are averaged over all latents and all pixels that both images know, then made one ratio,
    as published: 10 log10(4 / E). Without TF32. The value does not depend on `batch`. ValueError
    for an unknown motion or a G whose input cannot be moved.
    """
    if motion not in MOTIONS:
        raise ValueError(f"equivariance: motion={motion!r}; use one of {', '.join(MOTIONS)}")
    if not takes_transform(G):
        raise ValueError(
            "equivariance: the input of this generator cannot be moved, as only that of a "
            "StyleGAN3 can"
        )
    draws = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    with float32_arithmetic():
        found = [torch.stack(part) for part in _errors(G, motion, latents, labels, draws, batch)]
    return psnr(torch.cat(found, dim=1).double())


def takes_transform(G: nn.Module) -> bool:
    """Whether `G.synthesis` takes a `transform` of its input."""
    return getattr(getattr(G, "synthesis", None), "takes_transform", False)


def psnr(sums: Tensor) -> dict[str, float]:
    """Value and standard error in dB of `sums [2, N]`: squared errors, and how many, per image."""
    errors, counts = sums
    mse = errors.sum() / counts.sum()
    value = 10 * torch.log10(_RANGE**2 / mse)
    spread = (errors - mse * counts).std() * len(errors) ** 0.5 / counts.sum()  # of a ratio
    return {"value": value.item(), "stderr": (10 / math.log(10) * spread / mse).item()}


def _errors(
    G: nn.Module,
    motion: str,
    latents: Latents,
    labels: Latents | None,
    draws: Tensor,
    batch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(Σ of squared errors [n], how many [n]) of each batch."""
    for start in range(0, len(draws), batch):
        drawn = draws[start : start + batch]
        c = None if labels is None else labels(start, len(drawn))
        ws = G.mapping(latents(start, len(drawn)), c)
        still = G.synthesis(ws, noise="const")
        if motion == "rotation":
            yield _rotated(G, ws, still, drawn[:, 2] * math.pi)
        else:
            yield _translated(G, ws, still, drawn[:, :2] * _FARTHEST, motion == "int")


def _translated(
    G: nn.Module, ws: Tensor, still: Tensor, by: Tensor, whole: bool
) -> tuple[Tensor, Tensor]:
    side = still.shape[2]
    pixels = (by * side).round() if whole else by * side
    transform = torch.eye(3).repeat(len(ws), 1, 1)
    transform[:, :2, 2] = -pixels / side
    moved = G.synthesis(ws, noise="const", transform=transform.to(ws))
    move = shifted if whole else shifted_finely
    wanted, mask = move(still, *(pixels.long() if whole else pixels).unbind(1))
    return _compared(wanted, moved, mask)


def _rotated(G: nn.Module, ws: Tensor, still: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    transform = torch.eye(3).repeat(len(ws), 1, 1)
    transform[:, :2, :2] = torch.stack([rotation(angle) for angle in angles.tolist()]).float()
    moved = G.synthesis(ws, noise="const", transform=transform.to(ws))
    found = []
    for before, after, angle in zip(still.split(1), moved.split(1), angles.tolist(), strict=True):
        wanted, seen = turned(before, angle)
        after, known = band_limited(after, angle)
        found.append(_compared(wanted, after, seen * known))
    errors, counts = zip(*found, strict=True)
    return torch.cat(errors), torch.cat(counts)


def _compared(wanted: Tensor, found: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Σ of squared errors and their number per image, where the mask is one."""
    squares = (wanted - found).square() * mask
    counts = mask.expand_as(squares)
    return tuple(x.sum((1, 2, 3), dtype=torch.float64).cpu() for x in (squares, counts))
