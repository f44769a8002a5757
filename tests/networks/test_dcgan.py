"""DCGAN: sizes, initial weights, labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stylegan_tl.models.dcgan import DCGAN
from stylegan_tl.networks.dcgan import Discriminator, Generator
from stylegan_tl.networks.strided import Projection, doubling, halving


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_parameter_counts() -> None:
    with torch.device("meta"):
        assert _count(Generator(resolution=64, z_dim=100, width=64)) == 3_576_704
        assert _count(Discriminator(resolution=64, width=64)) == 2_765_568


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_shapes(resolution: int) -> None:
    with torch.device("meta"):
        image = Generator(resolution=resolution)(torch.empty(2, 100))
        assert image.shape == (2, 3, resolution, resolution)
        assert Discriminator(resolution=resolution)(image).shape == (2, 1)


def test_widths_at_256() -> None:
    with torch.device("meta"):
        model = Discriminator(resolution=256, width=64)
    widths = [getattr(model, f"b{r}")[0].weight.shape[0] for r in (256, 128, 64, 32, 16, 8)]
    assert widths == [64, 128, 256, 512, 512, 512]


@pytest.mark.parametrize("resolution", [16, 48, 512])
def test_other_sizes_are_refused(resolution: int) -> None:
    for network in (Generator, Discriminator):
        with pytest.raises(ValueError, match=f"resolution={resolution}"):
            network(resolution=resolution)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_initial_weights(network: type) -> None:
    torch.manual_seed(0)
    drawn = 0
    for module in network(resolution=64, width=32, c_dim=5).modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            w = module.weight.detach().double() / 0.02
            slack = 5 / w.numel() ** 0.5  # five standard errors
            assert abs(float(w.mean())) < slack
            assert abs(float(w.std()) - 1) < slack
            assert abs(float(w.pow(4).mean()) - 3) < 10 * slack  # a normal law: kurtosis 3
            assert module.bias is None
            drawn += 1
        elif isinstance(module, nn.BatchNorm2d):
            w = (module.weight.detach().double() - 1) / 0.02
            assert abs(float(w.mean())) < 5 / w.numel() ** 0.5
            assert abs(float(w.std()) - 1) < 5 / w.numel() ** 0.5
            assert not module.bias.any()
    assert drawn == 6


def test_images_are_in_range_and_use_no_randomness() -> None:
    model = Generator(resolution=32, width=8)
    before = torch.get_rng_state()
    image = model(20 * _draw(4, 100))
    assert torch.equal(torch.get_rng_state(), before)
    assert image.shape == (4, 3, 32, 32)
    assert float(image.detach().abs().max()) <= 1
    assert torch.equal(image, model(20 * _draw(4, 100)))


def test_last_layer_is_tanh() -> None:
    model = Generator(resolution=32, width=8).eval()
    seen = []
    model.b32[0].register_forward_hook(lambda _, __, y: seen.append(y.detach().clone()))
    image = model(50 * _draw(2, 100))
    e = (2 * seen[0].double()).exp()
    torch.testing.assert_close(image.double(), (e - 1) / (e + 1), rtol=1e-5, atol=1e-6)


def test_labels_matter() -> None:
    a, b = torch.eye(3)[[0, 1]], torch.eye(3)[[2, 1]]
    g = Generator(resolution=32, width=8, c_dim=3).eval()
    d = Discriminator(resolution=32, width=8, c_dim=3).eval()
    z, image = _draw(2, 100), _draw(2, 3, 32, 32)
    for one, two in ((g(z, a), g(z, b)), (d(image, a), d(image, b))):
        assert not torch.allclose(one[0], two[0], rtol=1e-3, atol=0)
        assert torch.equal(one[1], two[1])


def test_label_projection() -> None:
    d = Discriminator(resolution=32, width=8, c_dim=3).eval()
    image, c = _draw(2, 3, 32, 32), torch.eye(3)[[0, 2]]
    x = image
    for r in (32, 16, 8):
        x = getattr(d, f"b{r}")(x)
    for i in range(2):
        logit = (x[i] * d.b4.weight[0]).sum()
        logit = logit + (x[i].sum((1, 2)) * d.embed.weight[:, (0, 2)[i]]).sum()
        torch.testing.assert_close(d(image, c)[i, 0], logit, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("c", [None, torch.zeros(2, 4), torch.zeros(3)], ids=["no", "4", "flat"])
def test_wrong_labels_are_refused(c: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        Generator(resolution=32, width=8, c_dim=3)(_draw(2, 100), c)
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        Discriminator(resolution=32, width=8, c_dim=3)(_draw(2, 3, 32, 32), c)


def test_parameter_counts_of_art_dcgan() -> None:
    """G 73.7 M, D 4.4 M at its widths, 128 px (robbiebarrat/art-DCGAN, main.lua: ngf 160, ndf 40).

    Each layer by its numbers there: (in, out) of 4 x 4 kernels, two per channel of batch norm.
    """
    G = [(100, 2560), (2560, 1280), (1280, 640), (640, 320), (320, 160), (160, 3)]
    D = [(3, 40), (40, 80), (80, 160), (160, 320), (320, 640), (640, 1)]
    size = dict(resolution=128, width_max=16)
    with torch.device("meta"):
        found = [_count(Generator(width=160, **size)), _count(Discriminator(width=40, **size))]
    assert found[0] == sum(16 * i * o for i, o in G) + sum(2 * o for _, o in G[:-1]) == 73_745_600
    assert found[1] == sum(16 * i * o for i, o in D) + sum(2 * o for _, o in D[1:-1]) == 4_366_560


KIM = dict(kernel=5, bias=True, init="tf")


def test_parameter_counts_of_dcgan_tensorflow() -> None:
    """By the layers of carpedm20/DCGAN-tensorflow, model.py, at 64 px, z of 100, width 64."""
    convs = [(64 * 2**i, 64 * 2 ** (i - 1)) for i in (3, 2, 1)]
    both = sum(25 * a * b for a, b in convs) + 25 * 64 * 3
    G = 100 * 8192 + 8192 + both + (256 + 128 + 64 + 3) + 2 * (512 + 256 + 128 + 64)
    D = both + (64 + 128 + 256 + 512) + 2 * (128 + 256 + 512) + 8192 + 1
    with torch.device("meta"):
        assert _count(Generator(**KIM)) == G == 5_135_363
        assert _count(Discriminator(**KIM)) == D == 4_316_545


def _reference_same(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """TensorFlow's SAME at stride 2, place by place: one before and two after are padded."""
    n, _, height, width = x.shape
    out = torch.zeros(n, len(w), height // 2, width // 2, dtype=x.dtype)
    for i in range(height // 2):
        for j in range(width // 2):
            for a in range(5):
                for b in range(5):
                    row, column = 2 * i + a - 1, 2 * j + b - 1
                    if 0 <= row < height and 0 <= column < width:
                        out[:, :, i, j] += x[:, :, row, column] @ w[:, :, a, b].t()
    return out


def test_five_by_five_pads_as_tensorflow_and_doubling_is_its_adjoint() -> None:
    down, up = halving(3, 4, 5, bias=True).double(), doubling(4, 3, 5, bias=True).double()
    with torch.no_grad():
        down.bias.copy_(torch.arange(4.0))
        up.weight.copy_(down.weight)
        up.bias.zero_()
    x, y = _draw(2, 3, 8, 8).double(), _draw(2, 4, 4, 4, seed=1).double()
    expected = _reference_same(x, down.weight) + torch.arange(4.0)[:, None, None]
    torch.testing.assert_close(down(x), expected)
    plain = _reference_same(x, down.weight)
    torch.testing.assert_close((plain * y).sum(), (x * up(y)).sum())


def test_the_first_layer_with_biases_is_a_linear_one() -> None:
    layer = Projection(5, 3)
    with torch.no_grad():
        layer.bias.copy_(_draw(3, 4, 4))
    z = _draw(2, 5, seed=1)
    expected = F.linear(z, layer.weight.flatten(1).t(), layer.bias.flatten()).view(2, 3, 4, 4)
    torch.testing.assert_close(layer(z[:, :, None, None]), expected)


def test_initial_values_of_dcgan_tensorflow() -> None:
    torch.manual_seed(0)
    model = Discriminator(resolution=64, **KIM)
    for name, value in model.named_parameters():
        if name == "b4.weight":  # its linear layer is not cut off
            assert float(value.detach().abs().max()) > 0.04
        elif name.endswith(".0.weight"):
            assert float(value.detach().abs().max()) <= 0.04
            spread = 0.02 * 0.8796  # of a normal law cut off at two deviations
            assert float(value.detach().std()) == pytest.approx(spread, rel=0.05)
        else:
            assert set(value.detach().flatten().tolist()) == {1.0 if ".1.w" in name else 0.0}


def test_uniform_noise_is_even_in_minus_one_to_one() -> None:
    model = Generator(resolution=32, width=4, noise="uniform").eval()
    seen = []
    model.b4.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    model(_draw(500, 100))
    found = np.sort(seen[0].double().flatten().numpy())
    even = np.linspace(-1, 1, len(found))
    assert np.abs(found - even).max() < 2 * 1.63 / len(found) ** 0.5  # Kolmogorov, 1 %


def test_layer_normalisation_tells_images_apart_and_options_are_checked() -> None:
    model, image = Discriminator(resolution=32, width=8, norm="layer"), _draw(3, 3, 32, 32)
    torch.testing.assert_close(model(image)[:1], model(image[:1]), rtol=1e-4, atol=1e-5)
    for wrong in ({"norm": "group"}, {"init": "he"}, {"kernel": 3}):
        with pytest.raises(ValueError, match="use one of"):
            Discriminator(resolution=32, **wrong)
    plan = {"betas": (0, 0.9), "loss": "wgan_gp"}
    network = {"resolution": 32, "z_dim": 8, "width": 4}
    with pytest.raises(ValueError, match="norm_D=layer"):
        DCGAN(network=network, training=plan)
    assert DCGAN(network={**network, "norm_D": "layer"}, training=plan).training_plan.gp_weight
