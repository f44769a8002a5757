"""VGG16 (Simonyan & Zisserman 2015) in plain PyTorch, and LPIPS on its layers (Zhang et al. 2018).

The state dict has torchvision's names (`features.0.weight` … `classifier.6.bias`). `VGG16` gives
the features of improved precision and recall (Kynkäänniemi et al. 2019), `LPIPS` distances.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_tl.metrics.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    perceptual_rows,
    resized,
    to_255,
)
from stylegan_tl.metrics.states import load_exactly, read_state

__all__ = ["LPIPS", "VGG16", "load_lpips", "load_vgg16"]

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width, convolutions ("D")
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of [-1, 1]
_WHAT = "a VGG16 state dict with torchvision's names"


class VGG16(nn.Module):
    """uint8 [N, 3, R, R] → the second hidden layer after its ReLU ("fc7"), float32 [N, 4096]."""

    num_features = 4096
    resize = "antialiased bilinear to 224 px"

    def __init__(self) -> None:
        super().__init__()
        self.features = _trunk(pool_last=True)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 1000),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 4096] of uint8 images, normalised as torchvision does."""
        x = resized(to_255(images), 224) / 255
        x = self.features(_normalised(x, IMAGENET_MEAN, IMAGENET_STD))
        return self.classifier[:5](x.flatten(1)).float()


class LPIPS(nn.Module):
    """LPIPS v0.1 of VGG16: distances at the images' own size, no features.

    `heads`: five positive weights per channel, one tensor for each of relu1_2, relu2_2, relu3_3,
    relu4_3 and relu5_3.
    """

    num_features = 0
    resize = "none: distances at the images' own size"

    def __init__(self, heads: list[Tensor]) -> None:
        super().__init__()
        self.features = _trunk(pool_last=False)
        for i, weight in enumerate(heads):
            self.register_buffer(f"head{i}", weight, persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """Rows [N, E] of uint8 images, or float ones in [-1, 1], of any size from 16 px.

        Squared Euclidean distances of rows are LPIPS. E is about 122 numbers per pixel.
        """
        if min(images.shape[-2:]) < 16:
            raise ValueError(f"lpips takes images of 16 px and more, got {tuple(images.shape)}")
        x = _normalised(to_255(images) / 127.5 - 1, _LPIPS_SHIFT, _LPIPS_SCALE)
        heads = [getattr(self, f"head{i}") for i in range(len(_STAGES))]
        return perceptual_rows(self._maps(x), heads)

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                yield x
            x = layer(x)
        yield x


def load_vgg16(path: str | Path) -> VGG16:
    """Read torchvision's VGG16 (138 million weights); ValueError if the file is another network."""
    with torch.device("meta"):
        network = VGG16()
    load_exactly(network, read_state(path), path, _WHAT, assign=True)
    return network.eval()


def load_lpips(path: str | Path, heads: str | Path) -> LPIPS:
    """Read LPIPS from a VGG16 file, whose classifier it does not need, and its linear heads.

    ValueError if either file is another network.
    """
    state = {k: v for k, v in read_state(path).items() if not k.startswith("classifier.")}
    weights = _heads(heads)
    with torch.device("meta"):
        network = LPIPS(weights)
    load_exactly(network, state, path, _WHAT, assign=True)
    return network.eval()


def _heads(path: str | Path) -> list[Tensor]:
    state = read_state(path)
    widths = [width for width, _ in _STAGES]
    names = [f"lin{i}.model.1.weight" for i in range(len(widths))]
    shapes = {name: (1, width, 1, 1) for name, width in zip(names, widths, strict=True)}
    if {k: tuple(v.shape) for k, v in state.items()} != shapes:
        raise ValueError(f"{path} does not hold the linear heads of LPIPS v0.1 on VGG16")
    if any((state[name] < 0).any() for name in names):
        raise ValueError(f"{path} has negative weights: that is no distance")
    return [state[name].flatten().float() for name in names]


def _trunk(*, pool_last: bool) -> nn.Sequential:
    """Return 3×3 convolutions with ReLU, halved after each stage: torchvision's `features`."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in _STAGES:
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers if pool_last else layers[:-1])


def _normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (x - x.new_tensor(mean).view(1, 3, 1, 1)) / x.new_tensor(std).view(1, 3, 1, 1)
