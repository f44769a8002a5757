"""From a source without classes to a target with some, and back: in every conditional model."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from stylegan_tl.assembly import model_of
from stylegan_tl.data.procedural import render
from stylegan_tl.runner import run_trial
from stylegan_tl.source.portable import SourceError, SourceModel, read_model, write_portable
from stylegan_tl.study.trial import Trial

MODELS = ("stylegan2_small", "stylegan_small", "dcgan", "dcgan_tf_small", "gangogh_small")
ROOMS = ("bedroom", "kitchen")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, Path]:
    """Two folders of the same images: by class, and all in one."""
    root = tmp_path_factory.mktemp("pictures")
    for room in ROOMS:
        for folder in (root / "classes" / room, root / "none"):
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(4):
                image = Image.fromarray(render(f"rooms/{room}", i, 32).transpose(1, 2, 0))
                image.save(folder / f"{room}{i}.png")
    return {"classes": root / "classes", "none": root / "none"}


@pytest.fixture
def transfer(compose, tiny_overrides, pictures, tmp_path):
    """Train for a batch from a fresh source of `classes` on a folder; the record."""

    def go(model: str, classes: list[str], folder: str, *more: str) -> Trial:
        path = tmp_path / "source.safetensors"
        words = [w for w in tiny_overrides(model, source="checkpoint") if "target." not in w]
        words += [f"source.checkpoint={path}", "target=folder", f"target.path={pictures[folder]}"]
        config = compose([*words, "kimg=0.004", "kimg_per_tick=0.004", *more])
        network = {**config["model"]["network"], "c_dim": len(classes)}
        tensors = model_of(config, network).state_dict()
        tensors = {k: v for k, v in tensors.items() if k.startswith(("G_ema.", "D."))}
        lineage = {"dataset": "rooms", "classes": classes}
        about = (config["model"]["_target_"], network, 1000, "rooms", lineage)
        write_portable(SourceModel(*about, tensors, path, ""), path)
        assert run_trial(config, tmp_path / "run", choices={"model": model}) == 0
        return Trial.load(tmp_path / "run" / "trial.json")

    return go


@pytest.mark.parametrize("model", MODELS)
def test_without_classes_it_stays_without_and_the_report_says_so(
    transfer, tmp_path, model: str
) -> None:
    trial = transfer(model, [], "classes")
    for report in trial.load_report.values():
        assert report["unused"] == list(ROOMS)
        assert report["missing"] == report["unexpected"] == report["mismatched"] == []
        assert report["copied"] > 0
    child = read_model(tmp_path / "run")
    assert child.network["c_dim"] == 0
    assert child.lineage["classes"] == []


@pytest.mark.parametrize("model", MODELS)
def test_with_classes_it_wants_a_target_that_has_some_and_says_how(
    transfer, tmp_path, model: str
) -> None:
    said = r"source.safetensors has 2 classes and the target has none: .* two subfolders or more"
    with pytest.raises(SourceError, match=said):
        transfer(model, list(ROOMS), "none")
    assert not (tmp_path / "run" / "last.ckpt").exists()
    trial = transfer(model, ["attic", "kitchen", "porch"], "classes")  # as it tells to do
    for report in trial.load_report.values():
        assert report["classes"]["kitchen"] == "kitchen"
        assert report["dropped"] == ["attic", "porch"]
        assert report["unused"] == []
    assert read_model(tmp_path / "run").network["c_dim"] == 2


def test_a_category_is_not_added_to_what_has_none(transfer) -> None:
    with pytest.raises(ValueError, match="add_category.*has no classes|no classes"):
        transfer("dcgan", [], "classes", "freeze=add_category")
