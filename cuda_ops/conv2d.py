"""3x3 convolutions of StyleGAN2, plain and resampling, on CPU by Winograd's minimal filtering.

F(4x4, 3x3) takes a quarter of the products of a direct sum and, with stride 2, F(4, 2) on the even
samples takes 81 of 144 (Winograd 1980; Lavin & Gray 2016), with rounding errors some three times
as large, about 1e-6 of the result. Forward, gradients and gradients of gradients are the same two
operators.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops._native import channels_last, native, pointer, register
from cuda_ops.compile import cpu_kernels
from cuda_ops.upfirdn2d import upfirdn2d

__all__ = ["conv3x3", "conv3x3_down2", "conv3x3_up2"]

_BLOCK, _GRAD_BLOCK = 14, 32  # 4x4 tiles that stay in cache together
_MIN_TILES = 16  # fewer do not pay for the transform of the filter


def conv3x3(x: Tensor, w: Tensor, *, impl: str | None = None) -> Tensor:
    """Correlate `x [N, I, H, W]` with `w [O, I, 3, 3]`, stride 1, padding 1: `[N, O, H, W]`.

    `impl` is None (the fastest there is), "ref" (`F.conv2d`) or "cpu" (Winograd: float32, channels
    a multiple of the vector length; ValueError otherwise).
    """
    if _use_cpu(x, w, 1, impl):
        return torch.ops.cuda_ops.winograd(x, w, 1, False)
    return _conv3x3_ref(x, w)


def conv3x3_down2(x: Tensor, w: Tensor, f: Tensor, *, impl: str | None = None) -> Tensor:
    """Filter `x [N, I, H, W]` with the 4 taps `f`, correlate with `w [O, I, 3, 3]`, stride 2.

    The result, `[N, O, H / 2, W / 2]`, is aligned to the centre of the image. `impl` as for
    `conv3x3`; "cpu" takes even H and W.
    """
    if x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0 and _use_cpu(x, w, 2, impl):
        return torch.ops.cuda_ops.winograd(upfirdn2d(x, f, padding=2), w, 2, False)
    return _conv3x3_down2_ref(x, w, f)


def conv3x3_up2(x: Tensor, w: Tensor, f: Tensor, *, impl: str | None = None) -> Tensor:
    """Zero-insert `x [N, I, H, W]`, convolve with `w [O, I, 3, 3]`, filter with the 4 taps `f`.

    The result, `[N, O, 2H, 2W]`, is aligned to the centre and has the brightness of the input
    (gain 4). `impl` as for `conv3x3`.
    """
    if _use_cpu(x, w, 1, impl):
        y = torch.ops.cuda_ops.winograd(x, w.transpose(0, 1), 2, True)
        return upfirdn2d(y, f, padding=1, gain=4)
    return _conv3x3_up2_ref(x, w, f)


def _conv3x3_ref(x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x, w, padding=1)


def _conv3x3_down2_ref(x: Tensor, w: Tensor, f: Tensor) -> Tensor:
    return F.conv2d(upfirdn2d(x, f, padding=2, impl="ref"), w, stride=2)


def _conv3x3_up2_ref(x: Tensor, w: Tensor, f: Tensor) -> Tensor:
    y = F.conv_transpose2d(x, w.transpose(0, 1), stride=2)
    return upfirdn2d(y, f, padding=1, gain=4, impl="ref")


def _use_cpu(x: Tensor, w: Tensor, down: int, impl: str | None) -> bool:
    if impl not in (None, "ref", "cpu"):
        raise ValueError(f"impl={impl!r} is unknown; allowed: None, 'ref', 'cpu'")
    if w.ndim != 4 or w.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(f"w {tuple(w.shape)} does not fit x {tuple(x.shape)}")
    able = impl != "ref" and native(x, w, channels=x.shape[1]) and native(channels=w.shape[0])
    if impl == "cpu" and not able:
        raise ValueError("impl='cpu' takes float32 CPU tensors, channels a multiple of 16")
    n, _, h, width = x.shape
    pays = n * ((h // down + 3) // 4) * ((width // down + 3) // 4) >= _MIN_TILES
    return able and (pays or impl == "cpu")


def _winograd(x: Tensor, w: Tensor, by: int, adjoint: bool) -> Tensor:
    """Correlate `x` with `w [O, I, 3, 3]`, stride `by`; or (`x` has O channels) the adjoint.

    Stride 1 has padding 1; stride 2 has none and takes odd sizes: 2H + 1 to H.
    """
    kernels, threads = cpu_kernels(), torch.get_num_threads()
    x, y = channels_last(x), _winograd_fake(x, w, by, adjoint)
    w = w.permute((2, 3, 0, 1) if adjoint else (2, 3, 1, 0)).contiguous()
    sizes = (min(a, b) for a, b in zip(x.shape[2:], y.shape[2:], strict=True))
    k, c = w.shape[2:]
    scratch = x.new_empty(kernels.winograd_conv_scratch(k, c, by, _BLOCK, threads))
    kernels.winograd_conv(
        *map(pointer, (x, w, y, scratch)), x.shape[0], *sizes, k, c, by, adjoint, _BLOCK, threads
    )
    return y


def _winograd_fake(x: Tensor, w: Tensor, by: int, adjoint: bool) -> Tensor:
    n, _, h, width = x.shape
    if by == 2:
        h, width = (2 * h + 1, 2 * width + 1) if adjoint else (h // 2, width // 2)
    options = dict(dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return torch.empty((n, w.shape[1 if adjoint else 0], h, width), **options)


def _winograd_grad(x: Tensor, dy: Tensor, by: int) -> Tensor:
    """Return the gradient of `w` in `winograd(x, w, by, False)`."""
    kernels = cpu_kernels()
    x, dy = channels_last(x), channels_last(dy)
    n, co, h, w = dy.shape
    ci, tiles = x.shape[1], n * ((h + 3) // 4) * ((w + 3) // 4)
    threads = max(1, min(torch.get_num_threads(), tiles // _GRAD_BLOCK))
    dw = x.new_empty(3, 3, ci, co)
    scratch = x.new_empty(kernels.winograd_grad_scratch(ci, co, by, _GRAD_BLOCK, threads))
    kernels.winograd_grad(
        *map(pointer, (x, dy, dw, scratch)), n, h, w, ci, co, by, _GRAD_BLOCK, threads
    )
    return dw.permute(3, 2, 0, 1)


def _winograd_grad_fake(x: Tensor, dy: Tensor, by: int) -> Tensor:
    return x.new_empty(3, 3, x.shape[1], dy.shape[1]).permute(3, 2, 0, 1)


def _save_winograd(ctx, inputs, output) -> None:
    x, w, ctx.by, ctx.adjoint = inputs
    ctx.save_for_backward(x, w)


def _winograd_backward(ctx, g: Tensor) -> tuple:
    """Differentiate <g, winograd(x, w)>: both gradients are operators of this file again."""
    x, w = ctx.saved_tensors
    dx = dw = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.cuda_ops.winograd(g, w, ctx.by, not ctx.adjoint)
    if ctx.needs_input_grad[1]:
        fine, coarse = (g, x) if ctx.adjoint else (x, g)
        dw = torch.ops.cuda_ops.winograd_grad(fine, coarse, ctx.by)
    return dx, dw, None, None


def _save_grad(ctx, inputs, output) -> None:
    x, dy, ctx.by = inputs
    ctx.save_for_backward(x, dy)


def _grad_backward(ctx, h: Tensor) -> tuple:
    """Differentiate <h, winograd_grad(x, dy)> = <dy, winograd(x, h)>."""
    x, dy = ctx.saved_tensors
    dx = ddy = None
    if ctx.needs_input_grad[0]:
        dx = torch.ops.cuda_ops.winograd(dy, h, ctx.by, True)
    if ctx.needs_input_grad[1]:
        ddy = torch.ops.cuda_ops.winograd(x, h, ctx.by, False)
    return dx, ddy, None


register(
    "winograd(Tensor x, Tensor w, int by, bool adjoint) -> Tensor",
    _winograd,
    _winograd_fake,
    _winograd_backward,
    _save_winograd,
)
register(
    "winograd_grad(Tensor x, Tensor dy, int by) -> Tensor",
    _winograd_grad,
    _winograd_grad_fake,
    _grad_backward,
    _save_grad,
)
