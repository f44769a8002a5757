"""The Inception network of 2015 that FID is defined on, in plain PyTorch (Szegedy et al. 2016).

The state dict has the layout of the public port of the TensorFlow graph `inception-2015-12-05`
(`Conv2d_1a_3x3.conv.weight`, `Mixed_5b.branch1x1.bn.bias`, …, `fc.weight`). That graph differs from
later Inception v3 in its pools: averages ignore the padding, and the last block pools by maximum.
Images are resized to 299 px as TensorFlow 1 did (bilinear, no half-pixel centres, no antialias),
on 0–255 values, which then become (x − 128) / 128.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_tl.metrics.states import load_exactly, read_state

__all__ = ["Inception", "load_inception", "resize_tf1"]


class Inception(nn.Module):
    """uint8 [N, 3, R, R] → the 2048 features before the classifier ("pool3"), float32."""

    num_features = 2048
    num_classes = 1008
    resize = "TF1 bilinear (no antialias, no half-pixel centres) to 299 px"

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, _average)
        self.Mixed_7c = BlockE(2048, _maximum)
        self.fc: nn.Linear | None = nn.Linear(self.num_features, self.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 2048] of uint8 images."""
        return self.features((resize_tf1(images.float(), 299) - 128) / 128)

    def logits(self, images: Tensor) -> Tensor:
        """Scores [N, 1008] of uint8 images without the classifier's bias.

        Inception Score is defined on their softmax (Salimans et al. 2016). ValueError if the
        weights came without a classifier.
        """
        if self.fc is None:
            raise ValueError(
                "these Inception weights hold the features only: Inception Score needs a file "
                f"with fc.weight [{self.num_classes}, {self.num_features}]"
            )
        features = self(images)
        with torch.autocast(features.device.type, enabled=False):
            return features @ self.fc.weight.T

    def features(self, x: Tensor) -> Tensor:
        """Features [N, 2048] of float images [N, 3, H, W] in [-1, 1], of any size ≥ 75."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).float().mean((2, 3))


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C', H', W']."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class BlockA(nn.Module):
    """35×35 grid: 1×1, 5×5, double 3×3 and average-pool branches (Szegedy et al. 2016, fig. 5)."""

    def __init__(self, channels: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 64, 1)
        self.branch5x5_1 = Conv(channels, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(channels, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, 224 + pool_features, H, W]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], 1)


class BlockB(nn.Module):
    """35×35 → 17×17 grid reduction (fig. 10)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(channels, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, 480 + C, H/2, W/2]."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17×17 grid: 7×7 factored into 1×7 and 7×1 (fig. 6), `width` channels inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        across, down = {"padding": (0, 3)}, {"padding": (3, 0)}
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1 = Conv(768, width, 1)
        self.branch7x7_2 = Conv(width, width, (1, 7), **across)
        self.branch7x7_3 = Conv(width, 192, (7, 1), **down)
        self.branch7x7dbl_1 = Conv(768, width, 1)
        self.branch7x7dbl_2 = Conv(width, width, (7, 1), **down)
        self.branch7x7dbl_3 = Conv(width, width, (1, 7), **across)
        self.branch7x7dbl_4 = Conv(width, width, (7, 1), **down)
        self.branch7x7dbl_5 = Conv(width, 192, (1, 7), **across)
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 768, H, W] → [N, 768, H, W]."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """17×17 → 8×8 grid reduction."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(channels, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(channels, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, 512 + C, H/2, W/2]."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8×8 grid: 3×3 split side by side into 1×3 and 3×1 (fig. 7); `pool` differs by place."""

    def __init__(self, channels: int, pool: object) -> None:
        super().__init__()
        self._pool = pool
        self.branch1x1 = Conv(channels, 320, 1)
        self.branch3x3_1 = Conv(channels, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Conv(channels, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, 2048, H, W]."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat([
            self.branch1x1(x),
            self.branch3x3_2a(three), self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double),
            self.branch_pool(self._pool(x)),
        ], 1)  # fmt: skip


def resize_tf1(images: Tensor, size: int) -> Tensor:
    """Float [N, C, H, W] → [N, C, size, size] as TensorFlow 1's `resize_bilinear` did by default.

    Output pixel i lies at input i · H / size: corners are not aligned, pixel centres are ignored.
    """
    for dim in (2, 3):
        images = _resize_one(images, size, dim)
    return images


def _resize_one(images: Tensor, size: int, dim: int) -> Tensor:
    length = images.shape[dim]
    position = torch.arange(size, dtype=torch.float32, device=images.device) * (length / size)
    low = position.long().clamp_max(length - 1)
    weight = (position - low).view([-1 if d == dim else 1 for d in range(4)])
    below = images.index_select(dim, low)
    above = images.index_select(dim, (low + 1).clamp_max(length - 1))
    return below + (above - below) * weight


def load_inception(path: str | Path) -> Inception:
    """Read the network from a state dict (`.pth`, or `.safetensors`); ValueError if it is another.

    A file without the classifier (`fc.weight`) gives features and no logits. Torchvision's
    Inception v3 has the same names and is refused by its 1 000 classes and auxiliary head.
    """
    state = read_state(path)
    network = Inception()
    if "fc.weight" not in state:
        network.fc = None
    load_exactly(network, state, path, "the 2015 Inception state dict", optional=("fc.bias",))
    return network.eval()


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)
