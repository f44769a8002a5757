"""bias_act against literal formulas in float64, and the kernel against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cuda_ops import bias_act, check
from cuda_ops.bias_act import ACTIVATIONS
from cuda_ops.compile import cpu_kernels

SQRT2 = 1.4142135623730951
FORMULAS = {
    "linear": (lambda x: x, 1.0),
    "relu": (lambda x: max(x, 0.0), SQRT2),
    "lrelu": (lambda x: x if x > 0 else 0.2 * x, SQRT2),
    "tanh": (lambda x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)), 1.0),
    "sigmoid": (lambda x: 1 / (1 + math.exp(-x)), 1.0),
    "elu": (lambda x: x if x > 0 else math.exp(x) - 1, 1.0),
    "selu": (
        lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
        1.0,
    ),
    "softplus": (lambda x: math.log(1 + math.exp(x)), 1.0),
    "swish": (lambda x: x / (1 + math.exp(-x)), SQRT2),
}
NATIVE = ["linear", "relu", "lrelu"]
needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def _literal(x: Tensor, b: Tensor, act: str, gain: float, clamp: float | None) -> Tensor:
    """Loop over every number of `x [N, C, ...]`."""
    y = torch.empty_like(x)
    for at in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        v = gain * FORMULAS[act][0](float(x[tuple(at)]) + float(b[at[1]]))
        y[tuple(at)] = v if clamp is None else max(-clamp, min(clamp, v))
    return y


def test_all_activations_have_a_formula_here() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize(("gain", "clamp"), [(None, None), (0.7, None), (None, 0.4), (3.0, 1.1)])
def test_formula(act: str, gain: float | None, clamp: float | None) -> None:
    x, b = 2 * _draw(2, 3, 4, 2), _draw(3, seed=1)
    expected = _literal(x, b, act, FORMULAS[act][1] if gain is None else gain, clamp)
    y = bias_act(x, b, act=act, gain=gain, clamp=clamp)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@needs_kernels
@pytest.mark.parametrize("act", NATIVE)
@pytest.mark.parametrize("clamp", [None, 0.4])
def test_formula_of_the_kernel(act: str, clamp: float | None) -> None:
    x, b = 2 * _draw(2, 16, 3, 5), _draw(16, seed=1)
    y = bias_act(x.float(), b.float(), act=act, clamp=clamp, impl="cpu")
    assert y.dtype == torch.float32
    expected = _literal(x, b, act, FORMULAS[act][1], clamp)
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize(("gain", "clamp"), [(None, None), (0.7, 0.4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_formula_of_the_cuda_kernel(
    act: str, gain: float | None, clamp: float | None, layout: torch.memory_format
) -> None:
    x, b = (2 * _draw(2, 3, 4, 2)).contiguous(memory_format=layout), _draw(3, seed=1)
    expected = _literal(x, b, act, FORMULAS[act][1] if gain is None else gain, clamp)
    y = bias_act(x, b, act=act, gain=gain, clamp=clamp, impl="cuda")
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert y.stride() == x.stride()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_gradients_of_the_cuda_kernel(act: str, clamp: float | None) -> None:
    inputs = (_draw(2, 3, 2).requires_grad_(), _draw(3, seed=1).requires_grad_())

    def apply(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b, act=act, clamp=clamp, impl="cuda")

    assert torch.autograd.gradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(apply, inputs)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("act", ["lrelu", "softplus"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((5,), 0), ((4, 5), 1), ((4, 5), 0), ((2, 3, 5), -1), ((2, 3, 8), 1), ((2, 3, 2, 5), 3),
     ((2, 3, 2, 5), 0), ((2, 3, 2, 2, 3), 1), ((2, 3, 2, 2, 3), -2), ((0, 4), 1), ((4, 0, 2), 0)],
)  # fmt: skip
def test_any_dim(shape: tuple[int, ...], dim: int, bias: bool, act: str) -> None:
    for strided in (False, True):
        x = _draw(*shape[:-1], 2 * shape[-1])[..., ::2] if strided else _draw(*shape)
        x.requires_grad_()
        b = _draw(shape[dim], seed=1).requires_grad_() if bias else None
        inputs = [t for t in (x, b) if t is not None]
        found = []
        for impl in ("cuda", "ref"):
            y = bias_act(x, b, dim=dim, act=act, impl=impl)
            grads = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
            second = torch.autograd.grad(grads[0].square().sum(), inputs)
            found.append([y, *grads, *second])
        for fast, plain in zip(*found, strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("emulated")
def test_bias_of_a_number() -> None:
    x = torch.tensor(-2.0)
    assert bias_act(x, act="relu", impl="cuda").shape == ()


@pytest.mark.usefixtures("emulated")
@settings(max_examples=25, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=5).map(tuple),
    dim=st.integers(0, 4),
    act=st.sampled_from(sorted(FORMULAS)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    clamp=st.sampled_from([None, 0.75]),
)
def test_any_shape(
    shape: tuple[int, ...], dim: int, act: str, dtype: torch.dtype, clamp: float | None
) -> None:
    shape, dim = shape if math.prod(shape) < 2000 else shape[:3], dim % len(shape[:3])
    case = check.Case(
        "",
        lambda i, impl: bias_act(*i, dim=dim, act=act, clamp=clamp, impl=impl),
        (shape, (shape[dim],)),
        order=1,
    )
    for error in check.errors(case, "cuda", dtype=dtype, layout="contiguous", device="cpu"):
        # single numbers may round unluckily: the reference's own error can be zero there
        assert error.kernel <= 2 * error.reference + 8 * torch.finfo(dtype).eps, error


def test_alpha_is_the_slope() -> None:
    x = torch.tensor([[-2.0, 3.0]])
    y = bias_act(x, act="lrelu", alpha=0.5, gain=1)
    assert y.tolist() == [[-1.0, 3.0]]


@pytest.mark.parametrize(("shape", "dim"), [((4, 5), 1), ((4, 5), 0), ((2, 3, 5), -1)])
def test_bias_along_dim(shape: tuple[int, ...], dim: int) -> None:
    x, b = _draw(*shape), _draw(shape[dim], seed=1)
    expected = torch.stack([s + v for s, v in zip(x.unbind(dim), b, strict=True)], dim)
    torch.testing.assert_close(bias_act(x, b, dim=dim), expected)


@pytest.mark.parametrize("act", FORMULAS)
@pytest.mark.parametrize("clamp", [None, 0.9])
def test_gradients_of_the_reference(act: str, clamp: float | None) -> None:
    inputs = (_draw(2, 3, 2, 2).requires_grad_(), _draw(3, seed=1).requires_grad_())

    def apply(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b, act=act, clamp=clamp)

    assert torch.autograd.gradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(apply, inputs)


def _orders(dtype: torch.dtype, layout: str, impl: str | None, **options) -> list[Tensor]:
    """Return the value, the gradients and those of the squared gradient of x (as R1 takes)."""
    x, b = _draw(3, 32, 9, 7, dtype=dtype), _draw(32, seed=1, dtype=dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = x.repeat_interleave(2, dim=3)[..., ::2]
    x, b = x.detach().requires_grad_(), b.requires_grad_()
    y = bias_act(x, b, impl=impl, **options)
    loss = (y * _draw(*y.shape, seed=2, dtype=dtype)).sum() + y.square().sum()
    first = torch.autograd.grad(loss, (x, b), retain_graph=True)
    (gx,) = torch.autograd.grad(loss, x, create_graph=True)
    second = torch.autograd.grad(gx.square().sum(), (x, b))
    return [y.detach(), *first, gx.detach(), *second]


@needs_kernels
@pytest.mark.parametrize("impl", ["cpu", None])
@pytest.mark.parametrize("act", NATIVE)
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_kernel_is_as_exact_as_the_reference(
    impl: str | None, act: str, clamp: float | None, layout: str
) -> None:
    options = dict(act=act, clamp=clamp, gain=1.3)
    kernel = _orders(torch.float32, layout, impl, **options)
    plain = _orders(torch.float32, layout, "ref", **options)
    exact = _orders(torch.float64, layout, "ref", **options)
    for found, simple, true in zip(kernel, plain, exact, strict=True):
        size = max(1.0, float(true.abs().max()))
        assert float(true.abs().max()) > 0
        own = float((found.double() - true).abs().max()) / size
        other = float((simple.double() - true).abs().max()) / size
        assert own <= 2 * other + 1e-6


@needs_kernels
def test_two_calls_are_bit_identical() -> None:
    once, twice = (_orders(torch.float32, "contiguous", None, act="lrelu") for _ in range(2))
    assert all(map(torch.equal, once, twice))


def test_inputs_stay_as_they_are() -> None:
    x, b = _draw(2, 16, 4, 4, dtype=torch.float32), _draw(16, seed=1, dtype=torch.float32)
    before = x.clone()
    bias_act(x, b, act="lrelu", clamp=0.1)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(act="gelu"), "gelu.*allowed: linear"),
        (dict(impl="cuda"), "impl='cuda'"),
        (dict(b=torch.zeros(4)), r"\(4,\).*\(3,\)"),
        (dict(act="tanh", impl="cpu"), "impl='cpu'"),
    ],
)
def test_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bias_act(torch.zeros(2, 3, 4, 4), **options)
