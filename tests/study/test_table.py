"""The table of a study of known numbers, and everything that it must not hide."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from made import write_trial as write
from scipy import stats

from stylegan_tl.study.collect import collect
from stylegan_tl.study.comparable import ProtocolMismatch
from stylegan_tl.study.scores import scores
from stylegan_tl.study.summary import latex, summary
from stylegan_tl.study.table import table

FID = "fid1k_train_small"
VALUES = {  # of seeds 0, 1, 2
    ("scratch", "kitchen"): [40.0, 50.0, 60.0],
    ("scratch", "tower"): [80.0, 100.0, 120.0],
    ("bedroom", "kitchen"): [20.0, 30.0, 25.0],
    ("bedroom", "tower"): [90.0, 70.0, 80.0],
    ("bridge", "kitchen"): [45.0, 55.0, 20.0],
}


@pytest.fixture
def root(tmp_path):
    for (source, target), values in VALUES.items():
        for seed, value in enumerate(values):
            at = {1.0: 2 * value, 4.0: value}
            write(tmp_path / "pairs", at, source=source, target=target, seed=seed)
    return tmp_path / "pairs"


def _lines(root, measure="final", **more):
    found = list(scores(collect(root), [FID]))
    lines = summary(found, measure, generator=np.random.default_rng(0), **more)
    return {line.key["source"]: line for line in lines}


def test_cells_hold_mean_and_students_interval(root):
    cell = _lines(root)["bedroom"].cells["kitchen"]
    values = VALUES["bedroom", "kitchen"]
    assert cell.mean == 25
    theirs = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert np.allclose(cell.interval, theirs)
    assert _lines(root)["bedroom"].cells["tower"].is_best
    assert not _lines(root)["scratch"].cells["tower"].is_best


def test_overall_is_iqm_improvement_and_rank(root):
    lines = _lines(root)
    gains = [(50 - v) / 50 for v in VALUES["bedroom", "kitchen"]]
    gains += [(100 - v) / 100 for v in VALUES["bedroom", "tower"]]
    assert lines["bedroom"].uplift == pytest.approx(stats.trim_mean(gains, 0.25))
    assert lines["bedroom"].uplift_interval[0] < lines["bedroom"].uplift
    shares = [
        stats.mannwhitneyu(VALUES["scratch", t], VALUES["bedroom", t]).statistic / 9
        for t in ("kitchen", "tower")
    ]
    assert lines["bedroom"].improvement == pytest.approx(np.mean(shares))
    assert [lines[s].rank for s in ("bedroom", "bridge", "scratch")] == [1, 2, 2.5]
    assert np.isnan(lines["scratch"].uplift)  # nothing is held against itself
    assert list(_lines(root)) == ["bedroom", "bridge", "scratch"]


def test_of_a_higher_is_better_metric_the_highest_wins(tmp_path):
    more = {"better": "max"}
    for source, value in (("scratch", 0.5), ("bedroom", 0.75)):
        write(tmp_path / "pairs", {1.0: value}, source=source, **more)
    line = _lines(tmp_path / "pairs")["bedroom"]
    assert (line.rank, line.uplift, line.improvement) == (1, 0.5, 1)


def test_a_baseline_of_zero_has_no_relative_gain(tmp_path):
    for seed in range(3):
        write(tmp_path / "pairs", {1.0: 0.0}, source="scratch", seed=seed)
        write(tmp_path / "pairs", {1.0: -0.1}, seed=seed)
    line = _lines(tmp_path / "pairs")["bedroom"]
    assert np.isnan([line.uplift, *line.uplift_interval]).all()
    assert line.improvement == 1


def test_the_same_seed_gives_the_same_file(root):
    assert table(root) == table(root)
    assert table(root) == (root / "table.md").read_text()


def test_the_csv_has_a_row_per_trial_and_metric(root):
    write(root, {1.0: 7.0}, seed=9, metric="kid1k_train_small")
    table(root)
    with open(root / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 16
    own = [r for r in rows if (r["source"], r["target"]) == ("bedroom", "tower")]
    finals = {r["seed"]: r["final"] for r in own if r["metric"] == FID}
    assert finals == {"0": "90", "1": "70", "2": "80"}
    assert {r["final"] for r in own if r["metric"] != FID} == {""}
    needed = "source target freeze model augment seed kimg best best_kimg final kimg_to_reach area"
    needed += " uplift_scratch uplift_scratch_augment frozen_G frozen_D parameters_G seconds state"
    assert set(needed.split()) < set(rows[0])


def test_nothing_is_dropped_silently(root):
    write(root, {1.0: 5.0}, seed=3, state="failed", reason="TrainingDiverged: loss | is\nNaN")
    write(root, source="bridge", target="tower", state="interrupted", reason="signal 15")
    broken = write(root, seed=8)
    (broken / "trial.json").write_text("{")
    text = table(root, planned=["there/seed=0", "pairs"])
    assert "15 complete, 1 failed, 1 interrupted, 2 not started, 1 unreadable" in text
    assert "25.0 ± 12 (3 of 4)" in text  # the failed seed is told in the cell
    assert "– (0 of 1)" in text
    assert "– (0 of 3)" in table(root, seeds=3)  # also what never began
    assert "| failed | TrainingDiverged: loss \\| is NaN |" in text
    assert "| interrupted | signal 15 |" in text
    assert "| there/seed=0 | not started |  |" in text
    assert "not readable as JSON" in text
    with open(root / "table.csv", newline="") as file:
        states = [r["state"] for r in csv.DictReader(file)]
    assert sorted(set(states)) == ["complete", "failed", "interrupted", "unreadable"]


def test_one_seed_has_no_interval_and_says_so_by_leaving_it_out(tmp_path):
    write(tmp_path, {1.0: 12.345})
    assert "**12.3** |" in table(tmp_path)


def test_speed_counts_who_arrived(root):
    write(root, {1.0: 300.0, 4.0: 200.0}, seed=3)
    text = table(root, measures=["kimg_to_reach"])
    assert "(3 of 4)" in text
    assert "kimg until fid1k_train_small is 10 % worse than the best of scratch" in text


def test_unequal_protocols_are_refused_and_nothing_is_written(root):
    write(root, {1.0: 5.0}, seed=3, protocol={"num_fakes": 5000})
    with pytest.raises(ProtocolMismatch, match="num_fakes: 1000 ≠ 5000"):
        table(root)
    assert not (root / "table.csv").exists()


def test_unequal_budgets_are_said(root):
    assert "Budgets differ" not in table(root)
    write(root, {1.0: 5.0, 9.0: 4.0}, seed=3)
    assert "Budgets differ among trials that share a target and a model, from 4 to 9" in table(root)


def test_further_factors_become_columns(tmp_path):
    for count in (10, 100):
        write(tmp_path, {1.0: float(count)}, config={"num_images": count})
    text = table(tmp_path, factors=["source", "num_images"])
    assert "| source | freeze | num_images | kitchen |" in text


def test_wrong_names_and_directions_are_refused(root):
    with pytest.raises(ValueError, match="no trial has it; they have fid1k_train_small"):
        table(root, metrics=["fid5k_train_small"])
    with pytest.raises(ValueError, match="the study says max is better"):
        table(root, direction="max")
    with pytest.raises(ValueError, match="measure='last', allowed: final, best, area"):
        table(root, measures=["last"])


def test_a_study_of_failures_is_a_list(tmp_path):
    write(tmp_path, state="failed", reason="no memory")
    text = table(tmp_path, metrics=[FID])
    assert "Trials: 1 failed." in text
    assert "no memory" in (tmp_path / "table.csv").read_text()


def test_latex_is_escaped_and_rectangular(root):
    lines = list(_lines(root).values())
    text = latex(lines, "scratch", "50 % of rooms_&_halls > 1")
    assert r"50 \% of rooms\_\&\_halls $>$ 1" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    assert {row.count(" & ") + 1 for row in body} == {len(columns)} == {7}
    assert r"\textbf{25.0 $\pm$ 12}" in text
    assert r"\textwidth" not in text
