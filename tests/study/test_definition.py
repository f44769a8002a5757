"""What a study means: its matrix counted by hand, controls, chains, and every mistake named."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from stylegan_tl.study.definition import Study, StudyError, load
from stylegan_tl.study.job import job_of, last_wins, override, readable

GROUPS = {
    "source": ["a", "b", "c", "d", "scratch", "checkpoint"],
    "target": ["a", "b", "c", "d"],
    "freeze": ["none", "freeze_d", "freeze_g"],
    "model": ["stylegan2_small", "dcgan"],
    "augment": ["none", "ada"],
    "metric": ["small", "none"],
}
KNOWN = [*GROUPS, "kimg", "resolution", "pretrain"]
ROOMS: dict[str, Any] = {
    "name": "rooms",
    "factors": {
        "source": ["a", "b", "c"],
        "target": ["a", "b", "c"],
        "freeze": ["none", "freeze_d"],
        "model": ["stylegan2_small", "dcgan"],
    },
    "seeds": [0, 1, 2],
    "overrides": ["resolution=64", "kimg=2"],
    "sources": {"condition": "equal", "kimg": 50, "num_images": 100},
}


def _load(**changes: Any) -> Study:
    config = copy.deepcopy(ROOMS) | changes
    return load(config, lambda group: GROUPS.get(group, []), KNOWN)


def test_the_matrix_counted_by_hand() -> None:
    """3 x 3 - 3 pairs x 2 strategies x 2 models = 24; 3 targets x 2 models x 2 controls = 12."""
    study = _load()
    roles = Counter(cell.role for cell in study.cells())
    assert roles == {"pair": 24, "scratch": 6, "scratch_augment": 6}
    trials = study.trials()
    assert len(trials) == 36 * 3
    assert len({t.job.folder for t in trials}) == 108
    assert len({t.job.source for t in trials if t.job.source}) == 3 * 2  # a dataset x a model
    assert [t.seed for t in trials] == [0] * 36 + [1] * 36 + [2] * 36


def test_diagonal_and_exclude_change_the_matrix() -> None:
    pairs = lambda study: sum(c.role == "pair" for c in study.cells())  # noqa: E731
    assert pairs(_load(diagonal=True)) == 3 * 3 * 4
    assert pairs(_load(exclude=[{"source": "a", "target": "b"}])) == 24 - 4
    rule = {"source": ["a", "b"], "freeze": "freeze_d", "model": "dcgan"}
    assert pairs(_load(exclude=[rule])) == 24 - 4
    assert len(_load(controls=[], baseline=None).cells()) == 24


def test_a_trial_is_a_command_and_a_folder_of_the_train_command() -> None:
    first = _load().trials("out", more=["kimg=1", "trainer=cpu"])[0].job
    assert first.overrides == (
        "study.name=rooms",
        "source=a",
        "target=b",
        "freeze=none",
        "model=stylegan2_small",
        "pretrain.kimg=50",
        "pretrain.num_images=100",
        "resolution=64",
        "kimg=1",  # the command line wins
        "trainer=cpu",
        "seed=0",
    )
    assert first.folder == Path("out/rooms") / readable(first.overrides) / "seed=0"


def test_controls_speak_of_no_source() -> None:
    """Keys of a source dataset cannot be set where there is none."""
    study = _load(overrides=["source.size=9", "target.size=9", "pretrain.seed=3", "kimg=2"])
    for trial in study.trials():
        text = " ".join(trial.job.overrides)
        has = trial.cell.role == "pair"
        assert ("source.size=9" in text) == ("pretrain.seed=3" in text) == has
        assert "target.size=9" in text
    augmented = [t for t in study.trials() if t.cell.role == "scratch_augment"]
    assert all({"source=scratch", "freeze=none", "augment=ada"} <= {*t.job.overrides}
               for t in augmented)  # fmt: skip


def test_a_control_that_the_matrix_has_already_is_not_repeated() -> None:
    factors = {**ROOMS["factors"], "augment": ["none", "ada"]}
    roles = Counter(cell.role for cell in _load(factors=factors).cells())
    assert roles == {"pair": 48, "scratch": 12}  # augment=ada is a cell of `scratch` already


def test_chains_bring_the_steps_that_they_need() -> None:
    """a -> b is in the matrix; b -> d and a -> b -> c -> d are not, nor is the control of d."""
    study = _load(chains=[["a", "b", "c"], ["a", "b", "c", "d"]], seeds=[0])
    trials = study.trials()
    roles = Counter(t.cell.role for t in trials)
    assert roles == {"pair": 24, "chain": 2 * 4, "scratch": 8, "scratch_augment": 8}
    chained = [t for t in trials if t.cell.role == "chain"]
    assert Counter(t.cell.source for t in chained) == {"a->b": 4, "a->b->c": 4}
    by_folder = {t.job.folder: t for t in trials}
    for trial in chained:
        before = by_folder[trial.job.after]
        assert before.cell.values["target"] == trial.cell.via[-1]
        for key in ("freeze", "model"):
            assert before.cell.values[key] == trial.cell.values[key]
        assert before.seed == trial.seed
        assert trial.job.source is None
    assert len({t.job.folder for t in trials}) == len(trials)


def test_the_longer_chain_starts_from_the_shorter_one() -> None:
    trials = _load(chains=[["a", "b", "c", "d"]], seeds=[7]).trials()
    long = next(t for t in trials if t.cell.source == "a->b->c")
    middle = next(t for t in trials if t.job.folder == long.job.after)
    assert middle.cell.source == "a->b"
    start = next(t for t in trials if t.job.folder == middle.job.after)
    assert (start.cell.role, start.cell.source, start.seed) == ("pair", "a", 7)


def test_what_is_given_to_some_cells_goes_to_them_and_their_controls() -> None:
    rule = {"when": {"model": "dcgan"}, "overrides": ["kimg=8", "pretrain.kimg=90"]}
    jobs = [t.job.values for t in _load(given=[rule]).trials()]
    assert {(j["model"], j["kimg"], j.get("pretrain.kimg")) for j in jobs} == {
        ("stylegan2_small", "2", "50"),
        ("stylegan2_small", "2", None),  # a control has no source model
        ("dcgan", "8", "90"),
        ("dcgan", "8", None),
    }
    later = {"when": {"model": "dcgan", "target": ["a", "b"]}, "overrides": ["kimg=9"]}
    jobs = [t.job.values for t in _load(given=[rule, later]).trials()]
    assert {(j["target"], j["kimg"]) for j in jobs if j["model"] == "dcgan"} == {
        ("a", "9"),
        ("b", "9"),
        ("c", "8"),
    }
    jobs = [t.job.values for t in _load(given=[rule]).trials(more=["kimg=1"])]
    assert {j["kimg"] for j in jobs} == {"1"}  # the command line wins


def test_equal_sources_wait_for_the_size_of_the_smallest() -> None:
    study = _load(sources={"condition": "equal", "kimg": 50})
    assert study.needs_count
    with pytest.raises(StudyError, match="smallest source"):
        study.trials()
    jobs = [t.job for t in study.with_count(42).trials()]
    assert all("pretrain.num_images=42" in j.overrides for j in jobs if j.source)
    native = _load(sources={"condition": "native"})
    assert not native.needs_count
    assert not any("num_images" in o for t in native.trials() for o in t.job.overrides)


def test_every_mistake_is_told_at_once() -> None:
    wrong = {
        "factors": {"source": ["a", "bb"], "target": ["a", "b"], "freese": ["none"]},
        "overrides": ["kimgs=3", "model=dcgann", "seed=4", "nonsense"],
        "controls": ["scratch", "nothing"],
        "baseline": "scratch_augment",
        "exclude": [{"source": "c"}],
        "given": [{"when": {"target": "z"}, "overrides": ["kimgs=3", "x"]}],
        "chains": [["a", "b"], ["a", "a", "b"]],
        "direction": "down",
        "sources": {"condition": "same", "kimg": 0, "num_images": -1},
    }
    with pytest.raises(StudyError) as caught:
        _load(**wrong)
    text = str(caught.value)
    for part in (
        "study.factors.source: source=bb is no option; ",
        "study.factors.freese: freese is no key of train.yaml; did you mean freeze?",
        "study.overrides: kimgs is no key of train.yaml; did you mean kimg?",
        "study.overrides: model=dcgann is no option; did you mean dcgan?",
        "study.overrides: 'seed=4'",
        "study.overrides: 'nonsense': expected key=value",
        "study.controls: nothing is none",
        "study.baseline=scratch_augment",
        "study.exclude: source=c matches nothing",
        "study.given: target=z matches nothing",
        "study.given: kimgs is no key of train.yaml; did you mean kimg?",
        "study.given: 'x': expected key=value",
        "study.chains: ['a', 'b']: use at least three",
        "a dataset follows itself",
        "study.direction=down",
        "study.sources.condition=same",
        "study.sources.kimg=0",
        "study.sources.num_images=-1",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "study.name=a/b"),
        ({"given": ["kimg=3"]}, "study.given: kimg=3: use {when:"),
        ({"sedes": [1]}, "study.sedes: no such key; did you mean seeds"),
        ({"seeds": []}, "study.seeds"),
        ({"seeds": [0, 0]}, "study.seeds"),
        ({"seeds": [True]}, "study.seeds"),
        ({"factors": {"source": ["a"]}}, "study.factors.target is missing"),
        ({"factors": {"source": [], "target": ["a"]}}, "at least one value"),
        ({"factors": {"source": ["a"], "target": ["b", "b"]}}, "stands there twice"),
        ({"factors": {"source": ["a"], "target": ["a"]}}, "has no pair"),
        ({"factors": {"source": ["scratch"], "target": ["a"]}}, "scratch is a control"),
        ({"sources": {"steps": 3}}, "study.sources.steps"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        _load(**changes)


@pytest.mark.parametrize(
    "value",
    [1, 0.25, -3, True, None, "a", "a/b_c", "null", "runs/x=1,y=2/last.ckpt", "it's", [1, "b"],
     ["kid1k_train_small"], {"a": 1, "b": [True, None]}, "a->b", ""],
)  # fmt: skip
def test_hydra_reads_a_value_back_as_it_was(value: Any) -> None:
    parsed = OverridesParser.create().parse_override(override("key", value))
    assert parsed.value() == value
    assert type(parsed.value()) is type(value)
    assert not parsed.is_sweep_override()


def test_the_last_of_two_overrides_wins() -> None:
    assert last_wins(["a=1", "b=2", "+a=3"]) == ["+a=3", "b=2"]


def test_a_source_is_named_by_what_changes_it() -> None:
    job = lambda *o: job_of(["source=a", "target=b", *o], "runs", "s").source  # noqa: E731
    same = ["target=c", "freeze=freeze_d", "seed=4", "kimg=9", "augment=ada", "metric=none"]
    assert {job(o) for o in same} == {job()}
    other = ["source=b", "model=dcgan", "resolution=32", "pretrain.kimg=3", "source.size=9",
             "model.network.width=8", "augment@pretrain.augment=ada"]  # fmt: skip
    assert len({job(), *(job(o) for o in other)}) == 8


def test_a_long_folder_name_keeps_what_tells_trials_apart() -> None:
    many = [f"model.network.some_long_key_{i}=1" for i in range(9)]
    name = readable([*many, "target=rooms/kitchen", "freeze=freeze_d", "source=rooms/bedroom"])
    assert name.startswith("source=rooms-bedroom,target=rooms-kitchen,freeze=freeze_d,model.")
    assert len(name) < 160
