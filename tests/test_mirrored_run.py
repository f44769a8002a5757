"""What a whole trial leaves in a tracker, read back by the tracker's own reader."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_tracking import (  # noqa: F401
    ABOUT,
    TICK,
    _history,
    _reference_wandb_reader,
    clean_env,
    real_wandb,
)

from stylegan_tl.runner import run_trial
from stylegan_tl.study.trial import Trial
from stylegan_tl.tracking import Mirror, mirror_of

CHOICES = {
    "source": "rooms/bedroom",
    "target": "rooms/kitchen",
    "freeze": "freeze_d_1",
    "model": "dcgan",
    "augment": "none",
}
CELL = {**CHOICES, "study": "single", "seed": 3}


@pytest.fixture
def trial(compose, tiny_overrides, tmp_path):
    """`trial(logger) -> run folder` of a tiny transfer."""

    def make(*more: str) -> Path:
        own = ["freeze=freeze_d_1", "seed=3", "target=rooms/kitchen", *more]
        assert run_trial(compose(tiny_overrides("dcgan", *own)), tmp_path, choices=CHOICES) == 0
        return tmp_path

    return make


@pytest.fixture
def reader():
    """`reader(folder)`: TensorBoard's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def read(folder: Path):
        found = module.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
        return found.Reload()

    return read


def test_an_offline_run_can_be_grouped_once_it_is_synced(trial, real_wandb) -> None:  # noqa: F811
    folder = trial("logger=wandb", "logger.mode=offline")
    path = folder / Trial.load(folder / "trial.json").files["wandb"]
    records = _reference_wandb_reader(next(path.glob("*.wandb")))
    run = next(r["run"] for r in records if r["type"] == "run")
    assert run["project"] == "stylegan_tl"
    assert run["run_group"] == "rooms/bedroom->rooms/kitchen"
    assert run["job_type"] == "transfer"
    assert run["tags"] == ["freeze_d_1", "dcgan", "none"]
    config = run["config"]["update"]
    assert {k: config[k] for k in CELL} == CELL
    assert config["options"]["target"]["name"] == "rooms/kitchen"
    rows = [row for row in _history(records) if "loss_G" in row]
    assert [row["kimg"] for row in rows] == [0.016, 0.032]
    steps = [r["metric"] for r in records if r["type"] == "metric"]
    assert {"*": "kimg"}.items() <= {m.get("glob_name"): m["step_metric"] for m in steps}.items()


def test_tensorboard_shows_the_scalars_and_grids_of_a_trial(trial, reader) -> None:
    folder = trial("logger=tensorboard")
    found = reader(folder / Trial.load(folder / "trial.json").files["tensorboard"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for key in ("loss_G", "loss_D"):
        shown = [(event.step, event.value) for event in found.Scalars(key)]
        assert shown == [(r["nimg"], np.float32(r[key])) for r in rows if key in r]
    grids = found.Images("grid")
    assert [event.step for event in grids] == [0, 16, 32]
    with Image.open(folder / "grids" / "kimg000000.032.png") as grid:
        assert (grids[-1].width, grids[-1].height) == grid.size
    factors = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert all(str(value).encode() in factors for value in CHOICES.values())
    assert b"source" in factors


def test_a_tick_in_tensorboard(tmp_path, reader) -> None:
    with mirror_of({"kind": "tensorboard"}, say=pytest.fail) as mirror:
        mirror.start(tmp_path, ABOUT, mode=None)
        mirror.row(TICK)
        mirror.summary({"state": "complete"})
    found = reader(mirror.path)
    assert set(found.Tags()["scalars"]) == {
        "kimg",
        "loss_G",
        "recall1k_train_small",
        "recall1k_train_small_stderr",
        "change/G.conv",
        "flag/mode collapse",
    }
    (flag,) = found.Tensors("flag/mode collapse/text_summary")
    assert (flag.step, flag.tensor_proto.string_val[0]) == (2000, b"the grid is one image")


def test_what_a_killed_process_wrote_is_not_shown_twice(tmp_path, reader) -> None:
    for rows in ([(1, 0.5), (2, 0.4), (3, 0.3)], [(2, 0.2), (3, 0.1)]):
        mirror = mirror_of({"kind": "tensorboard"}, say=pytest.fail)
        mirror.start(tmp_path, ABOUT, mode=None)
        for kimg, loss in rows:
            mirror.log({"kimg": kimg, "loss_G": loss})
        mirror.finish()
    shown = [(event.step, round(event.value, 3)) for event in reader(mirror.path).Scalars("loss_G")]
    assert shown == [(1000, 0.5), (2000, 0.2), (3000, 0.1)]


def test_without_the_package_training_goes_on_and_it_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("stylegan_tl.tensorboard.find_spec", lambda name: None)
    said: list[str] = []
    with mirror_of({"kind": "tensorboard"}, say=said.append) as mirror:
        mirror.start(tmp_path, ABOUT, mode=None)
        mirror.log({"kimg": 1})
    assert mirror.path is None
    assert len(said) == 1
    assert "pip install 'stylegan_tl[tensorboard]'" in said[0]
    assert not list(tmp_path.iterdir())


def test_a_broken_tensorboard_never_raises(tmp_path, reader) -> None:
    said: list[str] = []
    with mirror_of({"kind": "tensorboard"}, say=said.append) as mirror:
        mirror.start(tmp_path, ABOUT, mode=None)
        mirror.log({"loss": 1})
        mirror.image(tmp_path / "missing.png", kimg=1)
    assert len(said) == 1
    assert "needs 'kimg'" in said[0]
    mirror.start(tmp_path / "other", ABOUT, mode="disabled")
    mirror.log({"kimg": 1})
    assert not (tmp_path / "other").exists()


def test_both_mirrors_have_all_of_the_protocol() -> None:
    wanted = {name for name in vars(Mirror) if not name.startswith("_")} - {"path"}
    for kind in ("wandb", "tensorboard"):
        mirror = mirror_of({"kind": kind})
        assert all(callable(getattr(mirror, name)) for name in wanted)
        assert mirror.path is None
    with pytest.raises(ValueError, match="logger.kind='trackio': allowed are wandb, tensorboard"):
        mirror_of({"kind": "trackio"})
