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
from cuda_ops.conv2d import conv2d, conv_transpose2d
from cuda_ops.conv3x3 import conv3x3
from cuda_ops.diffaugment import diffaugment
from cuda_ops.filtered_lrelu import filtered_lrelu
from cuda_ops.scale_act import scale_act
from cuda_ops.upfirdn2d import setup_filter, upfirdn2d
from cuda_ops.warp import warp

__all__ = ["CASES", "LAYOUTS", "Case", "Errors", "errors", "holds", "outputs"]

LAYOUTS = ("contiguous", "channels_last", "strided")


class Case(NamedTuple):
    """An operator with its arguments: `call(inputs, impl)`, differentiable in all of `inputs`.

    `shapes` are those of the inputs; `kernels` says which implementations exist ("cpu", "cuda");
    `order` is how often it is differentiated here. `floor` is 8 for Winograd's layers: at few
    channels the reference errs by one unit, and F(4x4, 3x3) by several (see conv3x3).
    """

    name: str
    call: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    kernels: tuple[str, ...] = ("cuda",)
    order: int = 2
    floor: float = 4.0  # rounding that is let pass, in units of the dtype


class Errors(NamedTuple):
    """Relative errors against float64 of a kernel and of the reference in one dtype."""

    what: str
    kernel: float
    reference: float
    floor: float

    @property
    def ratio(self) -> float:
        """The kernel's error over the largest that the rule lets pass."""
        return self.kernel / (2 * self.reference + self.floor)


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
    floor = 64 if dtype == torch.float64 else case.floor  # float64 is the truth
    floor *= torch.finfo(dtype).eps
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
    return error.ratio <= 1


def _inputs(case: Case, dtype: torch.dtype, layout: str, device: str, seed: int) -> list[Tensor]:
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
    was = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)


def _pointwise() -> Iterator[Case]:
    both, noisy = ("cpu", "cuda"), dict(gain=1.4)
    for act in ("linear", "relu", "lrelu"):
        for clamp in (None, 0.7):
            yield _bias_act(((2, 16, 5, 7), (16,)), both, act=act, clamp=clamp)
    for act in ("tanh", "sigmoid", "elu", "selu", "softplus", "swish"):
        yield _bias_act(((2, 3, 5, 7), (3,)), act=act, gain=1.3)
    yield _bias_act(((2, 8, 4, 4), (8,)), act="swish", clamp=0.7)
    yield _bias_act(((19, 24), (24,)), act="lrelu")
    yield _bias_act(((3, 5, 8), (3,)), act="lrelu", dim=0)
    yield _scale_act("", ((2, 16, 5, 7), (2, 16), (2, 1, 5, 7), (16,)), both, **noisy)
    yield _scale_act("clamped", ((2, 24, 4, 4), (2, 24), (2, 1, 4, 4), (24,)), clamp=0.9)
    yield _scale_act("shared noise", ((2, 33, 4, 6), (2, 33), (1, 1, 4, 6), (33,)), both, **noisy)
    yield _scale_act("one pixel", ((3, 8, 1, 1), (3, 8), (3, 1, 1, 1), (8,)), **noisy)


def _bias_act(shapes: tuple, kernels: tuple[str, ...] = ("cuda",), **options) -> Case:
    name = " ".join(f"{k}={v}" for k, v in options.items() if v is not None)
    call = lambda i, impl: bias_act(*i, impl=impl, **options)  # noqa: E731
    return Case(f"bias_act {name} {list(shapes[0])}", call, shapes, kernels)


def _scale_act(
    name: str, shapes: tuple, kernels: tuple[str, ...] = ("cuda",), **options: float
) -> Case:
    call = lambda i, impl: scale_act(*i, impl=impl, **options)  # noqa: E731
    return Case(f"scale_act {name}".strip(), call, shapes, kernels)


def _resampling() -> Iterator[Case]:
    """Yield factors of 2 (unrolled kernels), any factors, crops, and 2-D filters."""
    short, long = [1.0, 3, 3, 1], [1.0, 2, -4, 9, 7, 3, -2, 1]
    table = [
        ("up, 4 taps", short, dict(up=2, padding=[2, 1, 2, 1], gain=4), (2, 16, 5, 16)),
        ("down, 4 taps", short, dict(down=2, padding=1), (2, 16, 6, 16)),
        ("same, 4 taps", short, dict(padding=[2, 1, 1, 2]), (1, 16, 5, 16)),
        ("up, 8 taps", long, dict(up=2, padding=[4, 3, 4, 3]), (1, 16, 5, 8)),
        ("down, 8 taps", long, dict(down=2, padding=3, flip_filter=True), (1, 16, 6, 16)),
        ("same, 8 taps", long, dict(padding=[4, 3, 3, 4]), (1, 16, 5, 16)),
        ("odd sizes", short, dict(up=2, padding=[3, 0, -1, 2]), (2, 3, 5, 7)),
        ("3/2, crop", long, dict(up=3, down=[2, 1], padding=[-1, 2, 3, -2]), (2, 3, 5, 7)),
        ("2-D", [[1.0, 2, 3], [0, 1, 5]], dict(up=[2, 1], down=[1, 2], padding=2), (2, 3, 5, 7)),
    ]
    for name, taps, options, shape in table:
        f = setup_filter(taps)
        yield Case(
            f"upfirdn2d {name}",
            lambda i, impl, f=f, options=options: upfirdn2d(i[0], f, **options, impl=impl),
            (shape,),
            ("cpu", "cuda"),
        )


def _convolution() -> Iterator[Case]:
    yield Case(
        "conv2d",
        lambda i, impl: conv2d(i[0], i[1], stride=2, padding=1, groups=2, impl=impl),
        ((2, 6, 5, 7), (4, 3, 3, 3)),
        ("cpu", "cuda"),
    )
    yield Case(
        "conv_transpose2d",
        lambda i, impl: conv_transpose2d(
            i[0], i[1], stride=2, padding=1, output_padding=1, impl=impl
        ),
        ((2, 4, 3, 5), (4, 3, 4, 3)),
        ("cpu", "cuda"),
    )
    for mode, up, down, size in (("plain", 1, 1, 6), ("up", 2, 1, 12), ("down", 1, 2, 3)):
        yield Case(
            f"conv3x3 {mode}",
            lambda i, impl, up=up, down=down: _layer(i, up, down, impl),
            ((2, 16, 6, 6), (16, 16, 3, 3), (2, 16), (2, 16), (2, 1, size, size), (16,)),
            ("cpu", "cuda"),
            floor=8.0,
        )


def _layer(i: list[Tensor], up: int, down: int, impl: str) -> Tensor:
    """Apply a modulated layer with a filter that shows when it is turned round."""
    x, w, styles, scale, noise, b = i
    f = setup_filter([1, 4, 3, 2]).to(x)
    operands = dict(styles=styles, scale=scale, noise=noise, b=b)
    options = dict(up=up, down=down, slope=0.2, gain=1.4, impl=impl)
    return conv3x3(x, w / 12, f, **operands, **options)


def _filtered() -> Iterator[Case]:
    table = [
        (2, 2, 12, 12, 9, None),
        (4, 2, 24, 12, [17, 16, 17, 16], 1.5),
        (2, 1, 3, 2, [-1, 2, 1, 0], None),
    ]
    for up, down, up_taps, down_taps, padding, clamp in table:
        fu, fd = (setup_filter([1.0 + k * (n - k) for k in range(n)]) for n in (up_taps, down_taps))
        options = dict(up=up, down=down, padding=padding, clamp=clamp)
        yield Case(
            f"filtered_lrelu up={up} down={down}",
            lambda i, impl, fu=fu, fd=fd, options=options: filtered_lrelu(
                i[0], fu, fd.to(i[0].device), i[1], **options, impl=impl
            ),
            ((2, 3, 6, 7), (3,)),
            ("cuda",),
        )


def _augmentation() -> Iterator[Case]:
    place = torch.tensor([[1, 3, 2, -1], [0, 2, -9, 0], [0, 0, 0, 0]])
    turned = [[0.9, -0.5, 1.5], [0.4, 0.8, -0.5], [0, 0, 1]]
    far = [[1.3, 0.6, 17.2], [-0.8, 1.1, -9.4], [0, 0, 1]]
    source = torch.tensor([turned, far, torch.eye(3).tolist()])
    mix = [[0.3, 0.5, 0.2, 0.1], [-0.4, 1.2, 0.2, -0.3], [0.3, -0.6, 0.9, 0.0], [0, 0, 0, 1]]
    colour = torch.tensor([mix, torch.eye(4).tolist(), mix])
    for name, parameters, kernels, shape in (
        ("blit and colour", (place, None, colour), ("cuda",), (3, 3, 9, 9)),
        ("affine", (None, source, None), ("cpu", "cuda"), (3, 5, 8, 8)),
        ("all", (place, source, colour), ("cpu", "cuda"), (3, 3, 11, 11)),
    ):
        yield Case(
            f"warp {name}",
            lambda i, impl, parameters=parameters: warp(i[0], *parameters, impl=impl),
            (shape,),
            kernels,
        )
    factors = torch.tensor([[0.3, 1.4, 0.7], [-0.2, 0.0, 1.5]])
    shift, hole = torch.tensor([[1, -2], [0, 3]]), torch.tensor([[0.3, 0.9, 0.25], [0.5, 0.4, 0.1]])
    for name, options in (
        ("translation, cutout", dict(shift=shift, hole=hole)),
        ("all", dict(factors=factors, shift=shift, hole=hole)),
    ):
        yield Case(
            f"diffaugment {name}",
            lambda i, impl, options=options: diffaugment(i[0], **options, impl=impl),
            ((2, 3, 7, 10),),
            ("cpu", "cuda"),
        )


CASES: tuple[Case, ...] = (
    *_pointwise(),
    *_resampling(),
    *_filtered(),
    *_convolution(),
    *_augmentation(),
)
