"""What follows a modulated convolution, in one pass: scale, noise, bias, activation, gain, clamp.

`z = clamp(gain * lrelu(scale[n, c] * y + noise[n, 0, h, w] + b[c]), -clamp, clamp)`
"""

import math
from collections.abc import Sequence
from ctypes import c_float, c_int64

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops import _pointwise
from cuda_ops._native import channels_last, pointer, register, use_kernel
from cuda_ops._pointwise import Curve, Operands
from cuda_ops.compile import cpu_kernels, emulating

__all__ = ["SMOOTH", "able", "check_tail", "limit_of", "scale_act"]

SMOOTH = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "swish": F.silu,
}
"""The activations with a second derivative; their codes, from 1, are those of csrc/activation.cuh.
0 is the leaky relu."""


def scale_act(
    y: Tensor,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    b: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """Finish a convolution's output `y [N, C, H, W]`.

    `scale` is `[N, C]`, `noise` `[N or 1, 1, H, W]`, `b` `[C]`, each optional; `slope` is that of
    the leaky relu (1: linear). `impl` is None (the fastest there is), "ref", "cpu" (float32,
    channels a multiple of the vector length; ValueError otherwise) or "cuda" (any float dtype;
    operands may be in another one than `y`). Differentiable to any order. `z` has the dtype of `y`
    and, on CUDA, its layout; the CPU kernel's is channels last.
    """
    if y.ndim != 4:
        raise ValueError(f"y has shape {tuple(y.shape)}; scale_act takes [N, C, H, W]")
    check_tail(y.shape, scale, noise, b)
    limit = limit_of(clamp)
    if able(impl, y, scale, noise, b):
        return torch.ops.cuda_ops.scale_act(y, scale, noise, b, slope, gain, limit)
    return _scale_act_ref(y, scale, noise, b, slope=slope, gain=gain, clamp=clamp)


def check_tail(
    shape: Sequence[int], scale: Tensor | None, noise: Tensor | None, b: Tensor | None
) -> None:
    """Raise ValueError unless the operands of a tail fit a convolution's output `[N, C, H, W]`."""
    n, c, *size = shape
    allowed = {"scale": [(n, c)], "noise": [(n, 1, *size), (1, 1, *size)], "b": [(c,)]}
    for (name, shapes), t in zip(allowed.items(), (scale, noise, b), strict=True):
        if t is not None and tuple(t.shape) not in shapes:
            raise ValueError(f"{name} has shape {tuple(t.shape)}; {shapes[0]} is asked for")


def limit_of(clamp: float | None) -> float:
    """Return the clamp as the operators take it, -1 for none; ValueError for one below zero."""
    if clamp is None:
        return -1.0
    if not clamp >= 0:
        raise ValueError(f"clamp={clamp} is a limit on sizes: use a number from 0, or None")
    return float(clamp)


def able(impl: str | None, y: Tensor, *tail: Tensor | None, cpu: bool = True) -> bool:
    """Say whether a kernel runs on these; `cpu=False` rules out the CPU's.

    The CPU's works in channels last; for another layout the reference is faster than a copy.
    Raises ValueError as `use_kernel`.
    """
    takes = "float32 [N, C, H, W] and linear, relu or lrelu on the CPU; floats on CUDA"
    cpu = cpu and y.ndim == 4 and (impl == "cpu" or _pointwise.in_pixels(y))
    return use_kernel(
        impl, y, *tail, takes=takes, cuda=True,
        cpu=lambda lanes: cpu and y.shape[1] >= lanes,
    )  # fmt: skip


def _scale_act_ref(
    y: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    *,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    y = F.leaky_relu(_linear(y, scale, noise, b), slope) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def _linear(y: Tensor, scale: Tensor | None, noise: Tensor | None, b: Tensor | None) -> Tensor:
    if scale is not None:
        y = y * scale.to(y.dtype)[:, :, None, None]
    if noise is not None:
        y = y + noise.to(y.dtype)
    return y if b is None else y + b.to(y.dtype)[:, None, None]


# -- the value -------------------------------------------------------------------------------------


def _cuda(y, scale, noise, b, slope, gain, clamp, kind=0) -> Tensor:
    return _pointwise.value(y, Operands(scale, noise, b), _curve(slope, gain, clamp, kind))


def _curve(slope: float, gain: float, clamp: float, kind: int) -> Curve:
    return Curve(kind, slope, gain, math.inf if clamp < 0 else clamp)


def _cpu(y, scale, noise, b, slope, gain, clamp, kind=0) -> Tensor:
    y, scale, noise, b = _laid_out(y, scale, noise, b)
    z = torch.empty_like(y, memory_format=torch.channels_last)
    cpu_kernels().scale_act_cpu(
        *map(pointer, (y, scale, noise, b, z)), *_sizes(y, noise), c_float(slope), c_float(gain),
        c_float(clamp), torch.get_num_threads(),
    )  # fmt: skip
    return z


def _laid_out(
    y: Tensor, scale: Tensor | None, noise: Tensor | None, b: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    return channels_last(y), *(None if t is None else t.contiguous() for t in (scale, noise, b))


def _sizes(y: Tensor, noise: Tensor | None) -> list[c_int64]:
    n, c, h, w = y.shape
    noise_stride = 0 if noise is None or noise.shape[0] == 1 else h * w
    return [c_int64(s) for s in (n, h * w, c, noise_stride)]


def _fake(y: Tensor, *rest) -> Tensor:
    pixels = _pointwise.in_pixels(y) if y.device.type == "cuda" or emulating() else True
    layout = torch.channels_last if pixels else torch.contiguous_format
    return torch.empty_like(y, memory_format=layout)


def _save(ctx, inputs, output) -> None:
    """Save the output where it tells as much as the input, nothing where the slope is constant."""
    y, scale, noise, b, *ctx.options = inputs
    slope, gain, clamp, kind = ctx.options
    unscaled = scale is None or not ctx.needs_input_grad[1]
    ctx.from_output = kind == 0 and clamp < 0 and gain > 0 and slope >= 0 and unscaled
    kept = None if ctx.from_output and slope == 1 else output if ctx.from_output else y
    ctx.save_for_backward(kept, scale, noise, b)


def _backward(ctx, g: Tensor) -> tuple:
    """Take all gradients in one pass; that operator has gradients of its own."""
    tensors, need = ctx.saved_tensors, ctx.needs_input_grad[:4]
    if ctx.from_output and tuple(ctx.options[:2]) == (1, 1) and tensors[1] is None:
        return *_sums(g, *tensors[2:], need), *[None] * 4
    rest = (*ctx.options[:3], list(need[1:]), ctx.from_output, ctx.options[3])
    grads = torch.ops.cuda_ops.scale_act_grad(g, *tensors, *rest)
    return *(d if asked else None for d, asked in zip(grads, need, strict=True)), *[None] * 4


def _sums(g: Tensor, noise: Tensor | None, b: Tensor | None, need: tuple[bool, ...]) -> tuple:
    """Differentiate `y + noise + b`: a pass that also wrote dy = g would move twice the bytes."""
    exact = torch.promote_types(g.dtype, torch.float32)
    dnoise = db = None
    if need[2]:
        dnoise = g.sum(1, keepdim=True, dtype=exact).sum_to_size(noise.shape).to(noise.dtype)
    if need[3]:
        db = g.sum((0, 2, 3), dtype=exact).to(b.dtype)
    return g if need[0] else None, None, dnoise, db


# -- the gradient ----------------------------------------------------------------------------------


def _grad_cuda(g, y, scale, noise, b, slope, gain, clamp, mask, from_output, kind=0) -> tuple:
    """Return the gradients of y, scale, noise, b; those not asked for are empty."""
    curve = _curve(slope, gain, clamp, kind)
    return _pointwise.grad(g, y, Operands(scale, noise, b), curve, mask, from_output)


def _grad_cpu(g, y, scale, noise, b, slope, gain, clamp, mask, from_output, kind=0) -> tuple:
    """Return the same; here `scale` may have a gradient `from_output`.

    Then the slope must be above zero, and no scale zero.
    """
    y = g if y is None else y
    g, (y, scale, noise, b) = channels_last(g), _laid_out(y, scale, noise, b)
    n, c, h, w = y.shape
    parts = max(1, h * w // 256)
    dy = torch.empty_like(y, memory_format=torch.channels_last)
    dscale, dnoise, db = (
        y.new_empty(shape if asked else 0)
        for shape, asked in zip(((n, parts, c), (n, 1, h, w), (n, parts, c)), mask, strict=True)
    )
    out = [t if t.numel() else None for t in (dscale, db, dnoise)]
    cpu_kernels().scale_act_grad_cpu(
        *map(pointer, (g, y, scale, noise, b, dy, *out)), *_sizes(y, noise), c_int64(parts),
        c_float(slope), c_float(gain), c_float(clamp), from_output, torch.get_num_threads(),
    )  # fmt: skip
    dscale = dscale.sum(1) if mask[0] else dscale
    dnoise = dnoise.sum(0, keepdim=True) if mask[1] and noise.shape[0] == 1 != n else dnoise
    return dy, dscale, dnoise, db.sum((0, 1)) if mask[2] else db


def _grad_fake(g, y, scale, noise, b, slope, gain, clamp, mask, from_output, kind=0) -> tuple:
    rest = (t.new_empty(t.shape) if m else g.new_empty(0) for t, m in _zip((scale, noise, b), mask))
    return _fake(g if y is None else y), *rest


def _zip(*some) -> zip:
    return zip(*some, strict=True)


def _save_grad(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    *tensors, slope, gain, clamp, ctx.mask, ctx.from_output, kind = inputs
    ctx.options = (slope, gain, clamp, kind)
    ctx.save_for_backward(*tensors)


def _grad_backward(ctx, *h: Tensor | None) -> tuple:
    """Differentiate the gradient: in one pass, unless that will be differentiated in turn."""
    h = [t if asked else None for t, asked in _zip(h, (True, *ctx.mask))]
    need = ctx.needs_input_grad[:5]
    if all(t is None for t in h):
        return (None,) * 11
    how = _second_composed if torch.is_grad_enabled() else _second
    return *how(ctx, h, need), *[None] * 6


def _second(ctx, h: list[Tensor | None], need: tuple[bool, ...]) -> list[Tensor | None]:
    slope, gain, clamp, kind = ctx.options
    curved = kind != 0
    y_moves = need[1] and not ctx.from_output and (curved or h[1] is not None)
    mask = [y_moves, need[2] and (curved or h[0] is not None), need[3] and curved]
    mask += [need[4] and curved]
    grads = torch.ops.cuda_ops.scale_act_second(
        *h, *ctx.saved_tensors, slope, gain, clamp, mask, ctx.from_output, kind
    )
    return [d if asked else None for d, asked in _zip(grads, (need[0], *mask))]


def _second_composed(ctx, h: list, need: tuple[bool, ...]) -> list[Tensor | None]:
    """Do it in native operators, differentiable to any order."""
    with torch.enable_grad():
        inputs = [
            t.view_as(t) if asked and t is not None else t
            for t, asked in _zip(ctx.saved_tensors, need)
        ]
        grads = _grad_composed(*inputs, *ctx.options, ctx.from_output)
        pairs = [(d, t) for d, t in _zip(grads, h) if t is not None and d.requires_grad]
        wanted = [i for i in range(5) if need[i] and inputs[i] is not None]
        found = torch.autograd.grad(
            [d for d, _ in pairs], [inputs[i] for i in wanted], [t for _, t in pairs],
            create_graph=True, allow_unused=True,
        )  # fmt: skip
    by_index = dict(zip(wanted, found, strict=True))
    return [by_index.get(i) for i in range(5)]


def _grad_composed(g, y, scale, noise, b, slope, gain, clamp, kind, from_output) -> tuple:
    """Write the gradient in native operators."""
    v = g.detach() if y is None else y if from_output else _linear(y, scale, noise, b)
    slopes = _slopes(v, slope, gain, clamp, kind)
    e = g * slopes
    dy = e if scale is None else e * scale.to(e.dtype)[:, :, None, None]
    dscale = None if scale is None or y is None else (e * y).sum((2, 3)).to(scale.dtype)
    dnoise = None if noise is None else e.sum(1, keepdim=True).sum_to_size(noise.shape)
    db = None if b is None else e.sum((0, 2, 3)).to(b.dtype)
    return dy, dscale, None if dnoise is None else dnoise.to(noise.dtype), db


def _slopes(v: Tensor, slope: float, gain: float, clamp: float, kind: int) -> Tensor:
    """Return dz/dv, differentiable in v."""
    if kind == 0:
        v = v.detach()
        value, slopes = F.leaky_relu(v, slope), torch.where(v > 0, 1.0, slope)
    else:
        v = v if v.requires_grad else v.detach().requires_grad_()
        value = list(SMOOTH.values())[kind - 1](v)
        (slopes,) = torch.autograd.grad(value.sum(), v, create_graph=True)
    slopes = slopes.to(v.dtype) * gain
    return slopes if clamp < 0 else slopes * ((value.detach() * gain).abs() <= clamp)


# -- the gradient's gradient -----------------------------------------------------------------------


def _second_cuda(
    hy, hs, hn, hb, g, y, scale, noise, b, slope, gain, clamp, mask, from_output, kind=0
) -> tuple:
    """Return the gradients of g, y, scale, noise, b, given the cotangents of the first gradient."""
    curve, h = _curve(slope, gain, clamp, kind), (hy, hs, hn, hb)
    return _pointwise.second(h, g, y, Operands(scale, noise, b), curve, mask, from_output)


def _second_cpu(
    hy, hs, hn, hb, g, y, scale, noise, b, slope, gain, clamp, mask, from_output, kind=0
) -> tuple:
    g, (y, scale, noise, b) = channels_last(g), _laid_out(g if y is None else y, scale, noise, b)
    hy = None if hy is None else channels_last(hy)
    hs, hn, hb = (None if t is None else t.contiguous() for t in (hs, hn, hb))
    n, c, h, w = g.shape
    parts = max(1, h * w // 256)
    dg = torch.empty_like(g)
    gy = torch.empty_like(g) if mask[0] else g.new_empty(0)
    gscale = g.new_empty((n, parts, c) if mask[1] else 0)
    outputs = (dg, gy if mask[0] else None, gscale if mask[1] else None)
    cpu_kernels().scale_act_second_cpu(
        *map(pointer, (hy, hs, hn, hb, g, y, scale, noise, b, *outputs)), *_sizes(g, noise),
        c_int64(parts), c_float(slope), c_float(gain), c_float(clamp), from_output,
        torch.get_num_threads(),
    )  # fmt: skip
    return dg, gy, gscale.sum(1) if mask[1] else gscale, g.new_empty(0), g.new_empty(0)


def _second_fake(
    hy, hs, hn, hb, g, y, scale, noise, b, slope, gain, clamp, mask, from_output, kind=0
) -> tuple:
    like = _fake(g if y is None else y)
    rest = _zip((scale, noise, b), mask[1:])
    gy = torch.empty_like(like) if mask[0] else g.new_empty(0)
    return like, gy, *(t.new_empty(t.shape) if m else g.new_empty(0) for t, m in rest)


_OPERANDS = "Tensor? scale, Tensor? noise, Tensor? b"
_OPTIONS = "float slope, float gain, float clamp"
register(
    f"scale_act(Tensor y, {_OPERANDS}, {_OPTIONS}, int kind=0) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
    backward=_backward,
    setup=_save,
)
register(
    f"scale_act_grad(Tensor g, Tensor? y, {_OPERANDS}, {_OPTIONS}, bool[] mask, "
    "bool from_output, int kind=0) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_grad_cpu,
    cuda=_grad_cuda,
    fake=_grad_fake,
    backward=_grad_backward,
    setup=_save_grad,
)
register(
    "scale_act_second(Tensor? hy, Tensor? hs, Tensor? hn, Tensor? hb, Tensor g, Tensor? y, "
    f"{_OPERANDS}, {_OPTIONS}, bool[] mask, bool from_output, int kind=0) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    cpu=_second_cpu,
    cuda=_second_cuda,
    fake=_second_fake,
)
