"""Each tool with each family of models: it does what it says, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from stylegan_tl.restore import restore
from stylegan_tl.sampling import Look, latents, sample
from stylegan_tl.source.portable import read_model

FAMILIES = ("stylegan", "dcgan_tf", "gangogh", "labelled")
HAVE_W = ("stylegan", "labelled")
CONDITIONAL = ("gangogh", "labelled")
ARGUMENTS = {
    "interpolate": ["frames=2", "seeds=0-1"],
    "mix": ["rows=[0]", "columns=[1]", "layers=coarse"],
    "truncation": ["seeds=[3]", "psi=[0,1]"],
    "factorise": ["seeds=[3]", "directions=2", "degrees=[-2,-1,0,1,2]"],
    "blend": ["edge=16", "seeds=[3]"],
    "pair": ["seeds=[3]", "frames=2"],
}


def _words(files, family: str, name: str) -> list[str]:
    words = list(ARGUMENTS[name])
    if name in ("blend", "pair"):
        words.append(f"source.checkpoint={files[f'{family}_source']}")
    return [*words, *(["label=1"] if family in CONDITIONAL else [])]


def _own(files, family: str, model: str, label: int = 1) -> np.ndarray:
    """The image of seed 3, uint8 [3, 32, 32]."""
    made, _ = restore(files[f"{family}_{model}"])
    look = Look(label=label if family in CONDITIONAL else None)
    return sample(made, latents(made, [3]), look)[0]


def _enlarged(image: np.ndarray) -> np.ndarray:
    """As a sheet shows it, [128, 128, 3]."""
    small = Image.fromarray(image.transpose(1, 2, 0))
    return np.asarray(small.resize((128, 128), Image.Resampling.LANCZOS)).astype(int)


def _photograph(root: Path, image: np.ndarray) -> Path:
    (root / "photographs").mkdir()
    Image.fromarray(image.transpose(1, 2, 0)).save(root / "photographs" / "0.png")
    return root / "photographs"


def _tile(picture, places: int, place: int) -> np.ndarray:
    """Of the last row of a sheet of `places` columns of 128 px one tile."""
    pixels = np.asarray(Image.open(picture)).astype(int)
    left, top = pixels.shape[1] - 131 * (places - place), pixels.shape[0] - 131
    return pixels[top : top + 128, left : left + 128]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_tool_draws_what_the_model_does_or_says_why_not(tool, files, family, name) -> None:
    words = _words(files, family, name)
    if name == "mix" and family not in HAVE_W:
        with pytest.raises(ValueError, match="one z for all layers, so there are no styles"):
            tool(name, f"{family}_child", *words)
        return
    made = tool(name, f"{family}_child", *words)
    assert json.loads(made[f"{name}.json"].read_text())["tool"] == name
    # where seed 3 itself stands: columns, its place, the model that draws it
    places = {
        "truncation": ("truncation.png", 2, 1, "child"),
        "factorise": ("factorise_seed3.png", 5, 2, "child"),
        "blend": ("blend.png", 3, 0, "source"),
        "pair": ("morph.png", 3, 2, "child"),
    }
    if name in places:
        picture, columns, place, model = places[name]
        found, own = _tile(made[picture], columns, place), _own(files, family, model)
        assert np.abs(found - _enlarged(own)).mean() < 0.5
        if family in CONDITIONAL:
            other = _own(files, family, model, label=0)
            assert np.abs(found - _enlarged(other)).mean() > 2


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_of_each_family_is_projected(tool, files, family, cache, tmp_path) -> None:
    folder = _photograph(tmp_path, _own(files, family, "source"))
    words = [f"images={folder}", "steps=40", f"cache={cache}", "device=cpu", "lr=0.2"]
    label = ["label=1"] if family in CONDITIONAL else []
    words += label
    made = tool("project", f"{family}_source", *words)
    record = json.loads(made["project.json"].read_text())
    assert record["perceptual"][0] < 0.6 * record["start_perceptual"][0]
    found = load_file(made["projected.safetensors"])
    shapes = {"w": (1, 8, 5)} if family in HAVE_W else {"z": (1, 6)}
    assert {name: tuple(x.shape) for name, x in found.items()} == shapes
    given = [f"latents={made['projected.safetensors']}", "directions=1", *label]
    strips = tool("factorise", f"{family}_source", *given, out="strips")
    assert "factorise_image0.png" in strips


@pytest.mark.parametrize("family", CONDITIONAL)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_class_is_asked_for(tool, files, family, name) -> None:
    words = [word for word in _words(files, family, name) if word != "label=1"]
    with pytest.raises(ValueError, match="label=None|one z for all layers"):
        tool(name, f"{family}_child", *words)


CLASSES = ["portrait", "landscape", "abstract"]


@pytest.fixture
def named(write_model, tmp_path):
    """Write a model whose classes have names, perhaps one that came from another."""

    def make(name: str, family: str, seed: int, classes: list[str], parent: Path | None = None):
        lineage = {"source": read_model(parent).record()} if parent else {}
        path = tmp_path / f"{name}.safetensors"
        return write_model(path, family, seed, {**lineage, "classes": classes})

    return make


@pytest.mark.parametrize("family", CONDITIONAL)
def test_classes_have_names(tool, named, write_model, tmp_path, family: str) -> None:
    path = named("a", family, 1, CLASSES)
    known = r"3 classes \(0 portrait, 1 landscape, 2 abstract\).*from 0 to 2, or its name"
    for wrong in ("null", "3", "-1", "genre", "true"):
        with pytest.raises(ValueError, match=f"label=.*{known}"):
            tool("truncation", str(path), f"label={wrong}")
    words = ["seeds=[3]", "psi=[1]"]
    first = tool("truncation", str(path), *words, "label=landscape", out="by_name")
    again = tool("truncation", str(path), *words, "label=1", out="by_number")
    assert first["truncation.png"].read_bytes() == again["truncation.png"].read_bytes()
    nameless = write_model(tmp_path / "b.safetensors", family, 1)
    with pytest.raises(ValueError, match="3 classes, without names; give the number"):
        tool("truncation", str(nameless), "label=landscape")


@pytest.mark.parametrize("family", CONDITIONAL)
def test_source_and_child_are_put_together_class_by_class(tool, named, family: str) -> None:
    """A source whose classes stand in another order gives what it gave in the child's order."""
    source = named("source", family, 1, CLASSES)
    turned = named("child", family, 2, CLASSES[::-1], source)
    words = [f"source.checkpoint={source}", "label=portrait", "seeds=[3]", "edge=[64,16]"]
    made = tool("blend", str(turned), *words)
    model, _ = restore(source)
    own = sample(model, latents(model, [3]), Look(label=0))[0]
    assert np.abs(_tile(made["blend.png"], 4, 0) - _enlarged(own)).mean() < 0.5
    whole, blend = restore(made["blend64.safetensors"])  # all of it is the source's
    assert blend.lineage["classes"] == CLASSES[::-1]
    drawn = sample(whole, latents(whole, [3]), Look(label="portrait"))[0]
    assert np.abs(drawn.astype(int) - own).max() <= 1
    pair = tool("pair", str(turned), *words[:3], "morph=false", out="pair")
    assert pair["pair.png"].is_file()


@pytest.mark.parametrize("name", ["blend", "pair"])
def test_a_child_of_other_classes_is_refused(tool, named, name: str) -> None:
    source = named("source", "gangogh", 1, CLASSES)
    other = [*CLASSES[:2], "still life"]
    child = named("child", "gangogh", 2, other, source)
    said = "classes portrait, landscape, abstract, .* has portrait, landscape, still life"
    with pytest.raises(ValueError, match=said):
        tool(name, str(child), f"source.checkpoint={source}", "label=0")


def test_z_of_a_uniform_model_is_what_it_draws_from(tool, files, cache, tmp_path) -> None:
    """The latents that are found lie before `noise=uniform` squeezes them: they are drawn again."""
    folder = _photograph(tmp_path, _own(files, "dcgan_tf", "source"))
    words = [f"images={folder}", "steps=20", f"cache={cache}", "device=cpu"]
    made = tool("project", "dcgan_tf_source", *words)
    model, _ = restore(files["dcgan_tf_source"])
    z = load_file(made["projected.safetensors"])["z"]
    again = _enlarged(sample(model, z, Look())[0])
    assert np.abs(again - _tile(made["project.png"], 3, 2)).mean() < 0.5
