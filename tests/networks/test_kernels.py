"""The kernels in whole networks: they change nothing but the time, in steps of every kind."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cuda_ops.compile import cpu_kernels
from stylegan_tl import losses
from stylegan_tl.networks import dcgan, stylegan2

SMALL = dict(channel_base=512, channel_max=32)
TINY = dict(resolution=8, channel_base=64, channel_max=16)
needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _generator(**options) -> stylegan2.Generator:
    torch.manual_seed(0)
    sizes = dict(resolution=32, z_dim=32, w_dim=32, num_mapping_layers=2)
    model = stylegan2.Generator(**(SMALL | sizes | options))
    with torch.no_grad():  # zero at the start, and then no test would see them
        for name, p in model.named_parameters():
            if name.endswith("noise_strength"):
                p.fill_(0.3)
            elif name.endswith("bias"):
                p.add_(_draw(*p.shape, seed=3), alpha=0.1)
    return model


def _discriminator(**options) -> stylegan2.Discriminator:
    torch.manual_seed(1)
    return stylegan2.Discriminator(**(SMALL | dict(resolution=32) | options))


class _Operators(TorchDispatchMode):
    """Count which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.name().split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _kernels(how: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_TL_KERNELS", how)
        cpu_kernels.cache_clear()
        try:
            yield
        finally:
            patch.undo()
            cpu_kernels.cache_clear()


def _generator_quantities(**options) -> list[Tensor]:
    """Return images, the gradients of a loss, path lengths and the gradients of their penalty."""
    g = _generator(**options).to(torch.zeros(()).float().dtype)
    params = list(g.parameters())
    ws = g.mapping(_draw(3, 32).float())
    images = g.synthesis(ws, noise="const")
    noise = _draw(*images.shape, seed=7).to(images)
    first = torch.autograd.grad((images * noise).sum() / 32, params, retain_graph=True)
    lengths = losses.path_lengths(images, ws, noise)
    penalty = (lengths - 0.5 * lengths.mean().detach()).square().mean()
    second = torch.autograd.grad(penalty, params, allow_unused=True)
    return [images, *first, lengths, *(s for s in second if s is not None)]


def _discriminator_quantities(**options) -> list[Tensor]:
    """Return logits, the gradients of a loss, R1 and its gradients."""
    d = _discriminator(**options).to(torch.zeros(()).float().dtype)
    params = list(d.parameters())
    images = _draw(4, 3, d.resolution, d.resolution).float().requires_grad_()
    logits = d(images)
    first = torch.autograd.grad(F.softplus(logits).sum(), params, retain_graph=True)
    penalty = losses.r1_penalty(images, logits)
    second = torch.autograd.grad(penalty.sum(), params, allow_unused=True)
    return [logits, *first, penalty, *(s for s in second if s is not None)]


def _same(found: list[Tensor], expected: list[Tensor], limit: float) -> None:
    assert len(found) == len(expected) >= 20
    for a, b in zip(found, expected, strict=True):
        a, b = a.detach(), b.detach()
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= limit * float(b.abs().max()) + 1e-3 * limit


both = pytest.mark.parametrize("quantities", [_generator_quantities, _discriminator_quantities])


@needs_kernels
@both
def test_kernels_change_nothing_in_whole_networks(quantities) -> None:
    with _Operators() as native:
        found = quantities()
    with _kernels("off"), _Operators() as plain:
        expected = quantities()
    assert {"cuda_ops::conv_act", "cuda_ops::conv_grad"} <= set(native.counts)
    assert not [name for name in plain.counts if name.startswith("cuda_ops::")]
    _same(found, expected, 2e-4)


@both
def test_the_chain_of_cuda_is_exact(quantities, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 throughout, CUDA's kernels emulated where they exist, against torch's own."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
    with _kernels("emulate"), _Operators() as chain:
        found = quantities(**TINY)
    with _kernels("off"):
        expected = quantities(**TINY)
    assert "cuda_ops::conv2d" in chain.counts
    assert found[0].dtype == torch.float64
    _same(found, expected, 1e-9)


@both
def test_in_bf16_the_kernels_stay_near_it(quantities) -> None:
    found = quantities(bf16=True)[0].detach()
    with _kernels("off"):
        expected, exact = quantities(bf16=True)[0].detach(), quantities()[0].detach()
    assert found.dtype == torch.float32
    assert float((found - exact).norm()) <= 2 * float((expected - exact).norm())


@needs_kernels
def test_r1_leaves_out_the_gradients_of_weights() -> None:
    d, images = _discriminator(), _draw(4, 3, 32, 32).requires_grad_()
    logits = d(images)
    with _Operators() as first:
        penalty = losses.r1_penalty(images, logits)
    with _Operators() as second:
        penalty.sum().backward()
    gradients = ("conv_grad", "conv_act_grad", "conv2d_weight_grad")
    assert not [name for name in gradients if first.counts[f"cuda_ops::{name}"]]
    ran = second.counts["cuda_ops::conv_grad"] + second.counts["cuda_ops::conv_act_grad"]
    assert ran >= 6  # as many as layers that Winograd takes
    assert all(p.grad is not None for name, p in d.named_parameters() if "weight" in name)


@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_compiles_whole(part: str) -> None:
    """One graph forward and one backward; the gradients are those of the eager network."""
    if part == "generator":
        model, x = _generator(**TINY), _draw(4, 32)
        model.forward = lambda z: stylegan2.Generator.forward(model, z, noise="const")
    else:
        model, x = _discriminator(**TINY), _draw(4, 3, 8, 8)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: model(x), fullgraph=True, backend="aot_eager")
    params = list(model.parameters())
    found, expected = (
        torch.autograd.grad(call(x).square().sum(), params) for call in (compiled, model)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def _r1(d: nn.Module, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    penalty = losses.r1_penalty(images, d(images))
    return [penalty, *torch.autograd.grad(penalty.sum(), list(d.parameters()))]


def test_r1_of_dcgan() -> None:
    torch.manual_seed(0)
    g, d = dcgan.Generator(resolution=32, width=8), dcgan.Discriminator(resolution=32, width=8)
    g, d, z = g.double(), d.double(), _draw(4, 100).double()
    with _Operators() as ours:
        images = g(z)
        found = [images, *torch.autograd.grad(images.sum(), list(g.parameters()))]
        found += _r1(d, images.detach())
    with _kernels("off"), _Operators() as plain:
        images = g(z)
        expected = [images, *torch.autograd.grad(images.sum(), list(g.parameters()))]
        expected += _r1(d, images.detach())
    assert ours.counts["cuda_ops::conv2d"] > plain.counts["cuda_ops::conv2d"] == 0
    _same(found, expected, 1e-9)
