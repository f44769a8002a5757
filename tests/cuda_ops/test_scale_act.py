"""scale_act against the literal formula in float64; its kernels' first and second derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from cuda_ops import _pointwise, check
from cuda_ops.bias_act import bias_act
from cuda_ops.compile import cpu_kernels
from cuda_ops.conv3x3 import conv3x3
from cuda_ops.filtered_lrelu import filtered_lrelu
from cuda_ops.scale_act import scale_act

F64 = torch.float64
needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=F64).to(dtype)


def _inputs(
    n: int, c: int, h: int, w: int, *, shared: bool = False, dtype: torch.dtype = F64
) -> list[Tensor]:
    shapes = ((n, c, h, w), (n, c), (1 if shared else n, 1, h, w), (c,))
    return [_draw(*s, seed=i, dtype=dtype).requires_grad_() for i, s in enumerate(shapes)]


def _literal(
    y: Tensor, scale: Tensor, noise: Tensor, b: Tensor, slope: float, gain: float, clamp: float
) -> Tensor:
    z = torch.empty_like(y)
    for at in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        n, c, h, w = at
        v = float(scale[n, c] * y[n, c, h, w] + noise[n % len(noise), 0, h, w] + b[c])
        v = gain * (v if v > 0 else slope * v)
        z[n, c, h, w] = max(-clamp, min(clamp, v))
    return z


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("clamp", [0.8, 1e9])
def test_formula(impl: str, shared: bool, clamp: float) -> None:
    inputs = [t.detach() for t in _inputs(2, 5, 3, 2, shared=shared)]
    z = scale_act(*inputs, slope=0.3, gain=1.4, clamp=clamp, impl=impl)
    expected = _literal(*inputs, 0.3, 1.4, clamp)
    torch.testing.assert_close(z, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("shared", "clamp"), [(False, None), (True, 0.8)])
def test_both_derivatives(layout: torch.memory_format, shared: bool, clamp: float | None) -> None:
    y, *rest = _inputs(2, 3, 1, 2, shared=shared)
    inputs = (y.detach().contiguous(memory_format=layout).requires_grad_(), *rest)

    def apply(*inputs: Tensor) -> Tensor:
        return scale_act(*inputs, gain=1.3, clamp=clamp, impl="cuda")

    assert gradcheck(apply, inputs)
    assert gradgradcheck(apply, inputs, fast_mode=True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("frozen", range(4))
def test_derivatives_with_one_input_held(frozen: int) -> None:
    inputs = _inputs(2, 2, 1, 2)
    held = inputs.pop(frozen).detach()

    def apply(*some: Tensor) -> Tensor:
        return scale_act(*some[:frozen], held, *some[frozen:], gain=1.3, impl="cuda")

    assert gradcheck(apply, inputs)
    assert gradgradcheck(apply, inputs, fast_mode=True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_third_derivative(act: str) -> None:
    x, b = _draw(2, 3, 1, 2).requires_grad_(), _draw(3, seed=1).requires_grad_()

    def gradient(x: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        y = bias_act(x, b, act=act, impl="cuda")
        return torch.autograd.grad(y.square().sum(), (x, b), create_graph=True)

    assert gradgradcheck(gradient, (x, b))


@needs_kernels
@pytest.mark.parametrize("c", [16, 21, 32])
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_path_length_on_the_cpu(c: int, clamp: float | None) -> None:
    """The gradient of a gradient's norm, as path length takes it, against float64."""

    def lengths(dtype: torch.dtype, impl: str) -> list[Tensor]:
        inputs = _inputs(2, c, 5, 3, dtype=dtype)
        z = scale_act(*inputs, gain=1.4, clamp=clamp, impl=impl)
        g = torch.autograd.grad((z * _draw(*z.shape, seed=9, dtype=dtype)).sum() + z.square().sum(),
                                inputs, create_graph=True)  # fmt: skip
        return list(torch.autograd.grad(sum(t.square().sum() for t in g), inputs))

    for found, true in zip(lengths(torch.float32, "cpu"), lengths(F64, "ref"), strict=True):
        torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-4)


def test_the_input_is_kept_only_where_the_output_does_not_suffice(emulated: None) -> None:
    y, scale, noise, b = _inputs(2, 3, 2, 2)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda t: t):
        z = scale_act(y, None, noise, b)
        assert z.data_ptr() in kept
        assert y.data_ptr() not in kept
        kept.clear()
        scale_act(y, None, noise, b, slope=1)
        assert y.data_ptr() not in kept
        kept.clear()
        scale_act(y, scale, noise, b)
        scale_act(y, None, noise, b, clamp=1.0)
    assert kept.count(y.data_ptr()) == 2


def test_at_the_limit_the_gradient_passes(emulated: None) -> None:
    x = torch.tensor([-1.0, -0.5, 0.5, 1.0]).reshape(1, 1, 1, 4)
    for impl in ("ref", "cuda"):
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(bias_act(leaf, clamp=0.5, impl=impl).sum(), leaf)
        assert g.flatten().tolist() == [0, 1, 1, 0]


def test_nan_is_not_hidden_by_the_clamp(emulated: None) -> None:
    x = torch.tensor([float("nan"), 2.0]).reshape(1, 1, 1, 2)
    z = scale_act(x, clamp=1.0, impl="cuda").flatten()
    assert z[0].isnan()
    assert z[1] == 1


OPTIONS = (0.2, 1.4, -1.0)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [0, 6])
def test_opcheck(layout: torch.memory_format, kind: int) -> None:
    y, *rest = _inputs(2, 2, 2, 2)
    y = y.detach().contiguous(memory_format=layout).requires_grad_()
    g, h = _draw(2, 2, 2, 2, seed=7).requires_grad_(), [_draw(*t.shape) for t in (y, *rest)]
    ops, mask = torch.ops.cuda_ops, [True, True, True]
    torch.library.opcheck(ops.scale_act, (y, *rest, *OPTIONS, kind))
    torch.library.opcheck(ops.scale_act_grad, (g, y, *rest, *OPTIONS, mask, False, kind))
    args = (*h, g.detach(), y.detach(), *[t.detach() for t in rest], *OPTIONS, [True, *mask])
    torch.library.opcheck(ops.scale_act_second, (*args, False, kind))


@needs_kernels
def test_opcheck_of_the_cpu_kernel() -> None:
    inputs = _inputs(2, 16, 2, 4, dtype=torch.float32)
    torch.library.opcheck(torch.ops.cuda_ops.scale_act, (*inputs, *OPTIONS))
    args = (_draw(2, 16, 2, 4, seed=7, dtype=torch.float32), *inputs, *OPTIONS, [True] * 3, False)
    torch.library.opcheck(torch.ops.cuda_ops.scale_act_grad, args)


@pytest.mark.usefixtures("emulated")
def test_compiles_whole() -> None:
    def double(*inputs: Tensor) -> Tensor:
        z = scale_act(*inputs, gain=1.4, impl="cuda")
        return bias_act(z.flatten(1), inputs[3].repeat_interleave(12), act="swish", impl="cuda")

    inputs = _inputs(2, 3, 4, 3)
    whole = torch.compile(double, fullgraph=True, backend="aot_eager")
    for found, plain in ((whole(*inputs), double(*inputs)),):
        assert torch.equal(found, plain)
        grads = [torch.autograd.grad(t.square().sum(), inputs) for t in (found, plain)]
        assert all(map(torch.equal, *grads))


@pytest.mark.usefixtures("emulated")
@settings(max_examples=25, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    shape=st.tuples(*(st.integers(1, k) for k in (3, 20, 5, 9))),
    shared=st.booleans(),
    layout=st.sampled_from(check.LAYOUTS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, F64]),
    clamp=st.sampled_from([None, 0.75]),
)
def test_any_shape(
    shape: tuple[int, ...], shared: bool, layout: str, dtype: torch.dtype, clamp: float | None
) -> None:
    n, c, h, w = shape
    shapes = (shape, (n, c), (1 if shared else n, 1, h, w), (c,))
    case = check.Case("", lambda i, impl: scale_act(*i, clamp=clamp, impl=impl), shapes, order=1)
    for error in check.errors(case, "cuda", dtype=dtype, layout=layout, device="cpu"):
        # single numbers may round unluckily: the reference's own error can be zero there
        floor = 8 * torch.finfo(dtype).eps
        assert error.kernel <= 2 * error.reference + floor, error


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 4)])
def test_nothing(shape: tuple[int, ...]) -> None:
    inputs = _inputs(*shape)
    z = scale_act(*inputs, impl="cuda")
    assert z.shape == shape
    grads = torch.autograd.grad(z.sum(), inputs, create_graph=True)
    assert [g.shape for g in grads] == [t.shape for t in inputs]
    assert all((g == 0).all() for g in grads)
    assert torch.autograd.grad(grads[0].sum() + grads[1].sum(), inputs[1])[0].shape == shape[:2]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_float32_operands_of_a_bfloat16_image(layout: torch.memory_format) -> None:
    y, *rest = _inputs(2, 8, 4, 4, dtype=torch.float32)
    y = y.detach().bfloat16().contiguous(memory_format=layout).requires_grad_()
    exact = [y.detach().double().requires_grad_(), *[t.detach().double() for t in rest]]
    exact = [t.requires_grad_() for t in exact]
    z = scale_act(y, *rest, impl="cuda")
    assert z.dtype == torch.bfloat16
    assert z.is_contiguous(memory_format=layout)
    grads = torch.autograd.grad(z.float().sum(), (y, *rest))
    true = torch.autograd.grad(scale_act(*exact, impl="ref").sum(), exact)
    assert [g.dtype for g in grads] == [torch.bfloat16] + 3 * [torch.float32]
    for g, t in zip(grads[1:], true[1:], strict=True):
        torch.testing.assert_close(g.double(), t, rtol=1e-5, atol=1e-5)


def _cut(y: Tensor, scale: bool = False, noise: int | None = None, b: bool = True) -> tuple:
    n, c, h, w = y.shape
    operands = _pointwise.Operands(
        y.new_empty(n, c) if scale else None,
        None if noise is None else y.new_empty(noise, 1, h, w),
        y.new_empty(c) if b else None,
    )
    cut = _pointwise._cut(y, _pointwise.in_pixels(y), (operands,), (y,))
    return cut.samples, cut.rows, cut.columns, cut.width, cut.lanes


def test_how_tensors_are_cut() -> None:
    y = torch.empty(4, 6, 8, 8, dtype=torch.bfloat16)
    last = y.contiguous(memory_format=torch.channels_last)
    assert _cut(y) == (1, 24, 64, 8, 8)  # planes: rows of a plane, all samples in one
    assert _cut(y, noise=4) == (4, 6, 64, 8, 8)
    assert _cut(last, b=False) == _cut(y, b=False) == (1, 3, 512, 8, 32)  # layout is the same
    assert _cut(last) == (1, 64, 24, 8, 4)  # pixels: four rows of 6 channels are three vectors
    assert _cut(last, scale=True) == (4, 16, 24, 8, 4)
    assert _cut(last, noise=4) == (1, 256, 6, 1, 8)  # a row has one noise: it stays apart
    assert _cut(y.flatten()[1:65].reshape(1, 1, 8, 8))[3] == 1  # not at a multiple of 16 bytes


_Y = (4, 16, 8, 8)
_WRONG = [
    ("scale", (1, 16)),
    ("scale", (4, 1)),
    ("scale", (16,)),
    ("noise", (1, 1, 1, 1)),
    ("noise", (8, 8)),
    ("noise", (2, 1, 8, 8)),
    ("noise", (4, 1, 4, 4)),
    ("noise", (4, 16, 8, 8)),
    ("b", (1,)),
    ("b", (8,)),
]


@pytest.mark.parametrize("impl", [None, "ref"])
@pytest.mark.parametrize(("name", "shape"), _WRONG)
def test_operands_of_another_shape_are_refused(
    name: str, shape: tuple[int, ...], impl: str | None
) -> None:
    with pytest.raises(ValueError, match=f"{name} has shape"):
        scale_act(torch.randn(_Y), **{name: torch.ones(shape)}, impl=impl)
    w = torch.randn(16, 16, 3, 3)
    with pytest.raises(ValueError, match=f"{name} has shape"):
        conv3x3(torch.randn(_Y), w, **{name: torch.ones(shape)}, impl=impl)


def test_other_arguments_that_are_refused() -> None:
    with pytest.raises(ValueError, match="styles has shape"):
        conv3x3(torch.randn(_Y), torch.randn(16, 16, 3, 3), styles=torch.ones(1, 16))
    with pytest.raises(ValueError, match="N, C, H, W"):
        scale_act(torch.randn(4, 16, 8))
    for function in (scale_act, bias_act, filtered_lrelu):
        with pytest.raises(ValueError, match="clamp=-1"):
            function(torch.randn(_Y), clamp=-1)


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu"])
@pytest.mark.parametrize("emulate", [False, True])
def test_infinities_and_nan(act: str, emulate: bool, request: pytest.FixtureRequest) -> None:
    if emulate:
        request.getfixturevalue("emulated")
    x = torch.tensor([float("-inf"), -1.0, 0.0, 1.0, float("inf"), float("nan")])
    x = x.repeat(16).reshape(1, 16, 2, 3).contiguous(memory_format=torch.channels_last)
    for clamp in (None, 1.0):
        expected = bias_act(x, act=act, clamp=clamp, impl="ref")
        assert torch.equal(bias_act(x, act=act, clamp=clamp).isnan(), expected.isnan())
        torch.testing.assert_close(
            bias_act(x, act=act, clamp=clamp), expected, equal_nan=True, rtol=1e-6, atol=0
        )
