"""upfirdn2d against scipy.signal.upfirdn, and the kernel against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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
    ],
)
def test_refuses(shape: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upfirdn2d(torch.zeros(shape), torch.ones(2), **options)
