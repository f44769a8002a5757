"""What a run watches beside its losses: change since the source, flags, time of evaluation."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

import stylegan_tl.callbacks as callbacks
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.runner import run_trial
from stylegan_tl.study.trial import Trial

MEASURED = ["metric=small", "metric.names=[swd16_train]", "metric.best=swd16_train"]
LOST = ["model.training.lr_D=0.02", "model.training.lr_G=1e-6"]  # G stands, D learns 24 images
LONG = ["kimg=0.112", "grid.columns=4", "grid.rows=4"]
TIMES = ("s_per_kimg", "seconds", "eta_seconds", "evaluation_seconds", "evaluations")


@pytest.fixture
def run(compose, tiny_overrides):
    def make(folder: Path, *more: str, model: str = "dcgan", source="rooms/bedroom"):
        config = compose(tiny_overrides(model, *more, source=source))
        assert run_trial(config, folder, choices={"freeze": "none", "model": model}) == 0
        return Trial.load(folder / "trial.json"), _rows(folder)

    return make


def _rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _timeless(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_change_flags_and_times_reach_the_row_and_the_record(run, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "stylegan_tl")
    more = [*MEASURED, *LOST, *LONG, "metric.every_ticks=3", "freeze=freeze_d_1"]
    trial, rows = run(tmp_path, *more)
    measured = [row for row in rows if "change" in row]
    assert [row["tick"] for row in measured] == [0, 3, 6, 7]
    assert set(measured[0]["change"].values()) == {0.0}
    last = measured[-1]["change"]
    assert last["D.conv"] > last["D"] > 0  # the scales of batch normalisation hardly move
    assert last["D.fromrgb"] == 0.0  # frozen
    assert 0 < last["G"] < 0.1 * last["D"]
    assert trial.change == [{"kimg": r["kimg"], "groups": r["change"]} for r in measured]

    (row,) = [row for row in rows if row.get("flags")]
    (flag,) = row["flags"]
    assert (flag["flag"], flag["tick"]) == ("D overpowering", row["tick"])
    assert trial.flags == [flag]
    said = [r.getMessage() for r in caplog.records]
    assert [line for line in said if "D overpowering" in line] == [
        f"WARNING  D overpowering at tick {flag['tick']}: {flag['evidence']}"
    ]

    spent = [row["evaluation_seconds"] for row in rows]
    assert 0 < spent[0] == spent[2] < spent[3] == spent[5] < spent[6] < spent[7]
    assert spent[7] == trial.evaluation_seconds
    assert [line for line in said if " of evaluation (" in line]


def test_killed_and_resumed_the_rows_are_the_same(run, tmp_path, monkeypatch) -> None:
    """Twice: in a batch, and with a flag's row in the log whose checkpoint was not written."""
    more = [*MEASURED, *LOST, *LONG, "metric.every_ticks=2"]
    whole, rows = run(tmp_path / "whole", *more)
    (flag,) = whole.flags
    step, save = AdversarialModel.training_step, callbacks.save_atomic
    folder = tmp_path / "killed"

    def die_in_batch(self, batch, index):
        if self.nimg >= 40:
            raise RuntimeError("killed")
        return step(self, batch, index)

    def die_before_checkpoint(trainer, path):
        if trainer.lightning_module.nimg >= flag["kimg"] * 1000:
            raise RuntimeError("killed")
        save(trainer, path)

    for owner, name, function in (
        (AdversarialModel, "training_step", die_in_batch),
        (callbacks, "save_atomic", die_before_checkpoint),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, function)
            with pytest.raises(RuntimeError, match="killed"):
                run(folder, *more)
    assert _rows(folder)[-1]["flags"] == [flag]
    resumed, again = run(folder, *more)
    assert _timeless(again) == _timeless(rows)
    assert (resumed.change, resumed.flags) == (whole.change, whole.flags)
    spent = [row["evaluation_seconds"] for row in again]
    assert spent == sorted(spent)


def test_a_generator_that_gives_one_image_for_every_z_is_flagged(
    run, tmp_path, monkeypatch
) -> None:
    step = AdversarialModel.training_step

    def collapsing(self, batch, index):
        stats = step(self, batch, index)
        if self.nimg > 48:  # w has no say any more
            with torch.no_grad():
                for name, parameter in self.G_ema.named_parameters():
                    if name.endswith("affine.weight"):
                        parameter.zero_()
        return stats

    monkeypatch.setattr(AdversarialModel, "training_step", collapsing)
    more = ["kimg=0.096", "grid.columns=4", "grid.rows=4"]
    trial, rows = run(tmp_path, *more, model="stylegan2_small", source="scratch")
    assert [row["diversity"] > 0.2 for row in rows] == [True] * 4 + [False] * 3
    assert rows[4]["diversity"] < 1e-9
    (flag,) = trial.flags
    assert (flag["flag"], flag["tick"], flag["kimg"]) == ("mode collapse", 5, 0.08)
    assert rows[5]["flags"] == [flag]


def test_without_a_source_or_without_metrics_there_is_no_change(run, tmp_path) -> None:
    trial, rows = run(tmp_path / "scratch", *MEASURED, source="scratch")
    assert not [row for row in rows if "change" in row]
    assert trial.change == []
    trial, rows = run(tmp_path / "unmeasured")
    assert not [row for row in rows if "change" in row]
    assert trial.evaluation_seconds == 0
    assert rows[0]["diversity"] is None  # a grid of two images says nothing


def test_a_growing_run_says_where_it_is_and_its_picture_what_it_came_from(
    run, tmp_path, caplog, monkeypatch
) -> None:
    """8 px for 8 images, 16 px fade in over 32, stay for 8; a source in a file has a name."""
    caplog.set_level(logging.INFO, "stylegan_tl")
    drawn = []

    def picture(path, before, after, captions, columns=None) -> None:
        drawn.append((captions, columns))

    monkeypatch.setattr("stylegan_tl.pictures.before_after", picture)
    grown = ["model.growth.lod_training_kimg=0.008", "model.growth.lod_transition_kimg=0.032"]
    words = ["kimg=0.048", *grown, "grid.columns=2"]
    _, rows = run(tmp_path / "old", *words, model="stylegan_small", source="scratch")
    assert [(r["kimg"], r["resolution"]) for r in rows] == [(0, 8), (0.016, 16), (0.032, 16),
                                                            (0.048, 16)]  # fmt: skip
    assert [row["fade_in"] for row in rows] == pytest.approx([1, 0.25, 0.75, 1])
    ticks = [r.getMessage() for r in caplog.records if r.getMessage().startswith("tick")]
    for line, fading in zip(ticks[1:4], (" 25% in", " 75% in", ""), strict=True):
        assert f"  at 16 px{fading}  " in line
    more = ["kimg=0.004", f"source.checkpoint={tmp_path / 'old'}", "freeze=none"]
    run(tmp_path / "new", *more, model="stylegan_small", source="checkpoint")
    assert drawn == [
        (("random weights", "rooms/kitchen, 0.048 kimg"), 2),
        (("rooms/kitchen, the source model", "rooms/kitchen, 0.004 kimg"), 2),
    ]
