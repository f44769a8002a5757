"""Plain convolutions that halve or double the size, as DCGAN and its relatives stack them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops.conv2d import conv2d, conv_transpose2d

__all__ = [
    "KERNELS",
    "Conv2d",
    "ConvTranspose2d",
    "Projection",
    "doubling",
    "halving",
    "resolutions",
]

KERNELS = (4, 5)
"""4: padding 1 on all sides (Torch); 5: TensorFlow's SAME, 1 above and left, 2 below and right."""


class Conv2d(nn.Conv2d):
    """A convolution whose second derivatives are cheap (R1, gradient penalty)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H', W']`."""
        same = self.kernel_size == (5, 5)
        x = F.pad(x, (1, 2, 1, 2)) if same else x
        y = conv2d(x, self.weight, stride=self.stride, padding=0 if same else self.padding)
        return y if self.bias is None else y + self.bias[:, None, None]


class ConvTranspose2d(nn.ConvTranspose2d):
    """The transposed convolution, likewise; of 5 x 5 the last row and column are cut."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H', W']`."""
        y = conv_transpose2d(x, self.weight, stride=self.stride, padding=self.padding)
        y = y[:, :, :-1, :-1] if self.kernel_size == (5, 5) else y
        return y if self.bias is None else y + self.bias[:, None, None]


class Projection(ConvTranspose2d):
    """A linear layer from `[N, I, 1, 1]` to `[N, O, 4, 4]`: a bias at every place."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, 1, 1]` to `[N, O, 4, 4]`."""
        return conv_transpose2d(x, self.weight) + self.bias


def halving(in_channels: int, out_channels: int, kernel: int, bias: bool) -> Conv2d:
    """To half the size; raises ValueError for a kernel that is not in `KERNELS`."""
    _check_kernel(kernel)
    return Conv2d(in_channels, out_channels, kernel, 2, 1, bias=bias)


def doubling(in_channels: int, out_channels: int, kernel: int, bias: bool) -> ConvTranspose2d:
    """To twice the size, the adjoint of `halving`."""
    _check_kernel(kernel)
    return ConvTranspose2d(in_channels, out_channels, kernel, 2, 1, bias=bias)


def resolutions(resolution: int, family: str) -> list[int]:
    """[4, 8, ..., resolution]; raises ValueError unless it is 32, 64, 128 or 256."""
    if resolution not in (32, 64, 128, 256):
        raise ValueError(f"resolution={resolution}: {family} takes 32, 64, 128 or 256")
    return [2**i for i in range(2, resolution.bit_length())]


def _check_kernel(kernel: int) -> None:
    if kernel not in KERNELS:
        raise ValueError(f"model.network.kernel={kernel}: use one of {KERNELS}")
