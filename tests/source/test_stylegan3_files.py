"""NVIDIA's StyleGAN3 pickles, written here in their layout, read without running them.

Names, shapes and arguments are facts of stylegan3 c233a91, `training/networks_stylegan3.py`; no
code of it is here.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import foreign_layouts as layouts
import numpy as np
import pytest
import scipy.signal
import scipy.special
import torch
from torch import Tensor

from stylegan_tl.convert import _convert
from stylegan_tl.restore import restore
from stylegan_tl.source.portable import SourceError, read_model

T = dict(num_layers=4, num_critical=1, margin_size=2, channel_base=128, channel_max=32)
R = {**T, "conv_kernel": 1, "use_radial_filters": True, "channel_base": 256}
KINDS = {"T": (T, [32, 16, 8, 4, 3]), "R": (R, [32, 32, 16, 8, 3])}
SIZES, RATES, CUTOFFS = (20, 20, 36, 32, 32), (16, 16, 32, 32, 32), (2, 4, 8, 16, 16)
PIXELS = [(0, 0, 0, 0), (1, 1, 7, 20), (2, 2, 31, 31), (3, 0, 16, 5)]
# What the original code gave for these files' weights and the four latents of `foreign_layouts`,
# in float32: pixels at psi 1 and at 0.7, and D's logits of the images at psi 1.
RECORDED = {
    ("T", 0): (
        [0.014422, 0.139865, -0.060772, 0.115681],
        [0.06318, 0.084808, -0.021787, 0.041686],
        [1.492604, 1.48469, 1.4841, 1.509069],
    ),
    ("T", 3): (
        [0.054097, 0.087913, -0.079683, -0.01674],
        [0.02179, 0.14387, -0.087579, 0.02682],
        [-0.418669, 0.363833, 0.240775, -0.39701],
    ),
    ("R", 0): (
        [-0.032384, 0.130713, -0.173699, 0.079825],
        [0.014975, 0.174535, -0.152246, 0.042551],
        [1.478248, 1.446898, 1.475633, 1.488567],
    ),
    ("R", 3): (
        [0.069612, 0.072138, 0.046425, -0.041603],
        [0.053831, 0.084536, 0.045895, -0.000354],
        [-0.388848, 0.205463, 0.221964, -0.41577],
    ),
}


def _shapes(kind: str, c_dim: int) -> dict[str, tuple[int, ...]]:
    """Parameters and buffers of the generator, but filters."""
    w, channels = layouts.SIZE["w_dim"], KINDS[kind][1]
    found = {n: s for n, s in layouts.G_shapes(c_dim).items() if n.startswith("mapping")}
    own = "synthesis.input"
    found |= {f"{own}.weight": (32, 32), f"{own}.affine.weight": (4, w), f"{own}.affine.bias": (4,)}
    found |= {f"{own}.freqs": (32, 2), f"{own}.phases": (32,), f"{own}.transform": (3, 3)}
    for i, out in enumerate(channels):
        into, kernel = channels[max(i - 1, 0)], 3 if kind == "T" and i < 4 else 1
        layer = f"synthesis.L{i}_{SIZES[i]}_{out}"
        found |= {f"{layer}.weight": (out, into, kernel, kernel), f"{layer}.bias": (out,)}
        found |= {f"{layer}.affine.weight": (into, w), f"{layer}.affine.bias": (into,)}
        found |= {f"{layer}.magnitude_ema": ()}
    return found


def _filters(kind: str) -> dict[str, Tensor]:
    """What is in such a file of them, by SciPy: a stopband 2^1.1 times and 2^0.3 the cutoff."""
    found = {}
    for i, out in enumerate(KINDS[kind][1][:4]):
        for name, j in (("up_filter", max(i - 1, 0)), ("down_filter", i)):
            stop = (2**2.1 / 2) ** (1 - min(j / 3, 1)) * (2**0.3) ** min(j / 3, 1) * CUTOFFS[j]
            width = 2 * (max(stop, RATES[j] / 2) - CUTOFFS[j])
            rate = 2 * RATES[i]
            taps = 6 * (rate // RATES[j])
            if kind == "R" and name == "down_filter" and i < 3:
                value = _jinc(taps, CUTOFFS[j], width, rate)
            else:
                value = scipy.signal.firwin(taps, CUTOFFS[j], width=width, fs=rate)
            found[f"synthesis.L{i}_{SIZES[i]}_{out}.{name}"] = torch.from_numpy(value).float()
    return found


def _jinc(taps: int, cutoff: float, width: float, rate: float) -> np.ndarray:
    at = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(at[:, None], at)
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2)))
    window = np.kaiser(taps, beta)
    value = scipy.special.j1(2 * np.pi * cutoff * radius) / radius * np.outer(window, window)
    return value / value.sum()


def values(kind: str, c_dim: int) -> dict[str, Tensor]:
    """All tensors of G_ema."""
    found = {n: torch.from_numpy(layouts.numbers(n, s)) for n, s in _shapes(kind, c_dim).items()}
    found = {n: v.abs() + 0.5 if n.endswith("magnitude_ema") else v for n, v in found.items()}
    found["synthesis.input.transform"] = torch.eye(3)
    return found | _filters(kind)


def _pickle(
    path: Path,
    kind: str,
    *,
    c_dim: int = 0,
    changed: dict[str, Tensor] | None = None,
    G_more: dict[str, Any] | None = None,
    D_more: dict[str, Any] | None = None,
) -> Path:
    common = dict(c_dim=c_dim, img_resolution=32, img_channels=3, conv_clamp=256)
    latent = dict(z_dim=16, w_dim=24, mapping_kwargs={"num_layers": 2}, magnitude_ema_beta=0.999)
    given = {**KINDS[kind][0], **common, **latent, **(G_more or {})}
    of_D = {**common, "channel_base": 512, "channel_max": 32, **(D_more or {})}
    own = values(kind, c_dim) | (changed or {})
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    with layouts._modules() as classes:
        G = layouts._persistent(classes, "Generator", given, shapes, (), 256, own)
        D = layouts._persistent(classes, "Discriminator", of_D, layouts.D_shapes(c_dim), (), 256)
        path.write_bytes(pickle.dumps({"G": G, "D": D, "G_ema": G, "augment_pipe": None}))
    return path


@pytest.mark.parametrize(("kind", "c_dim"), RECORDED)
def test_a_file_draws_and_judges_what_the_original_code_did(
    kind: str, c_dim: int, tmp_path: Path
) -> None:
    model, source = restore(_pickle(tmp_path / "a.pkl", kind, c_dim=c_dim))
    z, c = layouts.latents(c_dim)
    with torch.no_grad():
        images = [model.G_ema(z, c, truncation_psi=psi) for psi in (1.0, 0.7)]
        logits = model.D(images[0], c).flatten()
    found = [[image[at].item() for at in PIXELS] for image in images] + [logits.tolist()]
    np.testing.assert_allclose(found, RECORDED[kind, c_dim], atol=1e-5, rtol=0)
    taken = source.extra["report"]["taken"]
    assert taken["G_ema.synthesis.L4_32_3.magnitude_ema"] == (
        "G_ema.synthesis.b32.torgb.magnitude.ema"
    )


def test_the_portable_form_comes_back_and_nvidias_layout_is_refused(
    compose, tmp_path: Path
) -> None:
    path = _pickle(tmp_path / "a.pkl", "R", c_dim=3)

    def convert(name: str, *more: str) -> list[str]:
        return _convert(compose([f"in={path}", f"out={tmp_path / name}", *more], "convert"))

    convert("b.safetensors")
    before, after = read_model(path), read_model(tmp_path / "b.safetensors")
    assert after.network == before.network
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(v, after.tensors[k]) for k, v in before.tensors.items())
    with pytest.raises(SourceError, match="this is a StyleGAN3: use format=safetensors"):
        convert("c.pt", "format=nvidia")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"changed": {"synthesis.input.transform": 2 * torch.eye(3)}}, "transform differs from"),
        ({"changed": {"synthesis.L0_20_32.down_filter": torch.ones(12) / 12}}, "_filter differs"),
        ({"changed": {"synthesis.L4_32_3.up_filter": torch.ones(2)}}, "_filter differs"),
        (
            {"changed": {"synthesis.L0_20_32.gate": torch.ones(2)}},
            "this project has no such tensor",
        ),
        ({"G_more": {"num_layers": 5}}, "is missing"),
        ({"G_more": {"num_layers": 10**9}}, "num_layers is 1000000000, not a whole number"),
        ({"G_more": {"num_critical": 4}}, "use fewer than network.num_layers=4"),
        ({"G_more": {"first_cutoff": 20.0, "first_stopband": 30.0}}, "resolution=32 ends at 16"),
        ({"G_more": {"use_radial_filters": "yes"}}, "use_radial_filters"),
        ({"G_more": {"output_scale": "1"}}, "output_scale is 1, not a number above 0"),
        ({"G_more": {"square": True}}, "square, which is not known"),
    ],
)
def test_a_generator_of_another_kind_is_refused(more: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        read_model(_pickle(tmp_path / "a.pkl", "T", **more))


def test_a_discriminator_of_another_kind_is_left(tmp_path: Path) -> None:
    path = _pickle(tmp_path / "a.pkl", "T", D_more={"architecture": "skip"})
    source = read_model(path)
    assert not source.state("D")
    assert "architecture=skip" in source.extra["report"]["left"]["D.b8.conv0.weight"]
