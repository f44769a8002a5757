"""DCGAN: sizes, initial weights, labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stylegan_tl.networks.dcgan import Discriminator, Generator


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
