"""upfirdn2d against scipy.signal.upfirdn, and the kernel against the reference."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import upfirdn
from torch import Tensor

from cuda_ops import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
from cuda_ops.compile import cpu_kernels

needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
CASES = [
    dict(),
    dict(up=2),
    dict(down=2),
    dict(up=2, down=3, padding=3),
    dict(up=(3, 1), down=(1, 2), padding=(2, 1)),
    dict(up=2, padding=(2, 1, 0, 3)),
    dict(padding=-1),
    dict(up=2, down=2, padding=(-3, 2, 1, -2)),
    dict(down=(2, 3), padding=(-1, -2, 4, 0), gain=2.5),
    dict(up=2, padding=2, flip_filter=True, gain=4),
]
TAPS = {"1d": [1.0, 2.0, 4.0, 3.0], "odd": [1.0, -2.0, 5.0], "one": [0.5]}


def _draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _scipy(
    x: Tensor, taps: list[float], *, up=1, down=1, padding=0, flip_filter=False, gain=1.0
) -> Tensor:
    """Filter rows, then columns: shift scipy's full convolution to the padding that is asked."""
    taps = np.array(taps[::-1] if flip_filter else taps)
    pad = (padding,) * 4 if isinstance(padding, int) else padding
    pad = (pad[0], pad[0], pad[1], pad[1]) if len(pad) == 2 else pad
    y = x.numpy() * gain
    sides = (pad[:2], pad[2:])
    for axis, u, d, (low, high) in zip((3, 2), _pair(up), _pair(down), sides, strict=True):
        full = np.moveaxis(upfirdn(taps, y, up=u, axis=axis), axis, -1)
        length = y.shape[axis] * u + low + high - len(taps) + 1
        out = np.zeros((*full.shape[:-1], length))
        for j in range(length):
            source = j + len(taps) - 1 - low
            if 0 <= source < full.shape[-1]:
                out[..., j] = full[..., source]
        y = np.moveaxis(out[..., ::d], -1, axis)
    return torch.from_numpy(np.ascontiguousarray(y))


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)
def test_scipy(options: dict, taps: list[float]) -> None:
    x = _draw(2, 3, 9, 8)
    f = torch.tensor(taps)
    expected = _scipy(x, taps, **options)
    for filt in (f, torch.outer(f, f)):
        torch.testing.assert_close(upfirdn2d(x, filt, **options), expected)
        y = upfirdn2d(x.float(), filt, **options)
        error = (y.double() - expected).abs().max()
        assert float(error) <= 1e-6 * float(expected.abs().max())
        assert y.shape == expected.shape


@needs_kernels
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("channels", [1, 3, 16, 40])
def test_kernel_takes_any_layout(layout: str, channels: int) -> None:
    x = _draw(3, channels, 6, 8)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        x = x.transpose(2, 3)
    y = upfirdn2d(x.float(), torch.tensor(TAPS["1d"]), up=2, padding=1, impl="cpu")
    expected = _scipy(x, TAPS["1d"], up=2, padding=1)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_gradients_of_the_reference(options: dict) -> None:
    f = torch.tensor(TAPS["1d"])
    x = _draw(1, 1, 6, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: upfirdn2d(x, f, **options), x)
    assert torch.autograd.gradgradcheck(lambda x: upfirdn2d(x, f, **options).square(), x)


def _orders(dtype: torch.dtype, impl: str, f: Tensor, options: dict) -> list[Tensor]:
    x = _draw(2, 16, 9, 8).to(dtype).requires_grad_()
    y = upfirdn2d(x, f, impl=impl, **options)
    loss = (y * _draw(*y.shape, seed=1).to(dtype)).sum() + y.pow(3).sum()
    (gx,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(gx.square().sum(), x)
    return [y.detach(), gx.detach(), second]


@needs_kernels
@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("separable", [True, False])
def test_kernel_is_as_exact_as_the_reference(options: dict, separable: bool) -> None:
    f = torch.tensor(TAPS["1d"]) / 10 if separable else _draw(4, 3, seed=9).float()
    kernel = _orders(torch.float32, "cpu", f, options)
    plain = _orders(torch.float32, "ref", f, options)
    exact = _orders(torch.float64, "ref", f, options)
    for found, simple, true in zip(kernel, plain, exact, strict=True):
        size = float(true.abs().max())
        assert size > 0
        own = float((found.double() - true).abs().max()) / size
        other = float((simple.double() - true).abs().max()) / size
        assert own <= 2 * other + 1e-6


LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
FAST = [  # the unrolled kernels
    dict(up=2, padding=(2, 1, 2, 1), gain=4),
    dict(down=2, padding=1),
    dict(padding=(2, 1, 1, 2)),
]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", CASES + FAST, ids=str)
@pytest.mark.parametrize("taps", [*TAPS.values(), [0.5, 1, -2, 4, 3, -1, 2, 1]], ids=len)
def test_cuda_scipy(options: dict, taps: list[float], layout: str) -> None:
    x = _draw(2, 4, 12, 16).contiguous(memory_format=LAYOUTS[layout])
    f = torch.tensor(taps)
    expected = _scipy(x, taps, **options)
    for filt in (f, torch.outer(f, f)):
        y = upfirdn2d(x, filt, impl="cuda", **options)
        assert y.is_contiguous(memory_format=LAYOUTS[layout])
        torch.testing.assert_close(y, expected)
    y = upfirdn2d(x.float(), f, impl="cuda", **options)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max())


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", CASES[3:9] + FAST, ids=str)
def test_cuda_gradients(options: dict, layout: str) -> None:
    f = torch.tensor(TAPS["1d"])
    x = _draw(1, 2, 6, 8).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    call = lambda x: upfirdn2d(x, f, impl="cuda", **options)  # noqa: E731
    assert torch.autograd.gradcheck(call, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: call(x).square(), x, fast_mode=True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", FAST, ids=str)
def test_cuda_halves_are_rounded_once(options: dict, dtype: torch.dtype) -> None:
    f = setup_filter([1, 3, 3, 1])
    x = _draw(1, 8, 4, 16).to(dtype)
    expected = upfirdn2d(x.double(), f, **options, impl="ref")
    for layout in LAYOUTS.values():
        y = upfirdn2d(x.contiguous(memory_format=layout), f, **options, impl="cuda")
        bound = torch.finfo(dtype).eps / 2 * expected.abs() + 1e-5
        assert y.dtype == dtype
        assert ((y.double() - expected).abs() <= bound).all()


@st.composite
def _problems(draw) -> tuple[tuple[int, ...], list[float], dict]:
    factor, size, pad = st.integers(1, 4), st.integers(1, 9), st.integers(-3, 5)
    shape = (draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 8])), draw(size), draw(size))
    taps = draw(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=13))
    options = dict(
        up=(draw(factor), draw(factor)),
        down=(draw(factor), draw(factor)),
        padding=tuple(draw(pad) for _ in range(4)),
        flip_filter=draw(st.booleans()),
    )
    return shape, taps, options


def _holds(shape: tuple[int, ...], taps: list[float], options: dict, impl: str) -> None:
    """Compare with scipy, and test the adjoint: <A x, y> = <x, A^T y>; both in whole numbers."""
    dtype = torch.float32 if impl == "cpu" else torch.float64
    x = (4 * _draw(*shape)).round().to(dtype).requires_grad_()
    f, last = torch.tensor(taps), torch.channels_last
    sizes = [
        (x.shape[d] * options["up"][i] + sum(options["padding"][2 * i : 2 * i + 2]) - len(taps))
        // options["down"][i]
        + 1
        for i, d in enumerate((3, 2))
    ]
    if min(sizes) < 1:
        with pytest.raises(ValueError, match="no output"):
            upfirdn2d(x, f, impl=impl, **options)
        return
    expected = _scipy(x.detach().double(), taps, **options)
    for laid_out in (x, x.contiguous(memory_format=last)):
        out = upfirdn2d(laid_out, f, impl=impl, **options)
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=0)
        y = (4 * _draw(*out.shape, seed=1)).round().to(dtype)
        (back,) = torch.autograd.grad(out, x, y)
        assert _dot(out, y) == _dot(x, back)


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() * b.double()).sum())


@needs_kernels
@settings(max_examples=150, derandomize=True, deadline=None)
@given(_problems())
def test_any_problem_on_the_cpu(problem: tuple) -> None:
    _holds(*problem, impl="cpu")


def test_any_problem_on_cuda(emulated: None) -> None:
    settings(max_examples=120, derandomize=True, deadline=None)(
        given(_problems())(lambda problem: _holds(*problem, impl="cuda"))
    )()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("filt", [torch.ones(4), torch.ones(3, 2), torch.ones(90)], ids=len)
def test_filters_in_memory_are_those_by_value(
    filt: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, options = _draw(1, 2, 7, 8), dict(up=2, padding=44)
    by_value = upfirdn2d(x, filt, impl="cuda", **options)
    monkeypatch.setattr(import_module("cuda_ops.upfirdn2d"), "BY_VALUE", 0)
    assert torch.equal(upfirdn2d(x, filt, impl="cuda", **options), by_value)
    torch.testing.assert_close(by_value, upfirdn2d(x, filt, impl="ref", **options))


def _large(*shape: int, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Return more than 2^31 elements, of which only the last rows are ever touched."""
    try:
        x = torch.empty(shape, dtype=torch.bfloat16, memory_format=layout)
    except RuntimeError:
        pytest.skip("no address space")
    assert x.numel() > 2**31
    x[:, :, -8:] = _draw(*shape[:2], 8, 64).to(x.dtype).repeat(1, 1, 1, shape[3] // 64)
    return x


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    ("shape", "layout", "crop_x"),
    [
        ((1, 1, 65544, 32768), "contiguous", False),  # registers
        ((1, 1, 65544, 32768), "contiguous", True),  # shared memory
        ((1, 16, 8200, 16384), "channels_last", True),  # registers
        ((1, 3, 65544, 10944), "channels_last", True),  # one by one
    ],
)
def test_beyond_32_bits(shape: tuple[int, ...], layout: str, crop_x: bool) -> None:
    x, f = _large(*shape, layout=LAYOUTS[layout]), setup_filter([1, 3, 3, 1])
    keep_x, keep_y = (2 * (shape[3] - 32) if crop_x else 0), 2 * (shape[2] - 6)
    y = upfirdn2d(x, f, up=2, padding=(2 - keep_x, 1, 2 - keep_y, 1), impl="cuda")
    part = x[:, :, -8:, -34:] if crop_x else x[:, :, -8:]
    cut = (2 - 4 * crop_x, 1, -2, 1)
    expected = upfirdn2d(part.double(), f, up=2, padding=cut, impl="ref")
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("kernels", ["cpu", "emulated"])
@pytest.mark.parametrize("filt", [torch.ones(4), torch.outer(*torch.eye(2, 4) + 1)], ids=len)
def test_axes_of_size_one(kernels: str, filt: Tensor, request: pytest.FixtureRequest) -> None:
    """Their strides say nothing about the layout."""
    if kernels == "emulated":
        request.getfixturevalue("emulated")
    for shape in ((2, 16, 1, 1), (2, 1, 5, 4), (1, 16, 1, 6)):
        x = _draw(2, *shape).float()
        wide = _draw(shape[0], *shape[2:], 2 * shape[1]).float()[..., : shape[1]]
        some = (x[0], x[0].contiguous(memory_format=torch.channels_last), wide.permute(0, 3, 1, 2))
        for one in some:
            y = upfirdn2d(one, filt, up=2, padding=3)
            torch.testing.assert_close(y, upfirdn2d(one, filt, up=2, padding=3, impl="ref"))


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
@pytest.mark.parametrize("impl", ["ref", "cuda"])
def test_nothing_in_nothing_out(shape: tuple[int, ...], impl: str) -> None:
    x = torch.zeros(shape, requires_grad=True)
    y = upfirdn2d(x, torch.ones(4), up=2, padding=2, impl=impl)
    assert y.shape == (*shape[:2], 9, 9)
    y.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("kernels", ["cpu", "emulated"])
@pytest.mark.parametrize("filt", [torch.ones(4), torch.ones(3, 2)], ids=len)
def test_opcheck(kernels: str, filt: Tensor, request: pytest.FixtureRequest) -> None:
    if kernels == "emulated":
        request.getfixturevalue("emulated")
    elif cpu_kernels() is None:
        pytest.skip("kernels are off")
    layout = LAYOUTS["channels_last" if filt.ndim == 1 else "contiguous"]
    x = _draw(2, 3, 5, 4).float().contiguous(memory_format=layout).requires_grad_()
    fy = filt if filt.ndim == 1 else None
    arguments = (x, filt, fy, (2, 1), (1, 2), (2, 1, 3, -1), True, 1.5)
    torch.library.opcheck(torch.ops.cuda_ops.upfirdn2d.default, arguments)


@needs_kernels
def test_compiles_without_a_graph_break() -> None:
    def call(x: Tensor) -> Tensor:
        return upsample2d(x, setup_filter([1, 3, 3, 1])).square()

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    x, z = (_draw(1, 16, 4, 4).float().requires_grad_() for _ in range(2))
    y = compiled(x)
    y.sum().backward()
    call(z).sum().backward()
    torch.testing.assert_close(y, call(z))
    torch.testing.assert_close(x.grad, z.grad)


def test_two_calls_are_bit_identical() -> None:
    x, f = _draw(2, 16, 16, 16).float(), torch.tensor(TAPS["1d"])
    assert torch.equal(upfirdn2d(x, f, up=2), upfirdn2d(x, f, up=2))


def test_setup_filter() -> None:
    torch.testing.assert_close(setup_filter([1, 3, 3, 1]), torch.tensor([1, 3, 3, 1]) / 8)
    assert setup_filter([1, 2], normalize=False, flip_filter=True).tolist() == [2, 1]
    assert float(setup_filter([1, 3], gain=4).outer(setup_filter([1, 3], gain=4)).sum()) == 4
    assert float(setup_filter([[1, 3], [3, 1]], gain=4).sum()) == 4
    assert setup_filter(None).tolist() == [1]
    for bad in ([], [[[1.0]]]):
        with pytest.raises(ValueError, match="1 or 2 dimensions"):
            setup_filter(bad)


def test_resizing_keeps_brightness_and_centre() -> None:
    f = setup_filter([1, 3, 3, 1])
    ones = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    for y in (upsample2d(ones, f), downsample2d(ones, f), filter2d(ones, setup_filter([1, 2, 1]))):
        middle = y[..., 2:-2, 2:-2]
        torch.testing.assert_close(middle, torch.ones_like(middle))
    ramp = torch.arange(16, dtype=torch.float64).expand(1, 1, 16, 16)
    at = (torch.arange(32, dtype=torch.float64) - 0.5) / 2  # centres of the pixels of twice as many
    torch.testing.assert_close(upsample2d(ramp, f)[0, 0, 8, 4:-4], at[4:-4])
    at = torch.arange(8, dtype=torch.float64) * 2 + 0.5
    torch.testing.assert_close(downsample2d(ramp, f)[0, 0, 4, 2:-2], at[2:-2])


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3, 4), {}, "takes"),
        ((1, 1, 4, 4), dict(up=0), "at least 1"),
        ((1, 1, 4, 4), dict(padding=(1, 2, 3)), "padding is"),
        ((1, 1, 4, 4), dict(impl="cuda"), "impl='cuda'"),
        ((1, 1, 4, 4), dict(padding=-2), "no output"),
        ((1, 1, 1, 4), dict(down=2), "no output"),
    ],
)
def test_refuses(shape: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upfirdn2d(torch.zeros(shape), torch.ones(2), **options)


def test_a_line_without_samples_is_zero() -> None:
    """One column, enlarged and reduced by two, and a padding beyond it: memory holds no sample."""
    for width in range(1, 20):
        x = torch.full((1, 1, 1, width + 4), float("nan"))[..., :width]  # contiguous, NaN behind
        x.fill_(1.0)
        out = upfirdn2d(x, torch.ones(1), up=(2, 1), down=(2, 1), padding=(0, 5, 0, 0), impl="cpu")
        expected = torch.zeros_like(out)
        expected[..., :width] = 1
        assert torch.equal(out, expected)
