"""StyleGAN: names, published counts, and the formulas of the papers, written out naively."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_tl.losses import r1_penalty
from stylegan_tl.networks.stylegan import (
    Discriminator,
    Generator,
    Mapping,
    adain,
    faded,
    stage_of,
)

SMALL = dict(channel_base=512, channel_max=32)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _all_moved(model: nn.Module) -> nn.Module:
    """What is zero or one at the start would hide mistakes."""
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if name.endswith(("noise_strength", "bias", "const")):
                p.add_(_draw(*p.shape, seed=i), alpha=0.3)
    return model


def _generator(**options) -> Generator:
    torch.manual_seed(0)
    size = SMALL | dict(resolution=32, z_dim=16, w_dim=24, num_mapping_layers=3)
    model = _all_moved(Generator(**(size | options)))
    model.mapping.w_avg.copy_(_draw(*model.mapping.w_avg.shape, seed=4))
    return model


def _discriminator(**options) -> Discriminator:
    torch.manual_seed(1)
    return _all_moved(Discriminator(**(SMALL | dict(resolution=32) | options)))


def test_published_counts() -> None:
    """FFHQ at 1024 px, as TensorFlow prints it: trained variables, so ToRGB and FromRGB of all
    nine resolutions, but not the noise images, the mean w and lod."""
    with torch.device("meta"):
        G, D = Generator(resolution=1024), Discriminator(resolution=1024)
    assert sum(p.numel() for p in G.parameters()) == 26_219_627
    assert sum(p.numel() for p in D.parameters()) == 23_087_249
    assert G.num_ws == 18


def test_state_dict() -> None:
    with torch.device("meta"):
        g = {k: list(v.shape) for k, v in Generator(resolution=64, c_dim=5).state_dict().items()}
        d = {
            k: list(v.shape) for k, v in Discriminator(resolution=64, c_dim=5).state_dict().items()
        }
    width = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256}
    expected = {"mapping.w_avg": [512], "mapping.embed.weight": [512, 5], "synthesis.lod": []}
    expected |= {"synthesis.b4.const": [512, 4, 4]}
    for i in range(8):
        expected[f"mapping.fc{i}.weight"] = [512, 512 if i else 1024]
        expected[f"mapping.fc{i}.bias"] = [512]
    for r, c in width.items():
        block = f"synthesis.b{r}"
        if r > 4:
            expected[f"{block}.conv0.weight"] = [c, width[r // 2], 3, 3]
        expected[f"{block}.conv1.weight"] = [c, c, 3, 3]
        for name in ("epilogue0", "epilogue1"):
            expected |= {f"{block}.{name}.{k}": [c] for k in ("noise_strength", "bias")}
            expected[f"{block}.{name}.noise_const"] = [r, r]
            expected[f"{block}.{name}.affine.weight"] = [2 * c, 512]
            expected[f"{block}.{name}.affine.bias"] = [2 * c]
        expected |= {f"{block}.torgb.weight": [3, c, 1, 1], f"{block}.torgb.bias": [3]}
    assert g == expected

    expected = {"lod": [], "b4.conv.weight": [512, 513, 3, 3], "b4.conv.bias": [512]}
    expected |= {"b4.fc.weight": [512, 8192], "b4.fc.bias": [512]}
    expected |= {"b4.out.weight": [5, 512], "b4.out.bias": [5]}
    for r, c in width.items():
        expected |= {f"b{r}.fromrgb.weight": [c, 3, 1, 1], f"b{r}.fromrgb.bias": [c]}
        if r > 4:
            o = width[r // 2]
            expected |= {f"b{r}.conv0.weight": [c, c, 3, 3], f"b{r}.conv0.bias": [c]}
            expected |= {f"b{r}.conv1.weight": [o, c, 3, 3], f"b{r}.conv1.bias": [o]}
    assert d == expected


def _reference_adain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Equation 1 map by map, in float64."""
    y = x.double().clone()
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            pixels = y[n, i]
            sd = ((pixels - pixels.mean()) ** 2).mean().sqrt()
            y[n, i] = (1 + scale[n, i]) * (pixels - pixels.mean()) / sd + shift[n, i]
    return y


def test_adain_is_equation_1() -> None:
    x = 3 * _draw(2, 5, 6, 6) + 7
    scale, shift = _draw(2, 5, seed=1), _draw(2, 5, seed=2)
    torch.testing.assert_close(
        adain(x, scale, shift).double(), _reference_adain(x, scale, shift), atol=1e-4, rtol=1e-5
    )


def _reference_blur(x: Tensor) -> Tensor:
    """[1, 2, 1] along rows, then columns, zeros outside, by shifting."""
    for dim in (2, 3):
        zero = torch.zeros_like(x.narrow(dim, 0, 1))
        length = x.shape[dim]
        before = torch.cat([zero, x.narrow(dim, 0, length - 1)], dim)
        after = torch.cat([x.narrow(dim, 1, length - 1), zero], dim)
        x = (before + 2 * x + after) / 4
    return x


def _nearest(x: Tensor, by: int) -> Tensor:
    return x.repeat_interleave(by, dim=2).repeat_interleave(by, dim=3)


def _means(x: Tensor, by: int) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // by, by, w // by, by).mean(dim=(3, 5))


def _lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def _conv(layer: nn.Module, x: Tensor, gain: float) -> Tensor:
    weight = layer.weight.double() * gain / math.sqrt(layer.weight[0].numel())
    bias = None if layer.bias is None else layer.bias.double()
    return F.conv2d(x, weight, bias, padding=layer.weight.shape[2] // 2)


def _reference_epilogue(e: nn.Module, x: Tensor, w: Tensor) -> Tensor:
    x = x + e.noise_const.double() * e.noise_strength.double()[None, :, None, None]
    x = _lrelu(x + e.bias.double()[None, :, None, None])
    style = w @ e.affine.weight.double().t() / math.sqrt(w.shape[1]) + e.affine.bias.double()
    return _reference_adain(x, *style.split(x.shape[1], dim=1))


def _reference_generator(G: Generator, ws: Tensor, lod: float) -> Tensor:
    """Every stage in full, the two images of a fade enlarged and mixed (figure 2 of 2018)."""
    ws, images, x = ws.double(), {}, None
    for i, r in enumerate(G.synthesis.resolutions):
        block = getattr(G.synthesis, f"b{r}")
        if x is None:
            x = block.const.double().expand(len(ws), -1, -1, -1)
        else:
            x = _reference_blur(_conv(block.conv0, _nearest(x, 2), math.sqrt(2)))
        x = _reference_epilogue(block.epilogue0, x, ws[:, 2 * i])
        x = _reference_epilogue(
            block.epilogue1, _conv(block.conv1, x, math.sqrt(2)), ws[:, 2 * i + 1]
        )
        images[r] = _nearest(_conv(block.torgb, x, 1), G.resolution // r)
    high = G.resolution >> math.floor(lod)
    share = lod - math.floor(lod)
    return (1 - share) * images[high] + (share * images[high // 2] if share else 0)


def _reference_discriminator(D: Discriminator, img: Tensor, lod: float) -> Tensor:
    img, x = img.double(), None
    high, share = D.resolution >> math.floor(lod), lod - math.floor(lod)
    r = high
    gain = math.sqrt(2)
    while r > 4:
        block = getattr(D, f"b{r}")
        if r == high:
            x = _lrelu(_conv(block.fromrgb, _means(img, D.resolution // r), gain))
        x = _lrelu(_conv(block.conv0, x, gain))
        weight = block.conv1.weight.double() * gain / math.sqrt(block.conv1.weight[0].numel())
        x = _means(F.conv2d(_reference_blur(x), weight, padding=1), 2)
        x = _lrelu(x + block.conv1.bias.double()[None, :, None, None])
        r //= 2
        if r == high // 2 and share:
            low = getattr(D, f"b{r}").fromrgb
            seen = _lrelu(_conv(low, _means(img, D.resolution // r), gain))
            x = (1 - share) * x + share * seen
    if x is None:
        x = _lrelu(_conv(D.b4.fromrgb, _means(img, D.resolution // 4), gain))
    sd = x.std(dim=0, correction=0).mean().expand(len(x), 1, 4, 4)  # one group
    x = _lrelu(_conv(D.b4.conv, torch.cat([x, sd], dim=1), gain)).flatten(1)
    fc, out = D.b4.fc, D.b4.out
    x = _lrelu(x @ fc.weight.double().t() * gain / math.sqrt(x.shape[1]) + fc.bias.double())
    return x @ out.weight.double().t() / math.sqrt(x.shape[1]) + out.bias.double()


@pytest.mark.parametrize("lod", [0.0, 0.375, 1.0, 2.25, 3.0])
def test_networks_at_every_stage(lod: float) -> None:
    G, D = _generator(), _discriminator()
    G.synthesis.lod.fill_(lod)
    D.lod.fill_(lod)
    ws = _draw(3, G.num_ws, 24)
    image = G.synthesis(ws, noise="const")
    assert image.shape == (3, 3, 32, 32)
    expected = _reference_generator(G, ws, lod)
    torch.testing.assert_close(image.double(), expected, atol=2e-5, rtol=1e-4)
    real = _draw(3, 3, 32, 32, seed=5)
    expected = _reference_discriminator(D, real, lod)
    torch.testing.assert_close(D(real).double(), expected, atol=2e-5, rtol=1e-4)
    both = D(torch.cat([real, image.detach()]), chunks=2)
    torch.testing.assert_close(both[:3].double(), expected, atol=2e-5, rtol=1e-4)


def test_r1_is_the_gradient_of_the_reference() -> None:
    """Also through the shrinking, so that its size at a stage is that of R x R pixels."""
    D, lod = _discriminator(), 1.5
    D.lod.fill_(lod)
    image = _draw(3, 3, 32, 32).requires_grad_(True)
    ours = r1_penalty(image, D(image))
    (gradient,) = torch.autograd.grad(_reference_discriminator(D, image, lod).sum(), image)
    torch.testing.assert_close(ours, gradient.square().flatten(1).sum(1), atol=1e-6, rtol=1e-3)
    ours.sum().backward()
    moved = {k for k, p in D.named_parameters() if p.grad is not None and p.grad.any()}
    assert not {k for k in moved if k.startswith(("b32.", "b4.fromrgb"))}
    assert {"b16.conv0.weight", "b16.fromrgb.weight", "b8.fromrgb.weight", "b4.fc.weight"} <= moved


@pytest.mark.parametrize("lod", [0.0, 0.375, 2.25])
def test_reals_fade_with_the_networks(lod: float) -> None:
    """Means at both resolutions, enlarged, mixed by the fraction of lod."""
    x = _draw(2, 3, 32, 32)
    whole, share = math.floor(lod), lod - math.floor(lod)
    fine, coarse = (_nearest(_means(x, 2**k), 2**k) for k in (whole, whole + 1))
    torch.testing.assert_close(faded(x, lod), (1 - share) * fine + share * coarse)
    assert stage_of(lod, 32) == (32 >> whole, share)


@pytest.mark.parametrize("c_dim", [0, 4])
def test_mapping_and_truncation(c_dim: int) -> None:
    """Latent and class normalised together; the low layers move towards the mean w."""
    torch.manual_seed(0)
    mapping = _all_moved(Mapping(z_dim=8, c_dim=c_dim, w_dim=12, num_ws=6, num_layers=3))
    mapping.w_avg.copy_(_draw(12, seed=9))
    z, c = _draw(5, 8), F.one_hot(torch.arange(5) % max(c_dim, 1), max(c_dim, 1)).float()
    x = z.double()
    if c_dim:
        x = torch.cat([x, c.double() @ mapping.embed.weight.double().t()], dim=1)
    x = x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for i in range(3):
        layer = getattr(mapping, f"fc{i}")
        # stored as N(0, 1) / 0.01, at run time times 0.01 and He's constant; biases times 0.01
        he = 0.01 * math.sqrt(2 / x.shape[1])
        x = _lrelu(x @ layer.weight.double().t() * he + 0.01 * layer.bias.double())
    ws = mapping(z, c, truncation_psi=0.6, truncation_cutoff=4)
    mean = mapping.w_avg.double()
    torch.testing.assert_close(ws[:, 5].double(), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ws[:, 3].double(), mean + 0.6 * (x - mean), atol=1e-5, rtol=1e-5)
    layers = [getattr(mapping, f"fc{i}").weight.std().item() for i in range(3)]
    assert all(80 < sd < 120 for sd in layers)


def test_a_class_has_its_own_logit() -> None:
    """D of a label is the row of its class (StyleGAN's labels, one-hot)."""
    D = _discriminator(c_dim=3)
    x, c = _draw(3, 3, 32, 32), torch.eye(3)
    head = D.b4
    seen = []
    handle = head.register_forward_hook(lambda _m, _i, y: seen.append(y))
    logits = D(x, c)
    handle.remove()
    assert seen[0].shape == (3, 3)
    torch.testing.assert_close(logits[:, 0], seen[0].diagonal())
    with pytest.raises(ValueError, match=r"labels \[N, 3\]"):
        D(x)


def test_noise_is_drawn_from_the_generator() -> None:
    G = _generator()
    ws = _draw(2, G.num_ws, 24)
    a, b = (G.synthesis(ws, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, G.synthesis(ws, generator=torch.Generator().manual_seed(8)))
    assert not torch.equal(a, G.synthesis(ws, noise="none"))
    with pytest.raises(ValueError, match="noise='some'.*random, const, none"):
        G.synthesis(ws, noise="some")
