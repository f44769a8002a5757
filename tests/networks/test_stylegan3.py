"""StyleGAN3: names, published counts, filters against SciPy's, layers against naive formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_tl.networks.alias_free import BOUNDS, Design, bands, filters, lowpass, steps
from stylegan_tl.networks.stylegan3 import Discriminator, Generator, SynthesisLayer, arguments

R = Design(kernel=1, radial=True)
TINY = Design(num_layers=4, num_critical=1)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _generator(**options) -> Generator:
    torch.manual_seed(0)
    sizes = dict(resolution=32, z_dim=8, w_dim=6, channel_base=256, channel_max=12, design=TINY)
    model = Generator(**(sizes | options)).eval()
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if name.endswith("bias") or "input.affine" in name:
                p.add_(_draw(*p.shape, seed=i), alpha=0.3)
        for i, (name, b) in enumerate(model.named_buffers()):
            if name.endswith("magnitude.ema"):
                b.fill_(0.3 + 0.2 * i)
    return model


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("resolution", "T", "radial", "D"),
    [
        (256, 28_472_133, 18_816_387, 28_864_129),
        (512, 24_873_519, 16_665_594, 28_982_849),
        (1024, 22_313_167, 15_093_151, 29_012_513),
    ],
)
def test_published_counts(resolution: int, T: int, radial: int, D: int) -> None:
    """Of NVIDIA's networks (stylegan3 c233a91, `train.py --cfg=stylegan3-t|r`), counted there.

    22.3 M is what the paper gives for T too; for R it gives 15.8 M, the released code 15.1 M.
    """
    with torch.device("meta"):
        G = Generator(resolution=resolution)
        rotates = Generator(resolution=resolution, channel_base=65536, channel_max=1024, design=R)
        judge = Discriminator(resolution=resolution, channel_base=32768)
    assert (_count(G), _count(rotates), _count(judge)) == (T, radial, D)
    assert G.num_ws == 16


def test_the_schedule_is_the_published_one() -> None:
    """Sizes and channels of the layers at 1024 px, as the published checkpoints name them."""
    plan = steps(1024, Design(), channel_base=32768, channel_max=512, img_channels=3)
    names = [f"{step.after.size}_{step.out_channels}" for step in plan]
    assert (
        names
        == (
            "36_512 36_512 52_512 52_512 84_512 148_512 148_512 276_323 276_203 532_128 1044_81 "
            "1044_51 1044_32 1024_32 1024_3"
        ).split()
    )
    cutoffs = np.array([step.after.cutoff for step in plan])
    np.testing.assert_allclose(cutoffs[:13], np.geomspace(2, 512, 13))
    np.testing.assert_allclose(cutoffs[12:], 512)


@pytest.mark.parametrize(
    ("margin", "sizes"), [(2, [20, 20, 36, 32, 32]), (0, [16, 16, 32, 32, 32])]
)
def test_without_a_margin_a_layer_has_as_many_samples_as_its_rate(
    margin: int, sizes: list[int]
) -> None:
    """Sizes of NVIDIA's layers (stylegan3 c233a91) with the same arguments, noted there."""
    design = Design(num_layers=4, num_critical=1, margin=margin)
    assert [band.size for band in bands(32, design)] == sizes
    model = _generator(design=design)
    assert model.synthesis(_draw(1, model.num_ws, 6)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("key", BOUNDS)
def test_whole_numbers_beyond_what_is_built_are_refused(key: str) -> None:
    low, high = BOUNDS[key]
    for value in (low - 1, high + 1, float(low), True):
        with pytest.raises(ValueError, match=rf"network\.{key}={value}: use a whole number from"):
            Design(**{key: value})


@pytest.mark.parametrize("design", [TINY, Design(num_layers=4, num_critical=1, radial=True)])
def test_no_filter_is_made_of_a_network_without_values(design: Design) -> None:
    with torch.device("meta"):
        model = Generator(resolution=32, design=design)
    assert {b.device.type for b in model.buffers()} == {"meta"}
    shapes = {name: b.shape for name, b in model.named_buffers()}
    made = Generator(resolution=32, design=design, channel_max=8)
    taps = {name: b for name, b in made.named_buffers() if name.endswith("_filter")}
    assert {b.device.type for b in taps.values()} == {"cpu"}
    assert all(shapes[name] == b.shape for name, b in taps.items())


def test_separable_filters_are_scipys() -> None:
    for step in steps(256, Design(), channel_base=8, channel_max=8, img_channels=3)[:-1]:
        up, down = filters(step, Design())
        rate = 2 * step.after.rate
        for taps, band in ((up, step.before), (down, step.after)):
            wanted = scipy.signal.firwin(len(taps), band.cutoff, width=2 * band.half_width, fs=rate)
            np.testing.assert_allclose(taps, wanted, atol=1e-7)
    assert lowpass(1, step.after, rate) is None


def test_radial_filters_are_jincs_in_a_kaiser_window() -> None:
    plan = steps(256, R, channel_base=8, channel_max=8, img_channels=3)
    for step in plan[:-1]:
        _, down = filters(step, R)
        assert down.ndim == (2 if step.i < 12 else 1)
        if step.i >= 12:
            continue
        rate, band = 2 * step.after.rate, step.after
        at = (np.arange(12) - 5.5) / rate
        radius = np.hypot(at[:, None], at)
        attenuation = scipy.signal.kaiser_atten(12, 2 * band.half_width / (rate / 2))
        window = np.kaiser(12, scipy.signal.kaiser_beta(attenuation))
        wanted = scipy.special.j1(2 * np.pi * band.cutoff * radius) / radius
        wanted = wanted * np.outer(window, window)
        np.testing.assert_allclose(down, wanted / wanted.sum(), atol=1e-7)


def _resampled(
    x: np.ndarray, taps: Tensor | None, up: int, down: int, pad: list[int]
) -> np.ndarray:
    """One plane [H, W]: zeros between and around, a full convolution, every `down`-th sample."""
    f = np.ones((1, 1)) if taps is None else taps.double().numpy()
    f = np.outer(f, f) if f.ndim == 1 else f
    wide = np.zeros((x.shape[0] * up, x.shape[1] * up))
    wide[::up, ::up] = x * up**2
    low, high = (max(p, 0) for p in pad[:2])
    wide = np.pad(wide, (low, high))
    cut = [max(-p, 0) for p in pad[:2]]
    wide = wide[cut[0] : len(wide) - cut[1], cut[0] : len(wide) - cut[1]]
    return scipy.signal.fftconvolve(wide, f, mode="valid")[::down, ::down]


@pytest.mark.parametrize(
    "design", [TINY, Design(num_layers=4, num_critical=1, kernel=1, radial=True)]
)
@pytest.mark.parametrize("i", [1, 2, 3])
def test_a_layer_is_its_formula(design: Design, i: int) -> None:
    """Weights modulated and demodulated per sample, then up, leaky relu, down, in float64."""
    torch.manual_seed(i)
    step = steps(32, design, channel_base=256, channel_max=5, img_channels=3)[i]
    layer = SynthesisLayer(step, design, w_dim=4).eval()
    layer.bias.data.normal_()
    layer.magnitude.ema.fill_(1.7)
    x, w = _draw(2, step.in_channels, step.before.size, step.before.size), _draw(2, 4, seed=1)
    found = layer(x, w, clamp=2.0, beta=None).detach()
    weight = layer.weight.double() * layer.affine(w).double()[:, None, :, None, None]
    weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    for n in range(2):
        conv = F.conv2d(x[n : n + 1].double(), weight[n], padding=design.kernel - 1) / 1.7**0.5
        planes = (conv[0] + layer.bias.double()[:, None, None]).detach().numpy()
        for c, plane in enumerate(planes):
            fine = _resampled(plane, layer.up_filter, layer.up, 1, layer.padding)
            fine = np.clip(np.where(fine < 0, 0.2 * fine, fine) * math.sqrt(2), -2, 2)
            wanted = _resampled(fine, layer.down_filter, 1, layer.down, [0, 0])
            np.testing.assert_allclose(found[n, c], wanted, atol=2e-5)
    assert found.shape[2:] == (step.after.size, step.after.size)


def test_fourier_features_are_their_formula_and_move_with_w_and_the_transform() -> None:
    """Learned rotation and shift, then the transform, place by place in float64."""
    layer, w = _generator().synthesis.b16.input, _draw(2, 6)
    turn = torch.tensor([[0.9, -0.2, 0.1], [0.3, 0.8, -0.2], [0.0, 0.0, 1.0]])
    found = layer(w, turn).detach()
    size, rate, cutoff = layer.band.size, layer.band.rate, layer.band.cutoff
    for n in range(2):
        c, s, tx, ty = (layer.affine(w)[n] / layer.affine(w)[n, :2].norm()).tolist()
        rotate = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        shift = np.array([[1, 0, -tx], [0, 1, -ty], [0, 0, 1]])
        whole = rotate @ shift @ turn.double().numpy()
        freqs = layer.freqs.double().numpy() @ whole[:2, :2]
        fade = 1 - (np.linalg.norm(freqs, axis=1) - cutoff) / (rate / 2 - cutoff)
        row, column = 5, 17
        place = np.array([column + 0.5 - size / 2, row + 0.5 - size / 2, rate]) / rate
        angle = layer.freqs.double().numpy() @ (whole @ place)[:2] + layer.phases.numpy()
        waves = np.sin(2 * np.pi * angle) * fade.clip(0, 1)
        wanted = layer.weight.double().detach().numpy() @ waves / len(waves) ** 0.5
        np.testing.assert_allclose(found[n, :, row, column], wanted, atol=1e-5)
    assert layer.freqs.norm(dim=1).max() <= cutoff


def test_magnitudes_move_only_in_training_with_a_beta_and_scale_what_comes_in() -> None:
    G, ws = _generator().train(), _draw(3, 6, 6)
    before = {k: v.clone() for k, v in G.state_dict().items() if k.endswith("magnitude.ema")}
    assert len(before) == 5
    plain = G.synthesis(ws)
    assert torch.equal(plain, G.eval().synthesis(ws, magnitude_beta=0.9))
    assert all(torch.equal(G.state_dict()[k], v) for k, v in before.items())
    seen: list[Tensor] = []
    G.synthesis.b32.torgb.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    G.train().synthesis(ws, magnitude_beta=0.75)
    last = "synthesis.b32.torgb.magnitude.ema"
    wanted = before[last] * 0.75 + seen[0].square().mean() * 0.25
    torch.testing.assert_close(G.state_dict()[last], wanted)


def test_arguments_are_the_published_ones_where_a_dictionary_is_silent() -> None:
    network = dict(resolution=32, z_dim=8, w_dim=6, channel_base=512, channel_max=16)
    network |= dict(num_mapping_layers=2, channel_base_D=256, channel_max_D=None, num_layers=5)
    of_G, of_D = arguments(network)
    assert of_G["design"] == Design(num_layers=5)
    assert (of_D["channel_base"], of_D["channel_max"], of_D["clamp"]) == (256, 16, 256.0)
    assert Generator(**of_G)(_draw(2, 8)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_critical": 14}, "fewer than"),
        ({"kernel": 0}, "network.kernel=0"),
        ({"first_stopband": 1.5}, "a stopband begins above its cutoff"),
        ({"first_cutoff": 20, "first_stopband": 30}, "resolution=32 ends at 16"),
    ],
)
def test_impossible_designs_say_why(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steps(32, Design(**given), channel_base=8, channel_max=8, img_channels=3)


def test_gradients_reach_every_parameter() -> None:
    G = _generator(c_dim=3)
    G(_draw(2, 8), torch.eye(3)[:2]).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in G.parameters())
