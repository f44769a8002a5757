"""Every trial is found, named by its cell, and refused beside one measured otherwise."""

from __future__ import annotations

import os

import numpy as np
import pytest
from made import write_trial as write

from stylegan_tl.study.collect import check_protocols, check_unique, collect
from stylegan_tl.study.comparable import ProtocolMismatch

FID = "fid1k_train_small"


def test_a_trial_becomes_its_cell_and_curves(tmp_path):
    write(tmp_path, {0.0: 9.0, 1.0: 5.0, 2.0: None}, source="lsun/tower", seed=3)
    (only,) = collect(tmp_path)
    assert dict(only.cell) == {
        "source": "lsun/tower",
        "target": "kitchen",
        "freeze": "none",
        "model": "dcgan",
        "augment": "none",
    }
    assert (only.seed, only.state, only.frozen, only.parameters["G"]) == (
        3,
        "complete",
        {"G": 0.25, "D": 0.25},
        100,
    )
    curve = only.curves[FID]
    assert np.array_equal(curve.values, [9, 5, np.nan], equal_nan=True)
    assert curve.best == (5, 1)
    assert np.isnan(curve.final)


def test_folders_are_found_at_any_depth_and_not_looked_into(tmp_path, monkeypatch):
    deep = write(tmp_path / "a" / "b", {1.0: 1.0})
    write(tmp_path, {1.0: 1.0}, seed=1)
    (deep / "grids").mkdir()
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    assert len(collect(tmp_path)) == 2
    assert not [path for path in listed if "seed=" in path]


def test_a_broken_record_is_listed_with_its_reason(tmp_path):
    folder = write(tmp_path, {1.0: 1.0})
    (folder / "trial.json").write_text("{")
    write(tmp_path, {1.0: 1.0}, seed=1, config={"source": {}})
    outcomes = collect(tmp_path)
    assert [o.state for o in outcomes] == ["unreadable", "unreadable"]
    assert "not readable as JSON" in outcomes[0].reason
    assert outcomes[1].reason == "KeyError: 'kind'"


def test_no_folder_and_no_trial_are_said(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        collect(tmp_path / "none")
    with pytest.raises(ValueError, match="no trial.json in it or below"):
        collect(tmp_path)


def test_a_folder_of_images_is_named_by_its_path(tmp_path):
    target = {"kind": "folder", "name": "my/cats"}
    write(tmp_path, {1.0: 1.0}, target="folder", config={"target": target})
    assert collect(tmp_path)[0].cell["target"] == "my/cats"


def test_a_chain_is_named_by_all_its_sources(tmp_path):
    parent = {"name": "bathroom", "lineage": {"source": {"name": "bedroom", "lineage": {}}}}
    write(tmp_path, {1.0: 1.0}, source="bathroom", record={"source": parent})
    write(tmp_path, {1.0: 1.0}, source="bathroom", seed=1, record={"source": {"name": "bathroom"}})
    assert [o.cell["source"] for o in collect(tmp_path)] == ["bedroom->bathroom", "bathroom"]


def test_further_factors_split_cells(tmp_path):
    write(tmp_path, {1.0: 1.0}, config={"num_images": 10, "model": {"training": {"lr_G": 0.1}}})
    write(tmp_path, {1.0: 1.0}, config={"num_images": None}, metric_group="small")
    keys = ["source", "source.path", "num_images", "model.training.lr_G", "metric_group"]
    cells = [dict(o.cell) for o in collect(tmp_path, keys)]
    assert sorted([c[k] for k in keys[2:]] for c in cells) == [
        ["10", "0.1", "(absent)"],
        ["null", "(absent)", "small"],
    ]
    assert "source.path" not in cells[0]


def test_one_cell_and_seed_twice_is_refused_with_what_differs(tmp_path):
    write(tmp_path, {1.0: 1.0}, config={"num_images": 10})
    write(tmp_path, {1.0: 1.0}, config={"num_images": 20})
    with pytest.raises(ValueError, match=r"differ in num_images: 10 -> 20"):
        check_unique(collect(tmp_path), tmp_path)
    check_unique(collect(tmp_path, ["num_images"]), tmp_path)


def test_the_same_configuration_in_two_places_is_refused(tmp_path):
    write(tmp_path / "a", {1.0: 1.0})
    write(tmp_path / "b", {1.0: 1.0})
    with pytest.raises(ValueError, match="are the same configuration"):
        check_unique(collect(tmp_path), tmp_path)


def test_a_failed_trial_may_stand_beside_its_repetition(tmp_path):
    write(tmp_path / "a", state="failed")
    write(tmp_path / "b", {1.0: 1.0})
    check_unique(collect(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_fakes", 5000), ("extractor_digest", "bb"), ("resize", None), ("precision", "bf16")],
)
def test_unequal_protocols_are_refused_also_between_targets(tmp_path, field, value):
    write(tmp_path, {1.0: 1.0}, target="kitchen")
    write(tmp_path, {1.0: 1.0}, target="tower", protocol={field: value})
    with pytest.raises(ProtocolMismatch, match=rf"{FID}: {field}: .* ≠ {value!r}") as error:
        check_protocols(collect(tmp_path), [FID])
    assert str(error.value).count("seed=0") == 2  # both trials are named


def test_other_reals_are_refused_within_a_target_unless_allowed(tmp_path):
    write(tmp_path, {1.0: 1.0})
    write(tmp_path, {1.0: 1.0}, seed=1, protocol={"reference_hash": "other"})
    write(tmp_path, {1.0: 1.0}, target="tower")
    with pytest.raises(ProtocolMismatch, match="reference_hash: 'kitchen' ≠ 'other'"):
        check_protocols(collect(tmp_path), [FID])
    check_protocols(collect(tmp_path), [FID], same_reals=False)


def test_what_failed_is_not_compared(tmp_path):
    write(tmp_path, {1.0: 1.0})
    write(tmp_path, {1.0: 1.0}, seed=1, state="failed", protocol={"num_fakes": 5})
    check_protocols(collect(tmp_path), [FID])


def test_ten_differences_are_told_at_most(tmp_path):
    for number in range(15):
        write(tmp_path, {1.0: 1.0}, seed=number, protocol={"num_fakes": 1000 + number})
    with pytest.raises(ProtocolMismatch, match="… 14 differences in all"):
        check_protocols(collect(tmp_path), [FID])
