"""A source and its child: blends bit for bit, shares in closed form, who is related to whom."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_tl.generate import _generate
from stylegan_tl.latent.blend import blended, share_of_high
from stylegan_tl.latent.kin import kin_of
from stylegan_tl.latent.pair import morph
from stylegan_tl.restore import rebuild, restore
from stylegan_tl.source.load import load_into
from stylegan_tl.source.portable import read_model

FAMILIES = ("stylegan2", "stylegan3", "dcgan")
FROM_4 = ("stylegan2", "dcgan")  # with blocks from 4 px on; those of a StyleGAN3 begin at 16
HOW = {"low": "source", "mapping": "auto", "discriminator": "child"}


def _models(files: dict[str, Path], family: str) -> tuple:
    return tuple(read_model(files[f"{family}_{name}"]) for name in ("source", "child"))


def _reference_parent(name: str, edge: int) -> str:
    """Whose tensor it is in a hard blend, read off its name."""
    at = re.search(r"\bb(\d+)\.", name)
    return "child" if at and int(at[1]) >= edge else "source"


# ---- weights ----------------------------------------------------------------------------------


def test_shares_of_a_soft_edge_are_a_ramp_about_its_middle() -> None:
    sizes = (4, 8, 16, 32, 64)
    assert [share_of_high(r, 16, 1) for r in sizes] == [0, 0, 1, 1, 1]
    assert [share_of_high(r, 16, 0) for r in sizes] == [0, 0, 1, 1, 1]
    assert [share_of_high(r, 16, 2) for r in sizes] == [0, 0.25, 0.75, 1, 1]
    assert [share_of_high(r, 16, 4) for r in sizes] == [0.125, 0.375, 0.625, 0.875, 1]
    for width in (0.5, 3, 5):  # the one below the edge has what the other lacks
        assert share_of_high(8, 16, width) == pytest.approx(1 - share_of_high(16, 16, width))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("low", ["source", "child"])
def test_an_edge_at_either_end_is_one_parent_bit_for_bit(files, family: str, low: str) -> None:
    source, child = _models(files, family)
    parents = {"source": source, "child": child}
    high = {"source": "child", "child": "source"}[low]
    for edge, whose in ((4, high), (64, low)):
        blend, shares = blended(source, child, edge, 1, {**HOW, "low": low})
        expected = parents[whose].state("G_ema")
        assert blend.state("G_ema").keys() == expected.keys()
        assert all(torch.equal(blend.state("G_ema")[k], v) for k, v in expected.items())
        assert set(shares.values()) == {float(whose == "child")}


@pytest.mark.parametrize(
    ("family", "edge"), [*((f, e) for f in FROM_4 for e in (8, 16, 32)), ("stylegan3", 32)]
)
def test_a_hard_edge_takes_each_tensor_from_one_parent(files, family: str, edge: int) -> None:
    source, child = _models(files, family)
    blend, _ = blended(source, child, edge, 1, HOW)
    parents = {"source": source.state("G_ema"), "child": child.state("G_ema")}
    for name, tensor in blend.state("G_ema").items():
        assert torch.equal(tensor, parents[_reference_parent(name, edge)][name]), name
    assert all(torch.equal(v, child.state("D")[k]) for k, v in blend.state("D").items())
    other, _ = blended(source, child, edge, 1, {**HOW, "discriminator": "source"})
    assert all(torch.equal(v, source.state("D")[k]) for k, v in other.state("D").items())


def test_a_soft_edge_is_the_weighted_mean(files) -> None:
    source, child = _models(files, "stylegan2")
    blend, shares = blended(source, child, 16, 2, HOW)
    assert shares == {"4": 0, "8": 0.25, "16": 0.75, "32": 1, "mapping": 0}
    a, b = (m.state("G_ema") for m in (source, child))
    for r, share in ((8, 0.25), (16, 0.75)):
        name = f"synthesis.b{r}.conv1.weight"
        expected = (1 - share) * a[name] + share * b[name]
        torch.testing.assert_close(blend.state("G_ema")[name], expected)


@pytest.mark.parametrize("mapping", ["source", "child"])
def test_the_mapping_can_be_chosen(files, mapping: str) -> None:
    source, child = _models(files, "stylegan2")
    blend, _ = blended(source, child, 8, 1, {**HOW, "mapping": mapping})
    expected = {"source": source, "child": child}[mapping].state("G_ema")
    names = [name for name in expected if name.startswith("mapping.")]
    assert "mapping.w_avg" in names
    assert all(torch.equal(blend.state("G_ema")[name], expected[name]) for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_morph_begins_at_the_source_and_ends_at_the_child(files, family: str) -> None:
    source, child = _models(files, family)
    seen = []
    for model in morph(source, child, rebuild(child), 2):
        seen.append({k: v.clone() for k, v in model.G_ema.state_dict().items()})
    assert len(seen) == 3
    a, b = (m.state("G_ema") for m in (source, child))
    assert all(torch.equal(seen[0][k], a[k]) and torch.equal(seen[2][k], b[k]) for k in a)
    floats = [k for k in a if a[k].is_floating_point()]
    for name in floats:
        torch.testing.assert_close(seen[1][name], (a[name] + b[name]) / 2)


# ---- files, lineage ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", FROM_4)
def test_a_blend_is_a_model_like_any_other(tool, compose, files, tmp_path, family: str) -> None:
    words = [f"source.checkpoint={files[f'{family}_source']}", "edge=[8,32]", "seeds=0-2"]
    made = tool("blend", f"{family}_child", *words)
    assert list(made) == ["blend8.safetensors", "blend32.safetensors", "blend.png", "blend.json"]
    record = json.loads(made["blend.json"].read_text())
    assert record["relation"] == "child"
    file = made["blend8.safetensors"]
    model, blend = restore(file)
    source, child = _models(files, family)
    assert blend.lineage["source"]["sha256"] == source.sha256
    assert blend.lineage["blend"]["child"]["sha256"] == child.sha256
    assert blend.lineage["blend"]["child_share"] == {
        "4": 0, "8": 1, "16": 1, "32": 1, "mapping": 0
    }  # fmt: skip
    (grid,) = _generate(compose([f"checkpoint={file}", f"out={tmp_path}", "seeds=0-3"], "generate"))
    with Image.open(grid) as drawn:
        assert drawn.width > 32
    heir = rebuild(child)  # what a transfer does with its source
    assert not [r.unexplained for r in load_into(heir, blend).values() if r.unexplained]
    assert torch.equal(heir.G.b8[0].weight if family == "dcgan" else heir.G.synthesis.b8.conv1.bias,
                       child.state("G_ema")["b8.0.weight" if family == "dcgan"
                                            else "synthesis.b8.conv1.bias"])  # fmt: skip
    again = kin_of({"checkpoint": file, "source": {"checkpoint": files[f"{family}_child"]},
                    "cache": str(tmp_path), "unrelated": False})  # fmt: skip
    assert again[2] == "child"  # a blend descends from both


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tool_name", ["blend", "pair"])
def test_both_ends_of_a_picture_are_the_parents(tool, files, family: str, tool_name: str) -> None:
    words = [f"source.checkpoint={files[f'{family}_source']}", "seeds=0-1"]
    words += {"blend": ["edge=16"], "pair": ["frames=2"]}[tool_name]
    made = tool(tool_name, f"{family}_child", *words)
    picture = made["blend.png" if tool_name == "blend" else "morph.png"]
    pixels = np.asarray(Image.open(picture)).astype(int)
    columns = {"blend": 3, "pair": 3}[tool_name]
    left = pixels.shape[1] - 3 - 131 * columns + 3
    top = pixels.shape[0] - 3 - 131 * 2 + 3
    for place, name in ((0, "source"), (columns - 1, "child")):
        tile = pixels[top:, left + 131 * place :][:128, :128]
        model, _ = restore(files[f"{family}_{name}"])
        z = model.latents(1, torch.Generator().manual_seed(0))
        image = model.sample(z, **model.still)[0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(tile.reshape(32, 4, 32, 4, 3).mean((1, 3)) - image).mean() < 4


def test_one_w_goes_through_both(tool, files) -> None:
    source = f"source.checkpoint={files['stylegan2_source']}"
    made = tool("pair", "stylegan2_child", source, "space=w", "morph=false", "seeds=0-3")
    assert list(made) == ["pair.png", "pair.json"]
    assert json.loads(made["pair.json"].read_text())["space"] == "w"


@pytest.mark.parametrize(
    ("source", "child", "how"),
    [
        ("stylegan2_source", "stylegan2_child", "child"),
        ("stylegan2_source", "stylegan2_grandchild", "child"),
        ("stylegan2_child", "stylegan2_sibling", "siblings"),
        ("dcgan_source", "dcgan_child", "child"),
    ],
)
def test_relatives_are_known(files, tmp_path, source: str, child: str, how: str) -> None:
    assert kin_of(_asked(files, source, child, tmp_path))[2] == how


@pytest.mark.parametrize(
    ("source", "child", "message"),
    [
        ("stylegan2_stranger", "stylegan2_child", "unrelated=true"),
        ("stylegan2_source", "fresh_G", "unrelated=true"),
        ("stylegan2_source", "dcgan_child", "is a StyleGAN2, .* a DCGAN"),
        ("wide", "stylegan2_child", "channel_max 8 and 16"),
        (None, "stylegan2_source", "from scratch.*source.checkpoint=FILE"),
        (None, "stylegan2_child", "came from made/1.*source.checkpoint=FILE"),
    ],
)
def test_strangers_are_refused(files, tmp_path, source, child: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kin_of(_asked(files, source, child, tmp_path))


def test_strangers_can_be_allowed(files, tmp_path, capsys) -> None:
    asked = _asked(files, "stylegan2_stranger", "stylegan2_child", tmp_path)
    assert kin_of({**asked, "unrelated": True})[2] == "unrelated"
    assert "not related" in capsys.readouterr().err
    with pytest.raises(ValueError, match="channel_max"):
        kin_of({**_asked(files, "wide", "stylegan2_child", tmp_path), "unrelated": True})


@pytest.mark.parametrize("edge", ["2", "12", "128", "[8,9]", "16.5"])
def test_edges_are_where_blocks_begin(tool, files, edge: str) -> None:
    source = f"source.checkpoint={files['stylegan2_source']}"
    with pytest.raises(ValueError, match="edge="):
        tool("blend", "stylegan2_child", source, f"edge={edge}")


def _asked(files: dict[str, Path], source: str | None, child: str, cache: Path) -> dict:
    named = None if source is None else str(files[source])
    return {"checkpoint": str(files[child]), "source": {"checkpoint": named},
            "cache": str(cache), "unrelated": False}  # fmt: skip
