"""`study distances` at tiny size: every pair once, resumed, the study's own source models found;
and predictors held against domains whose distance is known by construction."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from stylegan_tl.metrics.features import Extractor
from stylegan_tl.pair import every
from stylegan_tl.pair.known import calibrate, known_pairs
from stylegan_tl.study.__main__ import open_by_arguments
from stylegan_tl.study.definition import StudyError
from stylegan_tl.study.opened import distances_of

TINY = ["study=demo", "source.size=30", "target.size=30", "study.sources.num_images=20"]
TINY += ["study.sources.kimg=0.016", "model.training.batch_size=4"]
TINY += ["pretrain.model.training.batch_size=4"]
OPTIONS = {"images": "20", "inversion": "2", "steps": "2"}


@pytest.fixture
def opened(cache, tmp_path):
    return open_by_arguments([*TINY, f"cache={cache}", f"runs={tmp_path / 'runs'}"])


def test_every_pair_is_measured_once_with_the_studys_own_source_models(opened, monkeypatch, capsys):
    assert every.command(opened, {**OPTIONS, "train_source": "true"}) == 0
    file = opened.runs / "demo" / "distances.jsonl"
    assert distances_of(opened) == file
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    pairs = {("rooms/bedroom", "rooms/kitchen"), ("rooms/kitchen", "rooms/bedroom")}
    assert {(r["source"], r["target"]) for r in rows} == pairs
    trial = opened.compose(opened.trials[0].job.overrides)
    from stylegan_tl.config import pretrain_config
    from stylegan_tl.source.obtain import find_source
    from stylegan_tl.source.portable import read_model

    model = read_model(find_source(pretrain_config(trial), opened.cache))  # as a trial would
    own = [r for r in rows if r["source"] == trial["source"]["name"] and r["part"] == "model"]
    assert {r["source_model"] for r in own} == {model.sha256}
    assert capsys.readouterr().out.count("inversionratio") == 2

    def refuse(*_: object) -> None:
        raise AssertionError("an image was measured again")

    monkeypatch.setattr(Extractor, "__call__", refuse)
    monkeypatch.setattr(Extractor, "embed", refuse)
    assert every.command(opened, OPTIONS) == 0
    assert len(file.read_text().splitlines()) == len(rows)


def test_a_pair_that_cannot_be_measured_does_not_stop_the_others(opened, compose):
    settings = compose(["inversion.images=0", "num_images=20"], name="distance")
    configs = list(every.configs(opened, settings))
    assert len(configs) == 2  # of 4 cells x 2 seeds, and controls
    configs[0] = {**configs[0], "num_images": 3}
    told: list[str] = []
    (problem,) = every.measure_all(configs, told.append)
    assert "num_images=3" in problem
    assert "[2/2] rooms/kitchen → rooms/bedroom (StyleGAN2): fid" in told[1]


def test_a_study_of_chains_alone_has_no_pair(opened):
    empty = SimpleNamespace(**{**vars(opened), "trials": [], "runs": opened.runs})
    with pytest.raises(StudyError, match="no pair of two datasets"):
        every.command(empty, {})


def test_a_distance_that_is_right_by_construction_is_found_and_its_reverse_is_not(
    compose, cache, tmp_path
):
    """KID must grow with the share of the mixture: (1 - d) squared times that at 0, exactly."""
    out = tmp_path / "known.jsonl"
    pairs = known_pairs(["rooms/kitchen"], knobs=(1.0, 0.5, 0.0), size=80)
    settings = compose(
        ["resolution=32", f"cache={cache}", f"out={out}", "held_out=0", "inversion.images=0",
         "pretrain.seed=77", "pretrain.held_out=0", "device=cpu"],
        "distance",
    )  # fmt: skip
    configs = [{**settings, "source": p.source, "target": p.target} for p in pairs]
    assert every.measure_all(configs, print) == []
    with out.open("a") as file:  # the construction itself, and its reverse
        for kind, sign in (("known", 1), ("reversed", -1)):
            for p in pairs:
                row = {"kind": kind, "source": p.source["name"], "target": p.target["name"]}
                file.write(json.dumps({**row, "value": sign * p.distance}) + "\n")
    found = {p.predictor: p for p in calibrate(out, pairs, generator=np.random.default_rng(0))}
    assert (found["known"].spearman, found["known"].regret) == (1, 0)
    assert (found["reversed"].spearman, found["reversed"].regret) == (-1, 1)
    assert found["known"].chance == pytest.approx(0.5)
    assert found["kid source train small"].spearman == 1
    keys = [p.source["first"] for p in pairs]
    assert keys == [80] * 3  # no picture on both sides
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert not any(r.get("in_both") for r in rows)
    kid = [r["value"] for r in rows if r["kind"] == "kid" and r["part"] == "images"]
    assert kid[1] / kid[2] == pytest.approx(0.25, abs=0.2)
