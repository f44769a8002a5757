"""Convolutions whose gradients are convolutions again, of any order, and never one too many.

Three bilinear maps are closed under differentiation: the convolution, its adjoint (the transposed
convolution) and the gradient of the weight. With `<a, b>` the sum of products,

    <g, conv(x, w)> = <adjoint(g, w), x> = <weight_grad(x, g), w>

so that each gradient of each of them is one of them. torch's own double backward turns the weight
gradient into a convolution with a kernel as large as the image instead. As everywhere in this
package (`_native.register`), what `autograd.grad` does not ask for is not computed: R1 and path
length compute no gradients of weights that they drop.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops._native import register
from cuda_ops.compile import emulating, switched_off

__all__ = ["conv2d", "conv_transpose2d"]

aten = torch.ops.aten


def conv2d(
    x: Tensor,
    w: Tensor,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    impl: str | None = None,
) -> Tensor:
    """Correlate `x [N, I, H, W]` with `w [O, I / groups, kh, kw]`, as `F.conv2d`.

    `stride` and `padding` are one number or (y, x). `impl` is None (the fastest there is), "ref"
    (torch's own, with its gradients), "cpu" or "cuda". The result has the layout that torch's has.
    Differentiable to any order in `x` and `w`. Raises ValueError for an unknown `impl`, and if
    `impl` names the device where the tensors are not.
    """
    stride, padding = _pair(stride), _pair(padding)
    x, w = _checked(x, w)
    if not _use_ours(impl, x):
        return F.conv2d(x, w, stride=stride, padding=padding, groups=groups)
    return torch.ops.cuda_ops.conv2d(x, w, stride, padding, (0, 0), False, groups)


def conv_transpose2d(
    x: Tensor,
    w: Tensor,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    impl: str | None = None,
) -> Tensor:
    """Apply the adjoint of `conv2d` to `x [N, I, H, W]` with `w [I, O / groups, kh, kw]`.

    Sizes grow to `(H - 1) * stride - 2 * padding + kh + output_padding`; otherwise as `conv2d`.
    Raises ValueError too if `output_padding` is not below the stride.
    """
    stride, padding, extra = _pair(stride), _pair(padding), _pair(output_padding)
    if extra[0] >= stride[0] or extra[1] >= stride[1]:
        raise ValueError(f"output_padding={extra} must be below stride={stride}")
    x, w = _checked(x, w)
    if not _use_ours(impl, x):
        return F.conv_transpose2d(x, w, None, stride, padding, extra, groups)
    return torch.ops.cuda_ops.conv2d(x, w, stride, padding, extra, True, groups)


def _checked(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the dtype of autocast where that is on; raises ValueError unless 4-D."""
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError(f"x {tuple(x.shape)} and w {tuple(w.shape)} must have four dimensions")
    if x.device.type not in ("cpu", "cuda") or not torch.is_autocast_enabled(x.device.type):
        return x, w
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), w.to(dtype)


def _use_ours(impl: str | None, x: Tensor) -> bool:
    if impl not in (None, "ref", "cpu", "cuda"):
        raise ValueError(f"impl={impl!r} is unknown; allowed: None, 'ref', 'cpu', 'cuda'")
    where = x.device.type
    if impl in ("cpu", "cuda") and impl != ("cuda" if emulating() and where == "cpu" else where):
        raise ValueError(f"impl={impl!r} takes tensors on that device, not on {x.device}")
    return impl != "ref" and not switched_off() and where in ("cpu", "cuda")


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _conv(
    x: Tensor,
    w: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    extra: Sequence[int],
    transposed: bool,
    groups: int,
) -> Tensor:
    return aten.convolution(x, w, None, stride, padding, (1, 1), transposed, extra, groups)


def _weight_grad(
    fine: Tensor,
    coarse: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Return the gradient of `w` of this `shape` in `<coarse, conv2d(fine, w)>`."""
    w = fine.new_empty(1).expand(shape)  # only its shape is read
    rest = (None, stride, padding, (1, 1), False, (0, 0), groups, (False, True, False))
    return aten.convolution_backward(coarse, fine, w, *rest)[1]


def _save(ctx, inputs, output) -> None:
    x, w, *ctx.geometry = inputs
    ctx.save_for_backward(x, w)


def _backward(ctx, g: Tensor) -> tuple:
    """Both gradients in one call of torch's, or, if they will be differentiated, each by an op."""
    (x, w), need = ctx.saved_tensors, ctx.needs_input_grad[:2]
    stride, padding, extra, transposed, groups = ctx.geometry
    if not torch.is_grad_enabled():
        rest = (None, stride, padding, (1, 1), transposed, extra, groups, (*need, False))
        grads = aten.convolution_backward(g, x, w, *rest)[:2]
        return *grads, *[None] * 5
    of = (stride, padding, groups)
    dx = _adjoint(g, w, x, not transposed, *of) if need[0] else None
    pair = (g, x) if transposed else (x, g)
    dw = torch.ops.cuda_ops.conv2d_weight_grad(*pair, w.shape, *of) if need[1] else None
    return dx, dw, *[None] * 5


def _adjoint(
    g: Tensor, w: Tensor, like: Tensor, transposed: bool, stride, padding, groups: int
) -> Tensor:
    """Convolve `g` to the size of `like`: back from the output of a convolution to its input."""
    extra = (0, 0)
    if transposed:
        extra = [
            like.shape[d] - ((g.shape[d] - 1) * s - 2 * p + w.shape[d])
            for d, s, p in zip((2, 3), stride, padding, strict=True)
        ]
    return torch.ops.cuda_ops.conv2d(g, w, stride, padding, extra, transposed, groups)


def _save_grad(ctx, inputs, output) -> None:
    fine, coarse, _, *ctx.geometry = inputs
    ctx.save_for_backward(fine, coarse)


def _grad_backward(ctx, h: Tensor) -> tuple:
    """Differentiate `<h, weight_grad(fine, coarse)> = <coarse, conv2d(fine, h)>`."""
    (fine, coarse), need = ctx.saved_tensors, ctx.needs_input_grad[:2]
    dfine = _adjoint(coarse, h, fine, True, *ctx.geometry) if need[0] else None
    dcoarse = _adjoint(fine, h, coarse, False, *ctx.geometry) if need[1] else None
    return dfine, dcoarse, *[None] * 4


register(
    "conv2d(Tensor x, Tensor w, SymInt[] stride, SymInt[] padding, SymInt[] extra, "
    "bool transposed, SymInt groups) -> Tensor",
    cpu=_conv,
    cuda=_conv,
    fake=_conv,
    backward=_backward,
    setup=_save,
)
register(
    "conv2d_weight_grad(Tensor fine, Tensor coarse, SymInt[] shape, SymInt[] stride, "
    "SymInt[] padding, SymInt groups) -> Tensor",
    cpu=_weight_grad,
    cuda=_weight_grad,
    fake=_weight_grad,
    backward=_grad_backward,
    setup=_save_grad,
)
