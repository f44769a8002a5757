"""Models that leave in other layouts come back to the bit, and take history and licence along.

That the originals' own code draws the same from these files was checked outside of the tests;
here the names and shapes of a file are held against theirs (`recorded.json`, `source` says which).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from stylegan_tl.convert import main
from stylegan_tl.models.stylegan2 import StyleGAN2
from stylegan_tl.models.training import Training
from stylegan_tl.restore import rebuild
from stylegan_tl.source.portable import SourceError, SourceModel, read_model, write_portable
from stylegan_tl.source.writers import write_nvidia, write_rosinality

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))
LINEAGE = {"dataset": "rooms/kitchen", "source": {"name": "ffhq", "lineage": {}}}
LINEAGE["source"]["model"] = "stylegan_tl.models.stylegan2.StyleGAN2"


def _source(**changes) -> SourceModel:
    network = {"resolution": 16, "z_dim": 10, "w_dim": 10, "c_dim": 0, "num_mapping_layers": 3}
    network |= {"channel_base": 96, "channel_max": 12, "mbstd_group_size": 4, **changes}
    model = StyleGAN2(network=network, training=asdict(Training()), precision="fp32")
    tensors = {k: v for k, v in model.state_dict().items() if k.split(".")[0] in ("G_ema", "D")}
    tensors = {k: v + torch.randn_like(v) for k, v in tensors.items()}
    name = f"{StyleGAN2.__module__}.StyleGAN2"
    extra = {"licence": "CC BY 4.0"}
    return SourceModel(
        name, network, 88_000, "rooms/kitchen", LINEAGE, tensors, Path("k.ckpt"), "ab", extra
    )


def _same(found: SourceModel, source: SourceModel) -> None:
    assert found.tensors.keys() == source.tensors.keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in source.tensors.items())
    assert found.network == source.network
    assert (found.nimg, found.dataset, found.lineage) == (88_000, "rooms/kitchen", LINEAGE)
    assert found.extra["licence"] == "CC BY 4.0"
    assert found.extra["exported_from"]["sha256"] == "ab"


def test_rosinalitys_layout_holds_the_model_to_the_bit(tmp_path) -> None:
    source, out = _source(), tmp_path / "k.pt"
    notes = write_rosinality(source, out)
    assert "change `channels`" in notes[0]
    _same(read_model(out), source)
    found = torch.load(out, weights_only=True)
    for key in ("g_ema", "d"):
        wanted = RECORDED["rosinality"]["layout"][key]
        assert {k: list(v.shape) for k, v in found[key].items()} == wanted
    assert found["g"].keys() == found["g_ema"].keys()


@pytest.mark.parametrize("write", [write_rosinality, write_nvidia])
def test_what_no_tensor_shows_comes_back_too(write, tmp_path) -> None:
    """Limits of activations and the group of the minibatch statistics decide what D says."""
    source = _source(clamp=0.75, mbstd_group_size=2)
    write(source, tmp_path / "k.pt")
    found = read_model(tmp_path / "k.pt")
    _same(found, source)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = [rebuild(model).D(images) for model in (source, found)]
    assert torch.equal(*logits)
    plain = write_rosinality(_source(), tmp_path / "plain.pt")
    assert not [note for note in plain if "groups" in note or "limit" in note]


@pytest.mark.parametrize("write", [write_rosinality, write_nvidia])
def test_what_else_is_in_a_file_is_in_the_report(write, tmp_path) -> None:
    write(_source(), tmp_path / "k.pt")
    data = torch.load(tmp_path / "k.pt", weights_only=True)
    torch.save({**data, "more": torch.zeros(2)}, tmp_path / "k.pt")
    left = read_model(tmp_path / "k.pt").extra["report"]["left"]
    assert left["more"] == "no part of the networks"
    assert not left.keys() & {"origin", "init_kwargs", "latent_avg"}


def test_its_own_widths_are_named_by_their_multiplier(tmp_path) -> None:
    source = _source(channel_base=32768, channel_max=512, resolution=8)
    assert write_rosinality(source, tmp_path / "k.pt") == [
        "build Generator(8, 10, 3, channel_multiplier=1)"
    ]


@pytest.mark.parametrize("classes", [0, 4])
def test_nvidias_layout_holds_the_model_to_the_bit(classes: int, tmp_path) -> None:
    changes = {"c_dim": classes, "num_mapping_layers": 2, "w_dim": 8, "mbstd_group_size": 2}
    source, out = _source(**changes), tmp_path / "k.pt"
    write_nvidia(source, out)
    _same(read_model(out), source)
    found = torch.load(out, weights_only=True)
    wanted = RECORDED["studiogan_labels" if classes else "studiogan_plain"]["layout"]
    assert {k: list(v.shape) for k, v in found["G_ema"].items()} == wanted["G"]
    heads = {k.replace("linear1.", "b4.out."): v for k, v in wanted["D"].items()}
    assert {k: list(v.shape) for k, v in found["D"].items()} == heads
    assert found["init_kwargs"]["G"]["synthesis_kwargs"]["channel_base"] == 96
    assert found["init_kwargs"]["D"]["epilogue_kwargs"] == {"mbstd_group_size": 2}


def test_a_model_without_d_and_one_that_limits_activations(tmp_path) -> None:
    source, out = _source(clamp=256.0), tmp_path / "k.pt"
    source.tensors = {k: v for k, v in source.tensors.items() if k.startswith("G_ema.")}
    write_nvidia(source, out)
    _same(read_model(out), source)
    assert any("limit activations" in note for note in write_rosinality(source, out))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"c_dim": 2}, "no labels"), ({"z_dim": 4}, "z as long as w"), ({"miner": True}, "miner")],
)
def test_what_a_layout_cannot_hold_is_refused(changes: dict, said: str, tmp_path) -> None:
    with pytest.raises(SourceError, match=said):
        write_rosinality(_source(**changes), tmp_path / "k.pt")
    other = _source()
    other.model = "stylegan_tl.models.dcgan.DCGAN"
    for write in (write_rosinality, write_nvidia):
        with pytest.raises(SourceError, match="this is a DCGAN"):
            write(other, tmp_path / "k.pt")
    assert list(tmp_path.iterdir()) == []


def _convert(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["convert", *arguments])
    main()


@pytest.mark.parametrize("form", ["rosinality", "nvidia"])
def test_the_command_writes_and_reads_every_form(form: str, tmp_path, monkeypatch, capsys) -> None:
    source, first = _source(), tmp_path / "k.safetensors"
    write_portable(source, first)
    _convert(monkeypatch, f"in={first}", f"out={tmp_path}/k.pt", f"format={form}")
    _convert(monkeypatch, f"in={tmp_path}/k.pt", f"out={tmp_path}/again.safetensors")
    again = read_model(tmp_path / "again.safetensors")
    assert all(torch.equal(again.tensors[k], v) for k, v in source.tensors.items())
    assert again.lineage == LINEAGE
    assert again.extra["licence"] == "CC BY 4.0"
    assert "licence: CC BY 4.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out=k.pt", "format=keras"], "format=keras: use safetensors"),
        (["out=k.safetensors", "format=rosinality"], "end it in .pt"),
        (["out=k.pt", "format=nvidia", "dtype=float16"], "float32 alone"),
    ],
)
def test_what_cannot_be_written_is_said_first(arguments, said, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        _convert(monkeypatch, "in=nothing.pt", *arguments)
    assert said in capsys.readouterr().err


@pytest.mark.skipif(find_spec("onnxscript") is None, reason="torch's exporter is not installed")
def test_a_graph_carries_licence_and_history(tmp_path, monkeypatch) -> None:
    import onnx

    first, out = tmp_path / "k.safetensors", tmp_path / "k.onnx"
    write_portable(_source(), first)
    _convert(monkeypatch, f"in={first}", f"out={out}", "format=onnx")
    facts = {p.key: p.value for p in onnx.load(str(out)).metadata_props}
    assert facts["licence"] == "CC BY 4.0"
    assert json.loads(facts["origin"])["lineage"] == LINEAGE
