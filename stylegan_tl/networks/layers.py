"""The layers of StyleGAN2: equalised learning rate, modulation, resampling, batch statistics."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cuda_ops.bias_act import ACTIVATIONS, bias_act
from cuda_ops.conv2d import conv2d
from cuda_ops.conv3x3 import conv3x3
from cuda_ops.scale_act import scale_act
from cuda_ops.upfirdn2d import downsample2d, setup_filter

__all__ = [
    "FIR",
    "Conv2d",
    "FullyConnected",
    "Miner",
    "channels",
    "check_labels",
    "check_noise",
    "demodulation",
    "laid_out",
    "minibatch_std",
    "normalize_2nd_moment",
    "resolutions_to",
]

FIR = (1.0, 3.0, 3.0, 1.0)
"""The resampling filter of StyleGAN2 (Zhang 2019; Karras 2020, appendix B)."""


SQRT2 = math.sqrt(2)


def channels(resolution: int, base: int, maximum: int) -> int:
    """Return the width at `resolution`: `base / resolution`, at most `maximum`."""
    return min(base // resolution, maximum)


def resolutions_to(resolution: int) -> list[int]:
    """4, 8, ... up to `resolution`; ValueError unless that is a power of two from 8."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution={resolution}: a power of two from 8 is asked for")
    return [2**i for i in range(2, resolution.bit_length())]


def laid_out(x: Tensor) -> Tensor:
    """Return features `x [N, C, H, W]` in the layout that their device and dtype work best in.

    Channels last: so the CPU kernels vectorise, and so tensor cores take half-width numbers. Only
    float32 on CUDA stays contiguous. The layers keep the layout that they are given.
    """
    plain = x.device.type == "cuda" and x.dtype == torch.float32
    return x.contiguous(memory_format=torch.contiguous_format if plain else torch.channels_last)


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Scale `x` to a mean square of one along `dim`."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


class FullyConnected(nn.Module):
    """A linear layer with equalised learning rate (Karras 2018): `act(x @ W^T * gain + b)`.

    The gain of `act` (He et al. 2015) follows the activation, as in StyleGAN2, or with `he` is on
    the weight, as in StyleGAN: then it is not on the bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        act: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        he: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.act, self.act_gain = act, 1.0 if he else ACTIVATIONS[act].gain
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.weight_gain *= ACTIVATIONS[act].gain if he else 1.0
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, in]` to `[N, out]`."""
        b = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        if self.act == "linear":
            return torch.addmm(b, x, self.weight.t(), alpha=self.weight_gain)
        y = x @ (self.weight * self.weight_gain).t()
        return bias_act(y, b, act=self.act, gain=self.act_gain)


class Miner(nn.Module):
    """z to the z that a generator gets, for the latents that fit a target (Wang 2020, MineGAN).

    `z + last(relu(first(z)))` with `last` zero at the start, so that it begins as the identity.
    """

    def __init__(self, first: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.first, self.last = first, last
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor) -> Tensor:
        """Map `[N, z_dim]` to `[N, z_dim]`."""
        return z + self.last(F.relu(self.first(z)))


class Conv2d(nn.Module):
    """A convolution with equalised learning rate and activation, optionally halving the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        act: str = "lrelu",
        bias: bool = True,
        down: int = 1,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("fir", setup_filter(FIR) if down == 2 else None, persistent=False)
        self.act, self.down = act, down
        self.weight_gain = 1 / math.sqrt(in_channels * kernel * kernel)

    def forward(self, x: Tensor, *, gain: float = 1.0, clamp: float | None = None) -> Tensor:
        """Map `[N, C_in, H, W]` to `[N, C_out, H / down, W / down]` in the dtype of `x`."""
        linear = self.act == "linear"
        weight_gain = self.weight_gain * (gain if linear else 1)  # no bias where linear
        weight = self.weight * weight_gain
        tail = dict(b=self.bias, slope=1.0 if linear else 0.2, gain=1.0 if linear else gain * SQRT2)
        tail["clamp"] = None if clamp is None or linear else clamp * gain
        if weight.shape[2] == 3:
            return conv3x3(x, weight, self.fir, down=self.down, **tail)
        x = downsample2d(x, self.fir) if self.down == 2 else x
        y = conv2d(x, weight.to(x.dtype))
        return y if linear else scale_act(y, **tail)


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Return the factors `[N, O]` that give outputs unit variance (Karras 2020, equation 3).

    `rsqrt(sum_{i,k} (s_i w_oik)^2 + 1e-8)` is `rsqrt(s^2 @ sum_k w^2 + 1e-8)`.
    """
    return (styles.square() @ weight.square().sum((2, 3)).t() + 1e-8).rsqrt()


def minibatch_std(x: Tensor, group_size: int, chunks: int = 1) -> Tensor:
    """Append one channel: the mean standard deviation over a group of samples (Karras 2018).

    `[N, C, H, W]` to `[N, C + 1, H, W]`. Groups take the largest size up to `group_size` that
    divides the batch; sample `i` of `n` is in group `i % (n / size)`. `chunks` splits the batch
    into equal parts first and no group crosses them (real and fake in one batch).
    """
    n, c, h, w = x.shape
    if n % chunks:
        raise ValueError(f"a batch of {n} does not split into chunks={chunks} equal parts")
    per_chunk = n // chunks
    size = max(g for g in range(1, min(group_size, per_chunk) + 1) if per_chunk % g == 0)
    y = x.float().reshape(chunks, size, per_chunk // size, c, h, w)
    y = y - y.mean(dim=1, keepdim=True)
    std = (y.square().mean(dim=1) + 1e-8).sqrt().mean(dim=(2, 3, 4))  # [chunks, groups]
    std = std.to(x.dtype).repeat(1, size).reshape(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, std], dim=1)


def check_labels(c: Tensor | None, c_dim: int) -> None:
    """Raise ValueError unless labels `c` are `[N, c_dim]`; a network with c_dim 0 takes any."""
    if c_dim > 0 and (c is None or c.ndim != 2 or c.shape[1] != c_dim):
        came = "none" if c is None else f"shape {tuple(c.shape)}"
        raise ValueError(f"this network takes labels [N, {c_dim}], got {came}")


def check_noise(mode: str) -> None:
    """Raise ValueError unless `mode` is a way that a synthesis network makes noise."""
    modes = ("random", "const", "none")
    if mode not in modes:
        raise ValueError(f"noise={mode!r} is unknown; allowed: {', '.join(modes)}")
