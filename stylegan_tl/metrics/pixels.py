"""What reaches an extractor: pixel values on one scale, a size and an arithmetic it works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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
    process's, and PyTorch has two sets of them (since 2.9): both are put back as they were.
    Autocast is another matter and stays.
    """
    newer = _precisions()
    products = _readable(torch.get_float32_matmul_precision)
    convolutions = _readable(lambda: torch.backends.cudnn.allow_tf32)
    _set_older(products and "highest", None if convolutions is None else False)
    for owner, _ in newer:
        owner.fp32_precision = "ieee"
    try:
        yield
    finally:
        _set_older(products, convolutions)
        for owner, precision in newer:
            owner.fp32_precision = precision


def _set_older(products: str | None, convolutions: bool | None) -> None:
    """Set the older flags, but one that is None: it could not be read, so not be put back."""
    if products is not None:
        torch.set_float32_matmul_precision(products)
    if convolutions is not None:
        torch.backends.cudnn.allow_tf32 = convolutions


def _precisions() -> list[tuple[Any, str]]:
    """Who holds the newer flags, and what they say; empty before PyTorch 2.9."""
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    if not hasattr(cudnn, "conv"):
        return []
    owners = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv)
    return [(owner, owner.fp32_precision) for owner in owners]


def _readable(flag: Callable[[], Any]) -> Any:
    """What an older flag says; None if the newer ones say otherwise: then reading it raises."""
    try:
        return flag()
    except RuntimeError:
        return None
