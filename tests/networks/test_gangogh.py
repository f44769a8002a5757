"""GANGogh: sizes, gates against the paper's equation, the two heads, the first phase."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stylegan_tl.models.gangogh import GANGogh
from stylegan_tl.networks.gangogh import Discriminator, Generator


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_parameter_counts_by_the_layers_of_the_published_code() -> None:
    """rkjones4/GANGogh, GANgogh.py: DIM 64, 14 classes, z of 128; gates take twice the width."""
    first = (128 + 14) * 16384 + 16384 + 2 * 1024 + 14 * 16384
    G = first
    for wide, out, size in ((512, 512, 8), (256, 256, 16), (128, 128, 32)):  # in, gated out, places
        G += 25 * wide * out + out + 2 * out + 14 * out * size**2 + out * size**2
    G += 25 * 64 * 3 + 3
    D = 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 3 * (128 + 256 + 512)
    D += 8192 + 1 + 14 * 8192 + 14
    with torch.device("meta"):
        assert _count(Generator(c_dim=14)) == G == 14_624_067
        assert _count(Discriminator(c_dim=14)) == D == 4_431_247


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_shapes(resolution: int) -> None:
    with torch.device("meta"):
        image = Generator(resolution=resolution, c_dim=3)(torch.empty(2, 128), torch.empty(2, 3))
        assert image.shape == (2, 3, resolution, resolution)
        logits, classes = Discriminator(resolution=resolution, c_dim=3).both(image)
    assert (logits.shape, classes.shape) == ((2, 1), (2, 3))


def test_a_block_is_the_conditional_gate_of_the_paper() -> None:
    """sigmoid(a + U c) tanh(b + V c), and the class as an input of the first layer."""
    model = Generator(resolution=32, z_dim=5, c_dim=3, width=4).eval().double()
    z, c = _draw(2, 5).double(), torch.eye(3)[[2, 0]].double()
    conv, norm = model.b4
    weight = torch.cat([conv.weight.flatten(1), model.embed.weight.t()])  # of [z, c]
    x = (torch.cat([z, c], 1) @ weight + conv.bias.flatten()).view(2, -1, 4, 4)
    a, b = norm(x).chunk(2, 1)
    U, V = model.gates["b4"].weight.t().view(3, 2, -1, 4, 4)[[2, 0]].unbind(1)
    seen = []
    model.b8[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(z, c)
    torch.testing.assert_close(seen[0], (a + U).sigmoid() * (b + V).tanh())


def test_initial_weights_are_uniform_of_deviation_002() -> None:
    torch.manual_seed(0)
    for model in (Generator(c_dim=3, width=16), Discriminator(c_dim=3, width=16)):
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                w = module.weight.detach()
                assert float(w.abs().max()) <= 0.02 * math.sqrt(3) * 1.0001
                assert float(w.std()) == pytest.approx(0.02, rel=0.05)
                assert module.bias is None or not module.bias.any()


def _model(**more) -> GANGogh:
    network = dict(resolution=32, z_dim=8, c_dim=3, width=4, width_max=8)
    training = dict(batch_size=4, betas=(0.5, 0.9), loss="wgan_gp", r1_gamma=0.0)
    return GANGogh(network=network, training=training, **more)


def test_the_class_losses_are_the_cross_entropies_of_both_networks() -> None:
    model = _model(class_weight=2.0, pretrain_kimg=0)
    image, c = _draw(3, 3, 32, 32), torch.eye(3)[[2, 0, 0]]
    logits, more = model.judge(image, c, "real")
    scores = model.D.classes(model.D.features(image).flatten(1)).detach().double()
    expected = scores.logsumexp(1) - scores[torch.arange(3), [2, 0, 0]]
    torch.testing.assert_close(
        more["class_D"].detach().double(), 2 * expected, rtol=1e-4, atol=1e-5
    )
    assert model.judge(image, c, "G")[1].keys() == {"class_G"}
    assert model.judge(image, c, "fake")[1] == {}
    torch.testing.assert_close(logits, model.D(image, None))


def test_first_d_learns_the_classes_alone_and_only_where_it_is_new() -> None:
    model, image, c = _model(pretrain_kimg=0.02), _draw(4, 3, 32, 32), torch.eye(3)[[0, 1, 2, 0]]
    assert model.rests("G")
    assert not model.rests("D")
    logits, more = model.judge(image, c, "real")
    assert not logits.any()
    plain = F.cross_entropy(model.D.both(image)[1], c, reduction="none")
    torch.testing.assert_close(more["class_D"], 50 * plain)
    model.pretrain_class_weight = None  # what the released script runs
    assert model.judge(image, c, "real")[0].all()
    model.nimg = 20
    assert not model.rests("G")
    model.nimg, model.from_source = 0, ("G", "D")
    assert not model.rests("G")


def test_without_classes_it_is_a_plain_critic() -> None:
    G, D = Generator(resolution=32, width=4), Discriminator(resolution=32, width=4)
    image = G(_draw(2, 128))
    assert D(image).shape == (2, 1)
    assert not hasattr(D, "classes")
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        Generator(resolution=32, width=4, c_dim=3)(_draw(2, 128), None)
