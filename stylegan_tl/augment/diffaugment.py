"""Differentiable augmentation of everything D sees (Zhao et al. 2020, DiffAugment)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cuda_ops.diffaugment import diffaugment

__all__ = ["POLICIES", "DiffAugment"]


class DiffAugment(nn.Module):
    """The published policy: every transformation, on every image, always.

    policy: names of `POLICIES` joined by commas, applied in that order, each at most once. impl:
    kernels, as in `cuda_ops.diffaugment`; what stands in the order of `POLICIES` is one operation.
    `observe` and `adapt` do nothing; they are there for the interface of `AdaAugment`.
    """

    def __init__(
        self, *, policy: str = "color,translation,cutout", impl: str | None = None
    ) -> None:
        super().__init__()
        self.policy, self.impl = _parse(policy), impl

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`images` [N, C, H, W], about [-1, 1], augmented each by its own draws; same dtype."""
        for names in _in_order(self.policy):
            drawn = {POLICIES[n].parameter: POLICIES[n].draw(images, generator) for n in names}
            images = diffaugment(images, **drawn, impl=self.impl)
        return images

    def observe(self, real_logits: Tensor) -> None:
        """Nothing: the policy does not depend on D."""

    def adapt(self, batch: int) -> None:
        """Nothing: the policy does not change."""


class Policy(NamedTuple):
    """A parameter of `cuda_ops.diffaugment` and how it is drawn."""

    parameter: str
    draw: Callable[[Tensor, torch.Generator], Tensor]


def _color(images: Tensor, generator: torch.Generator) -> Tensor:
    """[N, 3]: brightness in [-0.5, 0.5], saturation in [0, 2], contrast in [0.5, 1.5]."""
    unit = _uniform(images, generator, 3).double()  # no rounding below
    brightness, saturation, contrast = unit.unbind(1)
    return torch.stack([brightness - 0.5, 2 * saturation, contrast + 0.5], 1)


def _translation(images: Tensor, generator: torch.Generator) -> Tensor:
    """[N, 2] whole pixels down and right, up to an eighth of each side."""
    unit, shifts = _uniform(images, generator, 2), []
    for axis, length in enumerate(images.shape[2:]):
        most = int(length / 8 + 0.5)
        shifts.append((unit[:, axis] * (2 * most + 1)).floor().long() - most)
    return torch.stack(shifts, 1)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """[N, 3]: the centre of a square of half the side, anywhere in the image, and its half."""
    centre = _uniform(images, generator, 2)
    return torch.cat([centre, torch.full_like(centre[:, :1], 0.25)], 1)


POLICIES: dict[str, Policy] = {
    "color": Policy("factors", _color),
    "translation": Policy("shift", _translation),
    "cutout": Policy("hole", _cutout),
}


def _in_order(policy: tuple[str, ...]) -> list[list[str]]:
    """Cut the policy where the order of `POLICIES` breaks."""
    rank = list(POLICIES).index
    runs: list[list[str]] = []
    for name in policy:
        if runs and rank(name) > rank(runs[-1][-1]):
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs


def _uniform(images: Tensor, generator: torch.Generator, count: int) -> Tensor:
    """[N, count] in [0, 1), drawn where the generator lives."""
    return torch.rand(len(images), count, generator=generator, device=generator.device)


def _parse(policy: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in policy.split(","))
    wrong = [name for name in names if name not in POLICIES]
    if wrong or len(set(names)) < len(names):
        what = f"{', '.join(map(repr, wrong))} is unknown" if wrong else "a name comes twice"
        raise ValueError(
            f"augment.policy={policy!r}: {what}; join some of {', '.join(POLICIES)} by commas, "
            "each once, or use augment=none for no augmentation"
        )
    return names
