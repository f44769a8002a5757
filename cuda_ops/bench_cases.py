"""What `cuda_ops.bench` times: operators at the sizes of training. A new operator is one function.

A case counts the fewest bytes a pass can move: each input read once, each output written once.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_ops.bias_act import bias_act
from cuda_ops.conv2d import conv2d
from cuda_ops.diffaugment import diffaugment
from cuda_ops.filtered_lrelu import filtered_lrelu
from cuda_ops.scale_act import scale_act
from cuda_ops.upfirdn2d import downsample2d, setup_filter, upfirdn2d, upsample2d
from cuda_ops.warp import warp

__all__ = ["OPS", "QUICK", "SIZES", "Bench", "Goal", "huge"]

SIZES = {
    "cuda": ((32, 512, 64), (16, 128, 256), (8, 32, 1024)),
    "cpu": ((16, 128, 32), (16, 64, 64)),
}
"""Batch, channels and side; three corners of 64...1024 px, 32...512 channels, batch 8...64."""

QUICK = ((2, 16, 16),)


class Goal(NamedTuple):
    """What is asked of a kernel on a GPU: never slower than the compiled reference, and more.

    `copy` is the share of copy bandwidth in bf16; `ref` and `chain` are how many times as fast as
    the reference and as our separate kernels.
    """

    copy: float | None = None
    ref: float | None = None
    chain: float | None = None


class Bench(NamedTuple):
    """An operator at one size: `call(inputs, impl)`, differentiable in the first `leaves` inputs.

    `parameters` are the inputs that stay float32 under half precision; `saved` those that a
    backward pass must read besides the output's gradient; `passes` says what is timed; `chain` does
    the same by several of our kernels.
    """

    op: str
    call: Callable[[list[Tensor], str | None], Tensor]
    shapes: tuple[tuple[int, ...], ...]
    parameters: tuple[int, ...] = ()
    saved: tuple[int, ...] = ()
    goal: Goal = Goal()
    passes: tuple[str, ...] = ("forward", "backward")
    chain: Callable[[list[Tensor]], Tensor] | None = None

    def inputs(self, dtype: torch.dtype, layout: str, device: str, seed: int) -> list[Tensor]:
        """Draw inputs on the device; images `[N, C, H, W]` are in the layout."""
        draw = torch.Generator(device).manual_seed(seed)
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        found = []
        for index, shape in enumerate(self.shapes):
            own = kept if index in self.parameters else dtype
            x = torch.randn(shape, generator=draw, device=device, dtype=own)
            if x.ndim == 4 and layout == "channels_last":
                x = x.contiguous(memory_format=torch.channels_last)
            found.append(x)
        return found

    def bytes(self, step: str, inputs: list[Tensor], output: Tensor) -> int:
        """Return the fewest bytes of a pass: forward, backward (every gradient) or double."""
        read = sum(map(_size, inputs))
        if step == "forward":
            return read + _size(output)
        return _size(output) + sum(_size(inputs[i]) for i in self.saved) + read


def _size(x: Tensor) -> int:
    return x.numel() * x.element_size()


@lru_cache
def _fir(device: str) -> Tensor:
    return setup_filter([1, 3, 3, 1]).to(device)


def _bias_act(n: int, c: int, size: int) -> Iterator[Bench]:
    yield Bench(
        "bias_act lrelu",
        lambda i, impl: bias_act(i[0], i[1], act="lrelu", clamp=256.0, impl=impl),
        ((n, c, size, size), (c,)), (1,), (0,), Goal(copy=0.85),
    )  # fmt: skip


def _upfirdn2d(n: int, c: int, size: int) -> Iterator[Bench]:
    half = (n, c, size // 2, size // 2)
    yield Bench(
        "upfirdn2d up 2",
        lambda i, impl: upsample2d(i[0], _fir(str(i[0].device)), impl=impl),
        (half,), goal=Goal(copy=0.85),
    )  # fmt: skip
    yield Bench(
        "upfirdn2d down 2",
        lambda i, impl: downsample2d(i[0], _fir(str(i[0].device)), impl=impl),
        ((n, c, size, size),), goal=Goal(copy=0.85),
    )  # fmt: skip


def _scale_act(n: int, c: int, size: int) -> Iterator[Bench]:
    yield Bench(
        "scale_act tail",
        lambda i, impl: scale_act(i[0], i[1], i[2], i[3], gain=1.4, clamp=256.0, impl=impl),
        ((n, c, size, size), (n, c), (n, 1, size, size), (c,)), (1, 2, 3), (0, 1, 2, 3),
        Goal(copy=0.8),
    )  # fmt: skip


def _filtered_lrelu(n: int, c: int, size: int) -> Iterator[Bench]:
    """A layer of alias-free generators at one rate: up 2, leaky relu, down 2, 12 taps each."""
    taps = setup_filter(torch.hann_window(14, periodic=False)[1:-1])
    options = dict(up=2, down=2, padding=11, clamp=256.0)  # 2 x 12 taps - 2, halved: same size

    def chain(i: list[Tensor]) -> Tensor:
        y = upfirdn2d(i[0] + i[1].to(i[0].dtype)[:, None, None], taps, up=2, padding=11, gain=4)
        y = bias_act(y, act="lrelu", gain=math.sqrt(2), clamp=256.0)
        return upfirdn2d(y, taps, down=2)

    yield Bench(
        "filtered_lrelu",
        lambda i, impl: filtered_lrelu(i[0], taps, taps, i[1], **options, impl=impl),
        ((n, c, size, size), (c,)), (1,), (), Goal(chain=2.0), chain=chain,
    )  # fmt: skip


def _conv2d(n: int, c: int, size: int) -> Iterator[Bench]:
    """What R1 costs: the second gradient of a convolution."""
    yield Bench(
        "conv2d 3x3",
        lambda i, impl: conv2d(i[0], i[1], padding=1, impl=impl),
        ((n, c, size, size), (c, c, 3, 3)), passes=("double",),
    )  # fmt: skip


@lru_cache(maxsize=4)
def _draws(n: int, size: int, device: str) -> dict[str, Tensor]:
    """Parameters of the augmentations: every image is flipped, turned, scaled and coloured."""
    draw = torch.Generator().manual_seed(0)
    unit = torch.rand(n, 8, generator=draw)
    angle, scale = (2 * unit[:, 0] - 1) * math.pi, (0.2 * unit[:, 1]).exp2()
    cos, sin, zero = angle.cos() * scale, angle.sin() * scale, torch.zeros(n)
    shift = (unit[:, 2:4] - 0.5) * size / 4
    last = torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1), last]
    place = torch.stack([unit[:, 4] > 0.5, 4 * unit[:, 5], *(shift / 2).round().unbind(1)], 1)
    colour = torch.eye(4) + 0.2 * torch.randn(n, 4, 4, generator=draw)
    colour[:, 3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    found = {
        "place": place.int(), "source": torch.stack(rows, 1), "colour": colour,
        "factors": unit[:, :3] + 0.25, "shift": shift.int(),
        "hole": torch.stack([unit[:, 6], unit[:, 7], zero + 0.25], 1),
    }  # fmt: skip
    return {name: t.to(device) for name, t in found.items()}


def _drawn(x: Tensor, *names: str) -> dict[str, Tensor]:
    draws = _draws(x.shape[0], x.shape[-1], str(x.device))
    return {name: draws[name] for name in names}


def _warp(n: int, c: int, size: int) -> Iterator[Bench]:
    """ADA's blit, geometry and colour on what D sees: the batch's real and fake images."""
    yield Bench(
        "warp ADA bgc",
        lambda i, impl: warp(i[0], **_drawn(i[0], "place", "source", "colour"), impl=impl),
        ((2 * n, 3, size, size),), goal=Goal(ref=5.0),
    )  # fmt: skip


def _diffaugment(n: int, c: int, size: int) -> Iterator[Bench]:
    yield Bench(
        "diffaugment",
        lambda i, impl: diffaugment(i[0], **_drawn(i[0], "factors", "shift", "hole"), impl=impl),
        ((2 * n, 3, size, size),), goal=Goal(ref=5.0),
    )  # fmt: skip


OPS: dict[str, Callable[[int, int, int], Iterator[Bench]]] = {
    "bias_act": _bias_act,
    "upfirdn2d": _upfirdn2d,
    "scale_act": _scale_act,
    "filtered_lrelu": _filtered_lrelu,
    "conv2d": _conv2d,
    "warp": _warp,
    "diffaugment": _diffaugment,
}
"""Every operator: its cases for a batch, a width and a side."""


def huge() -> Iterator[Bench]:
    """Cases of more than 2^31 elements: indices of 32 bits must not reach them."""
    for op in ("bias_act", "upfirdn2d", "scale_act"):
        yield from OPS[op](33, 64, 1024)
