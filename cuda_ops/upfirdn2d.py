"""Upsample, pad or crop, filter with a FIR kernel, downsample: the resampling of StyleGAN2.

The order is that of `scipy.signal.upfirdn`, in two dimensions, with explicit padding.
"""

from collections.abc import Sequence
from ctypes import c_double, c_int64

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops._native import launch, pointer, register, use_kernel
from cuda_ops.compile import cpu_kernels

__all__ = ["downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]

BY_VALUE = 160
"""So many taps fit the arguments of a CUDA kernel (csrc/upfirdn2d.cuh)."""


def setup_filter(
    taps: Tensor | Sequence[float] | None,
    *,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Return a float32 FIR filter: 1-D (separable: applied in x and in y) or 2-D `[fh, fw]`.

    `normalize` makes the taps sum to one; `gain` is the gain of the whole 2-D filter; None means
    the identity. Raises ValueError if the taps are empty or have more than two dimensions.
    """
    f = torch.as_tensor([1.0] if taps is None else taps, dtype=torch.float32)
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"a filter has 1 or 2 dimensions and at least one tap, got {f.shape}")
    f = f / f.sum() if normalize else f
    f = f.flip(tuple(range(f.ndim))) if flip_filter else f
    return f * gain ** (f.ndim / 2)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str | None = None,
) -> Tensor:
    """Insert `up - 1` zeros after each pixel, pad, convolve with `f`, keep each `down`-th pixel.

    `x` is `[N, C, H, W]`; `f` comes from `setup_filter` and takes no gradient. `up` and `down` are
    one factor or `[x, y]`; `padding` is one number, `[x, y]` or `[x0, x1, y0, y1]` in pixels after
    the upsampling and may be negative (crop). `flip_filter=True` correlates instead of convolving.
    `impl` is None (the fastest there is), "ref", "cpu" (float32) or "cuda". Returns
    `[N, C, (H*up + y0 + y1 - fh) // down + 1, ...]` in the layout of `x` (contiguous or
    channels_last), differentiable to any order in `x`; ValueError if nothing would be left.

    `f` may stay on the CPU for `x` on a GPU: up to 160 taps travel as arguments of the kernel,
    without a copy or a wait (so also in CUDA graphs); a larger one is best kept on the GPU.
    """
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; upfirdn2d takes [N, C, H, W]")
    f = torch.ones(1) if f is None else f
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"a filter has 1 or 2 dimensions and at least one tap, got {f.shape}")
    up, down, pad = _pair(up), _pair(down), _padding(padding)
    _output_size(x, f.shape[-1], f.shape[0], up, down, pad)
    f = f.cpu() if x.device.type == "cpu" else f
    if not use_kernel(impl, x, cpu=True, cuda=True, takes="float32 tensors on the CPU"):
        return _upfirdn2d_ref(x, f, up, down, pad, flip_filter=flip_filter, gain=gain)
    fy = f if f.ndim == 1 else None
    return torch.ops.cuda_ops.upfirdn2d(x, f, fy, up, down, pad, flip_filter, gain)


def filter2d(
    x: Tensor,
    f: Tensor,
    *,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str | None = None,
) -> Tensor:
    """Filter `[N, C, H, W]` at its own size; `padding` is added to the padding that keeps it."""
    fw, fh = f.shape[-1], f.shape[0]
    own = (fw // 2, (fw - 1) // 2, fh // 2, (fh - 1) // 2)
    return upfirdn2d(
        x, f, padding=_sum(padding, own), flip_filter=flip_filter, gain=gain, impl=impl
    )


def upsample2d(
    x: Tensor,
    f: Tensor,
    *,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str | None = None,
) -> Tensor:
    """Enlarge `[N, C, H, W]` by `up`, aligned to the centre of the image, brightness kept."""
    ux, uy = _pair(up)
    fw, fh = f.shape[-1], f.shape[0]
    own = ((fw + ux - 1) // 2, (fw - ux) // 2, (fh + uy - 1) // 2, (fh - uy) // 2)
    return upfirdn2d(
        x,
        f,
        up=up,
        padding=_sum(padding, own),
        flip_filter=flip_filter,
        gain=gain * ux * uy,
        impl=impl,
    )


def downsample2d(
    x: Tensor,
    f: Tensor,
    *,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str | None = None,
) -> Tensor:
    """Reduce `[N, C, H, W]` by `down`, aligned to the centre of the image."""
    dx, dy = _pair(down)
    fw, fh = f.shape[-1], f.shape[0]
    own = ((fw - dx + 1) // 2, (fw - dx) // 2, (fh - dy + 1) // 2, (fh - dy) // 2)
    return upfirdn2d(
        x, f, down=down, padding=_sum(padding, own), flip_filter=flip_filter, gain=gain, impl=impl
    )


def _upfirdn2d_ref(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    *,
    flip_filter: bool,
    gain: float,
) -> Tensor:
    n, c, h, w = x.shape
    (ux, uy), (dx, dy), (x0, x1, y0, y1) = up, down, padding
    x = x.reshape(n, c, h, 1, w, 1)
    x = F.pad(x, [0, ux - 1, 0, 0, 0, uy - 1]).reshape(n, c, h * uy, w * ux)
    x = F.pad(x, [x0, x1, y0, y1])
    if c == 0:  # conv2d takes no empty group
        return x[:, :, : x.shape[2] - f.shape[0] + 1 : dy, : x.shape[3] - f.shape[-1] + 1 : dx]
    f = f.to(device=x.device, dtype=x.dtype) * gain ** (f.ndim / 2)
    f = f if flip_filter else f.flip(tuple(range(f.ndim)))  # conv2d correlates
    if f.ndim == 2:
        x = F.conv2d(x, f.expand(c, 1, *f.shape), groups=c)
    else:
        x = F.conv2d(x, f.reshape(1, 1, 1, -1).expand(c, -1, -1, -1), groups=c)
        x = F.conv2d(x, f.reshape(1, 1, -1, 1).expand(c, -1, -1, -1), groups=c)
    return x[:, :, ::dy, ::dx]


def is_channels_last(x: Tensor) -> bool:
    """Say which of the two dense layouts is that of `x`, or nearer to it if it has neither."""
    if x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last) or (x.stride(1) == 1 < x.shape[1])


def _output_size(
    x: Tensor, fw: int, fh: int, up: Sequence[int], down: Sequence[int], pad: Sequence[int]
) -> tuple[int, int]:
    """Return the height and width; ValueError if there is nothing left."""
    oh = (x.shape[2] * up[1] + pad[2] + pad[3] - fh) // down[1] + 1
    ow = (x.shape[3] * up[0] + pad[0] + pad[1] - fw) // down[0] + 1
    if oh < 1 or ow < 1:
        raise ValueError(
            f"x {tuple(x.shape)} with up={tuple(up)}, down={tuple(down)}, padding={tuple(pad)} "
            f"leaves no output under a filter of {fh} x {fw} taps: {oh} x {ow} pixels"
        )
    return oh, ow


def _count(fx: Tensor, fy: Tensor | None) -> int:
    return fx.numel() + (0 if fy is None else fy.numel())


def _filter_size(fx: Tensor, fy: Tensor | None) -> tuple[int, int]:
    return fx.shape[-1], fx.shape[0] if fy is None else fy.shape[0]


def _fake(
    x: Tensor,
    fx: Tensor,
    fy: Tensor | None,
    up: Sequence[int],
    down: Sequence[int],
    pad: Sequence[int],
    flip: bool,
    gain: float,
) -> Tensor:
    size = _output_size(x, *_filter_size(fx, fy), up, down, pad)
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    shape = (*x.shape[:2], *size)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _dense(x: Tensor, last: bool) -> Tensor:
    """Return `x` in one layout, whatever the strides of its axes of size 1."""
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _cpu(x, fx, fy, up, down, pad, flip, gain) -> Tensor:
    """Filter rows, then columns: of planes or of 8 and more channels; 2-D filters channels last."""
    y, last = _fake(x, fx, fy, up, down, pad, flip, gain), is_channels_last(x)
    nhwc = fy is None or (last and x.shape[1] >= 8)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    out = torch.empty_like(y, memory_format=layout) if nhwc != last else y
    x, (fx, fy) = _dense(x, nhwc), _taps(x, fx, fy, x.device)
    n, c, h, w = x.shape
    n, c = (n, c) if nhwc else (n * c, 1)
    fw, fh = _filter_size(fx, fy)
    tensors = (x, fx, out) if fy is None else (x, fx, fy, out)
    sizes = (n, h, w, c, *y.shape[2:], fh, fw, *up, *down, pad[0], pad[2], flip)
    name = "upfirdn2d_cpu" if fy is None else "upfirdn2d_separable_cpu"
    getattr(cpu_kernels(), name)(
        *map(pointer, tensors), *map(c_int64, sizes), c_double(gain),
        c_int64(torch.get_num_threads()),
    )  # fmt: skip
    return y if out is y else y.copy_(out)


def _cuda(x, fx, fy, up, down, pad, flip, gain) -> Tensor:
    y, last = _fake(x, fx, fy, up, down, pad, flip, gain), is_channels_last(x)
    if y.numel() == 0:
        return y
    by_value = fx.device.type == "cpu" and _count(fx, fy) <= BY_VALUE
    x, (fx, fy) = _dense(x, last), _taps(x, fx, fy, fx.device if by_value else x.device)
    fw, fh = _filter_size(fx, fy)
    launch(
        "upfirdn2d", x, x, fx, fy, y, *x.shape, *y.shape[2:], fh, fw, *up, *down, pad[0], pad[2],
        flip, by_value, last, float(gain),
    )  # fmt: skip
    return y


def _taps(
    x: Tensor, fx: Tensor, fy: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return the filters in the dtype of the arithmetic, as the kernels read them."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    fx = fx.to(device=device, dtype=dtype).contiguous()
    return fx, None if fy is None else fy.to(device=device, dtype=dtype).contiguous()


def _save(ctx, inputs, output) -> None:
    x, fx, fy, ctx.up, ctx.down, ctx.pad, ctx.flip, ctx.gain = inputs
    ctx.save_for_backward(fx, fy)
    ctx.sizes = (*x.shape[2:], *output.shape[2:])


def _backward(ctx, g: Tensor) -> tuple:
    """Return the adjoint: up and down swapped, the filter turned, padding to the input's size."""
    (fx, fy), (h, w, oh, ow) = ctx.saved_tensors, ctx.sizes
    (ux, uy), (dx, dy), (x0, _, y0, _), (fw, fh) = ctx.up, ctx.down, ctx.pad, _filter_size(fx, fy)
    x0, y0 = fw - 1 - x0, fh - 1 - y0
    x1, y1 = (w - 1) * ux - ow * dx - x0 + fw, (h - 1) * uy - oh * dy - y0 + fh
    pad = (x0, x1, y0, y1)
    options = (ctx.down, ctx.up, pad, not ctx.flip, ctx.gain)
    return torch.ops.cuda_ops.upfirdn2d(g, fx, fy, *options), *[None] * 7


register(
    "upfirdn2d(Tensor x, Tensor fx, Tensor? fy, int[] up, int[] down, int[] pad, bool flip, "
    "float gain) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup=_save,
)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    pair = [value, value] if isinstance(value, int) else list(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"a resampling factor is at least 1, one or [x, y], got {value}")
    return pair[0], pair[1]


def _padding(value: int | Sequence[int]) -> tuple[int, int, int, int]:
    value = [value] * 4 if isinstance(value, int) else list(value)
    value = [value[0], value[0], value[1], value[1]] if len(value) == 2 else value
    if len(value) != 4:
        raise ValueError(f"padding is one number, [x, y] or [x0, x1, y0, y1], got {value}")
    return tuple(value)


def _sum(padding: int | Sequence[int], own: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(_padding(padding), own, strict=True)]
