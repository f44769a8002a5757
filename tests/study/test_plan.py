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
    assert "2 source models (equal: each 0.4 kimg on 200 images; none there yet)" in text
    assert (plan.kimg, plan.source_kimg) == (pytest.approx(16 * 0.4), pytest.approx(2 * 0.4))
    assert "how long is not known" in text
    assert "disk: not known" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["rooms/bedroom", "0/4", "-"] in lines
    assert ["scratch_augment", "0/2", "0/2"] in lines


def test_source_models_of_other_studies_count(tmp_path) -> None:
    """The bundled bedroom model: 64 px, the default network and pre-training."""
    small = ["resolution=64", "model.network.channel_base=1024", "model.network.channel_max=128"]
    sources = {"condition": "native", "kimg": 50, "num_images": "null"}
    sizes = ["source.size=2000", *(f"study.sources.{k}={v}" for k, v in sources.items())]
    own = [f"runs={tmp_path}", f"cache={tmp_path / 'cache'}", *small, *sizes]
    opened = open_by_arguments(["study=demo", *own])
    plan = make_plan(opened)
    assert (plan.sources_there, plan.source_kimg) == (1, 50)
    assert "1 there already" in render(opened, plan)


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
    assert plan.work[0].pace.s_per_kimg == 20.0
    assert plan.seconds == pytest.approx((plan.kimg + plan.source_kimg) * 20 / 2)
    assert "2.5" in f"{plan.disk / 2**20:.3f}"
    assert "median of 2 trials on" in text


def test_other_hardware_is_said_and_this_ones_is_preferred(opened, write) -> None:
    write(0, hardware={**hardware(), "cpu": "another", "gpu": "GPU X"}, s_per_kimg=1.0)
    text = render(opened, make_plan(opened))
    assert "other hardware: median of 1 trials on GPU X" in text
    write(1, s_per_kimg=50.0)
    plan = make_plan(opened)
    assert (plan.work[0].pace.s_per_kimg, plan.work[0].pace.here) == (50.0, True)


def test_times_of_other_studies_serve_only_for_the_same_network(opened, tmp_path) -> None:
    config = json.loads(json.dumps(opened.config))
    for name, pace, change in (("same", 7.0, {}), ("other", 99.0, {"resolution": 64})):
        trial = Trial(name, "x", 0, {}, {**config, **change}, state="complete")
        trial.s_per_kimg, trial.hardware = pace, hardware()
        trial.save(tmp_path / "runs" / name / "cell" / "seed=0" / "trial.json")
    plan = make_plan(opened)
    assert (plan.work[0].pace.s_per_kimg, plan.work[0].pace.trials) == (7.0, 1)


def test_every_model_has_its_own_budget_and_pace(tmp_path) -> None:
    """4 pairs + 4 controls x 2 seeds of either model; a source model of either for two domains."""
    rule = "{when: {model: dcgan_small}, overrides: ['kimg=2', 'pretrain.kimg=5']}"
    given = f"+study.given=[{rule}]"
    models = "study.factors.model=[stylegan2_small,dcgan_small]"
    metric = "'metric.names=[kid100_train_small]','metric.best=kid100_train_small'"
    overrides = f"study.overrides=['resolution=32','kimg=0.4',{metric}]"
    own = ["study=demo", models, overrides, given, f"runs={tmp_path}", f"cache={tmp_path}"]
    opened = open_by_arguments([*own, "study.sources.num_images=90"])
    trial = next(t for t in opened.trials if t.cell.values["model"] == "dcgan_small")
    record = Trial("x", "y", 0, {}, opened.compose(trial.job.overrides), state="complete")
    record.s_per_kimg, record.hardware = 3.0, hardware()
    record.save(tmp_path / "other" / "cell" / "seed=0" / "trial.json")
    plan = make_plan(opened)
    style, dcgan = plan.work
    assert (style.model, style.kimg, style.source_kimg) == (
        "stylegan2_small",
        pytest.approx(16 * 0.4),
        pytest.approx(2 * 0.4),
    )
    assert (dcgan.model, dcgan.kimg, dcgan.source_kimg) == ("dcgan_small", 32, 10)
    assert (style.seconds, dcgan.seconds) == (None, pytest.approx(42 * 3.0))
    text = render(opened, plan)
    assert "each 0.4 or 5 kimg on 90 images" in text
    assert "no finished trial of this model and resolution yet: stylegan2_small" in text
    assert "  dcgan_small: 3 s/kimg (median of 1 trials on" in text


def test_a_finished_study_has_nothing_left(opened, write) -> None:
    for number in range(len(opened.trials)):
        write(number)
    text = render(opened, make_plan(opened))
    assert "nothing left to train" in text
    assert "2 there already" in text


def test_the_commands_of_all_trials_are_printed_on_request(tmp_path, capsys) -> None:
    own = ["study=demo", f"runs={tmp_path}", f"cache={tmp_path}", "commands=true"]
    assert main(["plan", *own]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16
    assert all(line.startswith("python -m stylegan_tl.train study.name=demo") for line in lines)


def test_a_source_that_does_not_compose_is_told_beforehand(tmp_path) -> None:
    """A folder of images has no `size`, which the study sets for all sources."""
    names = "[rooms/bedroom,rooms/kitchen,folder]"
    own = ["study=demo", f"study.factors.source={names}", f"runs={tmp_path}", f"cache={tmp_path}"]
    opened = open_by_arguments(own)
    text = render(opened, make_plan(opened))
    assert "will fail   source=folder: source.size= is no key here" in text


def test_a_damaged_record_is_a_missing_one(opened, write) -> None:
    folder = write(0)
    (folder / "trial.json").write_text('{"state": "comp')
    assert make_plan(opened).states[folder].state == "missing"
