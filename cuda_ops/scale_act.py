"""What follows a modulated convolution, in one pass: scale, noise, bias, leaky relu, gain, clamp.

`z = clamp(gain * lrelu(scale[n, c] * y + noise[n, 0, h, w] + b[c]), -clamp, clamp)`
"""

from ctypes import c_float, c_int64

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops._native import channels_last, pointer, register, use_kernel
from cuda_ops.compile import cpu_kernels

__all__ = ["able", "scale_act"]


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
    the leaky relu (1: linear). `impl` is None (the fastest there is), "ref" or "cpu" (float32,
    channels a multiple of the vector length; ValueError otherwise). Differentiable to any order.
    """
    if able(impl, y, scale, noise, b):
        limit = -1.0 if clamp is None else float(clamp)
        return torch.ops.cuda_ops.scale_act(y, scale, noise, b, slope, gain, limit)
    return _scale_act_ref(y, scale, noise, b, slope=slope, gain=gain, clamp=clamp)


def able(impl: str | None, y: Tensor, *tail: Tensor | None) -> bool:
    """Say whether the kernel runs on these; raises ValueError as `use_kernel`."""
    takes = "float32 CPU tensors, channels a multiple of 16"
    whole = y.shape[1] % 8 == 0
    return use_kernel(
        impl, y, *tail, takes=takes, cuda=False,
        cpu=lambda kernels: whole and y.shape[1] % kernels.winograd_lanes() == 0,
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
    if scale is not None:
        y = y * scale.to(y.dtype)[:, :, None, None]
    if noise is not None:
        y = y + noise.to(y.dtype)
    if b is not None:
        y = y + b.to(y.dtype)[:, None, None]
    y = F.leaky_relu(y, slope) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def _scale_act(
    y: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    slope: float,
    gain: float,
    clamp: float,
) -> Tensor:
    y, scale, noise, b = _laid_out(y, scale, noise, b)
    z = torch.empty_like(y, memory_format=torch.channels_last)
    cpu_kernels().scale_act_cpu(
        *map(pointer, (y, scale, noise, b, z)), *_sizes(y, noise), c_float(slope), c_float(gain),
        c_float(clamp), torch.get_num_threads(),
    )  # fmt: skip
    return z


def _scale_act_grad(
    g: Tensor,
    y: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    slope: float,
    gain: float,
    clamp: float,
    mask: list[bool],
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of y, scale, noise, b; those not asked for are empty.

    `from_output` says that `y` is the output (no clamp; slope and gain above zero).
    """
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


def _laid_out(
    y: Tensor, scale: Tensor | None, noise: Tensor | None, b: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    return channels_last(y), *(None if t is None else t.contiguous() for t in (scale, noise, b))


def _sizes(y: Tensor, noise: Tensor | None) -> list[c_int64]:
    n, c, h, w = y.shape
    noise_stride = 0 if noise is None or noise.shape[0] == 1 else h * w
    return [c_int64(s) for s in (n, h * w, c, noise_stride)]


def _fake(y: Tensor, *rest) -> Tensor:
    return torch.empty_like(y, memory_format=torch.channels_last)


def _grad_fake(g, y, scale, noise, b, slope, gain, clamp, mask, from_output) -> tuple:
    given = zip((scale, noise, b), mask, strict=True)
    rest = (torch.empty_like(t) if asked else y.new_empty(0) for t, asked in given)
    return torch.empty_like(y, memory_format=torch.channels_last), *rest


def _save(ctx, inputs, output) -> None:
    *tensors, ctx.slope, ctx.gain, ctx.clamp = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, g: Tensor) -> tuple:
    """Take all gradients in one pass, or, if they will be differentiated, by the reference."""
    tensors, need = ctx.saved_tensors, ctx.needs_input_grad[:4]
    options = (ctx.slope, ctx.gain, ctx.clamp)
    if torch.is_grad_enabled():
        grads = _differentiable_grads(g, tensors, *options)
    else:
        grads = torch.ops.cuda_ops.scale_act_grad(g, *tensors, *options, list(need[1:]), False)
    return *(d if asked else None for d, asked in zip(grads, need, strict=True)), *[None] * 3


def _differentiable_grads(
    g: Tensor, tensors: tuple, slope: float, gain: float, clamp: float
) -> tuple:
    """Write the gradient in native operators: linear in g, y and scale; the mask is constant."""
    y, scale, noise, b = tensors
    with torch.no_grad():
        v = _scale_act_ref(y, scale, noise, b, slope=1, gain=1, clamp=None)
        mask = torch.where(v > 0, gain, gain * slope)
        mask = mask if clamp < 0 else mask * ((v * mask).abs() <= clamp)
    g = g * mask
    dy = g if scale is None else g * scale[:, :, None, None]
    dscale = None if scale is None else (g * y).sum((2, 3))
    dnoise = None if noise is None else g.sum(1, keepdim=True).sum_to_size(noise.shape)
    return dy, dscale, dnoise, None if b is None else g.sum((0, 2, 3))


register(
    "scale_act(Tensor y, Tensor? scale, Tensor? noise, Tensor? b, float slope, float gain, "
    "float clamp) -> Tensor",
    cpu=_scale_act,
    fake=_fake,
    backward=_backward,
    setup=_save,
)
register(
    "scale_act_grad(Tensor g, Tensor y, Tensor? scale, Tensor? noise, Tensor? b, float slope, "
    "float gain, float clamp, bool[] mask, bool from_output) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=_scale_act_grad,
    fake=_grad_fake,
)
