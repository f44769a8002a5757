"""Published tables: well-formed, meant by cells that exist and compose, and compared honestly."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from made import write_trial as write
from omegaconf import OmegaConf
from scipy import stats

from stylegan_tl.composing import compose
from stylegan_tl.config import conf_dir, plain
from stylegan_tl.study.collect import Outcome
from stylegan_tl.study.comparable import ProtocolMismatch
from stylegan_tl.study.compare import MARKS, _is_meant, compare, load_published
from stylegan_tl.study.definition import Study, load

FID = "fid1k_train_small"
STUDIES = sorted(Path(conf_dir(), "study").glob("reproduce_*.yaml"), key=lambda f: f.stem)
NEEDS = ["metric.extractors.inception.path=x", "metric.extractors.inception.sha256=y"]
TABLE = {
    "title": "A paper",
    "metric": FID,
    "protocol": "as ours",
    "score": "values",
    "tolerance": 0.1,
    "measure": "final",
    "columns": {"target": ["kitchen", "tower"]},
    "rows": [
        {"source": "scratch", "values": ["50 V", "100 M"]},
        {"source": "bedroom", "freeze": "none", "values": ["25 V", "80 M"]},
        {"source": "bedroom", "freeze": "freeze_d", "values": ["20 V", None]},
    ],
}


def _study(file: Path) -> Study:
    config = OmegaConf.to_container(OmegaConf.load(file).study)
    return load(config, lambda group: [])


def _verdicts(text):
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): row[-1].strip() for row in rows if row[-1].strip() != "verdict"}


def test_each_number_meets_its_cell(tmp_path):
    write(tmp_path, {1.0: 54.0}, source="scratch")
    write(tmp_path, {1.0: 130.0}, source="scratch", target="tower")
    for seed, value in enumerate([20.0, 30.0, 33.0]):
        write(tmp_path, {1.0: value}, seed=seed)
    write(tmp_path, {1.0: 70.0}, target="tower", state="failed")
    text = compare(tmp_path, [TABLE])
    assert _verdicts(text) == {
        "scratch, kitchen": "agrees",
        "scratch, tower": "differs",
        "bedroom, none, kitchen": "agrees within seeds",  # 27.7 ± 17
        "bedroom, none, tower": "not complete (1 begun)",
        "bedroom, freeze_d, kitchen": "not run",
    }
    assert "5 published numbers (2 from memory, 3 read), 3 of them measured. 2 of 3 agree" in text
    with open(tmp_path / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["mark"] for r in rows] == ["V", "M", "V", "M", "V"]
    assert (rows[2]["seeds"], rows[2]["published"], rows[4]["measured"]) == ("3", "25.0", "")


def test_a_curve_is_compared_at_its_kimg(tmp_path):
    write(tmp_path, {0.0: 90.0, 1.0: 40.0, 4.0: 20.0})
    rows = [{"source": "bedroom", "target": "kitchen", "values": ["90 V", "30 V", "5 V", "5 V"]}]
    text = compare(tmp_path, [{**TABLE, "columns": {"kimg": [0, 2, 4, 9]}, "rows": rows}])
    assert list(_verdicts(text).values()) == ["agrees", "agrees", "differs", "not measured"]
    assert "bedroom, kitchen at 2 kimg" in text


def test_ranks_are_scipys(tmp_path):
    published = {"a": [1.0, 9.0], "b": [2.0, 5.0], "c": [3.0, 7.0]}
    measured = {"a": [10.0, 3.0], "b": [30.0, 2.0], "c": [20.0, 1.0]}
    rows = [{"source": s, "values": [f"{v} M" for v in own]} for s, own in published.items()]
    for source, own in measured.items():
        for target, value in zip(("kitchen", "tower"), own, strict=True):
            write(tmp_path, {1.0: value}, source=source, target=target)
    ranked = {**TABLE, "score": "ranks", "metric": "fid50k_train_inception", "measured": FID}
    text = compare(tmp_path, [{**ranked, "rows": rows, "tolerance": 0.5}])
    theirs = [
        stats.spearmanr([o[i] for o in published.values()], [o[i] for o in measured.values()])[0]
        for i in (0, 1)
    ]
    assert f"kitchen {theirs[0]:+.2f} (3 rows), tower {theirs[1]:+.2f} (3 rows)" in text
    assert f"mean {sum(theirs) / 2:+.2f}, asked for +0.50: agrees" in text
    assert set(_verdicts(text).values()) == {""}  # no value is judged
    assert "measured: fid1k_train_small" in text


def test_units_and_moved_data(tmp_path):
    write(tmp_path, {1.0: 0.0025}, target="/mnt/tower.zip")
    rows = [{"source": "data/bedroom", "values": ["2.4 V"]}]
    text = compare(
        tmp_path, [{**TABLE, "unit": 0.001, "columns": {"target": ["sets/tower"]}, "rows": rows}]
    )
    assert _verdicts(text) == {"bedroom, tower": "agrees"}


def test_a_number_that_could_mean_two_cells_is_refused(tmp_path):
    for augment in ("none", "ada"):
        write(tmp_path, {1.0: 1.0}, augment=augment)
    with pytest.raises(ValueError, match="could mean several cells: .*, ada; .*, none"):
        compare(tmp_path, [TABLE])


def test_trials_measured_differently_are_refused(tmp_path):
    write(tmp_path, {1.0: 1.0})
    write(tmp_path, {1.0: 1.0}, seed=1, protocol={"num_fakes": 7})
    with pytest.raises(ProtocolMismatch, match="num_fakes: 1000 ≠ 7"):
        compare(tmp_path, [TABLE])


def test_everything_wrong_with_a_table_is_told_at_once():
    wrong = {**TABLE, "score": "stars", "measure": "last", "colour": 1}
    wrong["rows"] = [{"values": ["1 V"]}, {"values": ["1 X", "V"]}]
    other = {**TABLE, "measured": "kid1k_train_small"}
    with pytest.raises(ValueError, match="not well-formed") as error:
        load_published([wrong, other, {"title": "x"}, 3])
    for part in (
        "published[0].score=stars",
        "published[0].measure=last",
        "published[0].colour: no such key",
        "rows[0]: 1 values for 2 columns",
        "'1 X': a number and a mark",
        "published[1]: kid1k_train_small is not fid1k_train_small: only ranks compare",
        "published[2].metric is missing",
        "published[3]: expected a mapping",
    ):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="this study has none"):
        load_published([])


def test_all_six_tables_are_there():
    names = {f.stem.removeprefix("reproduce_").split("_")[0] for f in STUDIES}
    assert names == {"diffaugment", "styledomain", "ada", "transfergan", "ten", "freezed"}


@pytest.mark.parametrize("file", STUDIES, ids=lambda f: f.stem)
def test_published_numbers_are_meant_by_one_cell_each(file):
    study = _study(file)
    assert study.name == file.stem
    outcomes = [_outcome(planned) for planned in study.trials() if planned.seed == 0]
    for table in load_published(study.published):
        for number in table.numbers:
            assert number.mark in MARKS
            own = [o for o in outcomes if _is_meant(number.cell, o)]
            cells = {tuple(o.cell.values()) for o in own}
            assert len(cells) == 1, f"{table.title}: {number.cell} is {len(cells)} cells"


def _outcome(planned) -> Outcome:
    """What `collect` would make of a trial as it is planned."""
    values = planned.job.values
    source = values["source.path"] if values["source"] == "folder" else values["source"]
    cell = {"source": source, "target": values["target.path"]}
    cell |= {k: values.get(k, "none") for k in ("freeze", "model", "augment")}
    extra = [k for k in planned.cell.values if k not in (*cell, "source.path", "target.path")]
    return Outcome("", "complete", cell=cell | {k: values[k] for k in extra})


@pytest.mark.parametrize("file", STUDIES, ids=lambda f: f.stem)
def test_reproductions_compose(file):
    """One trial of each kind: paths and seeds aside, all that its overrides can be."""
    kinds = {}
    for planned in _study(file).trials(more=NEEDS):
        own = [o for o in planned.job.overrides if not re.match(r"seed|(source|target)\.path", o)]
        kinds.setdefault(tuple(own), planned.job.overrides)
    for overrides in kinds.values():
        config = plain(compose("train", overrides))
        assert config["metric"]["best"] in config["metric"]["names"]
        assert config["target"]["path"].startswith("datasets/")


def test_the_ledger_of_marks():
    """As in the survey: what was read, and what is from memory."""
    marks = Counter()
    for file in STUDIES:
        for table in load_published(_study(file).published):
            marks.update((file.stem.removeprefix("reproduce_"), n.mark) for n in table.numbers)
    assert marks["diffaugment", "V"] == 23
    assert marks["diffaugment", "M"] == 17
    assert marks["styledomain", "V"] == 14
    assert not any(marks[f"transfergan{k}", "V"] for k in ("", "_init", "_size"))
    assert (marks["transfergan", "M"], marks["freezed", "M"]) == (20, 11)
