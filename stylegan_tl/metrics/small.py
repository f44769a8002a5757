"""The bundled small extractor: 216 features at 64 px, for quick runs and offline tests.

Trained by `python -m stylegan_tl.metrics.train_small` on the procedural domains alone; it has seen
no photograph. It names the domain, and the kind and strength of a synthetic degradation (blur,
noise, contrast, JPEG blocks, down-scaling, shuffled and lost patches, colour, checkerboards), so
its features follow content, texture and sharpness. Its FID orders sets; its scale is its own and is
never comparable with that of the 2015 Inception network.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_tl.metrics.pixels import perceptual_rows, resized, to_255
from stylegan_tl.metrics.states import load_exactly, read_state

__all__ = ["BUNDLED", "SIZE", "Conv", "SmallNetwork", "limit", "load_small"]

BUNDLED = Path(__file__).with_name("small.safetensors")
SIZE = 64


class SmallNetwork(nn.Module):
    """uint8 [N, 3, R, R] → 216 standardised features, float32.

    Three stages at 32, 16 and 8 px; the features are the spatial means of each (24 + 64 + 128),
    standardised over the clean procedural images and softly limited, so that no image outweighs
    a set.
    """

    num_features = 216
    resize = "antialiased bilinear to 64 px"

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.stage32 = nn.Sequential(Conv(3, 24, 5, 2, norm), Conv(24, 24, 3, 1, norm))
        self.stage16 = nn.Sequential(Conv(24, 64, 3, 2, norm), Conv(64, 64, 3, 1, norm))
        self.stage8 = nn.Sequential(Conv(64, 128, 3, 2, norm), Conv(128, 128, 3, 1, norm))
        self.register_buffer("mean", torch.zeros(self.num_features))
        self.register_buffer("scale", torch.ones(self.num_features))

    def forward(self, images: Tensor) -> Tensor:
        """Features of uint8 images."""
        return limit((self.features(self._prepared(images)) - self.mean) / self.scale)

    def embed(self, images: Tensor) -> Tensor:
        """Rows [N, 49152] of uint8 images, or float ones in [-1, 1]: LPIPS without learned weights.

        Squared distances of rows grow with what is visibly different; their scale is their own.
        """
        return perceptual_rows(self.maps(self._prepared(images)))

    def features(self, x: Tensor) -> Tensor:
        """Raw features [N, 216] of float images [N, 3, 64, 64] in [-1, 1]."""
        return torch.cat([stage.float().mean((2, 3)) for stage in self.maps(x)], 1)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps at 32, 16 and 8 px, with 24, 64 and 128 channels, of the same images."""
        fine = self.stage32(x.contiguous(memory_format=torch.channels_last))
        middle = self.stage16(fine)
        return fine, middle, self.stage8(middle)

    @staticmethod
    def _prepared(images: Tensor) -> Tensor:
        return resized(to_255(images), SIZE) / 127.5 - 1


class Conv(nn.Module):
    """Convolution and ReLU; batch normalisation between them only while training (`norm`)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=not norm)
        self.bn = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C', H/stride, W/stride]."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def limit(z: Tensor) -> Tensor:
    """Squash standard scores smoothly into (-4, 4); near zero they stay as they are."""
    return z / (1 + (z / 4).square()).sqrt()


def load_small(path: str | Path | None = None) -> tuple[SmallNetwork, Path]:
    """Read the bundled network, or another of its kind from `path`; also return where it lies."""
    path = BUNDLED if path is None else Path(path)
    network = SmallNetwork()
    state = {k: v.float() for k, v in read_state(path).items()}
    load_exactly(network, state, path, "a small extractor")
    return network.to(memory_format=torch.channels_last).eval(), path
