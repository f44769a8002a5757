"""What a page shows without a generator: the plan of its images, and the images in that order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.sampling import Look, between, has_truncation, latents, sample

__all__ = ["PSIS", "Plan", "make_plan", "render"]

PSIS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Truncations at hand; 0 is the average image whatever the seed."""
_PIXELS = 2**24  # of all truncated images
_WALKS, _STATIONS = 3, 4
_PART = 64


@dataclass(frozen=True)
class Plan:
    """Tiles in order: `count` seeds at psi `base`; the average image; for each other psi the
    first `full` seeds; for each walk `frames` images from each of its seeds to the next.

    Without psis (a DCGAN) the first and the last of these are all.
    """

    first: int
    count: int
    psis: tuple[float, ...]
    base: int
    full: int
    walks: tuple[tuple[int, ...], ...]
    frames: int

    @property
    def tiles(self) -> int:
        """All of them."""
        truncated = 1 + (len(self.psis) - 2) * self.full if self.psis else 0
        return self.count + truncated + sum(map(len, self.walks)) * self.frames

    def tile(self, place: int, psi: int) -> int | None:
        """Where seed `first + place` at `psis[psi]` is; None if it is not there."""
        if not self.psis or psi == self.base:
            return place
        if psi == 0:
            return self.count
        others = [i for i in range(1, len(self.psis)) if i != self.base]
        if place >= self.full:
            return None
        return self.count + 1 + others.index(psi) * self.full + place


def make_plan(
    first: int, count: int, *, truncation: float | None, resolution: int, frames: int
) -> Plan:
    """The plan for `count` seeds from `first`; `truncation` None: there is none to choose.

    Truncated images of all seeds up to 17 megapixels, then of the first seeds only.
    """
    if count < 1:
        raise ValueError(f"page_images={count}: at least one image is needed")
    psis = () if truncation is None else PSIS
    base = min(range(1, len(PSIS)), key=lambda i: abs(PSIS[i] - (truncation or 0)))
    full = min(count, max(1, _PIXELS // ((len(PSIS) - 2) * resolution**2)))
    seeds = range(first, first + count)
    whole = [tuple(seeds[i * _STATIONS : (i + 1) * _STATIONS]) for i in range(_WALKS)]
    walks = tuple(walk for walk in whole if len(walk) > 1)
    return Plan(first, count, psis, base if psis else 0, full if psis else 0, walks, frames)


def render(model: AdversarialModel, plan: Plan, look: Look) -> Iterator[np.ndarray]:
    """Every tile of the plan, in its order, in parts uint8 [n, 3, R, R]."""
    seeds = range(plan.first, plan.first + plan.count)
    base = replace(look, truncation=plan.psis[plan.base]) if plan.psis else look
    yield from _of_seeds(model, seeds, base)
    if plan.psis:
        yield from _of_seeds(model, seeds[:1], replace(look, truncation=0.0))
        for psi in (p for i, p in enumerate(plan.psis) if i not in (0, plan.base)):
            yield from _of_seeds(model, seeds[: plan.full], replace(look, truncation=psi))
    for walk in plan.walks:
        yield from _of_walk(model, walk, plan.frames, base)


def _of_seeds(model: AdversarialModel, seeds: Sequence[int], look: Look) -> Iterator[np.ndarray]:
    if not has_truncation(model):
        look = replace(look, truncation=1.0)
    for i in range(0, len(seeds), _PART):
        yield sample(model, latents(model, seeds[i : i + _PART]), look)


def _of_walk(
    model: AdversarialModel, walk: Sequence[int], frames: int, look: Look
) -> Iterator[np.ndarray]:
    import torch

    z = latents(model, walk)
    steps = torch.linspace(0, 1, frames + 1)[:-1]
    for i in range(len(walk)):
        j = (i + 1) % len(walk)
        yield between(model, z[i : i + 1], z[j : j + 1], steps, look)
