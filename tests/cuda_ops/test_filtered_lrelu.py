"""filtered_lrelu against SciPy's upfirdn and numpy's arithmetic, and its kernel on the emulator."""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import upfirdn
from torch import Tensor

from cuda_ops import filtered_lrelu

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# up, down, taps of fu and fd, padding: the unrolled kernels, then any
PROBLEMS = [
    (2, 2, 12, 12, (9, 10, 11, 8)),
    (4, 2, 24, 12, (17, 16, 18, 15)),
    (2, 4, 9, 20, (11, 12, 9, 14)),
    (1, 1, 1, 1, 0),
    (3, 2, 7, 5, (-1, 4, 2, -2)),
    (1, 3, 2, 1, 1),
    (2, 1, 1, 4, (3, 3)),
]


def _draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _filters(up_taps: int, down_taps: int) -> tuple[Tensor, Tensor]:
    return _draw(up_taps, seed=2).float() / 2, _draw(down_taps, seed=3).float()


def _literal(
    x: Tensor, fu: Tensor, fd: Tensor, b: Tensor, *, up: int, down: int, padding=0,
    gain=2**0.5, slope=0.2, clamp=None, flip_filter=False,
) -> Tensor:  # fmt: skip
    """Write the definition with scipy's upfirdn and numpy."""
    pad = (padding,) * 4 if isinstance(padding, int) else padding
    pad = (pad[0], pad[0], pad[1], pad[1]) if len(pad) == 2 else pad
    fu, fd = (f.double().numpy()[:: -1 if flip_filter else 1] for f in (fu, fd))
    y = x.numpy() + b.numpy()[:, None, None]
    for axis, (low, high) in ((3, pad[:2]), (2, pad[2:])):
        y = np.moveaxis(upfirdn([1.0], y, up=up, axis=axis), axis, -1)  # ends with a sample
        y = np.pad(y, [(0, 0)] * 3 + [(max(low, 0), max(high, 0) + up - 1)])
        y = y[..., max(-low, 0) : y.shape[-1] - max(-high, 0)]
        y = np.moveaxis(up * upfirdn(fu, y)[..., len(fu) - 1 : y.shape[-1]], -1, axis)
    y = gain * np.where(y > 0, y, slope * y)
    y = y if clamp is None else np.clip(y, -clamp, clamp)
    for axis in (3, 2):
        y = np.moveaxis(y, axis, -1)
        y = np.moveaxis(upfirdn(fd, y)[..., len(fd) - 1 : y.shape[-1] : down], -1, axis)
    return torch.from_numpy(np.ascontiguousarray(y))


def _options(problem: tuple) -> tuple[Tensor, Tensor, dict]:
    up, down, up_taps, down_taps, padding = problem
    return *_filters(up_taps, down_taps), dict(up=up, down=down, padding=padding)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize(
    "more", [{}, dict(clamp=0.7, slope=0.1), dict(flip_filter=True, gain=3.0, slope=0.0)], ids=str
)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_literal(problem: tuple, more: dict, impl: str) -> None:
    fu, fd, options = _options(problem)
    x, b = _draw(2, 3, 8, 9), _draw(3, seed=1)
    expected = _literal(x, fu, fd, b, **options, **more)
    for layout in LAYOUTS.values():
        given_x = x.contiguous(memory_format=layout)
        y = filtered_lrelu(given_x, fu, fd, b, **options, **more, impl=impl)
        torch.testing.assert_close(y, expected)
        assert impl == "ref" or y.is_contiguous(memory_format=layout)


def test_cpu_kernels_compose() -> None:
    fu, fd, options = _options(PROBLEMS[0])
    x, b = _draw(2, 16, 8, 9), _draw(16, seed=1)
    y = filtered_lrelu(x.float(), fu, fd, b.float(), **options)
    expected = _literal(x, fu, fd, b, **options)
    assert float((y.double() - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.usefixtures("emulated")
def test_many_tiles() -> None:
    fu, fd, options = _options(PROBLEMS[0])
    x, b = _draw(1, 2, 40, 70), _draw(2, seed=1)
    y = filtered_lrelu(x, fu, fd, b, **options, clamp=1.0, impl="cuda")
    torch.testing.assert_close(y, _literal(x, fu, fd, b, **options, clamp=1.0))


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_gradients(problem: tuple, clamp: float | None) -> None:
    fu, fd, options = _options(problem)
    x, b = _draw(1, 2, 7, 8).requires_grad_(), _draw(2, seed=1).requires_grad_()

    def call(x: Tensor, b: Tensor) -> Tensor:
        return filtered_lrelu(x, fu, fd, b, **options, clamp=clamp, impl="cuda")

    assert torch.autograd.gradcheck(call, (x, b), fast_mode=True)
    square = lambda x, b: call(x, b).square()  # noqa: E731
    assert torch.autograd.gradgradcheck(square, (x, b), fast_mode=True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_gradients_are_those_of_the_reference(problem: tuple) -> None:
    fu, fd, options = _options(problem)
    found = []
    for impl in ("cuda", "ref"):
        x, b = _draw(2, 3, 9, 8).requires_grad_(), _draw(3, seed=1).requires_grad_()
        y = filtered_lrelu(x, fu, fd, b, **options, clamp=1.0, impl=impl)
        first = torch.autograd.grad(y.pow(3).sum(), (x, b), create_graph=True)
        found.append(
            (y, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, b)))
        )
    for kernel, reference in zip(*found, strict=True):
        assert float(reference.detach().abs().max()) > 0
        torch.testing.assert_close(kernel, reference)


@st.composite
def _problems(draw) -> tuple:
    size, pad, taps = st.integers(1, 9), st.integers(-3, 9), st.integers(1, 13)
    problem = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(taps), draw(taps)
    shape = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(size), draw(size)
    more = dict(clamp=draw(st.sampled_from([None, 0.5])), flip_filter=draw(st.booleans()))
    return shape, (*problem, tuple(draw(pad) for _ in range(4))), more


def _holds(problem: tuple) -> None:
    shape, problem, more = problem
    fu, fd, options = _options(problem)
    x, b = _draw(*shape).requires_grad_(), _draw(shape[1], seed=1)
    pad = options["padding"]
    lengths = [
        size * options["up"] + low + high - len(fu) + 1
        for size, low, high in ((shape[3], *pad[:2]), (shape[2], *pad[2:]))
    ]
    if min(lengths) < len(fd):
        with pytest.raises(ValueError, match="no output"):
            filtered_lrelu(x, fu, fd, b, **options)
        return
    y = filtered_lrelu(x, fu, fd, b, **options, **more, impl="cuda")
    torch.testing.assert_close(y.detach(), _literal(x.detach(), fu, fd, b, **options, **more))
    cotangent = _draw(*y.shape, seed=5)
    (back,) = torch.autograd.grad(y, x, cotangent)
    plain = filtered_lrelu(x, fu, fd, b, **options, **more, impl="ref")
    torch.testing.assert_close(back, torch.autograd.grad(plain, x, cotangent)[0])


def test_any_problem(emulated: None) -> None:
    settings(max_examples=80, derandomize=True, deadline=None)(given(_problems())(_holds))()


@pytest.mark.usefixtures("emulated")
def test_keeps_two_bits_and_no_activations() -> None:
    fu, fd, options = _options(PROBLEMS[0])
    kept: list[Tensor] = []
    x = _draw(2, 3, 16, 17).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = filtered_lrelu(x, fu, fd, **options, impl="cuda")
    mh, mw = ((n - 1) * 2 + 12 for n in y.shape[2:])
    bits = 2 * 3 * mh * math.ceil(mw / 4)
    assert sum(t.numel() * t.element_size() for t in kept) == bits + 4 * (12 + 12)
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        filtered_lrelu(x.detach(), fu, fd, **options, impl="cuda")
    assert not kept


@pytest.mark.usefixtures("emulated")
def test_filters_in_memory_are_those_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    fu, fd, options = _options(PROBLEMS[0])
    x = _draw(1, 2, 6, 7)
    by_value = filtered_lrelu(x, fu, fd, **options, impl="cuda")
    monkeypatch.setattr(import_module("cuda_ops.filtered_lrelu"), "BY_VALUE", 0)
    assert torch.equal(filtered_lrelu(x, fu, fd, **options, impl="cuda"), by_value)


@pytest.mark.usefixtures("emulated")
def test_2d_and_too_long_filters_are_composed() -> None:
    x, b = _draw(1, 2, 8, 9), _draw(2, seed=1)
    fu, fd = _filters(5, 4)
    expected = _literal(x, fu, fd, b, up=2, down=2, padding=3)
    y = filtered_lrelu(x, fu.outer(fu), fd.outer(fd), b, up=2, down=2, padding=3)
    torch.testing.assert_close(y, expected)
    long = torch.zeros(200)
    long[:5] = fu
    expected = _literal(x, long, fd, b, up=2, down=2, padding=100)
    torch.testing.assert_close(filtered_lrelu(x, long, fd, b, up=2, down=2, padding=100), expected)
    with pytest.raises(ValueError, match="moderate length"):
        filtered_lrelu(x, long, fd, b, up=2, down=2, padding=100, impl="cuda")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    fu, fd, options = _options(PROBLEMS[0])
    x, b = torch.zeros(shape, requires_grad=True), torch.zeros(shape[1], requires_grad=True)
    y = filtered_lrelu(x, fu, fd, b, **options, impl="cuda")
    y.sum().backward()
    assert (y.shape[:2], x.grad.shape, b.grad.shape) == (shape[:2], shape, shape[1:2])


@pytest.mark.usefixtures("emulated")
def test_non_contiguous_and_float32_bias_under_bfloat16() -> None:
    fu, fd, options = _options(PROBLEMS[0])
    x, b = _draw(1, 2, 9, 8).transpose(2, 3).bfloat16(), _draw(2, seed=1).float().requires_grad_()
    y = filtered_lrelu(x.requires_grad_(), fu, fd, b, **options, impl="cuda")
    expected = _literal(x.detach().double(), fu, fd, b.detach().double(), **options)
    assert float((y.detach().double() - expected).norm() / expected.norm()) < 2**-8
    y.float().square().sum().backward()
    assert (b.grad.dtype, x.grad.dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.usefixtures("emulated")
def test_beyond_32_bits() -> None:
    fu, fd, options = _options(PROBLEMS[0])
    try:
        x = torch.empty(1, 1, 65544, 32768, dtype=torch.bfloat16)
    except RuntimeError:
        pytest.skip("no address space")
    assert x.numel() > 2**31
    x[:, :, -8:, -8:] = _draw(1, 1, 8, 8).to(x.dtype)
    crop = [-2 * (n - 8) for n in x.shape[:1:-1]]
    y = filtered_lrelu(x, fu, fd, up=2, down=2, padding=(crop[0], 9, crop[1], 9), impl="cuda")
    part, zero = x[:, :, -8:, -8:].double(), torch.zeros(1, dtype=torch.float64)
    expected = _literal(part, fu, fd, zero, up=2, down=2, padding=(0, 9, 0, 9))
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.usefixtures("emulated")
def test_opcheck() -> None:
    fu, fd, _ = _options(PROBLEMS[0])
    x = _draw(2, 3, 5, 4).float().contiguous(memory_format=torch.channels_last).requires_grad_()
    padding, b = (9, 10, 11, 8), torch.ones(3, requires_grad=True)
    arguments = (x, fu, fd, b, 2, 2, padding, 1.4, 0.2, 0.5, False, True)
    torch.library.opcheck(torch.ops.cuda_ops.filtered_lrelu.default, arguments)
    y, bits = torch.ops.cuda_ops.filtered_lrelu(*arguments)
    some = y.detach().requires_grad_()
    rest = (bits, fu, fd, 2, 2, padding, (5, 4), 1.4, 0.2, False, True)
    torch.library.opcheck(torch.ops.cuda_ops.filtered_lrelu_masked.default, (some, *rest))


@pytest.mark.usefixtures("emulated")
def test_compiles_without_a_graph_break() -> None:
    fu, fd, options = _options(PROBLEMS[0])

    def call(x: Tensor) -> Tensor:
        return filtered_lrelu(x, fu, fd, torch.ones_like(x[0, :, 0, 0]), **options)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    x, z = (_draw(1, 2, 6, 5).float().requires_grad_() for _ in range(2))
    y = compiled(x)
    y.sum().backward()
    call(z).sum().backward()
    torch.testing.assert_close(y, call(z))
    torch.testing.assert_close(x.grad, z.grad)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 4, 4), {}, "takes"),
        ((1, 3, 4, 4), dict(b=torch.ones(2)), "b has shape"),
        ((1, 3, 4, 4), dict(up=0), "at least 1"),
        ((1, 3, 4, 4), dict(fu=torch.ones(1, 1, 1)), "1 or 2 dimensions"),
        ((1, 3, 4, 4), dict(fd=torch.ones(5)), "no output"),
        ((1, 3, 4, 4), dict(impl="cuda"), "impl='cuda'"),
    ],
)
def test_refuses(shape: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filtered_lrelu(torch.zeros(shape), **options)
