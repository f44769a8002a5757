"""Differentiable augmentation of everything D sees (Zhao et al. 2020, DiffAugment)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stylegan_tl.augment.warp import cutout

__all__ = ["POLICIES", "DiffAugment"]


class DiffAugment(nn.Module):
    """The published policy: every transformation, on every image, always.

    policy: names of `POLICIES` joined by commas, applied in that order, each at most once.
    `observe` and `adapt` do nothing; they are there for the interface of `AdaAugment`.
    """

    def __init__(self, *, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        self.policy = _parse(policy)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """`images` [N, C, H, W], about [-1, 1], augmented each by its own draws; same dtype."""
        for name in self.policy:
            images = POLICIES[name](images, generator)
        return images

    def observe(self, real_logits: Tensor) -> None:
        """Nothing: the policy does not depend on D."""

    def adapt(self, batch: int) -> None:
        """Nothing: the policy does not change."""


def _color(images: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness in [-0.5, 0.5], then saturation in [0, 2], then contrast in [0.5, 1.5]."""
    unit = _uniform(images, generator, 3).to(images.dtype)
    brightness, saturation, contrast = unit.view(len(images), 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5)
    images = images.mean(1, keepdim=True).lerp(images, 2 * saturation)
    return images.mean((1, 2, 3), keepdim=True).lerp(images, contrast + 0.5)


def _translation(images: Tensor, generator: torch.Generator) -> Tensor:
    """Whole pixels, up to an eighth of each side, with zeros where nothing came from."""
    unit = _uniform(images, generator, 2)
    places = []
    for axis, length in enumerate((images.shape[2], images.shape[3])):
        most = int(length / 8 + 0.5)
        shift = (unit[:, axis, None] * (2 * most + 1)).floor().long() - most
        places.append(torch.arange(length, device=images.device) - shift)
    row, column = places[0][:, :, None], places[1][:, None, :]
    height, width = images.shape[2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    source = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    flat = images.flatten(2)
    moved = flat.gather(2, source.flatten(1)[:, None].expand_as(flat)).view_as(images)
    return moved.masked_fill(~inside[:, None], 0)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """A square of half the side, its centre anywhere in the image, set to zero."""
    centre = _uniform(images, generator, 2)
    return cutout(images, centre, torch.full_like(centre[:, 0], 0.25))


POLICIES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}


def _uniform(images: Tensor, generator: torch.Generator, count: int) -> Tensor:
    """[N, count] in [0, 1), drawn where the generator lives, on the images' device."""
    unit = torch.rand(len(images), count, generator=generator, device=generator.device)
    return unit.to(images.device)


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
