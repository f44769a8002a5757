"""The plan of a study: counts, states, time and disk from what was measured, never a guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from stylegan_tl.study.__main__ import main, open_by_arguments
from stylegan_tl.study.opened import Opened
from stylegan_tl.study.plan import make_plan, render
from stylegan_tl.study.provenance import hardware
from stylegan_tl.study.queue import claim_trial, note
from stylegan_tl.study.trial import Trial

pytestmark = pytest.mark.usefixtures("cpu_only")


@pytest.fixture
def opened(tmp_path) -> Opened:
    """study=demo: 4 pairs and 4 controls x 2 seeds, 0.4 kimg each, none of it there."""
    return open_by_arguments(
        ["study=demo", f"runs={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}"]
    )


@pytest.fixture
def write(opened) -> Callable[..., Path]:
    """`write(number, state, **fields)` leaves the record of a trial of the study."""

    def make(number: int, state: str = "complete", **fields: Any) -> Path:
        folder = opened.trials[number].job.folder
        trial = Trial("demo", "a to b", 0, {}, dict(opened.config), state=state)
        given = {**asdict(trial), "kimg": 0.4, "s_per_kimg": 10.0, "hardware": hardware(), **fields}
        folder.mkdir(parents=True, exist_ok=True)
        Trial(**given).save(folder / "trial.json")
        return folder

    return make


def test_nothing_there_yet(opened) -> None:
    plan = make_plan(opened)
    text = render(opened, plan)
    assert "16 trials (8 cells x 2 seeds): 16 missing" in text
    assert "2 source models (equal: each 0.4 kimg on 200 images; none in use yet)" in text
    assert (plan.kimg, plan.source_kimg) == (pytest.approx(16 * 0.4), pytest.approx(2 * 0.4))
    assert "how long is not known" in text
    assert "disk: not known" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["rooms/bedroom", "0/4", "-"] in lines
    assert ["scratch_augment", "0/2", "0/2"] in lines


def test_what_is_there_is_counted_and_told_apart(opened, write, monkeypatch) -> None:
    monkeypatch.setattr("stylegan_tl.study.plan.make_slots", lambda: [None, None])
    write(0)
    (write(1, s_per_kimg=30.0) / "last.ckpt").write_bytes(bytes(5 * 2**20))
    write(2, "failed", reason="TrainingDiverged: loss_G not finite")
    write(3, "interrupted", reason="signal 15", kimg=0.1)
    claim = claim_trial(opened.trials[4].job)
    note(opened.trials[5].job, "failed", "seed=x: use a whole number")
    plan = make_plan(opened)
    text = render(opened, plan)
    claim.release()
    assert "2 complete, 2 failed, 1 interrupted, 1 running, 10 missing" in text
    assert "TrainingDiverged: loss_G not finite" in text
    assert "seed=x: use a whole number" in text
    # a failed or running trial counts from where its record says that it is: 0.4 of trial 2 done
    assert plan.kimg == pytest.approx(12 * 0.4 + 0.3)
    assert plan.pace.s_per_kimg == 20.0
    assert plan.seconds == pytest.approx((plan.kimg + plan.source_kimg) * 20 / 2)
    assert "2.5" in f"{plan.disk / 2**20:.3f}"
    assert "median of 2 trials on" in text


def test_other_hardware_is_said_and_this_ones_is_preferred(opened, write) -> None:
    write(0, hardware={**hardware(), "cpu": "another", "gpu": "GPU X"}, s_per_kimg=1.0)
    text = render(opened, make_plan(opened))
    assert "other hardware: median of 1 trials on GPU X" in text
    write(1, s_per_kimg=50.0)
    plan = make_plan(opened)
    assert (plan.pace.s_per_kimg, plan.pace.here) == (50.0, True)


def test_times_of_other_studies_serve_only_for_the_same_network(opened, tmp_path) -> None:
    config = json.loads(json.dumps(opened.config))
    for name, pace, change in (("same", 7.0, {}), ("other", 99.0, {"resolution": 64})):
        trial = Trial(name, "x", 0, {}, {**config, **change}, state="complete")
        trial.s_per_kimg, trial.hardware = pace, hardware()
        trial.save(tmp_path / "runs" / name / "cell" / "seed=0" / "trial.json")
    plan = make_plan(opened)
    assert (plan.pace.s_per_kimg, plan.pace.trials) == (7.0, 1)


def test_a_finished_study_has_nothing_left(opened, write) -> None:
    for number in range(len(opened.trials)):
        write(number)
    text = render(opened, make_plan(opened))
    assert "nothing left to train" in text
    assert "2 in use already" in text


def test_the_commands_of_all_trials_are_printed_on_request(tmp_path, capsys) -> None:
    own = ["study=demo", f"runs={tmp_path}", f"cache={tmp_path}", "commands=true"]
    assert main(["plan", *own]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    assert all(line.startswith("python -m stylegan_tl.train study.name=demo") for line in lines)


def test_a_damaged_record_is_a_missing_one(opened, write) -> None:
    folder = write(0)
    (folder / "trial.json").write_text('{"state": "comp')
    assert make_plan(opened).states[folder].state == "missing"
