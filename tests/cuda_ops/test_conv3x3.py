"""conv3x3 and scale_act against zero insertion, torch's convolution and the formula in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops.compile import cpu_kernels
from cuda_ops.conv2d import conv2d, conv_transpose2d
from cuda_ops.conv3x3 import conv3x3
from cuda_ops.scale_act import scale_act

needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
MODES = {"plain": (1, 1), "up": (2, 1), "down": (1, 2)}
SHAPES = [  # batch, in, out, height, width
    (1, 16, 16, 4, 4),
    (3, 16, 32, 8, 8),
    (2, 32, 16, 6, 10),
    (5, 16, 16, 4, 4),
    (1, 128, 128, 8, 8),
    (2, 128, 32, 16, 16),
    (1, 16, 32, 64, 64),
    (3, 32, 128, 12, 4),
]
TAPS = (0.1, 0.4, 0.3, 0.2)  # not symmetric: a filter the wrong way round shows


def _draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _literal_conv(x: Tensor, w: Tensor, f: Tensor, up: int, down: int) -> Tensor:
    """Insert zeros, pad, and take torch's plain convolution of each step."""
    c = x.shape[1]
    fir = torch.outer(f, f).flip((0, 1))  # a convolution is a correlation with it flipped
    if up == 2:
        y = F.conv2d(F.pad(_insert_zeros(x), [2] * 4), w.flip((2, 3)))  # full: 2 * h + 1
        k = y.shape[1]
        return F.conv2d(F.pad(y, [1] * 4), 4 * fir.expand(k, 1, 4, 4), groups=k)
    if down == 2:
        y = F.conv2d(F.pad(x, [2] * 4), fir.expand(c, 1, 4, 4), groups=c)
        return F.conv2d(y, w)[:, :, ::2, ::2]
    return F.conv2d(F.pad(x, [1] * 4), w)


def _insert_zeros(x: Tensor) -> Tensor:
    """Return `[N, C, 2 H - 1, 2 W - 1]`."""
    zero = torch.zeros_like(x)
    x = torch.stack([x, zero], dim=4).flatten(3)[..., :-1]
    return torch.stack([x, torch.zeros_like(x)], dim=3).flatten(2, 3)[:, :, :-1]


def _literal_tail(y, scale, noise, b, slope: float, gain: float, clamp: float | None) -> Tensor:
    if scale is not None:
        y = y * scale[:, :, None, None]
    if noise is not None:
        y = y + noise
    if b is not None:
        y = y + b[None, :, None, None]
    y = gain * torch.where(y > 0, y, slope * y)
    if clamp is None:
        return y
    limit = y.new_tensor(clamp)
    return torch.minimum(torch.maximum(y, -limit), limit)


def _close(found: Tensor, true: Tensor, limit: float = 1e-5) -> None:
    assert found.shape == true.shape
    size = float(true.abs().max())
    assert size > 0
    assert float((found.double() - true).abs().max()) <= limit * size


def _orders(function, tensors: list[Tensor], seed: int = 50) -> list[Tensor]:
    """Return the value, all gradients, and all gradients of the squared gradients."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = function(*leaves)
    loss = (y * _draw(*y.shape, seed=seed).to(y.dtype)).sum() / y.shape[2]
    first = torch.autograd.grad(loss, leaves, retain_graph=True)  # the fast way
    graph = torch.autograd.grad(loss, leaves, create_graph=True)  # the differentiable way
    penalty = sum(g.square().sum() / g.detach().square().sum() for g in graph)
    second = torch.autograd.grad(penalty, leaves, allow_unused=True)
    return [y.detach(), *first, *(g.detach() for g in graph), *second]


def _compare(kernel, literal, tensors: list[Tensor]) -> None:
    found = _orders(kernel, [t.float() for t in tensors])
    true = _orders(literal, tensors)
    for a, b in zip(found, true, strict=True):
        if b is None or not b.any():
            assert a is None or not a.any()
        else:
            _close(a, b, 2e-5)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_convolution(shape: tuple[int, ...], mode: str) -> None:
    n, i, o, h, width = shape
    x, w, f = _draw(n, i, h, width), _draw(o, i, 3, 3, seed=1), torch.tensor(TAPS).double()
    up, down = MODES[mode]
    y = conv3x3(x.float(), w.float(), f.float(), up=up, down=down, impl="cpu")
    assert y.dtype == torch.float32
    _close(y, _literal_conv(x, w, f, up, down), 5e-6)


@pytest.mark.parametrize("mode", MODES)
def test_reference(mode: str) -> None:
    x, w, f = _draw(2, 3, 6, 8), _draw(5, 3, 3, 3, seed=1), torch.tensor(TAPS).double()
    up, down = MODES[mode]
    y = conv3x3(x, w, f, up=up, down=down)
    torch.testing.assert_close(y, _literal_conv(x, w, f, up, down))


@needs_kernels
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[4]], ids=str)
def test_derivatives_of_the_convolution(shape: tuple[int, ...], mode: str) -> None:
    n, i, o, h, width = shape
    up, down = MODES[mode]
    f = torch.tensor(TAPS).double()
    _compare(
        lambda x, w: conv3x3(x, w, f.float(), up=up, down=down, impl="cpu"),
        lambda x, w: _literal_conv(x, w, f, up, down),
        [_draw(n, i, h, width), _draw(o, i, 3, 3, seed=1) / 12],
    )


@needs_kernels
@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_derivatives_of_the_whole_layer(mode: str, batch: int, clamp: float | None) -> None:
    (up, down), f = MODES[mode], torch.tensor(TAPS).double()
    h, width = 8 * up // down, 12 * up // down
    tail = dict(slope=0.2, gain=1.4, clamp=clamp)

    def kernel(x, w, styles, scale, noise, b) -> Tensor:
        more = dict(styles=styles, scale=scale, noise=noise, b=b, impl="cpu", **tail)
        return conv3x3(x, w, f.float(), up=up, down=down, **more)

    def literal(x, w, styles, scale, noise, b) -> Tensor:
        y = _literal_conv(x * styles[:, :, None, None], w, f, up, down)
        return _literal_tail(y, scale, noise, b, **tail)

    tensors = [
        _draw(batch, 32, 8, 12),
        _draw(16, 32, 3, 3, seed=1) / 17,
        _draw(batch, 32, seed=2),
        1 + 0.3 * _draw(batch, 16, seed=3),
        _draw(batch, 1, h, width, seed=4),
        _draw(16, seed=5),
    ]
    _compare(kernel, literal, tensors)
    if batch > 1:
        tensors[4] = tensors[4][:1]  # one noise image for all
        _compare(kernel, literal, tensors)


@pytest.mark.parametrize("mode", MODES)
def test_the_chain_is_right_to_the_second_order(mode: str) -> None:
    (up, down), f = MODES[mode], torch.tensor(TAPS).double()

    def layer(x, w, styles, scale, noise, b) -> Tensor:
        more = dict(styles=styles, scale=scale, noise=noise, b=b, slope=0.2, gain=1.4)
        return conv3x3(x, w, f, up=up, down=down, **more)

    size = 4 * up // down
    shapes = ((2, 3, 4, 4), (2, 3, 3, 3), (2, 3), (2, 2), (1, 1, size, size), (2,))
    tensors = [_draw(*s, seed=i).requires_grad_() for i, s in enumerate(shapes)]
    assert torch.autograd.gradcheck(layer, tensors)
    assert torch.autograd.gradgradcheck(layer, tensors)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_chain_keeps_layout_and_dtype(mode: str, layout: torch.memory_format) -> None:
    (up, down), f = MODES[mode], torch.tensor(TAPS)
    x = _draw(2, 16, 8, 8).bfloat16().contiguous(memory_format=layout)
    w, styles, b = (_draw(*s, seed=1).float() for s in ((32, 16, 3, 3), (2, 16), (32,)))
    y = conv3x3(x, w, f, up=up, down=down, styles=styles, b=b, slope=0.2)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=layout)


@needs_kernels
@pytest.mark.parametrize("by", [1, 2])
@pytest.mark.parametrize("adjoint", [False, True])
def test_registration(by: int, adjoint: bool) -> None:
    ops, taps = torch.ops.cuda_ops, torch.tensor(TAPS)
    x, w = _draw(1, 16, 8, 8).float(), _draw(16, 16, 3, 3, seed=1).float() / 12
    operands = [_draw(*s, seed=2).float().requires_grad_() for s in ((1, 16), (1, 16), (16,))]
    styles, scale, b = operands
    x, w = x.requires_grad_(), w.requires_grad_()
    options = dict(rtol=1e-3, atol=1e-3)
    given = (x, styles, w, taps, scale, None, b, by, adjoint, 0.2, 1.4)
    torch.library.opcheck(ops.conv_act.default, given, **options)
    fine, coarse = x, _draw(1, 16, 8 // by, 8 // by, seed=3).float().requires_grad_()
    torch.library.opcheck(ops.conv_grad.default, (fine, None, coarse, None, taps, by), **options)


@needs_kernels
@pytest.mark.parametrize("clamp", [None, 0.7])
@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_derivatives_of_scale_act(slope: float, clamp: float | None) -> None:
    tail = dict(slope=slope, gain=1.3, clamp=clamp)
    tensors = [_draw(3, 32, 7, 5), _draw(3, 32, seed=1), _draw(3, 1, 7, 5, seed=2)]
    tensors.append(_draw(32, seed=3))
    _compare(
        lambda *t: scale_act(*t, impl="cpu", **tail), lambda *t: _literal_tail(*t, **tail), tensors
    )


@needs_kernels
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "expanded", "sliced"])
def test_any_layout(mode: str, layout: str) -> None:
    (up, down), f = MODES[mode], torch.tensor(TAPS).double()
    x, w = _draw(3, 32, 8, 8).float(), _draw(16, 32, 3, 3, seed=1).float()
    if layout == "channels_last":
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
    elif layout == "transposed":
        x, w = x.transpose(2, 3), w.transpose(2, 3)
    elif layout == "expanded":
        x = x[:1].expand(3, -1, -1, -1)
    else:
        x = _draw(3, 40, 8, 16).float()[:, 8:, :, ::2]
        w = _draw(32, 32, 3, 3, seed=1).float()[::2]
    assert not x.is_contiguous()
    y = conv3x3(x, w, f.float(), up=up, down=down, impl="cpu")
    _close(y, _literal_conv(x.double(), w.double(), f, up, down), 5e-6)


@needs_kernels
@pytest.mark.parametrize("mode", MODES)
def test_two_calls_are_bit_identical(mode: str) -> None:
    (up, down), f = MODES[mode], torch.tensor(TAPS)
    tensors = [_draw(3, 32, 16, 16).float(), _draw(32, 32, 3, 3, seed=1).float()]
    tensors += [_draw(3, 32, seed=2).float()]

    def apply(x, w, styles) -> Tensor:
        return conv3x3(x, w, f, up=up, down=down, styles=styles, slope=0.2, impl="cpu")

    once, twice = _orders(apply, tensors), _orders(apply, tensors)
    assert all(map(torch.equal, once, twice))


@pytest.mark.parametrize("shape", [(1, 3, 5, 8, 8), (1, 16, 16, 4, 4), (2, 16, 3, 8, 8)], ids=str)
def test_default_takes_what_the_kernel_does_not(shape: tuple[int, ...]) -> None:
    n, i, o, h, width = shape
    x, w = _draw(n, i, h, width), _draw(o, i, 3, 3, seed=1)
    _close(conv3x3(x.float(), w.float()), F.conv2d(x, w, padding=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(impl="cuda"), "impl='cuda'"),
        (dict(up=2, down=2), "one of them"),
        (dict(up=3), "one of them"),
        (dict(up=2), "four taps"),
        (dict(down=2, f=torch.ones(3)), "four taps"),
        (dict(w=torch.zeros(4, 5, 3, 3)), "does not fit"),
        (dict(w=torch.zeros(4, 3, 5, 5)), "does not fit"),
        (dict(impl="cpu"), "multiple of 16"),
    ],
)
def test_refuses(options: dict, message: str) -> None:
    given = dict(w=torch.zeros(4, 3, 3, 3)) | options
    with pytest.raises(ValueError, match=message):
        conv3x3(torch.zeros(1, 3, 8, 8), **given)


@needs_kernels
@pytest.mark.parametrize(("zero", "bias"), [(True, 0.0), (False, 0.0), (False, 1e3), (False, 1e5)])
def test_gradient_of_a_scale_that_hides_the_convolution(zero: bool, bias: float) -> None:
    """From the output the convolution cannot be had again: it is computed once more."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 16, 16, 16), (16, 16, 3, 3), (4, 16))
    x, w, scale = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    scale = scale.abs() + 0.5
    if zero:
        scale[0, 3] = 0
    found = {}
    for dtype, impl in ((torch.float32, "cpu"), (torch.float32, "ref"), (torch.float64, "ref")):
        s = scale.to(dtype).requires_grad_()
        b = torch.full((16,), bias, dtype=dtype)
        y = conv3x3(x.to(dtype), w.to(dtype), scale=s, b=b, slope=0.2, gain=1.4, impl=impl)
        (found[dtype, impl],) = torch.autograd.grad(y.sum(), s)
    truth = found[torch.float64, "ref"]
    fast, plain = (
        float((found[torch.float32, impl].double() - truth).norm() / truth.norm())
        for impl in ("cpu", "ref")
    )
    assert fast <= 2 * plain + 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("function", [conv2d, conv_transpose2d])
def test_convolutions_follow_autocast(function) -> None:
    x, w = torch.randn(2, 4, 6, 6), torch.randn(4, 4, 3, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        for x_dtype in (torch.float32, torch.bfloat16):
            out = function(x.to(x_dtype), w.float())
            assert out.dtype == torch.bfloat16
            torch.testing.assert_close(out, function(x.to(x_dtype), w.float(), impl="ref"))
    with pytest.raises(ValueError, match="four dimensions"):
        function(x[0], w)
