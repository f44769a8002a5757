"""The verbs of a study that read what its trials left: table, compare, predict."""

from __future__ import annotations

import json

import pytest
from made import write_trial as write

from stylegan_tl.study import compare, predict, table
from stylegan_tl.study.__main__ import open_by_arguments

METRIC = "kid100_train_small"


@pytest.fixture
def opened(tmp_path):
    return open_by_arguments(["study=demo", f"runs={tmp_path}"])


def _run(opened, planned, value):
    """What the planned trial would leave, in the folder that is planned for it."""
    values = planned.cell.values
    made = write(
        opened.runs / "aside",
        {0.1: 2 * value, 0.4: value},
        source=values["source"],
        target=values["target"],
        freeze=values["freeze"],
        model=values["model"],
        augment=values.get("augment", "none"),
        seed=planned.seed,
        metric=METRIC,
    )
    planned.job.folder.parent.mkdir(parents=True, exist_ok=True)
    made.rename(planned.job.folder)


def test_the_table_knows_what_was_planned(opened, capsys):
    first = [t for t in opened.trials if t.seed == 0]
    for number, planned in enumerate(first):
        _run(opened, planned, 1.0 + number)
    assert table.command(opened, {"measures": "final"}) == 0
    text = capsys.readouterr().out
    assert f"Trials: 8 complete, {len(opened.trials) - 8} not started." in text
    assert opened.study.question in text
    assert f"## {METRIC}, at the end (lower is better)" in text
    assert "| source | freeze | augment | rooms/" in text
    assert (opened.runs / "demo" / "table.tex").is_file()


def test_out_and_metrics_are_options(opened, tmp_path):
    _run(opened, opened.trials[0], 1.0)
    with pytest.raises(ValueError, match="no trial has it"):
        table.command(opened, {"metrics": "fid1k_train_small"})
    table.command(opened, {"out": str(tmp_path / "there")})
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == [
        "table.csv",
        "table.md",
        "table.tex",
    ]


def test_compare_needs_published_tables(opened):
    _run(opened, opened.trials[0], 1.0)
    with pytest.raises(ValueError, match="this study has none"):
        compare.command(opened, {})


def test_predict_reads_the_distances_beside_the_studies(opened, capsys):
    rows = [{"source": s, "target": "rooms/kitchen", "kind": "known"} for s in ("a", "b", "c")]
    for value, row in enumerate(rows):
        write(
            opened.runs / "demo",
            {0.4: value},
            source=row["source"],
            target="rooms/kitchen",
            metric=METRIC,
        )
    lines = [json.dumps({**row, "value": -value}) for value, row in enumerate(rows)]
    (opened.runs / "distances.jsonl").write_text("\n".join(lines))
    assert predict.command(opened, {}) == 0
    assert "| known | 1 | 3 | -1.00" in capsys.readouterr().out
