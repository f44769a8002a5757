"""Models of NVIDIA's projects, read without running them, draw what the original code drew."""

from __future__ import annotations

from pathlib import Path

import foreign_layouts as layouts
import numpy as np
import pytest
import torch
from foreign_layouts import nvidia_pickle, tensorflow_pickle, tensorflow_values

from stylegan_tl.restore import restore
from stylegan_tl.source.foreign.tensorflow_stylegan2 import rows
from stylegan_tl.source.portable import SourceError, read_model

PIXELS = [(0, 0, 0, 0), (1, 1, 7, 20), (2, 2, 31, 31), (3, 0, 16, 5)]

# What the original code gave for the weights of `foreign_layouts` and its four latents, with the
# stored noise, in float32: pixels at psi 1 and at 0.7, and D's logits of the images at psi 1.
# StyleGAN2: stylegan2-ada-pytorch d72cc7d, `training/networks.py`, and again stylegan3 c233a91,
# `training/networks_stylegan2.py`, which agree to all six digits. From TensorFlow's files: what
# NVIDIA's own `legacy.py` of d72cc7d made of the same file. StyleGAN: stylegan 1e0d5c7,
# `training/networks_stylegan.py`, in TensorFlow 2.21 (compat.v1, layouts of convolutions changed
# for the CPU).
RECORDED = {
    "plain": (
        [-1.428598, 0.350299, -0.231072, -0.794157],
        [-0.987561, 0.46581, -0.124377, -0.447957],
        [3.272456, 2.063935, 2.784414, 1.871256],
    ),
    "labels": (
        [0.307747, 0.094651, -0.147781, 0.182055],
        [0.264859, 0.130426, -0.157066, 0.106304],
        [-0.58329, 0.985154, -0.059637, -0.616375],
    ),
    "clamp": (
        [-0.648256, 0.173162, -0.21515, -0.109136],
        [-0.444986, 0.066505, -0.216042, -0.04765],
        [1.47269, 1.573201, 1.507247, 1.565466],
    ),
    "tensorflow": (
        [-0.56198, 2.878512, -0.917467, -0.498191],
        [-0.47244, 3.017718, -1.129879, -0.010346],
        [0.354645, -0.373549, 0.062688, 1.332153],
    ),
    "stylegan": (
        [-1.445742, 1.352498, -0.771057, 0.431298],
        [-1.023766, 1.911703, -0.477807, -0.492424],
        [-0.676818, -0.413914, -0.661975, -0.444463],
    ),
    "stylegan, all adjoint": (
        [-1.349825, 1.868684, 0.443084, 0.789688],
        [-0.717559, 1.800951, -0.249296, 1.074316],
        [-0.683022, -0.366371, -0.274436, -0.634929],
    ),
    "stylegan, labels": (
        [-1.233998, 2.381603, -2.211845, 2.516986],
        [-1.071741, 2.041957, -1.868413, 0.966443],
        [-0.493692, -3.317193, 0.558209, -0.547797],
    ),
    "stylegan, lod 1.25": (
        [-0.803342, -1.940715, -1.541012, 0.816344],
        [-0.509577, -1.111372, -1.455011, 0.989868],
        [-0.077494, -0.039805, -0.169503, -0.63053],
    ),
}

RECORDED["stylegan2 A"] = RECORDED["stylegan"]


def _stylegan(path: Path, c_dim: int = 0, lod: float = 0.0, fused: object = "auto") -> Path:
    more = {"label_size": c_dim, "fused_scale": fused}
    values = tensorflow_values(layouts.stylegan_variables(c_dim), lod)
    return tensorflow_pickle(path, values, version=3, G_more=more, D_more=more)


def _stylegan2_a(path: Path) -> Path:
    """StyleGAN2's configuration A: that network, in a file of the later version."""
    return tensorflow_pickle(path, tensorflow_values(layouts.stylegan_variables()), version=4)


def _stylegan2(path: Path) -> Path:
    return tensorflow_pickle(path, tensorflow_values(layouts.stylegan2_variables()))


WRITERS = {
    "plain": nvidia_pickle,
    "labels": lambda path: nvidia_pickle(path, c_dim=3),
    "clamp": lambda path: nvidia_pickle(path, flat=True, clamp=0.5),
    "tensorflow": _stylegan2,
    "stylegan": _stylegan,
    "stylegan2 A": _stylegan2_a,
    "stylegan, all adjoint": lambda path: _stylegan(path, fused=True),
    "stylegan, labels": lambda path: _stylegan(path, c_dim=3),
    "stylegan, lod 1.25": lambda path: _stylegan(path, lod=1.25),
}


@pytest.mark.parametrize("case", RECORDED)
def test_a_file_draws_and_judges_what_the_original_code_did(case: str, tmp_path: Path) -> None:
    model, source = restore(WRITERS[case](tmp_path / "network-snapshot.any"))
    z, c = layouts.latents(source.network["c_dim"])
    with torch.no_grad():
        images = [model.G_ema(z, c, truncation_psi=psi, noise="const") for psi in (1.0, 0.7)]
        logits = model.D(images[0], c).flatten()
    found = [[image[at].item() for at in PIXELS] for image in images] + [logits.tolist()]
    np.testing.assert_allclose(found, RECORDED[case], atol=1e-4, rtol=0)


def test_labels_of_stylegan2_ada_come_in_and_its_other_d_is_left(tmp_path: Path) -> None:
    """Recorded like "tensorflow", by `legacy.py`'s generator alone."""
    more, values = {"label_size": 3}, tensorflow_values(layouts.stylegan2_variables(3))
    path = tensorflow_pickle(tmp_path / "a.pkl", values, G_more=more, D_more=more)
    model, source = restore(path)
    z, c = layouts.latents(3)
    with torch.no_grad():
        images = [model.G_ema(z, c, truncation_psi=psi, noise="const") for psi in (1.0, 0.7)]
    found = [[image[at].item() for at in PIXELS] for image in images]
    expected = [
        [-0.208531, 0.248429, 0.132771, 3.135264],
        [-0.227795, 2.451006, -0.491129, 2.753901],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert "label_size=3, here it is 0" in source.extra["report"]["left"]["D.Output/weight"]


@pytest.mark.parametrize("case", WRITERS)
def test_every_tensor_of_a_file_is_accounted_for_once(case: str, tmp_path: Path) -> None:
    source = read_model(WRITERS[case](tmp_path / "a.pkl"))
    report = source.extra["report"]
    assert sorted(report["taken"].values()) == sorted(source.tensors)
    assert not report["taken"].keys() & report["left"].keys()
    assert all(report["left"].values())
    assert "NVIDIA" in source.extra["licence"]
    assert source.record()["report"]["taken"] == len(source.tensors)


def test_what_freeze_d_kept_comes_in_though_it_lies_in_the_buffers(tmp_path: Path) -> None:
    plain = read_model(nvidia_pickle(tmp_path / "plain.pkl"))
    frozen = read_model(
        nvidia_pickle(
            tmp_path / "frozen.pkl",
            frozen=("b32.", "b16."),
            D_more={"block_kwargs": {"freeze_layers": 7}},
        )
    )
    assert plain.tensors.keys() == frozen.tensors.keys()
    assert all(torch.equal(v, frozen.tensors[k]) for k, v in plain.tensors.items())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_protocol_of_pickle_is_read(protocol: int, tmp_path: Path) -> None:
    """Protocol 2 spells bytes as text, 5 has buffers of NumPy's own."""
    a = read_model(nvidia_pickle(tmp_path / "a.pkl", protocol=protocol))
    values = tensorflow_values(layouts.stylegan2_variables())
    b = read_model(tensorflow_pickle(tmp_path / "b.pkl", values, protocol=protocol))
    weight = torch.from_numpy(values["mapping"]["Dense0/weight"])
    assert torch.equal(b.tensors["G_ema.mapping.fc0.weight"], rows(weight))
    weight = layouts.numbers("synthesis.b8.conv0.weight", (32, 32, 3, 3))
    assert torch.equal(a.tensors["G_ema.synthesis.b8.conv0.weight"], torch.from_numpy(weight))


def test_the_group_of_the_minibatch_statistics_comes_from_the_file(tmp_path: Path) -> None:
    given = {8: {"mbstd_group_size": 8}, 4: {}}
    for size, epilogue in given.items():
        path = nvidia_pickle(tmp_path / "a.pkl", D_more={"epilogue_kwargs": epilogue})
        assert read_model(path).network["mbstd_group_size"] == size
    path = nvidia_pickle(tmp_path / "a.pkl", D_more={"epilogue_kwargs": {"mbstd_group_size": None}})
    model, _ = restore(path)  # the whole batch is one group
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one = model.D(images)
    model.D.b4.mbstd_group_size = 6
    assert torch.equal(one, model.D(images))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"synthesis_kwargs": {"architecture": "resnet"}}, "architecture=resnet, here it is skip"),
        ({"mapping_kwargs": {"lr_multiplier": 0.1}}, "lr_multiplier=0.1, here it is 0.01"),
        ({"mapping_kwargs": {"num_layers": 10**9}}, "num_layers is 1000000000, not a whole number"),
        ({"img_resolution": 2**30}, "img_resolution is 1073741824"),
        ({"img_resolution": 48}, "no power of two"),
        ({"z_dim": "16"}, "z_dim is 16, not a whole number"),
        ({"z_dim": 17}, r"mapping.fc0.weight: \(24, 16\) in the file, \(24, 17\) here"),
        ({"w_dim": True}, "w_dim is True"),
        ({"img_channels": 1}, "img_channels=1, here it is 3"),
        ({"synthesis_kwargs": {"sharper": 1}}, "was built with sharper, which is not known"),
        ({"synthesis_kwargs": []}, "synthesis_kwargs has no arguments"),
    ],
)
def test_a_generator_that_is_no_such_network_is_refused(
    more: dict, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=f"a.pkl is not .*{said}"):
        read_model(nvidia_pickle(tmp_path / "a.pkl", G_more=more))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"architecture": "orig"}, "architecture=orig, here it is resnet"),
        ({"channel_base": 1024}, "channel_base=1024, here it is 512"),
        ({"epilogue_kwargs": {"mbstd_num_channels": 0}}, "mbstd_num_channels=0, here it is 1"),
    ],
)
def test_a_discriminator_of_another_kind_is_left_and_generating_goes_on(
    more: dict, said: str, tmp_path: Path
) -> None:
    path = nvidia_pickle(tmp_path / "a.pkl", D_more=more)
    model, source = restore(path)
    z, _ = layouts.latents()
    images = model.G_ema(z, noise="const")
    assert images[PIXELS[0]].item() == pytest.approx(RECORDED["plain"][0][0], abs=1e-4)
    assert not source.state("D")
    assert said in source.extra["report"]["left"]["D.b8.conv0.weight"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fmap_decay": 0.5}, "fmap_decay=0.5, here it is 1.0"),
        ({"resample_kernel": [1, 2, 1]}, r"resample_kernel=\[1, 2, 1\]"),
        ({"architecture": "resnet"}, "architecture=resnet"),
        ({"wscale": 2}, "wscale, which is not known"),
    ],
)
def test_a_tensorflow_generator_of_another_kind_is_refused(
    more: dict, said: str, tmp_path: Path
) -> None:
    values = tensorflow_values(layouts.stylegan2_variables())
    with pytest.raises(SourceError, match=said):
        read_model(tensorflow_pickle(tmp_path / "a.pkl", values, G_more=more))


def test_stylegan2_of_the_growing_configurations_is_refused(tmp_path: Path) -> None:
    variables = layouts.stylegan2_variables()
    variables["synthesis"] = {
        k.replace("4x4/ToRGB", "ToRGB_lod3"): v for k, v in variables["synthesis"].items()
    }
    with pytest.raises(SourceError, match="configurations B to D.*A, E and F are read"):
        read_model(tensorflow_pickle(tmp_path / "a.pkl", tensorflow_values(variables)))


def test_a_tensor_of_no_known_use_is_an_error(tmp_path: Path) -> None:
    variables = layouts.stylegan2_variables()
    variables["synthesis"]["8x8/Conv1/gate"] = (3,)
    with pytest.raises(SourceError, match=r"8x8/Conv1/gate: of no known use"):
        read_model(tensorflow_pickle(tmp_path / "a.pkl", tensorflow_values(variables)))
    del variables["synthesis"]["8x8/Conv1/gate"], variables["synthesis"]["8x8/Conv1/bias"]
    with pytest.raises(SourceError, match=r"8x8/Conv1/bias is missing"):
        read_model(tensorflow_pickle(tmp_path / "a.pkl", tensorflow_values(variables)))
