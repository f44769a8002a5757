"""The convolution layers of StyleGAN2: 3x3, plain or resampling, with modulation and tail.

`z = gain * lrelu(scale * conv(styles * x, w) + noise + b)`, where `conv` may halve or double the
size with a FIR filter. On CUDA, and wherever Winograd does not take the tensors, a layer is a chain
of this package's operators: modulation, convolution, resampling, tail.

On the CPU it is Winograd's minimal filtering with all of the layer in one pass: F(4x4, 3x3) takes a
quarter of the products of a direct sum and, with stride 2, F(4, 2) on the even samples takes 81 of
144 (Winograd 1980; Lavin & Gray 2016). Its rounding errors, 0.3e-6 to 1.1e-6 of the result, are
those of the direct sum times 0.8 to 2.0 in values and gradients of x (32 to 128 channels), and
times 0.2 to 4.1 in gradients of w: most where few tiles are summed and the direct sum errs by
0.15e-6 only.
"""

from ctypes import c_float, c_int64

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops._native import channels_last, pointer, register, use_kernel
from cuda_ops.compile import cpu_kernels
from cuda_ops.conv2d import conv2d, conv_transpose2d
from cuda_ops.scale_act import _scale_act_ref, check_tail, limit_of, scale_act
from cuda_ops.upfirdn2d import upfirdn2d

__all__ = ["conv3x3"]

_BLOCK, _GRAD_BLOCK = 14, 32  # 4x4 tiles that stay in cache together
_MIN_TILES = 16  # fewer do not pay for the transform of the filter


def conv3x3(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    styles: Tensor | None = None,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    b: Tensor | None = None,
    slope: float = 1.0,
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """Apply a layer to `x [N, I, H, W]` with `w [O, I, 3, 3]`: `[N, O, H * up / down, ...]`.

    `up=2` zero-inserts, convolves, filters with the four taps `f` (gain 4); `down=2` filters and
    correlates with stride 2; both are aligned to the centre of the image. `styles` is `[N, I]`,
    `scale` `[N, O]`, `noise` `[N or 1, 1, ...]`, `b` `[O]`; `slope` is that of the leaky relu
    (1: linear). These and `w` may be in another dtype than `x`, which is the result's. The result
    has the layout of `x` on CUDA and is channels_last from Winograd.
    `impl` is None (the fastest there is), "ref" (native operators), "cpu" (Winograd: float32,
    channels a multiple of the vector length) or "cuda" (the operators with their CUDA kernels).
    Differentiable to any order in all tensors but `f`.
    """
    _check(x, w, f, up, down)
    if styles is not None and styles.shape != x.shape[:2]:
        raise ValueError(f"styles has shape {tuple(styles.shape)}; {tuple(x.shape[:2])} fits x")
    size = (x.shape[2] * up // down, x.shape[3] * up // down)
    check_tail((x.shape[0], w.shape[0], *size), scale, noise, b)
    limit_of(clamp)
    tail = dict(slope=slope, gain=gain, clamp=clamp)
    if impl == "ref":
        return _conv3x3_ref(x, w, f, up, down, styles, scale, noise, b, **tail)
    if impl == "cuda" or not _use_winograd(x, w, f, down, impl, styles, scale, noise, b):
        return _by_parts(x, w, f, up, down, styles, scale, noise, b, impl=impl, **tail)
    taps = None if f is None else 2 * f if up == 2 else f.flip(0)
    by, adjoint = max(up, down), up == 2
    w = w.transpose(0, 1) if adjoint else w
    if clamp is None and slope > 0 and gain > 0:
        tensors = (x, styles, w, taps, scale, noise, b)
        return torch.ops.cuda_ops.conv_act(*tensors, by, adjoint, slope, gain)
    return _composed(x, styles, w, taps, scale, noise, b, by, adjoint, **tail)


def _conv3x3_ref(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    down: int,
    styles: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    *,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    if styles is not None:
        x = x * styles.to(x.dtype)[:, :, None, None]
    w = w.to(x.dtype)
    if up == 2:
        y = F.conv_transpose2d(x, w.transpose(0, 1), stride=2)
        y = upfirdn2d(y, f, padding=1, gain=4, impl="ref")
    elif down == 2:
        y = F.conv2d(upfirdn2d(x, f, padding=2, impl="ref"), w, stride=2)
    else:
        y = F.conv2d(x, w, padding=1)
    return _scale_act_ref(y, scale, noise, b, slope=slope, gain=gain, clamp=clamp)


def _by_parts(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    down: int,
    styles: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    *,
    impl: str | None,
    **tail,
) -> Tensor:
    """Chain the operators of this package, which take any tensors; `w` comes to be as `x` is."""
    if styles is not None:
        x = scale_act(x, styles, slope=1, impl=impl)
    w = w.transpose(0, 1) if up == 2 else w
    w = w.to(x.dtype, memory_format=_layout(x)).contiguous(memory_format=_layout(x))
    if up == 2:
        y = conv_transpose2d(x, w, stride=2, impl=impl)
        y = upfirdn2d(y, f, padding=1, gain=4, impl=impl)
    elif down == 2:
        y = conv2d(upfirdn2d(x, f, padding=2, impl=impl), w, stride=2, impl=impl)
    else:
        y = conv2d(x, w, padding=1, impl=impl)
    return scale_act(y, scale, noise, b, impl=impl, **tail)


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _check(x: Tensor, w: Tensor, f: Tensor | None, up: int, down: int) -> None:
    if w.ndim != 4 or w.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(f"w {tuple(w.shape)} does not fit x {tuple(x.shape)}")
    if (up, down) not in ((1, 1), (1, 2), (2, 1)):
        raise ValueError(f"up={up}, down={down}: one of them may be 2")
    if (up, down) != (1, 1) and (f is None or f.shape != (4,)):
        raise ValueError("a resampling convolution takes a filter f of four taps")


def _use_winograd(
    x: Tensor, w: Tensor, f: Tensor | None, down: int, impl: str | None, *tail: Tensor | None
) -> bool:
    n, _, h, width = x.shape
    whole = h % down == width % down == 0 and x.shape[1] % 8 == w.shape[0] % 8 == 0
    able = use_kernel(
        impl, x, w, f, *tail, cuda=False, takes="float32 CPU tensors, channels a multiple of 16",
        cpu=lambda lanes: whole
        and x.shape[1] % lanes == w.shape[0] % lanes == 0,
    )  # fmt: skip
    tiles = n * ((h // down + 3) // 4) * ((width // down + 3) // 4)
    return able and (tiles >= _MIN_TILES or impl == "cpu")


def _composed(x, styles, w, taps, scale, noise, b, by, adjoint, **tail) -> Tensor:
    """Compute a layer from operators that differentiate to any order."""
    x = x if styles is None else scale_act(x, styles, slope=1)
    y = _linear(x, w, taps, by, adjoint)
    return scale_act(y, scale, noise, b, **tail)


def _linear(x: Tensor, w: Tensor, taps: Tensor | None, by: int, adjoint: bool) -> Tensor:
    none = (None, None, None)
    return torch.ops.cuda_ops.conv_act(x, None, w, taps, *none, by, adjoint, 1.0, 1.0)


def _conv_act(
    x: Tensor,
    styles: Tensor | None,
    w: Tensor,
    taps: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    by: int,
    adjoint: bool,
    slope: float,
    gain: float,
) -> Tensor:
    """Correlate with `w [O, I, 3, 3]`, stride `by`; or (`x` has O channels) the adjoint."""
    kernels, threads = cpu_kernels(), torch.get_num_threads()
    x = channels_last(x)
    y = _conv_act_fake(x, styles, w, taps, scale, noise, b, by, adjoint, slope, gain)
    sizes = (min(s, t) for s, t in zip(x.shape[2:], y.shape[2:], strict=True))
    w = w.permute((2, 3, 0, 1) if adjoint else (2, 3, 1, 0)).contiguous()
    k, c = w.shape[2:]
    scratch = x.new_empty(kernels.winograd_conv_scratch(k, c, by, _BLOCK, threads))
    tensors = [_contiguous(t) for t in (styles, w, taps, scale, noise, b)]
    shared = noise is None or noise.shape[0] == 1
    kernels.winograd_conv(
        *map(pointer, (x, *tensors, y, scratch)), x.shape[0], *sizes, k, c, by, adjoint,
        c_int64(0 if shared else y.shape[2] * y.shape[3]), c_float(slope), c_float(gain),
        _BLOCK, threads,
    )  # fmt: skip
    return y


def _conv_act_fake(x, styles, w, taps, scale, noise, b, by, adjoint, slope, gain) -> Tensor:
    n, _, h, width = x.shape
    h, width = (h * by, width * by) if adjoint else (h // by, width // by)
    options = dict(dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return torch.empty((n, w.shape[1 if adjoint else 0], h, width), **options)


def _conv_grad(
    x: Tensor,
    styles: Tensor | None,
    dy: Tensor,
    dy_styles: Tensor | None,
    taps: Tensor | None,
    by: int,
) -> Tensor:
    """Return the gradient of `w` in the convolution of `styles * x`, given `dy_styles * dy`."""
    kernels = cpu_kernels()
    x, dy = channels_last(x), channels_last(dy)
    n, co, h, w = dy.shape
    ci, tiles = x.shape[1], n * ((h + 3) // 4) * ((w + 3) // 4)
    threads = max(1, min(torch.get_num_threads(), tiles // _GRAD_BLOCK))
    dw = x.new_empty(3, 3, ci, co)
    scratch = x.new_empty(kernels.winograd_grad_scratch(ci, co, by, _GRAD_BLOCK, threads))
    styles, dy_styles, taps = map(_contiguous, (styles, dy_styles, taps))
    kernels.winograd_grad(
        *map(pointer, (x, styles, dy, dy_styles, taps, dw, scratch)), n, h, w, ci, co, by,
        _GRAD_BLOCK, threads,
    )  # fmt: skip
    return dw.permute(3, 2, 0, 1)


def _conv_grad_fake(x, styles, dy, dy_styles, taps, by) -> Tensor:
    return x.new_empty(3, 3, x.shape[1], dy.shape[1]).permute(3, 2, 0, 1)


def _contiguous(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def _save_conv(ctx, inputs, output) -> None:
    *tensors, ctx.by, ctx.adjoint, ctx.slope, ctx.gain = inputs
    linear = all(t is None for t in (tensors[1], *tensors[4:])) and ctx.slope == ctx.gain == 1
    ctx.linear = linear
    ctx.save_for_backward(*tensors, None if linear else output)


def _conv_backward(ctx, g: Tensor) -> tuple:
    *inputs, z = ctx.saved_tensors
    if ctx.linear:
        grads = _linear_grads(ctx, g, *inputs[0:4:2], inputs[3])
    elif torch.is_grad_enabled():
        grads = _differentiable_grads(ctx, g, inputs, z)
    else:
        need = [*ctx.needs_input_grad[:3], *ctx.needs_input_grad[4:7]]
        options = (ctx.by, ctx.adjoint, ctx.slope, ctx.gain, need)
        found = torch.ops.cuda_ops.conv_act_grad(g, *inputs, z, *options)
        grads = [d if asked else None for d, asked in zip(found, need, strict=True)]
        grads.insert(3, None)  # taps
    return *grads, None, None, None, None


def _linear_grads(ctx, g: Tensor, x: Tensor, w: Tensor, taps: Tensor | None) -> list:
    """Differentiate <g, conv(x, w)>: both gradients are operators of this file again."""
    grads = [None] * 7
    if ctx.needs_input_grad[0]:
        grads[0] = _linear(g, w, taps, ctx.by, not ctx.adjoint)
    if ctx.needs_input_grad[2]:
        grads[2] = _weight_grad(x, g, taps, ctx.by, ctx.adjoint)
    return grads


def _weight_grad(x: Tensor, dy: Tensor, taps: Tensor | None, by: int, adjoint: bool) -> Tensor:
    """Return the gradient of the `w [O, I, 3, 3]` that took x to y."""
    fine, coarse = (dy, x) if adjoint else (x, dy)
    return torch.ops.cuda_ops.conv_grad(fine, None, coarse, None, taps, by)


def _differentiable_grads(ctx, g: Tensor, inputs: list, z: Tensor) -> list:
    """Take the gradients by operators that have gradients too; only dscale needs a convolution."""
    x, styles, w, taps, scale, noise, b = inputs
    need, of = ctx.needs_input_grad, (ctx.by, ctx.adjoint)
    grads, sx = [None] * 7, x if styles is None else scale_act(x, styles, slope=1)
    options = (ctx.slope, ctx.gain, -1.0, [False] * 3, True)
    g = torch.ops.cuda_ops.scale_act_grad(g, z.detach(), None, None, None, *options)[0]
    gy = g if scale is None else scale_act(g, scale, slope=1)
    if need[0] or need[1]:
        dx = _linear(gy, w, taps, ctx.by, not ctx.adjoint)
        grads[0] = dx if styles is None else scale_act(dx, styles, slope=1)
        grads[1] = (dx * x).sum((2, 3)) if need[1] else None
    grads[2] = _weight_grad(sx, gy, taps, *of) if need[2] else None
    grads[4] = (g * _linear(sx, w, taps, *of)).sum((2, 3)) if need[4] else None
    grads[5] = g.sum(1, keepdim=True).sum_to_size(noise.shape) if need[5] else None
    grads[6] = g.sum((0, 2, 3)) if need[6] else None
    return [d if asked else None for d, asked in zip(grads, need[:7], strict=True)]


def _conv_act_grad(
    g, x, styles, w, taps, scale, noise, b, z, by, adjoint, slope, gain, need
) -> tuple[Tensor, ...]:
    """Undo the tail in one pass, then the convolution, then the modulation in one pass.

    Returns the gradients of x, styles, w, scale, noise, b; those not in `need` are empty.
    """
    ops, tail = torch.ops.cuda_ops, (scale, noise, b)
    exact = need[3] and _hides_convolution(z, *tail)
    mask = [need[3] and not exact, *need[4:6]]
    gy, *d_tail = ops.scale_act_grad(g, z, *tail, slope, gain, -1.0, mask, True)
    if exact:
        d_tail[0] = _scale_grad(g, x, styles, w, taps, z, by, adjoint, slope, gain)
    dx, dstyles, dw = (g.new_empty(0) for _ in range(3))
    if need[0] or need[1]:
        dx = _linear(gy, w, taps, by, not adjoint)
        if styles is not None:
            asked, rest = [need[1], False, False], (None, None, 1.0, 1.0, -1.0)
            dx, dstyles, *_ = ops.scale_act_grad(dx, x, styles, *rest, asked, False)
    if need[2]:
        pair = (gy, None, x, styles) if adjoint else (x, styles, gy, None)
        dw = ops.conv_grad(*pair, taps, by)
    return dx if need[0] else g.new_empty(0), dstyles, dw, *d_tail


def _conv_act_grad_fake(
    g, x, styles, w, taps, scale, noise, b, z, by, adjoint, slope, gain, need
) -> tuple[Tensor, ...]:
    fine, coarse = (g, x) if adjoint else (x, g)
    return (
        torch.empty_like(x, memory_format=torch.channels_last) if need[0] else g.new_empty(0),
        styles.new_empty(styles.shape) if need[1] else g.new_empty(0),
        _conv_grad_fake(fine, None, coarse, None, taps, by) if need[2] else g.new_empty(0),
        *(
            t.new_empty(t.shape) if asked else g.new_empty(0)
            for t, asked in zip((scale, noise, b), need[3:6], strict=True)
        ),
    )


def _hides_convolution(z: Tensor, scale: Tensor, noise: Tensor | None, b: Tensor | None) -> bool:
    """Say whether undoing the tail would lose the convolution's result in rounding.

    It is (v - noise - b) / scale, so a small scale beside the others, or noise and bias that are
    large beside the first sample, leave little of it.
    """
    sizes = scale.abs()
    if not bool(sizes.min() > 0.1 * sizes.max()):
        return True
    added = sum(float(t.abs().max()) for t in (noise, b) if t is not None and t.numel())
    spread = (z[0].amax((1, 2)) - z[0].amin((1, 2))).mean() if z.numel() else torch.inf
    return added > 4 * float(spread)


def _scale_grad(g, x, styles, w, taps, z, by, adjoint, slope, gain) -> Tensor:
    """Return the gradient of `scale` from the convolution itself."""
    ops, none = torch.ops.cuda_ops, (None, None, None)
    e = ops.scale_act_grad(g, z, *none, slope, gain, -1.0, [False] * 3, True)[0]
    return (e * ops.conv_act(x, styles, w, taps, *none, by, adjoint, 1.0, 1.0)).sum((2, 3))


def _save_grad(ctx, inputs, output) -> None:
    x, _, dy, _, taps, ctx.by = inputs
    ctx.save_for_backward(x, dy, taps)


def _grad_backward(ctx, h: Tensor) -> tuple:
    """Differentiate <h, conv_grad(x, dy)> = <dy, conv(x, h)>; there are no styles."""
    x, dy, taps = ctx.saved_tensors
    dx = _linear(dy, h, taps, ctx.by, True) if ctx.needs_input_grad[0] else None
    ddy = _linear(x, h, taps, ctx.by, False) if ctx.needs_input_grad[2] else None
    return dx, None, ddy, None, None, None


register(
    "conv_act(Tensor x, Tensor? styles, Tensor w, Tensor? taps, Tensor? scale, Tensor? noise, "
    "Tensor? b, int by, bool adjoint, float slope, float gain) -> Tensor",
    cpu=_conv_act,
    fake=_conv_act_fake,
    backward=_conv_backward,
    setup=_save_conv,
)
register(
    "conv_act_grad(Tensor g, Tensor x, Tensor? styles, Tensor w, Tensor? taps, Tensor? scale, "
    "Tensor? noise, Tensor? b, Tensor z, int by, bool adjoint, float slope, float gain, "
    "bool[] need) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    cpu=_conv_act_grad,
    fake=_conv_act_grad_fake,
)
register(
    "conv_grad(Tensor x, Tensor? styles, Tensor dy, Tensor? dy_styles, Tensor? taps, int by) "
    "-> Tensor",
    cpu=_conv_grad,
    fake=_conv_grad_fake,
    backward=_grad_backward,
    setup=_save_grad,
)
