"""Files in the layouts of other projects draw what those projects' own code drew.

The expected numbers were recorded by running the original networks (see `recorded`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from recorded import filled, latents, pictures, probe

from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.restore import rebuild
from stylegan_tl.source.portable import SourceError, SourceModel, read_model

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))
MEAN_W = latents(1, 10)[0] * 0.3


def _states(name: str) -> dict[str, dict[str, torch.Tensor]]:
    return {key: filled(shapes) for key, shapes in RECORDED[name]["layout"].items()}


def _rosinality(folder: Path, name: str) -> Path:
    states, path = _states(name), folder / "000100.pt"
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    args = argparse.Namespace(size=16, path="faces.lmdb", arch="stylegan2")
    rest = {"g": states["g_ema"], "args": args, "ada_aug_p": 0.25, "g_optim": {"state": {}}}
    torch.save({**states, **rest, "latent_avg": MEAN_W[None]}, path)
    return path


def _mmgeneration(folder: Path, name: str) -> Path:
    state = {f"{net}.{k}": v for net, own in _states(name).items() for k, v in own.items()}
    path = folder / "latest.pth"
    torch.save({"state_dict": state}, path)
    return path


def _examples(folder: Path, name: str) -> Path:
    for net, state in _states(name).items():
        torch.save(state, folder / f"net{net}_epoch_24.pth")
    return folder / "netG_epoch_24.pth"


def _studiogan(folder: Path, name: str) -> Path:
    for net, state in _states(name).items():
        rest = {"optimizer": {}, "seed": 1, "run_name": "x", "step": 9, "best_fid": 4.5}
        torch.save(
            {"state_dict": state, **rest}, folder / f"model={net}-current-weights-step=9.pth"
        )
    return folder / "model=D-current-weights-step=9.pth"


WRITE = {
    "rosinality": _rosinality,
    "mmgeneration_stylegan2": _mmgeneration,
    "mmgeneration_dcgan": _mmgeneration,
    "pytorch_examples": _examples,
    "studiogan_plain": _studiogan,
    "studiogan_labels": _studiogan,
}


def _images(model: AdversarialModel, psi: float = 1.0) -> torch.Tensor:
    c = torch.eye(4) if model.G.c_dim else None
    how = {"noise": "const", "truncation_psi": psi} if hasattr(model.G, "mapping") else {}
    with torch.no_grad():
        return model.G_ema(latents(4, 10), c, **how)


def _near(found: list[float], expected: list[float]) -> None:
    assert torch.tensor(found).sub(torch.tensor(expected)).abs().max() <= 1e-4


@pytest.mark.parametrize("name", WRITE)
def test_a_converted_network_draws_what_the_original_drew(name: str, tmp_path) -> None:
    source = read_model(WRITE[name](tmp_path, name))
    model, recorded = rebuild(source), RECORDED[name]
    _near(probe(_images(model)), recorded["G"])
    if "G_half" in recorded:
        _near(probe(_images(model, 0.5)), recorded["G_half"])
    size, c = source.network["resolution"], torch.eye(4) if model.G.c_dim else None
    with torch.no_grad():
        _near(model.D(pictures(4, size), c).flatten().tolist(), recorded["D"])


@pytest.mark.parametrize("name", WRITE)
def test_every_tensor_of_the_file_is_accounted_for(name: str, tmp_path) -> None:
    source = read_model(WRITE[name](tmp_path, name))
    report = source.extra["report"]
    count = sum(map(len, RECORDED[name]["layout"].values()))
    named = [k for k in [*report["taken"], *report["left"]] if "." in k and " " not in k]
    assert len(set(named)) == count
    made = {k for k in source.tensors if k not in report["taken"].values()}
    assert made == set(report["made"])
    assert all("." not in k or "resampling filter" in why for k, why in report["left"].items())


def test_a_mean_w_that_the_file_lacks_is_estimated_and_said(tmp_path) -> None:
    path = _rosinality(tmp_path, "rosinality")
    data = torch.load(path, weights_only=False)
    del data["latent_avg"]
    torch.save(data, path)
    source = read_model(path)
    assert "4096 latents" in source.extra["report"]["made"]["G_ema.mapping.w_avg"]
    mapping = rebuild(source).G_ema.mapping
    with torch.no_grad():
        ws = mapping(torch.randn(20_000, 10, generator=torch.Generator().manual_seed(7)))[:, 0]
    error = (mapping.w_avg - ws.mean(0)).abs() / ws.std(0).clamp_min(1e-6)
    assert error.max() < 5 * (1 / 4096 + 1 / 20_000) ** 0.5


def test_networks_of_blue_green_red_are_turned_round(tmp_path) -> None:
    """Files of its own trainings have a `meta`; the recorded pictures are those of the networks."""
    for name in ("mmgeneration_stylegan2", "mmgeneration_dcgan"):
        path = _mmgeneration(tmp_path, name)
        plain = rebuild(read_model(path))
        data = torch.load(path, weights_only=True)
        torch.save({**data, "meta": {"iter": 800_000}}, path)
        turned = rebuild(read_model(path))
        torch.testing.assert_close(_images(turned), _images(plain).flip(1), rtol=0, atol=1e-5)
        x = pictures(4, plain.G.resolution)
        with torch.no_grad():
            torch.testing.assert_close(turned.D(x.flip(1)), plain.D(x), rtol=0, atol=1e-5)


def _broken(path: Path, change) -> None:
    data = torch.load(path, weights_only=False)
    change(data)
    torch.save(data, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["g_ema"].pop("convs.1.conv.weight"), "convs.1.conv.weight is missing"),
        (lambda d: d["g_ema"].update(more=torch.zeros(2)), "g_ema.more: of no known use"),
        (lambda d: d["d"].update({"convs.0.0.weight": torch.zeros(6, 4, 1, 1)}), "fromrgb.weight"),
        (lambda d: d["g_ema"]["to_rgbs.0.upsample.kernel"].mul_(2), "other than 1-3-3-1"),
        (lambda d: d["g_ema"].pop("to_rgbs.0.bias"), "blocks of|of no known use"),
        (lambda d: d.update(g_ema={"input.input": 3}), "not a model"),
        (lambda d: d.update(origin="{"), "not a model"),
        (lambda d: d.update(origin='{"model": "other"}'), "does not describe"),
    ],
)
def test_a_damaged_file_ends_in_one_clear_line(change, said: str, tmp_path) -> None:
    path = _rosinality(tmp_path, "rosinality")
    _broken(path, change)
    with pytest.raises(SourceError, match=said) as error:
        read_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pair_is_found_by_its_names_and_a_d_alone_is_refused(tmp_path) -> None:
    path = _examples(tmp_path, "pytorch_examples")
    whole = read_model(tmp_path / "netD_epoch_24.pth")
    assert whole.state("D")
    (tmp_path / "netD_epoch_24.pth").rename(tmp_path / "other.pth")
    alone = read_model(path)
    assert not alone.state("D")
    assert alone.tensors.keys() == {k for k in whole.tensors if k.startswith("G_ema.")}
    with pytest.raises(SourceError, match="holds a D alone"):
        read_model(tmp_path / "other.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "netD_epoch_24.pth")
    with pytest.raises(SourceError, match="not the other network of the pair"):
        read_model(path)


def test_networks_that_are_not_ours_are_refused_with_the_reason(tmp_path) -> None:
    first = {"generator.convs.0.conv1.weight": torch.zeros(1), "discriminator.x": torch.zeros(1)}
    for name, data, said in (
        ("sg1.pth", {"state_dict": first}, "leaky ReLU before the blur"),
        (
            "g.pth",
            {"state_dict": {"blocks.0.0.deconv0.weight": torch.zeros(2)}, "run_name": "x"},
            "DCGAN is another network",
        ),
        (
            "d.pth",
            {"state_dict": {"blocks.0.0.conv0.weight": torch.zeros(2)}, "run_name": "x"},
            "DCGAN is another network",
        ),
        ("s.pth", {"state_dict": {"linear0.weight": torch.zeros(2)}, "run_name": "x"}, "StyleGAN2"),
    ):
        torch.save(data, tmp_path / name)
        with pytest.raises(SourceError, match=said):
            read_model(tmp_path / name)


def test_a_way_of_conditioning_d_that_is_not_here_leaves_g(tmp_path) -> None:
    path = _studiogan(tmp_path, "studiogan_labels")
    _broken(path, lambda d: [d["state_dict"].pop(k) for k in list(d["state_dict"]) if "embed" in k])
    source: SourceModel = read_model(path)
    assert source.network["c_dim"] == 4
    assert not source.state("D")
    assert any("G comes alone" in why for why in source.extra["report"]["left"].values())
