"""Upsample, pad or crop, filter with a FIR kernel, downsample: the resampling of StyleGAN2.

The order is that of `scipy.signal.upfirdn`, in two dimensions, with explicit padding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops._native import channels_last, pointer, register, use_kernel
from cuda_ops.compile import cpu_kernels

__all__ = ["downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]


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
    `impl` is None (the fastest there is), "ref" or "cpu" (float32). Returns
    `[N, C, (H*up + y0 + y1 - fh) // down + 1, ...]`, differentiable to any order in `x`.
    """
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; upfirdn2d takes [N, C, H, W]")
    f = torch.ones(1) if f is None else f
    up, down, pad = _pair(up), _pair(down), _padding(padding)
    if not use_kernel(impl, x, f, cpu=lambda _: True, cuda=False, takes="float32 CPU tensors"):
        return _upfirdn2d_ref(x, f, up, down, pad, flip_filter=flip_filter, gain=gain)
    f = f if f.ndim == 2 else torch.outer(f, f)
    f = f * gain if flip_filter else f.flip((0, 1)) * gain  # the kernel correlates
    return torch.ops.cuda_ops.upfirdn2d(x, f, up, down, pad)


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
    f = f.to(device=x.device, dtype=x.dtype) * gain ** (f.ndim / 2)
    f = f if flip_filter else f.flip(tuple(range(f.ndim)))  # conv2d correlates
    if f.ndim == 2:
        x = F.conv2d(x, f.expand(c, 1, *f.shape), groups=c)
    else:
        x = F.conv2d(x, f.reshape(1, 1, 1, -1).expand(c, -1, -1, -1), groups=c)
        x = F.conv2d(x, f.reshape(1, 1, -1, 1).expand(c, -1, -1, -1), groups=c)
    return x[:, :, ::dy, ::dx]


def _upfirdn2d_cpu(
    x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], pad: Sequence[int]
) -> Tensor:
    x, f = channels_last(x), f.contiguous()
    y = _upfirdn2d_fake(x, f, up, down, pad)
    n, c, h, w = x.shape
    cpu_kernels().upfirdn2d_cpu(
        pointer(x), pointer(f), pointer(y), n, h, w, c, *y.shape[2:], *f.shape, *up, *down,
        pad[0], pad[2], torch.get_num_threads(),
    )  # fmt: skip
    return y


def _upfirdn2d_fake(
    x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], pad: Sequence[int]
) -> Tensor:
    n, c, h, w = x.shape
    oh = (h * up[1] + pad[2] + pad[3] - f.shape[0]) // down[1] + 1
    ow = (w * up[0] + pad[0] + pad[1] - f.shape[1]) // down[0] + 1
    options = dict(dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return torch.empty((n, c, oh, ow), **options)


def _save(ctx, inputs, output) -> None:
    x, f, ctx.up, ctx.down, ctx.pad = inputs
    ctx.save_for_backward(f)
    ctx.sizes = (*x.shape[2:], *output.shape[2:])


def _backward(ctx, g: Tensor) -> tuple:
    """Return the adjoint: up and down swapped, the filter turned, padding to the input's size."""
    (f,), (h, w, oh, ow) = ctx.saved_tensors, ctx.sizes
    (ux, uy), (dx, dy), (x0, _, y0, _), (fh, fw) = ctx.up, ctx.down, ctx.pad, f.shape
    x0, y0 = fw - 1 - x0, fh - 1 - y0
    x1, y1 = (w - 1) * ux - ow * dx - x0 + fw, (h - 1) * uy - oh * dy - y0 + fh
    f = f.flip((0, 1))
    return torch.ops.cuda_ops.upfirdn2d(g, f, ctx.down, ctx.up, (x0, x1, y0, y1)), *[None] * 4


register(
    "upfirdn2d(Tensor x, Tensor f, int[] up, int[] down, int[] pad) -> Tensor",
    cpu=_upfirdn2d_cpu,
    fake=_upfirdn2d_fake,
    backward=_backward,
    setup=_save,
)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    x, y = (value, value) if isinstance(value, int) else value
    if x < 1 or y < 1:
        raise ValueError(f"a resampling factor is at least 1, got {value}")
    return x, y


def _padding(value: int | Sequence[int]) -> tuple[int, int, int, int]:
    value = [value] * 4 if isinstance(value, int) else list(value)
    value = [value[0], value[0], value[1], value[1]] if len(value) == 2 else value
    if len(value) != 4:
        raise ValueError(f"padding is one number, [x, y] or [x0, x1, y0, y1], got {value}")
    return tuple(value)


def _sum(padding: int | Sequence[int], own: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(_padding(padding), own, strict=True)]
