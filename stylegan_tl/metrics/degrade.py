"""Synthetic degradations of image batches, each with a strength in [0, 1] per image.

What the small extractor is trained to tell apart. Float images [N, 3, R, R] in [-1, 1] in and out,
strengths [N]; random ones draw from `generator`. A strength of 0 leaves the image nearly as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["KINDS", "degrade"]

Degradation = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def degrade(images: Tensor, kinds: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Apply to every image the degradation `KINDS[kinds[i]]` with `strengths[i]`."""
    result = images.clone()
    for number, apply in enumerate(KINDS.values()):
        chosen = (kinds == number).nonzero().flatten()
        if len(chosen):
            result[chosen] = apply(images[chosen], strengths[chosen], generator).clamp(-1, 1)
    return result


def _nothing(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    return images


def _blur(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    sigma = 0.3 + 2.7 * strengths
    offset = torch.arange(-6, 7).float()
    taps = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2))
    return _separable(images, taps / taps.sum(1, keepdim=True))


def _separable(images: Tensor, taps: Tensor) -> Tensor:
    """Filter image i by its own `taps[i]` along both axes."""
    n, c, h, w = images.shape
    half = taps.shape[1] // 2
    weight = taps.repeat_interleave(c, 0)[:, None]
    x = F.pad(images, (half,) * 4, mode="reflect").reshape(1, n * c, h + 2 * half, w + 2 * half)
    x = F.conv2d(x, weight[..., None], groups=n * c)
    return F.conv2d(x, weight[:, :, None], groups=n * c).reshape(n, c, h, w)


def _noise(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    deviation = 0.02 + 0.48 * strengths**1.5
    return images + _per_image(deviation) * torch.randn(images.shape, generator=generator)


def _contrast(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    gain = 2 ** (_signs(strengths, generator) * (0.2 + 1.3 * strengths))
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * _per_image(gain) + mean


def _tint(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    shift = torch.randn(len(images), 3, 1, 1, generator=generator)
    shift = shift - shift.mean(1, keepdim=True)
    grey = images.mean(1, keepdim=True)
    saturation = 1 - _per_image(strengths) * torch.rand(len(images), 1, 1, 1, generator=generator)
    return grey + (images - grey) * saturation + 0.3 * _per_image(strengths) * shift


def _jpeg(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Quantise 8×8 blocks in the cosine basis, coarser at high frequencies."""
    basis = _cosines(8)
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    rank = torch.arange(8.0)
    step = _per_image(0.04 + 0.5 * strengths**2)[..., None, None]
    step = step * (1 + 0.5 * (rank[:, None] + rank))
    spectrum = ((basis @ blocks @ basis.T) / step).round() * step
    return (basis.T @ spectrum @ basis).transpose(3, 4).reshape(n, c, h, w)


def _cosines(n: int) -> Tensor:
    k = torch.arange(n).float()
    basis = torch.cos(math.pi / n * (k + 0.5) * k[:, None]) * (2 / n) ** 0.5
    basis[0] /= 2**0.5
    return basis


def _coarse(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Down-scale to between 3/4 and 1/6, and up again by nearest or bilinear."""
    size = images.shape[-1]
    small = [max(4, round(size * (0.75 - 0.58 * s))) for s in strengths.tolist()]
    modes = ["nearest" if s > 0 else "bilinear" for s in _signs(strengths, generator)]
    return torch.cat(
        [
            F.interpolate(F.interpolate(x[None], k, mode="area"), size, mode=mode)
            for x, k, mode in zip(images, small, modes, strict=True)
        ]
    )


def _shuffle(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Swap random pairs of patches within each image."""
    result = images.clone()
    for image, strength in zip(result, strengths.tolist(), strict=True):
        size = (4, 8, 8, 16)[int(torch.randint(4, (), generator=generator))]
        cells = image.shape[-1] // size
        for _ in range(1 + round(strength * cells * cells / 2)):
            y, x, v, u = (size * torch.randint(cells, (4,), generator=generator)).tolist()
            patch = image[:, y : y + size, x : x + size].clone()
            image[:, y : y + size, x : x + size] = image[:, v : v + size, u : u + size]
            image[:, v : v + size, u : u + size] = patch
    return result


def _holes(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Paint rectangles over each image with colours of its own or grey."""
    result, width = images.clone(), images.shape[-1]
    for image, strength in zip(result, strengths.tolist(), strict=True):
        for _ in range(1 + round(5 * strength)):
            h, w = (3 + torch.rand(2, generator=generator) * width * (0.1 + 0.3 * strength)).int()
            y, x, v, u = torch.randint(width - 1, (4,), generator=generator).tolist()
            image[:, y : y + h, x : x + w] = image[:, v, u, None, None]
    return result


def _checkerboard(images: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Add the grid of period 2, 4 or 8 that strided up-sampling leaves."""
    period = 2 ** torch.randint(1, 4, (len(images), 1, 1, 1), generator=generator)
    index = torch.arange(images.shape[-1])
    on = (index[:, None] % period == 0) ^ (index % period == 0)
    return images + _per_image(0.05 + 0.3 * strengths) * (on.float() - 0.5)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator) * 2.0 - 1


KINDS: dict[str, Degradation] = {
    "nothing": _nothing,
    "blur": _blur,
    "noise": _noise,
    "contrast": _contrast,
    "tint": _tint,
    "jpeg": _jpeg,
    "coarse": _coarse,
    "shuffle": _shuffle,
    "holes": _holes,
    "checkerboard": _checkerboard,
}
