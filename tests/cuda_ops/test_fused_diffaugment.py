"""DiffAugment's operation against literal loops, and the kernels against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from cuda_ops.compile import cpu_kernels
from cuda_ops.diffaugment import diffaugment

SUBSETS = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1) if a + b + c]


@pytest.fixture(params=["cpu", "cuda"])
def kernel(request: pytest.FixtureRequest) -> str:
    """Name the kernels in turn; those of CUDA run emulated."""
    if request.param == "cuda":
        request.getfixturevalue("emulated")
    elif cpu_kernels() is None:
        pytest.skip("kernels are off")
    return request.param


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def _dtype(kernel: str) -> torch.dtype:
    return torch.float64 if kernel == "cuda" else torch.float32


FACTORS = torch.tensor([[0.25, 1.5, 0.625], [-0.5, 0.0, 1.5], [0.125, 2.0, 1.0], [0.0, 1.0, 0.5]])
SHIFT = torch.tensor([[1, -2], [0, 3], [-40, 1], [5, 70]])
HOLE = torch.tensor([[0.3, 0.9, 0.25], [0.5, 0.4, 0.1], [0.02, 0.0, 0.25], [0.5, 0.5, 0.0]])


def _parameters(n: int, subset: tuple[int, ...] = (1, 1, 1)) -> list[Tensor | None]:
    cycle = torch.arange(n) % 4
    return [t[cycle] if on else None for t, on in zip((FACTORS, SHIFT, HOLE), subset, strict=True)]


def _reference_literal(images: Tensor, factors, shift, hole) -> np.ndarray:
    """Pixel by pixel, as DiffAugment's description says."""
    x = images.double().numpy().copy()
    n, _, h, w = x.shape
    if factors is not None:
        for image, (brightness, saturation, contrast) in zip(x, factors.tolist(), strict=True):
            image += brightness
            image[:] = (image - image.mean(0)) * saturation + image.mean(0)
            image[:] = (image - image.mean()) * contrast + image.mean()
    y = np.zeros_like(x)
    for i in range(n):
        down, right = (0, 0) if shift is None else shift[i].tolist()
        for row in range(h):
            for column in range(w):
                if 0 <= row - down < h and 0 <= column - right < w:
                    y[i, :, row, column] = x[i, :, row - down, column - right]
                if hole is not None:
                    cx, cy, half = hole[i].tolist()
                    if abs((column + 0.5) / w - cx) < half and abs((row + 0.5) / h - cy) < half:
                        y[i, :, row, column] = 0
    return y


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 7, 13)], ids=str)
def test_formula(kernel: str, shape: tuple, subset: tuple) -> None:
    images, parameters = _draw(*shape, dtype=_dtype(kernel)), _parameters(4, subset)
    expected = _reference_literal(images, *parameters)
    for impl in (kernel, "ref"):
        found = diffaugment(images, *parameters, impl=impl)
        np.testing.assert_allclose(found, expected, atol=1e-5 if kernel == "cpu" else 1e-12)


def _value_and_gradient(images: Tensor, parameters: list, impl: str) -> list[Tensor]:
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    y = diffaugment(images, *parameters, impl=impl)
    return [y.detach(), *torch.autograd.grad(y, images, _draw(*y.shape, seed=1, dtype=y.dtype))]


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
@pytest.mark.parametrize("size", [8, 33, 65])
def test_kernel_is_as_exact_as_the_reference(kernel: str, size: int, subset: tuple) -> None:
    images, parameters = _draw(4, 3, size, size + 2, dtype=_dtype(kernel)), _parameters(4, subset)
    exact = _value_and_gradient(images.double(), parameters, "ref")
    plain = _value_and_gradient(images, parameters, "ref")
    for own, other, truth in zip(
        _value_and_gradient(images, parameters, kernel), plain, exact, strict=True
    ):
        error, allowed = ((t.double() - truth).norm() / truth.norm() for t in (own, other))
        assert error <= (1e-12 if kernel == "cuda" else 2 * allowed + 5e-7)


@pytest.mark.parametrize("subset", [(0, 1, 1), (0, 1, 0), (0, 0, 1)], ids=str)
def test_pixels_are_copied_to_the_bit(kernel: str, subset: tuple) -> None:
    images, parameters = _draw(4, 3, 9, 9, dtype=_dtype(kernel)), _parameters(4, subset)
    runs = (_value_and_gradient(images, parameters, impl) for impl in (kernel, "ref"))
    assert all(map(torch.equal, *runs))


@pytest.mark.parametrize("subset", SUBSETS, ids=str)
def test_backward_is_the_adjoint(kernel: str, subset: tuple) -> None:
    """<A x, y> = <x, A^T y>, without the brightness."""
    parameters = _parameters(4, subset)
    if subset[0]:
        parameters[0] = parameters[0] * torch.tensor([0.0, 1, 1])
    x, y = (_draw(4, 3, 9, 12, seed=s, dtype=_dtype(kernel)) for s in (0, 1))
    x.requires_grad_()
    out = diffaugment(x, *parameters, impl=kernel)
    (back,) = torch.autograd.grad(out, x, y)
    forth = float((out.detach() * y).double().sum())
    assert forth == pytest.approx(float((x.detach() * back).double().sum()), rel=1e-5)


@pytest.mark.usefixtures("emulated")
def test_gradients_of_the_cuda_kernel() -> None:
    images, parameters = _draw(2, 3, 5, 4).requires_grad_(), _parameters(2)

    def curved(x: Tensor) -> Tensor:
        return diffaugment(x, *parameters, impl="cuda").pow(3)

    assert gradcheck(curved, (images,), fast_mode=True)
    assert gradgradcheck(curved, (images,), fast_mode=True)


def test_two_runs_and_any_number_of_threads_give_the_same_bits(kernel: str) -> None:
    images, parameters = _draw(5, 3, 70, 66, dtype=torch.float32), _parameters(5)
    threads, runs = torch.get_num_threads(), []
    try:
        for count in (1, 1, 2):
            torch.set_num_threads(count)
            runs.append(_value_and_gradient(images, parameters, kernel))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


@pytest.mark.parametrize("layout", ["channels_last", "strided", "expanded"])
def test_layouts(kernel: str, layout: str) -> None:
    plain = _draw(3, 3, 10, 8, dtype=_dtype(kernel))
    if layout == "expanded":
        plain = plain[:1].expand(3, 3, 10, 8).contiguous()
    images = {
        "channels_last": lambda: plain.contiguous(memory_format=torch.channels_last),
        "strided": lambda: plain.repeat_interleave(2, 3)[..., ::2],
        "expanded": lambda: plain[:1].expand(3, 3, 10, 8),
    }[layout]()
    out = diffaugment(images, *_parameters(3), impl=kernel)
    torch.testing.assert_close(out, diffaugment(plain, *_parameters(3), impl=kernel))
    assert out.stride() == torch.empty_like(images).stride()


def test_no_images_no_result(kernel: str) -> None:
    for shape in ((0, 3, 8, 8), (2, 3, 0, 4)):
        images = torch.zeros(shape, dtype=_dtype(kernel), requires_grad=True)
        out = diffaugment(images, *_parameters(shape[0]), impl=kernel)
        assert out.shape == shape
        out.sum().backward()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5)),
    factors=st.tuples(st.floats(-0.5, 0.5), st.floats(0, 2), st.floats(0.5, 1.5)),
    shift=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    hole=st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2), st.floats(0, 0.6)),
)
@pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
def test_anything_on_the_cpu(size: tuple, factors: tuple, shift: tuple, hole: tuple) -> None:
    height, width, channels = size
    parameters = [torch.tensor([p]) for p in (factors, shift, hole)]
    images = _draw(1, channels, height, width)
    exact = _value_and_gradient(images, parameters, "ref")
    found = _value_and_gradient(images.float(), parameters, "cpu")
    for own, truth in zip(found, exact, strict=True):
        assert (own.double() - truth).norm() <= 1e-5 * (truth.norm() + 1e-3)


def test_operator_is_registered_as_pytorch_wants_it(kernel: str) -> None:
    x = _draw(2, 3, 6, 8, dtype=_dtype(kernel)).requires_grad_()
    factors, shift, hole = _parameters(2)
    rest = (factors.to(x.dtype), shift.int(), hole)
    torch.library.opcheck(torch.ops.cuda_ops.diffaugment, (x, *rest, False, False))
    torch.library.opcheck(torch.ops.cuda_ops.diffaugment, (x, *rest, True, True))
    torch.library.opcheck(torch.ops.cuda_ops.diffaugment, (x, None, rest[1], None, False, False))


def test_it_compiles_without_a_break(kernel: str) -> None:
    parameters = _parameters(2)

    def step(x: Tensor) -> Tensor:
        return diffaugment(x * 2, *parameters, impl=kernel).square().sum()

    x = _draw(2, 3, 8, 8, dtype=_dtype(kernel)).requires_grad_()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    (own,) = torch.autograd.grad(compiled(x), x)
    (plain,) = torch.autograd.grad(step(x), x)
    torch.testing.assert_close(own, plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(images=torch.zeros(1, 3, 4)), r"images are \[N, C, H, W\]; got \[1, 3, 4\]"),
        (dict(factors=torch.zeros(3)), r"factors has shape \[3\].*need \[1, 3\]"),
        (dict(shift=torch.zeros(2, 2)), r"shift has shape \[2, 2\].*need \[1, 2\]"),
        (dict(hole=torch.zeros(1, 2)), r"hole has shape \[1, 2\].*need \[1, 3\]"),
        (dict(impl="gpu"), "impl='gpu'"),
    ],
)
def test_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diffaugment(**dict(images=torch.zeros(1, 3, 4, 4)) | arguments)
