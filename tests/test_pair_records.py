"""A part of a pair is measured once: what a killed run left of it is neither used nor mixed in."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from stylegan_tl.pair.records import part, table
from stylegan_tl.study.comparable import FIELDS

ROWS = 5


@pytest.fixture
def pair(tmp_path):
    config = {"out": str(tmp_path / "pairs.jsonl"), "resolution": 32, "seed": 0}
    names = {"source": {"name": "bedroom"}, "target": {"name": "kitchen"}, "extractor": "small"}
    return SimpleNamespace(source_model=None, config={**config, **names}, inputs=["a", "b"])


def _run(pair, value: float, kept: int | None = None) -> tuple[list[dict], bool]:
    """A run of the part "images" whose rows say `value`, and whether it measured.

    Of what it appends only `kept` rows, and a piece of the next, reach the file.
    """
    measured = []

    def rows() -> list[dict]:
        measured.append(True)
        empty = dict.fromkeys(FIELDS)
        return [{**empty, "metric": f"fid{i}", "kind": "fid", "value": value} for i in range(ROWS)]

    out = Path(pair.config["out"])
    before = out.read_bytes() if out.exists() else b""
    found = part(pair, "images", [], rows)
    if kept is not None:
        added = out.read_bytes()[len(before) :].split(b"\n")
        out.write_bytes(before + b"".join(x + b"\n" for x in added[:kept]) + added[kept][:20])
    return found, bool(measured)


@pytest.mark.parametrize("left", [[], [2], [4], [3, 4], [4, 1, 2], [0], [1, 1, 1, 1, 1]])
def test_a_part_is_what_its_last_whole_run_wrote(pair, left: list[int]) -> None:
    for number, kept in enumerate(left):
        assert _run(pair, -1.0 - number, kept)[1]
    first, measured = _run(pair, 1.0)
    assert measured
    again, measured = _run(pair, 2.0)
    assert not measured
    for records in (first, again):
        assert [(r["metric"], r["value"]) for r in records] == [
            (f"fid{i}", 1.0) for i in range(ROWS)
        ]
    assert again == first


def test_rows_of_before_they_were_numbered_are_known(pair) -> None:
    _run(pair, 1.0)
    out = Path(pair.config["out"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row in rows:
        del row["part_row"]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _run(pair, 2.0) == (rows, False)


def test_a_value_that_is_none_for_no_stated_reason_is_listed(pair) -> None:
    made, _ = _run(pair, float("nan"))
    rows, measured = _run(pair, 1.0)
    assert not measured
    assert len(made) == len(rows)
    rows[0]["missing"] = "no source model"
    text = table(pair.config, rows)
    assert "not a finite number\n    missing: fid, fid, fid, fid" in text
    assert "no source model\n    missing: fid\n" in text + "\n"
