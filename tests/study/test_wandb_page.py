"""The report of a study on W&B, built without a network."""

from __future__ import annotations

import json
import sys
import types
import warnings

import pytest
from made import write_trial as write

from stylegan_tl.study import wandb_page
from stylegan_tl.study.__main__ import main, open_by_arguments
from stylegan_tl.study.collect import collect
from stylegan_tl.study.comparable import ProtocolMismatch

METRIC = "kid100_train_small"


@pytest.fixture
def root(tmp_path):
    """Two sources to two targets, two seeds, one trial that failed."""
    made = tmp_path / "demo"
    values = {("a", "b"): 0.4, ("a", "c"): 0.2, ("b", "c"): 0.1, ("scratch", "c"): 0.3}
    for (source, target), value in values.items():
        for seed in (0, 1):
            at = {0.1: 9.0, 0.4: value + 0.01 * seed}
            write(made, at, source=source, target=target, seed=seed, metric=METRIC)
    write(made, {0.1: 5.0}, source="b", target="a", seed=0, metric=METRIC, state="failed")
    return made


@pytest.fixture
def opened(root):
    return open_by_arguments(["study=demo", f"runs={root.parent}", "logger=wandb"])


@pytest.fixture
def workspaces():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("wandb_workspaces.reports.v2")


def test_the_matrix_has_the_means_of_complete_trials(root) -> None:
    ((title, text),) = wandb_page.matrices(collect(root), METRIC)
    assert title == "none, dcgan, none"
    assert text.splitlines() == [
        "| source \\ target | b | c |",
        "| --- | --- | --- |",
        "| a | **0.405** (2) | 0.205 (2) |",
        "| b | – | **0.105** (2) |",
        "| scratch | – | 0.305 (2) |",
    ]
    ((_, upside_down),) = wandb_page.matrices(collect(root), METRIC, "max")
    assert "| scratch | – | **0.305** (2) |" in upside_down


def test_unequal_protocols_make_no_matrix(root) -> None:
    write(root, {0.4: 1.0}, source="z", metric=METRIC, protocol={"resize": "other"})
    with pytest.raises(ProtocolMismatch, match="resize"):
        wandb_page.matrices(collect(root), METRIC)


def test_a_report_has_matrix_curves_and_grids(opened, root, workspaces) -> None:
    outcomes = collect(root, list(opened.study.factors))
    made = wandb_page.report(opened.study, outcomes, "me", "stylegan_tl")
    spec = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    kinds = [block["type"] for block in spec["blocks"]]
    assert "markdown-block" in kinds
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    sections = [grid["panelBankSectionConfig"]["panels"] for grid in grids]
    lines = [p["config"] for own in sections for p in own if "Line" in p["viewType"]]
    assert {config["xAxis"] for config in lines} == {"kimg"}
    assert [METRIC] in [config["metrics"] for config in lines]
    assert sections[-1][0]["config"]["mediaKeys"] == ["grid"]
    runs = grids[0]["runSets"][0]
    wanted = {f["key"]["name"]: f["value"] for f in runs["filters"]["filters"]}
    assert wanted == {"study": "demo", "target": "a"}
    grouped = [key["name"] for key in runs["grouping"]]
    assert grouped == ["source.value", "freeze.value", "model.value", "augment.value"]


def test_offline_it_says_what_is_missing_and_what_to_sync(
    opened, root, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(wandb_page, "find_spec", lambda name: None)
    monkeypatch.setattr(wandb_page, "resolve_mode", lambda mode: "offline")
    runs = [next(root.rglob("trial.json")).parent / "wandb" / f"offline-run-{n}" for n in "12"]
    for run in runs:
        run.mkdir(parents=True)
        (run / "run-x.wandb").touch()
    (runs[1] / "run-x.wandb.synced").touch()
    assert wandb_page.command(opened, {}) == 1
    said = capsys.readouterr().out
    assert "pip install 'stylegan_tl[report]'" in said
    assert "wandb login" in said
    assert "1 offline runs" in said
    assert f"wandb sync '{runs[0]}'" in said
    assert str(runs[1]) not in said


def test_turned_off_is_another_reason(opened, monkeypatch) -> None:
    assert "turned off" in " ".join(wandb_page.missing("disabled"))
    assert not [line for line in wandb_page.missing("online") if "W&B is" in line]


def test_online_it_is_saved_and_its_address_printed(opened, monkeypatch, capsys) -> None:
    saved = []
    made = types.SimpleNamespace(save=lambda: saved.append(1), url="https://somewhere/report")
    monkeypatch.setattr(wandb_page, "find_spec", lambda name: object())
    monkeypatch.setattr(wandb_page, "resolve_mode", lambda mode: "online")
    monkeypatch.setattr(wandb_page, "report", lambda *given: saved.append(given[2:]) or made)
    api = lambda: types.SimpleNamespace(default_entity="me")  # noqa: E731
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(Api=api))
    assert wandb_page.command(opened, {}) == 0
    assert saved == [("me", "stylegan_tl"), 1]
    assert capsys.readouterr().out == "https://somewhere/report\n"


def test_it_is_a_verb(root, monkeypatch, capsys) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["wandb", "study=demo", f"runs={root.parent}", "logger=wandb"]) == 1
    assert "no report was made on W&B" in capsys.readouterr().out
