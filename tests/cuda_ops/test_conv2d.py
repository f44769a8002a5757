"""conv2d, its adjoint and their gradients against torch's own convolution in float64."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cuda_ops.compile import cpu_kernels
from cuda_ops.conv2d import conv2d, conv_transpose2d
from cuda_ops.conv3x3 import conv3x3

fast = settings(derandomize=True, deadline=None, max_examples=25)


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


class _Convolutions(TorchDispatchMode):
    """Count what torch runs: convolutions, and gradients of x and of w by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.kernels: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.convolution.default, torch.ops.cuda_ops.conv2d.default):
            self.kernels.append(max(args[1].shape[2:]))
        if func is torch.ops.aten.convolution.default:
            self.counts["convolution"] += 1
        elif func is torch.ops.aten.convolution_backward.default:
            self.counts["dx"] += args[-1][0]
            self.counts["dw"] += args[-1][1]
        elif func.name().startswith("cuda_ops::"):
            self.counts[func.name().removeprefix("cuda_ops::")] += 1
        return func(*args, **(kwargs or {}))


@st.composite
def _geometry(draw) -> dict:
    """Draw sizes, kernel, stride, padding, groups; the output has at least one pixel."""
    groups = draw(st.sampled_from([1, 2]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    return dict(
        n=draw(st.integers(1, 2)),
        i=groups * draw(st.integers(1, 2)),
        o=groups * draw(st.integers(1, 2)),
        size=(draw(st.integers(4, 7)), draw(st.integers(4, 6))),
        kernel=kernel,
        stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 2))),
        padding=draw(st.tuples(st.integers(0, kernel[0] - 1), st.integers(0, kernel[1] - 1))),
        extra=draw(st.tuples(st.integers(0, 2), st.integers(0, 1))),
        groups=groups,
    )


def _calls(g: dict, transposed: bool) -> tuple:
    """Return ours, torch's and the tensors for a drawn geometry."""
    options = dict(stride=g["stride"], padding=g["padding"], groups=g["groups"])
    x = _draw(g["n"], g["i"], *g["size"])
    if not transposed:
        w = _draw(g["o"], g["i"] // g["groups"], *g["kernel"], seed=1)
        return lambda *t: conv2d(*t, **options), lambda *t: F.conv2d(*t, **options), x, w
    w = _draw(g["i"], g["o"] // g["groups"], *g["kernel"], seed=1)
    pairs = zip(g["extra"], g["stride"], strict=True)
    options["output_padding"] = tuple(min(extra, s - 1) for extra, s in pairs)
    return (
        lambda *t: conv_transpose2d(*t, **options),
        lambda *t: F.conv_transpose2d(*t, **options),
        x,
        w,
    )


def _orders(function, x: Tensor, w: Tensor) -> list[Tensor]:
    """Return the value and the gradients of orders one (both ways) and two."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = function(x, w)
    cotangent = _draw(*y.shape, seed=5, dtype=y.dtype).requires_grad_()
    plain = torch.autograd.grad(y, (x, w), cotangent, retain_graph=True)
    first = torch.autograd.grad(y, (x, w), cotangent, create_graph=True)
    both = first[0].square().sum() + first[1].square().sum()
    return [y, *plain, *first, *torch.autograd.grad(both, (x, w, cotangent))]


@pytest.mark.parametrize("transposed", [False, True])
@given(geometry=_geometry())
@fast
def test_values_and_gradients(geometry: dict, transposed: bool) -> None:
    ours, native, x, w = _calls(geometry, transposed)
    try:
        native(x, w)
    except RuntimeError:  # no pixel is left
        return
    for found, true in zip(_orders(ours, x, w), _orders(native, x, w), strict=True):
        torch.testing.assert_close(found, true)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradcheck(transposed: bool, stride: int, groups: int) -> None:
    geometry = dict(
        n=2, i=2, o=4, size=(4, 5), kernel=(3, 2), stride=(stride, 1), padding=(1, 0),
        extra=(1, 1), groups=groups,
    )  # fmt: skip
    ours, _, x, w = _calls(geometry, transposed)
    x, w = x.requires_grad_(), w.requires_grad_()
    assert torch.autograd.gradcheck(ours, (x, w))
    assert torch.autograd.gradgradcheck(ours, (x, w))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_registration(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = _draw(2, 4, 6, 5, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    w = _draw(6, 2, 3, 3, seed=1, dtype=dtype).requires_grad_()
    y = conv2d(x, w, stride=2, padding=1, groups=2)
    ops, of = torch.ops.cuda_ops, ((2, 2), (1, 1))
    close = dict(rtol=0.02, atol=0.02) if dtype == torch.bfloat16 else {}
    torch.library.opcheck(ops.conv2d.default, (x, w, *of, (0, 0), False, 2), **close)
    torch.library.opcheck(
        ops.conv2d.default, (y.detach().requires_grad_(), w, *of, (1, 0), True, 2), **close
    )
    given = (x, y.detach().requires_grad_(), list(w.shape), *of, 2)
    torch.library.opcheck(ops.conv2d_weight_grad.default, given, **close)


def test_the_layout_is_that_of_torch() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = _draw(2, 4, 6, 6, dtype=torch.float32).contiguous(memory_format=layout)
        w = _draw(4, 4, 3, 3, dtype=torch.float32).contiguous(memory_format=layout)
        assert conv2d(x, w, padding=1).is_contiguous(memory_format=layout)


def _twice(function, x: Tensor, w: Tensor) -> tuple[list[Counter], list[Tensor], list[int]]:
    """Take R1's steps; return what ran in the first and in the second backward."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = function(x, w).square().sum()  # the square: a second derivative is there
    with _Convolutions() as first:
        (g,) = torch.autograd.grad(y, x, create_graph=True)
    with _Convolutions() as second:
        g.square().sum().backward()
    return [first.counts, second.counts], [g.detach(), x.grad, w.grad], second.kernels


@pytest.mark.parametrize("transposed", [False, True])
def test_the_first_backward_leaves_out_weight_gradients(transposed: bool) -> None:
    """As torch's own nodes do; and the second one never convolves with an image."""
    ours = conv_transpose2d if transposed else conv2d
    theirs = F.conv_transpose2d if transposed else F.conv2d
    x, w = _draw(2, 4, 16, 16), _draw(4, 4, 3, 3, seed=1)
    (first, second), found, kernels = _twice(lambda x, w: ours(x, w, padding=1), x, w)
    assert first == {"conv2d": 1}
    assert second == {"dx": 2, "dw": 2}  # through y, and through the first gradient
    assert not kernels
    (first, _), true, kernels = _twice(lambda x, w: theirs(x, w, padding=1), x, w)
    assert first["dw"] == 0
    assert max(kernels) == 16  # this is what is slow
    for a, b in zip(found, true, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
def test_so_do_the_layers_of_stylegan2() -> None:
    x, w, b = _draw(4, 16, 16, 16).float(), _draw(16, 16, 3, 3, seed=1).float(), torch.ones(16)
    b.requires_grad_()
    (first, second), _, _ = _twice(lambda x, w: conv3x3(x, w, b=b, slope=0.2, impl="cpu"), x, w)
    assert first == {"conv_act": 1, "scale_act_grad": 1}
    assert second["conv_grad"] + second["conv_act_grad"] == 2


def test_what_is_asked_for_differs_from_call_to_call() -> None:
    x, w = _draw(1, 2, 6, 6).requires_grad_(), _draw(3, 2, 3, 3, seed=1).requires_grad_()
    hidden = 2 * w  # not a leaf
    y = conv2d(x, hidden, padding=1).square().sum()
    for wanted, dx, dw in (((x,), 1, 0), ((w,), 0, 1), ((hidden,), 0, 1), ((x, w), 1, 1)):
        with _Convolutions() as ran:
            grads = torch.autograd.grad(y, wanted, retain_graph=True)
        assert all(g.any() for g in grads)
        assert (ran.counts["dx"], ran.counts["dw"]) == (dx, dw)
    with _Convolutions() as ran:
        y.backward()
    assert (ran.counts["dx"], ran.counts["dw"]) == (1, 1)
    assert x.grad.any()
    assert w.grad.any()


def test_frozen_weights_cost_nothing() -> None:
    x, w = _draw(1, 2, 6, 6).requires_grad_(), _draw(3, 2, 3, 3, seed=1)
    with _Convolutions() as ran:
        conv2d(x, w).sum().backward()
    assert (ran.counts["dx"], ran.counts["dw"]) == (1, 0)


def test_threads_do_not_disturb_each_other() -> None:
    """One thread takes R1's gradient while another takes all of them, many times."""
    x, w = _draw(1, 2, 8, 8), _draw(2, 2, 3, 3, seed=1)
    true = torch.autograd.grad(F.conv2d(x, w.requires_grad_()).square().sum(), w)[0]
    wrong: list[str] = []

    def work(inputs_only: bool) -> None:
        for _ in range(50):
            a, b = x.clone().requires_grad_(), w.detach().clone().requires_grad_()
            y = conv2d(a, b).square().sum()
            if inputs_only:
                torch.autograd.grad(y, a, create_graph=True)
            else:
                y.backward()
                if b.grad is None or not torch.allclose(b.grad, true):
                    wrong.append("weight gradient lost")

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


class _Nested(torch.autograd.Function):
    """A node that runs a whole backward of its own, for x and w."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        with torch.enable_grad():
            x, w = g.detach().requires_grad_(), torch.ones(3, 3, 1, 1).to(g).requires_grad_()
            y = conv2d(x, w).square().sum()
        dx, dw = torch.autograd.grad(y, (x, w))
        assert dw.any()
        return dx


def test_a_backward_inside_a_backward_asks_for_its_own() -> None:
    x, w = _draw(1, 2, 6, 6).requires_grad_(), _draw(3, 2, 3, 3, seed=1).requires_grad_()
    y = _Nested.apply(conv2d(x, w)).sum()
    with _Convolutions() as ran:
        torch.autograd.grad(y, x)
    assert (ran.counts["dx"], ran.counts["dw"]) == (2, 1)  # 1 + 1 inside, then x alone


def test_off_and_ref_are_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = _draw(1, 2, 6, 6).requires_grad_(), _draw(2, 2, 3, 3, seed=1)
    assert "cuda_ops" in conv2d(x, w).grad_fn.name()
    assert "ConvolutionBackward" in conv2d(x, w, impl="ref").grad_fn.name()
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "off")
    assert "ConvolutionBackward" in conv2d(x, w).grad_fn.name()
    assert "ConvolutionBackward" in conv_transpose2d(x, w).grad_fn.name()


def test_zero_images() -> None:
    x, w = _draw(0, 2, 6, 6).requires_grad_(), _draw(3, 2, 3, 3).requires_grad_()
    y = conv2d(x, w, padding=1)
    y.sum().backward()
    assert y.shape == (0, 3, 6, 6)
    assert x.grad.shape == x.shape
    assert not w.grad.any()


def test_compiles_whole() -> None:
    def loss(x: Tensor, w: Tensor) -> Tensor:
        return conv_transpose2d(conv2d(x, w, stride=2, padding=1), w, stride=2).square().sum()

    x, w = _draw(1, 2, 7, 7).requires_grad_(), _draw(3, 2, 3, 3, seed=1).requires_grad_()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(x, w), (x, w))
    torch.testing.assert_close(found, torch.autograd.grad(loss(x, w), (x, w)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: conv2d(x, w, impl="metal"), "impl='metal' is unknown"),
        (lambda x, w: conv2d(x, w, impl="cuda"), "impl='cuda' takes tensors on that device"),
        (lambda x, w: conv_transpose2d(x, w, output_padding=1), "below stride"),
    ],
)
def test_refuses(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 3, 8, 8), torch.zeros(3, 3, 3, 3))
