"""The nonlinearity of alias-free generators: bias, up, leaky relu, down, in one kernel.

`y = down(fd, clamp(gain * lrelu(up(fu, x + b))))`: the leaky relu acts on an upsampled signal, so
that the frequencies which it makes are filtered away instead of folding back (Karras 2021). On CUDA
the upsampled signal stays in shared memory; for the gradient two bits of each of its samples are
kept (negative, clamped), and the gradient is the same kernel with its filters swapped.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cuda_ops._native import launch, register, use_kernel
from cuda_ops.bias_act import bias_act
from cuda_ops.scale_act import limit_of
from cuda_ops.upfirdn2d import BY_VALUE, _padding, _taps, is_channels_last, upfirdn2d

__all__ = ["filtered_lrelu"]

_SHARED = 64 * 1024
"""Bytes of shared memory that a block may have on every GPU that torch still serves (sm_75 on)."""
_PER_PHASE = 6  # taps per factor that the unrolled kernels take (csrc/filtered_lrelu.cuh)
_NOTHING, _WRITE, _READ = 0, 1, 2


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str | None = None,
) -> Tensor:
    """Apply the filtered leaky relu to `x [N, C, H, W]` with the bias `b [C]`.

    Three steps: `upfirdn2d(x + b, fu, up, padding, gain=up ** 2)`; leaky relu with `slope`, times
    `gain`, clamped to `[-clamp, clamp]`; `upfirdn2d(., fd, down)`. `padding` is in upsampled pixels
    and may be negative. The filters come from `setup_filter` and take no gradient; None is the
    identity; 1-D ones are fused on CUDA (contiguous; channels_last is converted and back), 2-D
    ones and those too long for shared memory run the three steps. Filters may stay on the CPU.

    On the CPU the three steps run by their own kernels (tried: fused, plane by plane, is slower).

    `impl` is None (the fastest there is), "ref" (three native steps) or "cuda" (the fused kernel).
    Returns `[N, C, (mh - len(fd)) // down + 1, ...]`, where `mh = H*up + y0 + y1 - len(fu) + 1`, in
    the layout of `x`; differentiable to any order in `x` and `b`. ValueError for an empty output.
    """
    given = next((f for f in (fu, fd) if f is not None), torch.ones(1))
    fu, fd = (given.new_ones(1) if f is None else f for f in (fu, fd))  # both on one device
    pad = _padding(padding)
    _check(x, fu, fd, b, up, down, pad)
    limit = limit_of(clamp)
    able = fu.ndim == fd.ndim == 1
    able = able and _fits(up, down, fu.shape[0], fd.shape[0], x.element_size())
    takes = "1-D filters of moderate length on CUDA tensors"
    if use_kernel(impl, x, b, cpu=False, cuda=able, takes=takes):
        keep = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
        options = (up, down, pad, gain, slope, limit, flip_filter, keep)
        return torch.ops.cuda_ops.filtered_lrelu(x, fu, fd, b, *options)[0]
    options = dict(gain=gain, slope=slope, clamp=clamp, flip_filter=flip_filter, impl=impl)
    return _filtered_lrelu_ref(x, fu, fd, b, up=up, down=down, padding=pad, **options)


def _filtered_lrelu_ref(
    x: Tensor,
    fu: Tensor,
    fd: Tensor,
    b: Tensor | None,
    *,
    up: int,
    down: int,
    padding: Sequence[int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
    impl: str | None = "ref",
) -> Tensor:
    """Compose the three public operations; each by its own `impl`."""
    x = x if b is None else bias_act(x, b.to(x.dtype), impl=impl)
    options = dict(flip_filter=flip_filter, impl=impl)
    x = upfirdn2d(x, fu, up=up, padding=padding, gain=up**2, **options)
    x = bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp, impl=impl)
    return upfirdn2d(x, fd, down=down, **options)


def _check(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor | None, up: int, down: int, pad: Sequence[int]
) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; filtered_lrelu takes [N, C, H, W]")
    if b is not None and b.shape != x.shape[1:2]:
        raise ValueError(f"b has shape {tuple(b.shape)}; x {tuple(x.shape)} takes ({x.shape[1]},)")
    if up < 1 or down < 1:
        raise ValueError(f"a resampling factor is at least 1, got up={up}, down={down}")
    for f in (fu, fd):
        if f.ndim not in (1, 2) or f.numel() == 0:
            raise ValueError(f"a filter has 1 or 2 dimensions and at least one tap, got {f.shape}")
    for size, axis, before, after in zip(x.shape[:1:-1], (-1, 0), pad[::2], pad[1::2], strict=True):
        length = size * up + before + after - fu.shape[axis] + 1
        if length < fd.shape[axis]:
            raise ValueError(
                f"x {tuple(x.shape)} with up={up}, padding={tuple(pad)} leaves {length} samples "
                f"for a filter of {fd.shape[axis]} taps: no output"
            )


def _sizes(
    h: int, w: int, fu: Tensor, fd: Tensor, up: int, down: int, pad: Sequence[int]
) -> tuple[int, int, int, int]:
    """Return the height and width of the output, then of the upsampled signal that it needs."""
    outs, mids = [], []
    for size, padding in ((h, pad[2] + pad[3]), (w, pad[0] + pad[1])):
        length = size * up + padding - fu.shape[0] + 1
        outs.append((length - fd.shape[0]) // down + 1)
        mids.append((outs[-1] - 1) * down + fd.shape[0])
    return *outs, *mids


def _plan(
    up: int, down: int, up_taps: int, down_taps: int, bytes_per: int, out: int = 32
) -> tuple[int, ...] | None:
    """Return (fast, tile, mid, in, k1, k2, bytes) for outputs of `out` pixels, or None.

    These are the sides of the tiles of y, m and x in csrc/filtered_lrelu.cuh, the taps with the
    zeros after them, and the shared memory of a block. `fast` says that unrolled kernels serve.
    """
    fast = (up, down) in ((2, 2), (4, 2), (2, 4))
    fast = fast and up_taps <= _PER_PHASE * up and down_taps <= _PER_PHASE * down
    k1, k2 = (_PER_PHASE * up, _PER_PHASE * down) if fast else (up_taps, down_taps)
    for tile in (32, 16, 8, 4):
        step = 8 if fast else up
        mid = -(-((tile - 1) * down + max(k2, down) + up - 1) // step) * step
        across = mid // up - (-k1 // up)
        one = max(across * (across | 1), mid * (mid | 1))
        two = max(across * (mid | 1), mid * (tile | 1))
        shared = (k1 + k2 + one + two) * max(4, bytes_per)
        if shared <= _SHARED and (tile < 2 * out or tile == 4):
            return int(fast), tile, mid, across, k1, k2, shared
    return None


def _fits(up: int, down: int, up_taps: int, down_taps: int, bytes_per: int) -> bool:
    """Say whether a tile of the pass and of its gradient fit in shared memory."""
    both = ((up, down, up_taps, down_taps), (down, up, down_taps, up_taps))
    return all(_plan(*one, bytes_per) is not None for one in both)


def _pass(
    x: Tensor,
    b: Tensor | None,
    bits: Tensor | None,
    first: tuple[Tensor, int, int, int, float],
    second: tuple[Tensor, int, int, int, float],
    mid: tuple[int, int],
    y: Tensor,
    flip: bool,
    mode: int,
    activation: tuple[float, float, float],
) -> None:
    """Launch one pass: a filter is given as (taps, factor, pad x, pad y, gain per axis)."""
    if y.numel() == 0:
        return
    (f1, u, p1x, p1y, gain1), (f2, d, p2x, p2y, gain2) = first, second
    by_value = f1.device.type == f2.device.type == "cpu" and len(f1) + len(f2) <= BY_VALUE
    device = f1.device if by_value else x.device
    (f1, _), (f2, _) = _taps(x, f1, None, device), _taps(x, f2, None, device)
    plan = _plan(u, d, len(f1), len(f2), x.element_size(), min(y.shape[2:]))
    fast, tile, mid_tile, in_tile, k1, k2, shared = plan
    launch(
        "filtered_lrelu_pass", x, x, f1, f2, b, bits, y, *x.shape, *mid, *y.shape[2:], u, d, p1x,
        p1y, p2x, p2y, len(f1), len(f2), fast, tile, mid_tile, in_tile, k1, k2, shared, flip,
        by_value, mode, gain1, gain2, *map(float, activation),
    )  # fmt: skip


def _empty(x: Tensor, h: int, w: int, layout: torch.memory_format) -> Tensor:
    shape = (*x.shape[:2], h, w)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _like(y: Tensor, x: Tensor) -> Tensor:
    """Return the contiguous `y` in the layout of `x`."""
    last = is_channels_last(x)
    return y.contiguous(memory_format=torch.channels_last) if last else y


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def _forward_fake(
    x, fu, fd, b, up, down, pad, gain, slope, clamp, flip, keep
) -> tuple[Tensor, Tensor]:
    oh, ow, mh, mw = _sizes(*x.shape[2:], fu, fd, up, down, pad)
    shape = (*x.shape[:2], mh, (mw + 3) // 4) if keep else (0,)
    bits = torch.empty(shape, dtype=torch.uint8, device=x.device)
    return _empty(x, oh, ow, _layout(x)), bits


def _forward(x, fu, fd, b, up, down, pad, gain, slope, clamp, flip, keep) -> tuple[Tensor, Tensor]:
    like, x = x, x.contiguous()
    oh, ow, mh, mw = _sizes(*x.shape[2:], fu, fd, up, down, pad)
    y, bits = _forward_fake(x, fu, fd, b, up, down, pad, gain, slope, clamp, flip, keep)
    if b is not None:
        b = b.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
    first, second = (fu, up, pad[0], pad[2], float(up)), (fd, down, 0, 0, 1.0)
    mode, activation = (_WRITE if keep else _NOTHING), (slope, gain, clamp)
    _pass(x, b, bits, first, second, (mh, mw), y, flip, mode, activation)
    return _like(y, like), bits


def _masked_fake(x, bits, fu, fd, up, down, pad, size, gain, slope, flip, adjoint) -> Tensor:
    oh, ow, _, _ = _sizes(*size, fu, fd, up, down, pad)
    return _empty(x, *(size if adjoint else (oh, ow)), _layout(x))


def _masked(x, bits, fu, fd, up, down, pad, size, gain, slope, flip, adjoint) -> Tensor:
    """Apply the derivative at the activations of `bits`, or its adjoint."""
    like, x = x, x.contiguous()
    *_, mh, mw = _sizes(*size, fu, fd, up, down, pad)
    y = _masked_fake(x, bits, fu, fd, up, down, pad, size, gain, slope, flip, adjoint)
    if adjoint:  # y[o * step + k - pad] of the forward pass is x[o] here
        ku, kd = fu.shape[0], fd.shape[0]
        first = (fd, down, kd - 1, kd - 1, 1.0)
        second = (fu, up, ku - 1 - pad[0], ku - 1 - pad[2], float(up))
    else:
        first, second = (fu, up, pad[0], pad[2], float(up)), (fd, down, 0, 0, 1.0)
    activation = (slope, gain, -1.0)
    _pass(x, None, bits, first, second, (mh, mw), y, flip != adjoint, _READ, activation)
    return _like(y, like)


def _save(ctx, inputs, output) -> None:
    x, fu, fd, b, ctx.up, ctx.down, ctx.pad, ctx.gain, ctx.slope, _, ctx.flip, ctx.keep = inputs
    ctx.size, ctx.bias = x.shape[2:], None if b is None else b.dtype
    ctx.save_for_backward(fu, fd, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, g: Tensor, _: Tensor) -> tuple:
    fu, fd, bits = ctx.saved_tensors
    options = (ctx.up, ctx.down, ctx.pad, ctx.size, ctx.gain, ctx.slope, ctx.flip, True)
    dx = torch.ops.cuda_ops.filtered_lrelu_masked(g, bits, fu, fd, *options)
    db = dx.sum((0, 2, 3)).to(ctx.bias) if ctx.needs_input_grad[3] else None
    return dx, None, None, db, *[None] * 8


def _save_masked(ctx, inputs, output) -> None:
    _, bits, fu, fd, *ctx.options, ctx.adjoint = inputs
    ctx.save_for_backward(bits, fu, fd)


def _masked_backward(ctx, g: Tensor) -> tuple:
    options = (*ctx.options, not ctx.adjoint)
    return torch.ops.cuda_ops.filtered_lrelu_masked(g, *ctx.saved_tensors, *options), *[None] * 11


register(
    "filtered_lrelu(Tensor x, Tensor fu, Tensor fd, Tensor? b, int up, int down, int[] pad, "
    "float gain, float slope, float clamp, bool flip, bool keep) -> (Tensor, Tensor)",
    cpu=_forward,
    cuda=_forward,
    fake=_forward_fake,
    backward=_backward,
    setup=_save,
)
register(
    "filtered_lrelu_masked(Tensor x, Tensor bits, Tensor fu, Tensor fd, int up, int down, "
    "int[] pad, int[] size, float gain, float slope, bool flip, bool adjoint) -> Tensor",
    cpu=_masked,
    cuda=_masked,
    fake=_masked_fake,
    backward=_masked_backward,
    setup=_save_masked,
)
