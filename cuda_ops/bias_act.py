"""Bias, activation, gain and clamp in one operation.

`y = clamp(gain * act(x + b), -clamp, clamp)`, differentiable to any order in `x` and `b`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops.scale_act import SMOOTH, able, limit_of

__all__ = ["ACTIVATIONS", "Activation", "bias_act"]


class Activation(NamedTuple):
    """An activation with the defaults that keep unit variance (He et al. 2015, for the relus)."""

    func: Callable[[Tensor, float], Tensor]
    alpha: float
    gain: float


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, _: x, 0.0, 1.0),
    "relu": Activation(lambda x, _: F.relu(x), 0.0, math.sqrt(2)),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), 0.2, math.sqrt(2)),
    "tanh": Activation(lambda x, _: torch.tanh(x), 0.0, 1.0),
    "sigmoid": Activation(lambda x, _: torch.sigmoid(x), 0.0, 1.0),
    "elu": Activation(lambda x, _: F.elu(x), 0.0, 1.0),
    "selu": Activation(lambda x, _: F.selu(x), 0.0, 1.0),
    "softplus": Activation(lambda x, _: F.softplus(x), 0.0, 1.0),
    "swish": Activation(lambda x, _: x * torch.sigmoid(x), 0.0, math.sqrt(2)),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """Add the bias `b` along `dim`, apply `act`, multiply by `gain`, clamp to `[-clamp, clamp]`.

    `x` has any shape and float dtype, `b` the shape `[x.shape[dim]]` and possibly another dtype.
    `alpha` (slope of lrelu) and `gain` default to those of `ACTIVATIONS`. `impl` is None (the
    fastest there is), "ref", "cpu" (float32 `[N, C, H, W]`, dim 1, linear or lrelu or relu) or
    "cuda" (everything). The result has the dtype of `x`; for all that may follow a convolution,
    see `scale_act`. Differentiable to any order.
    Raises ValueError for an unknown `act` or `impl` and for a bias of the wrong shape.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act={act!r} is unknown; allowed: {', '.join(ACTIVATIONS)}")
    if b is not None and tuple(b.shape) != (x.shape[dim],):
        raise ValueError(f"b has shape {tuple(b.shape)}; dim={dim} of x asks for ({x.shape[dim]},)")
    limit = limit_of(clamp)
    alpha = ACTIVATIONS[act].alpha if alpha is None else alpha
    gain = ACTIVATIONS[act].gain if gain is None else gain
    if impl == "ref" or not _able(impl, x, b, dim, act):
        return _bias_act_ref(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
    slope = _SLOPES[act](alpha) if act in _SLOPES else 0.0
    kind = 0 if act in _SLOPES else 1 + list(SMOOTH).index(act)

    def apply(x: Tensor) -> Tensor:
        return torch.ops.cuda_ops.scale_act(x, None, None, b, slope, gain, limit, kind)

    return apply(x) if x.ndim == 4 and (dim == 1 or b is None) else _along(x, b, dim, apply)


_SLOPES = {"linear": lambda _: 1.0, "relu": lambda _: 0.0, "lrelu": lambda alpha: alpha}


def _able(impl: str | None, x: Tensor, b: Tensor | None, dim: int, act: str) -> bool:
    """Say whether a kernel runs; the CPU's knows only `[N, C, H, W]` and kinked lines."""
    plain = x.ndim == 4 and dim == 1 and act in _SLOPES
    return able(impl, x, b, cpu=plain)


def _along(x: Tensor, b: Tensor | None, dim: int, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply to `x` of any shape an operator on `[N, C, H, W]` with the bias along C.

    If `dim` is the innermost in memory, C is innermost too; otherwise `x` becomes contiguous.
    """
    if b is None:
        return apply(x.reshape(1, 1, 1, -1)).reshape(x.shape)
    last = x.movedim(dim, -1)
    if last.is_contiguous():
        rows = last.numel() // max(1, b.numel())
        return apply(last.reshape(rows, b.numel(), 1, 1)).reshape(last.shape).movedim(-1, dim)
    before, after = x.shape[: dim % x.ndim], x.shape[dim % x.ndim + 1 :]
    y = apply(x.reshape(math.prod(before), b.numel(), math.prod(after), 1))
    return y.reshape(x.shape)


def _bias_act_ref(
    x: Tensor,
    b: Tensor | None,
    *,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if d == dim % x.ndim else 1 for d in range(x.ndim)])
    x = ACTIVATIONS[act].func(x, alpha)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)
