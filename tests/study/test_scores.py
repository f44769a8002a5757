"""Speed, area and uplift of trials with curves of known answers."""

from __future__ import annotations

import math

import pytest
from made import write_trial as write

from stylegan_tl.study.collect import collect
from stylegan_tl.study.scores import scores

FID = "fid1k_train_small"
SLOW = {0.0: 100.0, 1.0: 80.0, 4.0: 40.0}
FAST = {0.0: 60.0, 1.0: 30.0, 4.0: 20.0}


def _by_run(root, baseline="scratch", metric=FID):
    found = scores(collect(root), [metric], baseline)
    return {(s.outcome.cell["source"], s.outcome.cell["augment"], s.outcome.seed): s for s in found}


def test_uplift_is_against_the_mean_of_each_control_at_equal_kimg(tmp_path):
    write(tmp_path, SLOW, source="scratch")
    write(tmp_path, {**SLOW, 4.0: 50.0}, source="scratch", seed=1)
    write(tmp_path, {**SLOW, 4.0: 30.0}, source="scratch", augment="ada")
    write(tmp_path, {1.0: 1.0}, source="scratch", model="stylegan2_small")  # another model
    write(tmp_path, FAST)
    row = _by_run(tmp_path)["bedroom", "none", 0].row()
    assert (row["uplift_scratch"], row["uplift_scratch_augment"]) == (45 - 20, 30 - 20)
    assert row["uplift_scratch_kimg"] == 4
    assert row["goal"] == pytest.approx(1.1 * 45)  # of the mean of the best
    assert row["kimg_to_reach"] == pytest.approx((60 - 49.5) / 30)  # straight from 0 to 1 kimg
    assert (row["best"], row["best_kimg"], row["final"]) == (20, 4, 20)
    assert row["area"] == pytest.approx(25)  # a line over log kimg from 30 to 20
    assert (row["area_from"], row["area_to"]) == (1, 4)
    assert (row["frozen_G"], row["parameters_D"]) == (0.25, 100)


def test_a_longer_run_is_compared_where_the_control_ended(tmp_path):
    write(tmp_path, SLOW, source="scratch")
    write(tmp_path, {1.0: 30.0, 2.0: 24.0, 8.0: 12.0})
    row = _by_run(tmp_path)["bedroom", "none", 0].row()
    assert row["uplift_scratch"] == pytest.approx(40 - 18)  # half-way from 2 to 8 in log kimg
    assert row["uplift_scratch_kimg"] == 4


def test_more_can_be_better(tmp_path):
    more = {"metric": "recall1k_train_small", "better": "max"}
    write(tmp_path, {1.0: 0.1, 4.0: 0.5}, source="scratch", **more)
    write(tmp_path, {1.0: 0.2, 4.0: 0.7}, **more)
    found = _by_run(tmp_path, metric=more["metric"])
    row = found["bedroom", "none", 0].row()
    assert row["uplift_scratch"] == pytest.approx(0.2)
    assert row["goal"] == pytest.approx(0.45)
    assert 1 < row["kimg_to_reach"] < 4
    assert found["scratch", "none", 0].uplift["scratch"] == 0


def test_the_augmented_control_is_the_one_that_augments_alike(tmp_path):
    for augment, last in (("none", 50.0), ("ada", 40.0), ("diffaugment", 30.0)):
        write(tmp_path, {1.0: 90.0, 4.0: last}, source="scratch", augment=augment)
        write(tmp_path, {1.0: 90.0, 4.0: 20.0}, augment=augment)
    found = _by_run(tmp_path)
    uplift = [found["bedroom", a, 0].uplift["scratch_augment"] for a in ("ada", "diffaugment")]
    assert uplift == [20, 10]
    assert found["bedroom", "none", 0].uplift["scratch_augment"] == 20  # ada


def test_a_strategy_can_be_the_baseline(tmp_path):
    write(tmp_path, {1.0: 50.0, 4.0: 10.0})
    write(tmp_path, {1.0: 50.0, 4.0: 10.0}, source="tower")
    write(tmp_path, {1.0: 9.0, 4.0: 9.0}, freeze="freeze_d")
    found = {s.outcome.cell["freeze"]: s for s in scores(collect(tmp_path), [FID], "none")}
    assert found["freeze_d"].goal == pytest.approx(11)


def test_freeze_scratch_is_a_control_too(tmp_path):
    write(tmp_path, SLOW, freeze="scratch")
    write(tmp_path, FAST)
    found = {s.outcome.cell["freeze"]: s for s in scores(collect(tmp_path), [FID])}
    assert found["none"].uplift["scratch"] == 20


def test_without_a_control_nothing_is_claimed(tmp_path):
    write(tmp_path, FAST)
    row = _by_run(tmp_path)["bedroom", "none", 0].row()
    unknown = ("uplift_scratch", "uplift_scratch_augment", "goal", "kimg_to_reach")
    assert all(math.isnan(row[k]) for k in unknown)


def test_never_reached_is_infinite(tmp_path):
    write(tmp_path, SLOW, source="scratch")
    write(tmp_path, {1.0: 200.0, 4.0: 100.0})
    assert _by_run(tmp_path)["bedroom", "none", 0].kimg_to_reach == math.inf


def test_what_is_not_complete_keeps_its_values_and_is_compared_with_nothing(tmp_path):
    write(tmp_path, SLOW, source="scratch")
    write(tmp_path, {1.0: 1.0, 2.0: 2.0}, state="failed", reason="diverged")
    write(tmp_path, seed=1, state="interrupted")
    found = _by_run(tmp_path)
    failed = found["bedroom", "none", 0]
    assert (failed.best, failed.final, failed.uplift) == (1, 2, None)
    assert found["scratch", "none", 0].area_range == (1, 4)  # the failed one does not shorten it
    assert math.isnan(found["bedroom", "none", 1].best)
