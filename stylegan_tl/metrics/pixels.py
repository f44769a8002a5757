"""What reaches an extractor: pixel values on one scale, a size and an arithmetic it works with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "IMAGENET_MEAN", "IMAGENET_STD", "PERCEPTUAL_SIZE", "float32_arithmetic", "perceptual_rows",
    "resized", "to_255", "within",
]  # fmt: skip

PERCEPTUAL_SIZE = 256  # perceptual distances are taken at no more than this (Karras et al. 2019)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def to_255(images: Tensor) -> Tensor:
    """Float32 on the scale 0…255 of uint8 images, or of float images in about [-1, 1].

    Floats are neither rounded nor clamped: small differences stay what they are.
    """
    return images.float() if images.dtype == torch.uint8 else images.float() * 127.5 + 127.5


def resized(x: Tensor, size: int, *, mode: str = "bilinear") -> Tensor:
    """Antialiased resize of float [N, C, H, W] to `size` × `size`; nothing if it has that size."""
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode=mode, antialias=True, align_corners=False)


def within(images: Tensor, size: int = PERCEPTUAL_SIZE) -> Tensor:
    """Average whole blocks of pixels until images [N, 3, R, R] are no larger than `size`.

    uint8 of that size or below stays uint8; else float in [-1, 1], not rounded.
    """
    factor = max(-(-max(images.shape[-2:]) // size), 1)
    if factor == 1:
        return images
    return F.avg_pool2d(to_255(images), factor) / 127.5 - 1


def perceptual_rows(maps: Iterable[Tensor], weights: Iterable[Tensor] | None = None) -> Tensor:
    """Rows [N, E] of `maps` [N, C, H, W] whose squared distance is LPIPS.

    Each position's features are scaled to unit length, channel c by √w_c (1 without `weights`,
    which must not be negative); positions are averaged, layers summed (Zhang et al. 2018, eq. 1).
    """
    maps = list(maps)
    rows = []
    for x, w in zip(maps, weights or [None] * len(maps), strict=True):
        x = x.float()
        x = x * (x.square().sum(1, keepdim=True) + 1e-8).rsqrt()
        x = x if w is None else x * w.sqrt().view(1, -1, 1, 1)
        rows.append(x.flatten(1) / (x.shape[2] * x.shape[3]) ** 0.5)
    return torch.cat(rows, 1)


@contextmanager
def float32_arithmetic() -> Iterator[None]:
    """Convolutions and matrix products of float32 in float32, not in TF32, while this lasts.

    By default cuDNN rounds the factors of a convolution to TF32's 10 bits. The flags are the
    process's and are put back; autocast is another matter and stays.
    """
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    convolutions = cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.allow_tf32 = convolutions
