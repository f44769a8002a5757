"""Holding the kernels against the references: values, gradients and second gradients.

One rule (`errors`): a kernel's error is at most twice that of the reference in the same dtype, both
measured against the reference in float64. The tests, `cuda_ops.doctor` and `cuda_ops.bench --check`
run the same `CASES`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from cuda_ops.bias_act import bias_act
from cuda_ops.scale_act import scale_act
from cuda_ops.upfirdn2d import setup_filter, upfirdn2d

__all__ = ["CASES", "LAYOUTS", "Case", "Errors", "errors", "holds", "outputs"]

LAYOUTS = ("contiguous", "channels_last", "strided")


class Case(NamedTuple):
    """An operator with its arguments: `call(inputs, impl)`, differentiable in all of `inputs`.

    `shapes` are those of the inputs; `kernels` says which implementations exist ("cpu", "cuda");
    `order` is how often it is differentiated here.
    """

    name: str
    call: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    kernels: tuple[str, ...] = ("cuda",)
    order: int = 2


class Errors(NamedTuple):
    """Relative errors against float64 of a kernel and of the reference in one dtype."""

    what: str
    kernel: float
    reference: float
    floor: float


def errors(
    case: Case, impl: str, *, dtype: torch.dtype, layout: str, device: str, seed: int = 0
) -> Iterator[Errors]:
    """Yield the errors of the value, of each gradient and of each second gradient.

    Inputs are fresh, drawn on the CPU from `seed`; memory that a kernel does not write is NaN.
    """
    inputs = _inputs(case, dtype, layout, device, seed)
    exact = [x.to(torch.float64) for x in inputs]
    with _poisoned():
        runs = [
            _derivatives(case, some, how, seed)
            for some, how in ((inputs, impl), (inputs, "ref"), (exact, "ref"))
        ]
    floor = 4 * torch.finfo(dtype).eps
    for (what, fast), (_, plain), (_, truth) in zip(*runs, strict=True):
        yield Errors(what, _error(fast, truth), _error(plain, truth), floor)


def outputs(
    case: Case, impl: str, *, dtype: torch.dtype, layout: str, device: str, seed: int = 0
) -> list[Tensor]:
    """Return the value, the gradients and the second gradients, for comparing runs bit by bit."""
    inputs = _inputs(case, dtype, layout, device, seed)
    return [t for _, t in _derivatives(case, inputs, impl, seed)]


def holds(error: Errors) -> bool:
    """Say whether the kernel is as exact as the rule asks: NaN never is."""
    return error.kernel <= 2 * error.reference + error.floor


def _inputs(
    case: Case, dtype: torch.dtype, layout: str, device: str, seed: int
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(s, generator=generator, dtype=torch.float64) for s in case.shapes]
    return [_laid_out(x.to(device, dtype), layout) for x in draw]


def _derivatives(
    case: Case, inputs: list[Tensor], impl: str, seed: int
) -> list[tuple[str, Tensor]]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = case.call(leaves, impl)
    found = [("value", y)]
    wanted = leaves
    for order in range(1, case.order + 1):
        generator = torch.Generator().manual_seed(seed + order)
        cotangents = [
            torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t).requires_grad_()
            for t in ([y] if order == 1 else [d for _, d in found if d is not None])
        ]
        targets = [y] if order == 1 else [d for _, d in found if d is not None]
        total = sum((t * c).sum() for t, c in zip(targets, cotangents, strict=True))
        grads = torch.autograd.grad(
            total, wanted, create_graph=order < case.order, allow_unused=True
        )
        found += [(f"order {order}, input {i}", d) for i, d in enumerate(grads)]
        wanted = wanted + cotangents
    return [(what, torch.zeros(()) if t is None else t.detach()) for what, t in found]


def _error(got: Tensor, truth: Tensor) -> float:
    truth = truth.double()
    if got.shape != truth.shape and got.numel():
        got = got.expand_as(truth)
    return float((got.double() - truth).norm() / truth.norm().clamp_min(1e-30))


def _laid_out(x: Tensor, layout: str) -> Tensor:
    """Return `x` in a memory layout; "strided" is no dense tensor at all."""
    if x.ndim != 4 or layout == "contiguous":
        return x.contiguous()
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])
    wide[..., ::2] = x
    return wide[..., ::2]


@contextmanager
def _poisoned() -> Iterator[None]:
    """Fill fresh memory with NaN."""
    was, warn = torch.are_deterministic_algorithms_enabled(), True
    torch.use_deterministic_algorithms(True, warn_only=warn)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was)


def _pointwise() -> Iterator[Case]:
    for act in ("linear", "relu", "lrelu"):
        for clamp in (None, 0.7):
            yield Case(
                f"bias_act {act} clamp={clamp}",
                lambda i, impl, act=act, clamp=clamp: bias_act(
                    i[0], i[1], act=act, clamp=clamp, impl=impl
                ),
                ((2, 16, 5, 7), (16,)),
                ("cpu",),
            )
    yield Case(
        "scale_act",
        lambda i, impl: scale_act(i[0], i[1], i[2], i[3], gain=1.4, impl=impl),
        ((2, 16, 5, 7), (2, 16), (2, 1, 5, 7), (16,)),
        ("cpu",),
    )


def _resampling() -> Iterator[Case]:
    f = setup_filter([1, 3, 3, 1])
    yield Case(
        "upfirdn2d up",
        lambda i, impl: upfirdn2d(i[0], f.to(i[0].device), up=2, padding=[2, 1, 2, 1], impl=impl),
        ((2, 3, 5, 7),),
        ("cpu",),
    )


CASES: tuple[Case, ...] = (*_pointwise(), *_resampling())
