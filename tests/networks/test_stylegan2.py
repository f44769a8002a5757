"""StyleGAN2: names and counts, and the formulas of the paper."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_tl.networks.layers import FullyConnected, minibatch_std
from stylegan_tl.networks.stylegan2 import Discriminator, Generator, SynthesisLayer, ToRGB

SMALL = dict(channel_base=512, channel_max=32)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _generator(**options) -> Generator:
    torch.manual_seed(0)
    options = SMALL | dict(resolution=32, z_dim=32, w_dim=32, num_mapping_layers=2) | options
    model = Generator(**options)
    with torch.no_grad():  # zero at the start, and then no test would see them
        for name, p in model.named_parameters():
            if name.endswith("noise_strength"):
                p.fill_(0.3)
            elif name.endswith("bias"):
                p.add_(_draw(*p.shape, seed=3), alpha=0.1)
        model.mapping.w_avg.copy_(_draw(*model.mapping.w_avg.shape, seed=4))
    return model


def _discriminator(**options) -> Discriminator:
    torch.manual_seed(1)
    return Discriminator(**(SMALL | dict(resolution=32) | options))


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts() -> None:
    with torch.device("meta"):
        assert _count(Generator(resolution=256)) == 24_767_458
        assert _count(Generator(resolution=256, num_mapping_layers=2)) == 23_191_522
        assert _count(Discriminator(resolution=256)) == 24_001_089


def test_state_dict() -> None:
    with torch.device("meta"):
        g = {k: list(v.shape) for k, v in Generator(resolution=256).state_dict().items()}
        d = {k: list(v.shape) for k, v in Discriminator(resolution=256).state_dict().items()}
    width = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64}
    expected = {"synthesis.b4.const": [512, 4, 4], "mapping.w_avg": [512]}
    for i in range(8):
        expected |= {f"mapping.fc{i}.weight": [512, 512], f"mapping.fc{i}.bias": [512]}
    for r, c in width.items():
        before = width.get(r // 2)
        for layer, i in [("conv0", before), ("conv1", c)] if before else [("conv1", c)]:
            name = f"synthesis.b{r}.{layer}"
            expected |= {
                f"{name}.affine.weight": [i, 512],
                f"{name}.affine.bias": [i],
                f"{name}.weight": [c, i, 3, 3],
                f"{name}.noise_strength": [],
                f"{name}.bias": [c],
                f"{name}.noise_const": [r, r],
            }
        name = f"synthesis.b{r}.torgb"
        expected |= {f"{name}.affine.weight": [c, 512], f"{name}.affine.bias": [c]}
        expected |= {f"{name}.weight": [3, c, 1, 1], f"{name}.bias": [3]}
    assert g == expected

    expected = {"b256.fromrgb.weight": [64, 3, 1, 1], "b256.fromrgb.bias": [64]}
    for r in list(width)[1:]:
        c, o = width[r], width[r // 2]
        expected |= {f"b{r}.conv0.weight": [c, c, 3, 3], f"b{r}.conv0.bias": [c]}
        expected |= {f"b{r}.conv1.weight": [o, c, 3, 3], f"b{r}.conv1.bias": [o]}
        expected[f"b{r}.skip.weight"] = [o, c, 1, 1]
    expected |= {"b4.conv.weight": [512, 513, 3, 3], "b4.conv.bias": [512]}
    expected |= {"b4.fc.weight": [512, 8192], "b4.fc.bias": [512]}
    expected |= {"b4.out.weight": [1, 512], "b4.out.bias": [1]}
    assert d == expected


def _paper_layer(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    """Modulate and demodulate the weights of each sample, convolve in groups (section 2.2)."""
    (n, i), o = x.shape[:2], layer.weight.shape[0]
    styles = w @ layer.affine.weight.t() / math.sqrt(w.shape[1]) + layer.affine.bias
    weight = layer.weight[None] * styles[:, None, :, None, None]
    weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    x = x.reshape(1, n * i, *x.shape[2:])
    if layer.up == 2:
        weight = weight.transpose(1, 2).reshape(n * i, o, 3, 3)
        y = F.conv_transpose2d(x, weight, stride=2, groups=n)
        taps = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
        fir = 4 * torch.outer(taps, taps).expand(n * o, 1, 4, 4)
        y = F.conv2d(y, fir, padding=1, groups=n * o)
    else:
        y = F.conv2d(x, weight.reshape(n * o, i, 3, 3), padding=1, groups=n)
    y = y.reshape(n, o, *y.shape[2:]) + layer.noise_const * layer.noise_strength
    y = y + layer.bias[None, :, None, None]
    return math.sqrt(2) * torch.where(y > 0, y, 0.2 * y)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_modulated_convolution(up: int, batch: int) -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(16, 32, w_dim=8, resolution=8 * up, up=up)
    layer.noise_strength.data.fill_(0.4)
    layer.bias.data.normal_()
    x, w = _draw(batch, 16, 8, 8), _draw(batch, 8, seed=1)
    options = dict(noise="const", generator=None, clamp=None)
    single = layer(x, w, **options).detach()
    layer.double()
    x, w = x.double(), w.double()
    expected = _paper_layer(layer, x, w).detach()
    torch.testing.assert_close(layer(x, w, **options).detach(), expected)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=2e-5)


def test_torgb_modulates_without_demodulation() -> None:
    torch.manual_seed(0)
    layer = ToRGB(16, 3, w_dim=8).double()
    layer.bias.data.normal_()
    x, w = _draw(2, 16, 4, 4).double(), _draw(2, 8, seed=1).double()
    styles = (w @ layer.affine.weight.t() / math.sqrt(8) + layer.affine.bias) / 4
    for i in range(2):
        expected = F.conv2d(x[i : i + 1], layer.weight * styles[i, None, :, None, None])
        expected = expected + layer.bias[None, :, None, None]
        torch.testing.assert_close(layer(x, w, clamp=None)[i : i + 1], expected)


def test_fully_connected() -> None:
    layer = FullyConnected(6, 4, act="lrelu", lr_multiplier=0.01, bias_init=3).double()
    x = _draw(5, 6).double()
    y = x @ layer.weight.t() * 0.01 / math.sqrt(6) + 0.03
    torch.testing.assert_close(layer(x), math.sqrt(2) * torch.where(y > 0, y, 0.2 * y))
    torch.manual_seed(0)
    weight = FullyConnected(400, 400, lr_multiplier=0.01).weight.detach()
    assert abs(float(weight.std()) - 100) < 2


@pytest.mark.parametrize(
    ("n", "group", "chunks", "size"), [(8, 4, 1, 4), (6, 4, 1, 3), (8, 4, 2, 4), (4, 4, 2, 2),
                                       (5, 4, 1, 1), (6, 4, 2, 3), (2, 4, 1, 2)]
)  # fmt: skip
def test_minibatch_std(n: int, group: int, chunks: int, size: int) -> None:
    x = _draw(n, 3, 2, 2)
    y = minibatch_std(x, group, chunks)
    assert y.shape == (n, 4, 2, 2)
    assert torch.equal(y[:, :3], x)
    per_chunk = n // chunks
    groups = per_chunk // size
    for i in range(n):
        start, own = i - i % per_chunk, i % per_chunk % groups
        members = [start + own + k * groups for k in range(size)]
        assert i in members
        total = 0.0
        for at in range(12):
            values = [float(x[m].flatten()[at]) for m in members]
            mean = sum(values) / size
            total += math.sqrt(sum((v - mean) ** 2 for v in values) / size + 1e-8)
        torch.testing.assert_close(y[i, 3], torch.full((2, 2), total / 12))


def test_minibatch_std_refuses_uneven_chunks() -> None:
    with pytest.raises(ValueError, match="chunks=2"):
        minibatch_std(_draw(3, 1, 2, 2), 4, 2)


def test_chunks_are_separate_calls() -> None:
    d = _discriminator()
    a, b = _draw(4, 3, 32, 32), 0.1 * _draw(4, 3, 32, 32, seed=1)
    apart = torch.cat([d(a), d(b)])
    torch.testing.assert_close(d(torch.cat([a, b]), chunks=2), apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(d(torch.cat([a, b])), apart, rtol=1e-3, atol=1e-4)


def test_seed_of_the_noise() -> None:
    g, z = _generator(), _draw(2, 32)
    before = torch.get_rng_state()
    one, two, other = (g(z, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    const = [g(z, noise="const") for _ in range(2)]
    none = g(z, noise="none")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, two)
    assert torch.equal(*const)
    for a, b in ((one, other), (one, const[0]), (none, const[0])):
        assert not torch.allclose(a, b, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="noise='fixed'"):
        g(z, noise="fixed")


def test_truncation() -> None:
    g, z = _generator(), _draw(2, 32)
    ws, avg = g.mapping(z), g.mapping.w_avg
    assert ws.shape == (2, 8, 32)
    for psi in (0.0, 0.7):
        expected = avg + psi * (ws - avg)
        torch.testing.assert_close(g.mapping(z, truncation_psi=psi), expected)
    assert torch.equal(g.mapping(z, truncation_psi=0), avg.expand(2, 8, 32))
    cut = g.mapping(z, truncation_psi=0, truncation_cutoff=3)
    assert torch.equal(cut[:, :3], avg.expand(2, 3, 32))
    assert torch.equal(cut[:, 3:], ws[:, 3:])
    images = g(z, truncation_psi=0, noise="none")
    torch.testing.assert_close(images[0], images[1], rtol=1e-4, atol=1e-5)


def test_w_avg_moves_only_when_told() -> None:
    g = _generator()
    before = g.mapping.w_avg.clone()
    w = g.mapping(_draw(4, 32))[:, 0]
    assert torch.equal(g.mapping.w_avg, before)
    g.mapping.update_w_avg(w, beta=0.9)
    torch.testing.assert_close(g.mapping.w_avg, 0.9 * before + 0.1 * w.detach().mean(0))


def test_labels_matter() -> None:
    g, d = _generator(c_dim=3), _discriminator(c_dim=3, mbstd_group_size=1)
    a, b = torch.eye(3)[[0, 1]], torch.eye(3)[[2, 1]]
    z, images = _draw(2, 32), _draw(2, 3, 32, 32)
    pairs = (g(z, a, noise="const"), g(z, b, noise="const")), (d(images, a), d(images, b))
    for one, two in pairs:
        assert not torch.allclose(one[0], two[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one[1], two[1])


@pytest.mark.parametrize("c", [None, torch.zeros(2, 4), torch.zeros(3)], ids=["no", "4", "flat"])
def test_wrong_labels_are_refused(c: Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        _generator(c_dim=3)(_draw(2, 32), c)
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        _discriminator(c_dim=3)(_draw(2, 3, 32, 32), c)


@pytest.mark.parametrize("resolution", [4, 24])
def test_other_sizes_are_refused(resolution: int) -> None:
    for network in (Generator, Discriminator):
        with pytest.raises(ValueError, match=f"resolution={resolution}"):
            network(resolution=resolution)
