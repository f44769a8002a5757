"""Sliced Wasserstein distance of Laplacian-pyramid patches (Karras et al. 2018, §5), no network.

Every level from full resolution down to 16 px gives 128 patches of 7×7×3 per image; each set is
normalised by its own mean and deviation per colour channel; the distance is the mean 1-D
Wasserstein-1 distance over 512 random projections, × 10³. Being normalised, it sees structure and
neither overall contrast nor tint.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_tl.metrics.shell import FeatureMetric, arranged, scalars

__all__ = ["SlicedWasserstein", "laplacian_pyramid", "sliced_wasserstein"]

PATCH = 7
SMALLEST = 16
TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # Burt & Adelson 1983


def sliced_wasserstein(
    real: Tensor,
    fake: Tensor,
    *,
    generator: torch.Generator,
    patches: int = 128,
    projections: int = 512,
) -> dict[str, float]:
    """Distance × 10³ of two uint8 sets [N, 3, R, R], per level ("64", "32", "16") and their "mean".

    `R` is a power of two ≥ 16; both sets hold the same number of images. ValueError for others, and
    for a set that is constant in a channel of a level: there is no deviation to divide by.
    """
    _check(real, fake)
    resolutions = _resolutions(real.shape[-1])
    real_patches = _descriptors("real", real, resolutions, patches, generator)
    fake_patches = _descriptors("fake", fake, resolutions, patches, generator)
    values = {
        str(r): 1e3 * _sliced(real_patches[i], fake_patches[i], projections, generator)
        for i, r in enumerate(resolutions)
    }
    return {**values, "mean": sum(values.values()) / len(values)}


def laplacian_pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Band-pass levels of float images [N, C, R, R], finest first; the last is the low-pass."""
    pyramid = []
    for _ in range(levels - 1):
        coarse = _smooth(images)[..., ::2, ::2]
        pyramid.append(images - _expand(coarse))
        images = coarse
    return [*pyramid, images]


class SlicedWasserstein(FeatureMetric):
    """`sliced_wasserstein` of uint8 images [N, 3, R, R]: {"value" (the mean), "64", "32", …}.

    Keeps the images. As many reals as fakes; patches and projections are drawn from `seed`.
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        seed: int,
        patches: int = 128,
        projections: int = 512,
        keep_reals: bool = False,
    ) -> None:
        super().__init__(keep_reals=keep_reals)
        self.seed, self.patches, self.projections = seed, patches, projections

    def check(self, features: Tensor) -> None:
        """Refuse what is not uint8 [N, 3, R, R]."""
        _check_images("the", features)

    def compute(self) -> dict[str, Tensor]:
        """Return the distance of everything seen on all ranks."""
        found = sliced_wasserstein(
            arranged(self.rows(real=True)),
            arranged(self.rows(real=False)),
            generator=torch.Generator().manual_seed(self.seed),
            patches=self.patches,
            projections=self.projections,
        )
        return scalars({"value": found.pop("mean"), **found})


def _smooth(images: Tensor) -> Tensor:
    h, w = images.shape[-2:]
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    rows = sum(tap * padded[..., i : i + h, :] for i, tap in enumerate(TAPS))
    return sum(tap * rows[..., i : i + w] for i, tap in enumerate(TAPS))


def _expand(coarse: Tensor) -> Tensor:
    n, c, h, w = coarse.shape
    fine = coarse.new_zeros(n, c, 2 * h, 2 * w)
    fine[..., ::2, ::2] = coarse
    return 4 * _smooth(fine)


def _resolutions(full: int) -> list[int]:
    return [full >> i for i in range((full // SMALLEST).bit_length())]


def _descriptors(
    side: str, images: Tensor, resolutions: list[int], patches: int, generator: torch.Generator
) -> list[Tensor]:
    """Per level: normalised patches [N · patches, 3 · 49] float32."""
    corners = [
        torch.randint(0, r - PATCH + 1, (len(images), patches, 2), generator=generator)
        for r in resolutions
    ]
    found: list[list[Tensor]] = [[] for _ in resolutions]
    for start in range(0, len(images), 128):
        part = images[start : start + 128].cpu().float()
        for i, level in enumerate(laplacian_pyramid(part, len(resolutions))):
            found[i].append(_cut(level, corners[i][start : start + 128]))
    return [
        _normalise(torch.cat(parts), f"{side} images at {r} px")
        for r, parts in zip(resolutions, found, strict=True)
    ]


def _cut(level: Tensor, corners: Tensor) -> Tensor:
    """Patches [N · P, 3, 49] of `level` [N, 3, R, R] whose top-left corners are [N, P, (y, x)]."""
    n, c, width = level.shape[0], level.shape[1], level.shape[-1]
    offset = (torch.arange(PATCH)[:, None] * width + torch.arange(PATCH)).flatten()
    index = (corners[..., :1] * width + corners[..., 1:]) + offset  # [N, P, 49]
    flat = level.reshape(n, c, -1).gather(2, index.reshape(n, 1, -1).expand(-1, c, -1))
    return flat.reshape(n, c, -1, PATCH * PATCH).transpose(1, 2).flatten(0, 1)


def _normalise(found: Tensor, what: str) -> Tensor:
    """Patches [M, 3, 49] → [M, 147] with mean 0 and deviation 1 in every channel, in place."""
    per_channel = found.shape[0] * found.shape[2]
    constant = found.amax((0, 2)) == found.amin((0, 2))  # filters of constants are exact
    if constant.any():
        channels = ", ".join(map(str, constant.nonzero().flatten().tolist()))
        raise ValueError(f"SWD is not defined: {what} are constant in channel {channels}")
    found -= found.mean((0, 2), keepdim=True)
    found /= found.norm(dim=(0, 2), keepdim=True) / per_channel**0.5
    return found.flatten(1)


def _sliced(x: Tensor, y: Tensor, projections: int, generator: torch.Generator) -> float:
    directions = F.normalize(torch.randn(x.shape[1], projections, generator=generator), dim=0)
    pairs = zip(_sorted(x, directions), _sorted(y, directions), strict=True)
    return float(np.mean([np.abs(a - b).mean(dtype=np.float64) for a, b in pairs]))


def _sorted(x: Tensor, directions: Tensor) -> Iterator[np.ndarray]:
    # numpy's vectorised float32 sort is several times faster than torch's
    for some in directions.split(32, dim=1):
        projected = (some.T @ x.T).numpy()
        projected.sort(axis=1)
        yield projected


def _check(real: Tensor, fake: Tensor) -> None:
    _check_images("real", real)
    _check_images("fake", fake)
    if real.shape != fake.shape:
        raise ValueError(
            f"SWD needs as many real as fake images of one size, got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}"
        )
    size = real.shape[-1]
    if size < SMALLEST or size & (size - 1) or real.shape[-2] != size or len(real) == 0:
        raise ValueError(f"SWD needs images of a power of two ≥ {SMALLEST} px, got {size} px")


def _check_images(name: str, images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"{name} images must be uint8 [N, 3, R, R], got {images.dtype} {tuple(images.shape)}"
        )
