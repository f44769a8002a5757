"""The fused warp against NumPy and SciPy, and the kernels against the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.signal import upfirdn
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from cuda_ops import warp as module
from cuda_ops.compile import cpu_kernels
from cuda_ops.warp import warp
from cuda_ops.warp_ref import SYM6, sym6_centre

EYE = torch.eye(3)


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


def _map(turn: float, x: float = 1, y: float = 1, right: float = 0, down: float = 0) -> Tensor:
    cos, sin = math.cos(turn), math.sin(turn)
    return torch.tensor([[x * cos, -sin * y, right], [sin * x, cos * y, down], [0, 0, 1]])


MAPS = {
    "turned": _map(0.4),
    "upside down": _map(math.pi),
    "quarter": torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
    "larger": _map(0.1, 0.4, 0.6),
    "smaller": _map(-0.3, 2.2, 1.7),
    "tiny": _map(0.7, 9.5, 8.1),
    "moved": _map(0, right=3.3, down=-7.6),
    "whole pixels": _map(0, right=4, down=-11),
    "far": _map(2, 1.2, 0.8, 93.7, -61.2),
    "mirrored": _map(0.5, -1.1, 0.9, 2),
    "singular": _map(0.3, 0, 1),
    "a point": _map(0, 0, 0, 1.2, 0.7),
}
COLOUR = torch.tensor([[0.3, 0.5, 0.2, 0.1], [-0.4, 1, 0.2, -0.3], [0.3, -0.6, 1, 0], [0, 0, 0, 1]])


def _reference_scipy_warp(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Pad, resample with upfirdn, interpolate with map_coordinates, resample back."""
    size, taps, centre = image.shape[-1], np.array(SYM6), sym6_centre()
    fine, middle, last = 2 * size + 10, (size - 1) / 2, 2 * (size - 1)
    up = np.pad(image, 5, mode="reflect")
    for axis in (0, 1):
        up = upfirdn(taps * np.sqrt(2), up, up=2, axis=axis)
        up = np.take(up, np.arange(10, 10 + fine), axis=axis)
    at = (np.arange(fine) - centre) / 2 - middle
    x, y = np.meshgrid(at, at)
    places = []
    for row in (1, 0):
        u = 2 * (source[row, 0] * x + source[row, 1] * y + source[row, 2] + middle) + centre
        mirrored = centre + last - np.abs((u - centre) % (2 * last) - last)
        beyond = np.abs(2 * u / (fine - 1) - 1) > 1 + 1e-4
        places.append(np.where(beyond, mirrored, u))
    down = ndimage.map_coordinates(up, places, order=1, mode="nearest")
    for axis in (0, 1):
        down = upfirdn(taps[::-1] / np.sqrt(2), down, axis=axis)
        down = np.take(down, 11 + 2 * np.arange(size), axis=axis)
    return down


@pytest.mark.parametrize("size", [8, 13])
@pytest.mark.parametrize("name", MAPS)
def test_reference_is_scipys(name: str, size: int) -> None:
    image = _draw(1, 1, size, size)
    expected = _reference_scipy_warp(image[0, 0].numpy(), MAPS[name].double().numpy())
    ours = warp(image, source=MAPS[name][None], impl="ref")[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def _parameters(n: int, names: tuple[str, ...] = tuple(MAPS)) -> tuple[Tensor, Tensor, Tensor]:
    place = torch.tensor(
        [[i % 2, i % 4, 3 * i % 7 - 3, (5 * i) % 9 - 20 * (i % 3)] for i in range(n)]
    )
    source = torch.stack([MAPS[names[i % len(names)]] for i in range(n)])
    return place, source, COLOUR.expand(n, 4, 4)


def _value_and_gradient(images: Tensor, parameters: tuple, impl: str) -> list[Tensor]:
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    y = warp(images, *parameters, impl=impl)
    return [y.detach(), *torch.autograd.grad(y, images, _draw(*y.shape, seed=1, dtype=y.dtype))]


def _compare(images: Tensor, parameters: tuple, impl: str) -> None:
    """In float64 to 1e-9; in float32 no worse than twice the reference."""
    exact = _value_and_gradient(images.double(), parameters, "ref")
    found = _value_and_gradient(images, parameters, impl)
    plain = _value_and_gradient(images, parameters, "ref")
    for own, other, truth in zip(found, plain, exact, strict=True):
        assert own.dtype == images.dtype
        error = (own.double() - truth).norm() / truth.norm()
        allowed = (other.double() - truth).norm() / truth.norm()
        limit = 1e-9 if images.dtype == torch.float64 else 2 * allowed + 5e-7
        assert error <= limit, (float(error), float(allowed))


@pytest.mark.parametrize("name", MAPS)
def test_kernel_of_each_map(kernel: str, name: str) -> None:
    images = _draw(1, 3, 14, 14, dtype=_dtype(kernel))
    _compare(images, (None, MAPS[name][None], None), kernel)


@pytest.mark.parametrize(("size", "channels"), [(2, 3), (8, 1), (9, 3), (16, 6), (31, 3), (65, 3)])
def test_kernel_of_all_together(kernel: str, size: int, channels: int) -> None:
    names = ("turned", "far") if size > 16 else tuple(MAPS)[:-2]
    place, source, colour = _parameters(2 if size > 16 else len(names), names)
    images = _draw(len(place), channels, size, size, dtype=_dtype(kernel))
    _compare(images, (place, source, colour if channels == 3 else None), kernel)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_a_flat_image_stays_flat(kernel: str, size: int) -> None:
    names = tuple(MAPS)
    images = torch.full((len(names), 3, size, size), 0.25, dtype=_dtype(kernel))
    for impl in (kernel, "ref"):
        out = warp(images, None, torch.stack(list(MAPS.values())), impl=impl)
        torch.testing.assert_close(out, images, rtol=2e-6, atol=0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_blits_copy_to_the_bit_what_numpy_copies(kernel: str, flip: bool, turns: int) -> None:
    images, shifts = _draw(4, 3, 9, 9, dtype=_dtype(kernel)), [(0, 0), (5, -2), (-1, 4), (8, 8)]
    place = torch.tensor([[flip, turns, *shift] for shift in shifts])
    moved = warp(images, place, EYE.expand(4, 3, 3), impl=kernel)
    for image, (right, down), result in zip(images.numpy(), shifts, moved.numpy(), strict=True):
        image = np.rot90(image[:, :, ::-1] if flip else image, turns, axes=(1, 2))
        padded = np.pad(image, ((0, 0), (8, 8), (8, 8)), mode="reflect")
        expected = np.roll(padded, (down, right), axis=(1, 2))[:, 8:-8, 8:-8]
        np.testing.assert_array_equal(result, expected)


def test_an_image_with_nothing_to_do_stays_to_the_bit(kernel: str) -> None:
    images = _draw(3, 3, 10, 10, dtype=_dtype(kernel))
    images[0, 0, 0, :2] = torch.tensor([1e-30, 1e30])
    place = torch.tensor([[0, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    source = torch.stack([EYE, MAPS["turned"], EYE])
    colour = torch.stack([torch.eye(4), COLOUR, torch.eye(4)])
    out = _value_and_gradient(images, (place, source, colour), kernel)
    assert torch.equal(out[0][0], images[0])
    assert torch.equal(out[0][2], images[2].flip(2))
    assert torch.equal(out[1][0], _draw(3, 3, 10, 10, seed=1, dtype=_dtype(kernel))[0])


@pytest.mark.parametrize("name", [*MAPS, "all"])
def test_backward_is_the_adjoint(kernel: str, name: str) -> None:
    """<A x, y> = <x, A^T y>, without the offset of the colours."""
    n, size = (4, 11) if name == "all" else (1, 11)
    names = ("far", "smaller", "turned", "mirrored") if name == "all" else (name,)
    place, source, colour = _parameters(n, names)
    colour = colour.clone()
    colour[:, :3, 3] = 0
    x = _draw(n, 3, size, size, dtype=_dtype(kernel)).requires_grad_()
    y = _draw(n, 3, size, size, seed=1, dtype=_dtype(kernel))
    out = warp(x, place, source, colour, impl=kernel)
    (back,) = torch.autograd.grad(out, x, y)
    out, x = out.detach(), x.detach()
    forth, adjoint = (out * y).double().sum(), (x * back).double().sum()
    scale = float(out.norm() * y.norm())
    assert abs(float(forth - adjoint)) < (1e-12 if kernel == "cuda" else 1e-6) * scale


@pytest.mark.usefixtures("emulated")
def test_gradients_of_the_cuda_kernel() -> None:
    parameters = _parameters(2, ("turned", "far"))
    images = _draw(2, 3, 6, 6).requires_grad_()

    def curved(x: Tensor) -> Tensor:
        return warp(x, *parameters, impl="cuda").pow(3)

    assert gradcheck(curved, (images,), fast_mode=True)
    assert gradgradcheck(curved, (images,), fast_mode=True)


def test_penalty_of_a_gradient_is_the_references(kernel: str) -> None:
    """The step of R1: the gradient of a gradient's norm, in the images and through a weight."""
    parameters = _parameters(3, ("turned", "far", "smaller"))
    results = []
    for impl in (kernel, "ref"):
        x = _draw(3, 3, 9, 9, dtype=_dtype(kernel)).requires_grad_()
        weight = _draw(3, 3, 9, 9, seed=1, dtype=_dtype(kernel)).requires_grad_()
        score = (warp(x, *parameters, impl=impl).tanh() * weight).sum()
        (back,) = torch.autograd.grad(score, x, create_graph=True)
        results.append(torch.autograd.grad(back.square().sum(), (x, weight)))
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)


def test_two_runs_and_any_number_of_threads_give_the_same_bits(kernel: str) -> None:
    parameters = _parameters(5)
    images = _draw(5, 3, 17, 17, dtype=torch.float32)
    threads, runs = torch.get_num_threads(), []
    try:
        for count in (1, 1, 2):
            torch.set_num_threads(count)
            runs.append(_value_and_gradient(images, parameters, kernel))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


@pytest.mark.usefixtures("emulated")
def test_groups_of_images_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, images = _parameters(5), _draw(5, 3, 9, 9)
    whole = _value_and_gradient(images, parameters, "cuda")
    monkeypatch.setattr(module, "_WORKSPACE", 2 * 4 * 28 * 28 * 8)
    assert all(map(torch.equal, _value_and_gradient(images, parameters, "cuda"), whole))


@pytest.mark.parametrize("layout", ["channels_last", "strided", "transposed", "expanded"])
def test_layouts(kernel: str, layout: str) -> None:
    plain = _draw(3, 3, 10, 10, dtype=_dtype(kernel))
    if layout == "expanded":
        plain = plain[:1].expand(3, 3, 10, 10).contiguous()
    images = {
        "channels_last": lambda: plain.contiguous(memory_format=torch.channels_last),
        "strided": lambda: plain.repeat_interleave(2, 3)[..., ::2],
        "transposed": lambda: plain.mT.contiguous().mT,
        "expanded": lambda: plain[:1].expand(3, 3, 10, 10),
    }[layout]()
    parameters = _parameters(3, ("turned", "far", "smaller"))
    out = warp(images, *parameters, impl=kernel)
    assert torch.equal(out, warp(plain, *parameters, impl=kernel))
    assert out.stride() == torch.empty_like(images).stride()


def test_no_images_no_result(kernel: str) -> None:
    for shape in ((0, 3, 8, 8), (2, 0, 8, 8), (2, 3, 0, 0)):
        images = torch.zeros(shape, dtype=_dtype(kernel), requires_grad=True)
        out = warp(images, source=EYE.expand(shape[0], 3, 3), impl=kernel)
        assert out.shape == shape
        out.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(
    dtype: torch.dtype, emulated: None
) -> None:
    images, parameters = _draw(2, 3, 9, 9, dtype=dtype), _parameters(2)
    out = warp(images, *parameters, impl="cuda")
    assert torch.equal(out, warp(images.float(), *parameters, impl="cuda").to(dtype))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    size=st.integers(1, 40),
    turn=st.floats(-4, 4),
    scale=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    shift=st.tuples(st.floats(-90, 90), st.floats(-90, 90)),
    place=st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(-50, 50)),
)
@pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
def test_any_map_on_the_cpu(
    size: int, turn: float, scale: tuple, shift: tuple, place: tuple
) -> None:
    source, images = _map(turn, *scale, *shift)[None], _draw(1, 2, size, size)
    places = torch.tensor([[*place, -place[2] // 2]])
    exact = _value_and_gradient(images, (places, source, None), "ref")
    found = _value_and_gradient(images.float(), (places, source, None), "cpu")
    for own, truth in zip(found, exact, strict=True):
        assert (own.double() - truth).norm() <= 1e-5 * truth.norm()


@pytest.mark.usefixtures("emulated")
@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    size=st.integers(1, 12),
    turn=st.floats(-4, 4),
    scale=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    shift=st.tuples(st.floats(-40, 40), st.floats(-40, 40)),
    place=st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(-20, 20)),
)
def test_any_map_on_cuda(size: int, turn: float, scale: tuple, shift: tuple, place: tuple) -> None:
    source = _map(turn, *scale, *shift)[None]
    places = torch.tensor([[*place, -place[2] // 2]])
    _compare(_draw(1, 2, size, size), (places, source, None), "cuda")


def test_operators_are_registered_as_pytorch_wants_them(kernel: str) -> None:
    place, source, colour = _parameters(2, ("turned", "far"))
    x = _draw(2, 3, 8, 8, dtype=_dtype(kernel)).requires_grad_()
    rest = (place.int(), source.double(), colour.double())
    torch.library.opcheck(torch.ops.cuda_ops.warp, (x, *rest, False))
    torch.library.opcheck(torch.ops.cuda_ops.warp, (x, None, source.double(), None, True))
    torch.library.opcheck(torch.ops.cuda_ops.warp_adjoint, (x, *rest))


def test_it_compiles_without_a_break(kernel: str) -> None:
    parameters = _parameters(2, ("turned", "far"))

    def step(x: Tensor) -> Tensor:
        return warp(x * 2, *parameters, impl=kernel).square().sum()

    x = _draw(2, 3, 8, 8, dtype=_dtype(kernel)).requires_grad_()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    (own,) = torch.autograd.grad(compiled(x), x)
    (plain,) = torch.autograd.grad(step(x), x)
    torch.testing.assert_close(own, plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(images=torch.zeros(1, 3, 4, 8)), r"must be square; got \[1, 3, 4, 8\]"),
        (dict(images=torch.zeros(1, 2, 4, 4), colour=torch.zeros(1, 4, 4)), "the images have 2"),
        (dict(source=torch.zeros(3, 3)), r"source has shape \[3, 3\].*need \[1, 3, 3\]"),
        (dict(place=torch.zeros(2, 4)), r"place has shape \[2, 4\].*need \[1, 4\]"),
        (dict(impl="gpu"), "impl='gpu'"),
        (dict(impl="cpu"), "impl='cpu' takes CUDA tensors, or float32 and `source`"),
    ],
)
def test_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp(**dict(images=torch.zeros(1, 3, 4, 4)) | arguments)
