"""Portable files and checkpoints that say of themselves what is not so: one clear line."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stylegan_tl import restore
from stylegan_tl.assembly import blank_model, build, named_source, open_target
from stylegan_tl.convert import table
from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.models.dcgan import DCGAN
from stylegan_tl.models.stylegan2 import StyleGAN2
from stylegan_tl.models.stylegan3 import StyleGAN3
from stylegan_tl.models.training import Training
from stylegan_tl.restore import examine, rebuild
from stylegan_tl.source.foreign.origin import licence_of
from stylegan_tl.source.portable import SourceError, SourceModel, read_model, write_portable

NAME = f"{DCGAN.__module__}.DCGAN"
NETWORK = {"resolution": 32, "z_dim": 4, "c_dim": 0, "width": 2, "width_max": 4, "bias": False}


STYLED = dict(resolution=32, z_dim=4, w_dim=4, num_mapping_layers=2, mbstd_group_size=4)
STYLED |= dict(channel_base=64, channel_max=4, num_layers=3, num_critical=1, margin=1)


@pytest.fixture
def model() -> SourceModel:
    return _source(DCGAN, NETWORK)


def _source(model_class: type[AdversarialModel], network: dict, *, only: str = "") -> SourceModel:
    """An untrained one; with `only` 'D' or 'G_ema' the file has no other network."""
    made = model_class(network=network, training=asdict(Training()))
    names = (only,) if only else ("G_ema", "D")
    tensors = {k: v for k, v in made.state_dict().items() if k.split(".")[0] in names}
    name = f"{model_class.__module__}.{model_class.__name__}"
    return SourceModel(name, network, 1000, "art", {"dataset": "art"}, tensors, Path("a"), "ab")


def _described(given: SourceModel, path: Path, **changes: Any) -> Path:
    """A portable file with another description."""
    meta = {k: getattr(given, k) for k in ("model", "network", "nimg", "dataset", "lineage")}
    text = json.dumps({**meta, "extra": {}, **changes})
    save_file(given.tensors, path, metadata={"format": "stylegan_tl.model/1", "stylegan_tl": text})
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nimg": "many"}, "damaged: nimg"),
        ({"nimg": float("inf")}, "damaged: nimg"),
        ({"model": 5, "lineage": []}, "damaged: model, lineage"),
        ({"network": []}, "damaged: network"),
        ({"network": {**NETWORK, "width": 1 << 40}}, "damaged: network"),
        ({"network": {**NETWORK, "num_mapping_layers": 1 << 19}}, "damaged: network"),
        ({"dataset": "\x1b[2J"}, "damaged: dataset"),
        ({"extra": {"licence": "\x1b]0;owned\x07"}}, "damaged: extra"),
        ({"extra": {"report": {"taken": {"a": "G_ema.none"}, "left": {}}}}, "damaged: report"),
        ({"extra": {"report": {"taken": {}, "left": {"a": ["b"]}}}}, "damaged: report"),
    ],
)
def test_a_description_that_is_none_is_refused(model, changes: dict, said: str, tmp_path) -> None:
    path = _described(model, tmp_path / "a.safetensors", **changes)
    with pytest.raises(SourceError, match=said) as error:
        read_model(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"width": 1 << 16}, "does not fit"), ({"z_dim": "four"}, "no .*DCGAN has its network")],
)
def test_a_network_that_is_not_in_the_file_is_not_built(model, changes, said, tmp_path) -> None:
    """The first would take half a terabyte."""
    changed = {**NETWORK, **changes}
    path = _described(model, tmp_path / "a.safetensors", network=changed)
    with pytest.raises(SourceError, match=said):
        rebuild(read_model(path))


@pytest.mark.parametrize(
    ("without", "changes", "said"),
    [
        ("", {"width": 1 << 16}, "does not fit the model"),
        ("D.", {"width_D": 1 << 16}, "has no D, and describes one of .* numbers"),
    ],
)
def test_training_from_it_builds_nothing_of_that_size(
    model, without, changes, said, compose, cache, tmp_path, monkeypatch
) -> None:
    """Neither the network of the file nor one that it merely describes, whichever command asks."""
    if without:
        model.tensors = {k: v for k, v in model.tensors.items() if not k.startswith(without)}
    path = _described(model, tmp_path / "a.safetensors", network={**NETWORK, **changes})
    given = ["model=dcgan", "source=checkpoint", f"source.checkpoint={path}", "resolution=32"]
    config = compose([*given, "target.size=24", f"cache={cache}", "freeze=init_g"])
    with pytest.raises(SourceError, match=said):
        named_source(config)
    data, build_networks = open_target(config).dataset, DCGAN.build

    def watched(self: DCGAN, network: dict) -> Any:
        assert torch.get_default_device().type == "meta", "memory was taken"
        return build_networks(self, network)

    monkeypatch.setattr(DCGAN, "build", watched)
    with pytest.raises(SourceError, match=said):
        build(config, data, read_model(path), freeze_of(config["freeze"]).strategy)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filter_size": 900, "radial": True}, "filter_size=900: use a whole number from 2 to 64"),
        ({"num_layers": 1 << 20}, "num_layers=1048576: use a whole number from 2 to 64"),
        ({"num_critical": 9}, "num_critical=9: use fewer than network.num_layers=3"),
        ({"last_stopband_rel": "much"}, "last_stopband_rel=much: use a number above 0"),
    ],
)
def test_a_stylegan3_that_nobody_builds_is_refused_with_the_files_name(
    changes: dict, said: str, tmp_path
) -> None:
    network = {**STYLED, **changes}
    path = _described(_source(StyleGAN3, STYLED), tmp_path / "a.safetensors", network=network)
    with pytest.raises(SourceError) as error:
        examine(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_noise_that_a_file_does_not_hold_counts_as_weights_do(tmp_path, monkeypatch) -> None:
    """Of noise G has one image of 4 px and two of each size from 8 to 64: 10,896 numbers."""
    network = {**STYLED, "resolution": 64, "channel_max": 1}
    path = _described(_source(StyleGAN2, network, only="D"), tmp_path / "a.safetensors")
    examine(path)
    monkeypatch.setattr(restore, "_MOST_UNSEEN", 8000)
    with pytest.raises(SourceError, match="has no G, and describes one of 11,"):
        examine(path)


def test_images_larger_than_any_are_not_built(tmp_path) -> None:
    source = _source(StyleGAN2, STYLED, only="D")
    for size in (8192, 65536, "32", 0):
        path = _described(source, tmp_path / "a", network={**STYLED, "resolution": size})
        with pytest.raises(SourceError, match=r"images of 1 to 4096 pixels") as error:
            examine(path)
        assert f"{path} says network.resolution='{size}'" in str(error.value)


def test_too_little_memory_is_not_taken_for_a_wrong_network(model, tmp_path, monkeypatch) -> None:
    path = _described(model, tmp_path / "a.safetensors")
    source, build_networks = read_model(path), DCGAN.build

    def greedy(self: DCGAN, network: dict) -> Any:
        if torch.get_default_device().type != "meta":
            torch.empty(1 << 60)
        return build_networks(self, network)

    monkeypatch.setattr(DCGAN, "build", greedy)
    with pytest.raises(SourceError, match="a.safetensors: memory does not hold its network"):
        rebuild(source)


@pytest.mark.parametrize("freeze", ["init_g", "scratch"])
def test_a_new_d_of_a_source_without_one_has_the_widths_of_the_configuration(
    freeze: str, compose, tiny_overrides, tmp_path
) -> None:
    path = tmp_path / "a.safetensors"
    _described(_source(StyleGAN3, STYLED, only="G_ema"), path)
    given = [f"source.checkpoint={path}", f"freeze={freeze}"]
    config = compose(tiny_overrides("stylegan3_small", *given, source="checkpoint"))
    strategy, named = freeze_of(config["freeze"]).strategy, named_source(config)
    made, _ = build(config, open_target(config).dataset, named, strategy)
    for found in (made, blank_model(config, strategy, named)):
        assert found.D.b32.fromrgb.weight.shape[0] == 8  # channel_base_D / 32
        assert found.D.b4.conv.weight.shape[0] == 16  # channel_max_D
        assert found.hparams["network"]["channel_max_D"] == 16


def test_a_file_does_not_say_what_its_own_digest_is(model, tmp_path) -> None:
    path = _described(model, tmp_path / "a.safetensors", extra={"sha256": "forged", "kimg": 1e9})
    record = read_model(path).record()
    assert record["sha256"] == read_model(path).sha256
    assert record["kimg"] == 1.0


def test_the_licence_of_an_ancestor_goes_on_to_its_children(model, tmp_path) -> None:
    """A child has none of its own: what it was trained from decides."""
    model.extra["licence"] = "CC BY-NC 4.0"
    child = SourceModel(
        NAME, NETWORK, 5, "b", {"source": model.record()}, model.tensors, Path(), ""
    )
    grown = SourceModel(
        NAME, NETWORK, 5, "c", {"source": child.record()}, model.tensors, Path(), ""
    )
    assert (
        licence_of(grown) == "as far as it is that of art, which it was trained from: CC BY-NC 4.0"
    )
    write_portable(grown, tmp_path / "c.safetensors")
    again = read_model(tmp_path / "c.safetensors")
    assert licence_of(again) == licence_of(grown)
    assert any("CC BY-NC 4.0" in line for line in table(again))


def test_what_half_precision_cannot_hold_is_refused(model, tmp_path) -> None:
    model.tensors["D.b4.weight" if "D.b4.weight" in model.tensors else "D.b4.0.weight"][0] = 1e6
    with pytest.raises(SourceError, match=r"D\.b4.*too large for float16"):
        write_portable(model, tmp_path / "a.safetensors", torch.float16)
    assert list(tmp_path.iterdir()) == []


def _checkpoint(model: SourceModel) -> dict[str, Any]:
    own = {"model": model.model, "nimg": 1000, "lineage": model.lineage}
    return {
        "state_dict": model.tensors,
        "optimizer_states": [{"state": {0: torch.zeros(8)}}],
        "hyper_parameters": {"network": model.network},
        "stylegan_tl": own,
    }


def test_a_checkpoint_comes_back_and_is_bounded_as_all_files(model, tmp_path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save(_checkpoint(model), path)
    found = read_model(path)
    assert found.network == NETWORK
    assert all(torch.equal(found.tensors[k], v) for k, v in model.tensors.items())
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "b.ckpt", "w") as packed:
        for entry in plain.infolist():
            how = zipfile.ZIP_DEFLATED if "/data/" in entry.filename else zipfile.ZIP_STORED
            packed.writestr(entry.filename, plain.read(entry), how)
    with pytest.raises(SourceError, match="compressed"):
        read_model(tmp_path / "b.ckpt")
    with zipfile.ZipFile(tmp_path / "c.ckpt", "w") as archive:
        words = pickle.dumps(["stylegan_tl", "hyper_parameters"])[:-1]
        archive.writestr("a/data.pkl", words + b"0" + b"N0" * 600_000 + b"N.")
    with pytest.raises(SourceError, match="pickle operations"):
        read_model(tmp_path / "c.ckpt")


def test_a_lineage_that_unfolds_without_end_is_refused(model, tmp_path) -> None:
    """2^18 parents, where the history of a child would be written out."""
    lineage: dict[str, Any] = {}
    for _ in range(18):
        lineage = {"source": {"lineage": lineage}, "blend": {"child": {"lineage": lineage}}}
    model.lineage = lineage
    torch.save(_checkpoint(model), tmp_path / "a.ckpt")
    with pytest.raises(SourceError, match="deeper than 64|damaged: lineage"):
        read_model(tmp_path / "a.ckpt")


def test_a_zip_of_very_many_entries_is_not_listed(tmp_path) -> None:
    """Each of its 46 bytes would become an object of a thousand."""
    one = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", *[0] * 18)
    folder = one * 100_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(folder), 64, 0)
    (tmp_path / "a.pt").write_bytes(b"PK\3\4" + bytes(60) + folder + end)
    with pytest.raises(SourceError, match="one read 4,600,000 bytes"):
        read_model(tmp_path / "a.pt")


def test_a_folder_of_runs_names_a_run_below_it(tmp_path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with pytest.raises(SourceError, match="runs/last.ckpt does not exist"):
        read_model(runs)
    first = runs / "rooms" / "freeze=none,source=a" / "seed=0"
    first.mkdir(parents=True)
    (first / "last.ckpt").touch()
    with pytest.raises(SourceError, match="runs is no run folder .* the one below it: .*seed=0$"):
        read_model(runs)
    (first.parent / "seed=1").mkdir()
    (first.parent / "seed=1" / "last.ckpt").touch()
    with pytest.raises(SourceError) as refused:
        read_model(runs)
    assert str(refused.value).endswith(f"name one of the 2 below it, such as {first}")
    with pytest.raises(SourceError, match="model.pkl does not exist"):
        read_model(runs / "model.pkl")
