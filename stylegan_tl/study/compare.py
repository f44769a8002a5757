"""`python -m stylegan_tl.study compare study=reproduce_…`: measured beside published.

A study's `published:` is a list of tables. One table:

    title: where it stands in the paper
    metric: fid5k_train_inception       # the paper's, as a name of ours
    measured: kid5k_train_inception     # what the study measures instead, if so: ranks only
    protocol: what the name does not say
    score: values | ranks               # ranks: Spearman over the rows of each column
    tolerance: 0.15                     # values: relative; ranks: the least mean correlation
    measure: best | final
    unit: 0.001                         # published number x unit = ours
    columns: {target: [a, b]}           # a factor of the cells, or kimg: points of the curve
    rows:
      - {source: c, freeze: none, values: [48.7 V, 34.1 M]}

Marks: V read in the paper, its code or a copy of the table; M from memory; null: not known.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylegan_tl.files import write_atomic
from stylegan_tl.study.collect import Outcome, check_protocols, check_unique, collect
from stylegan_tl.study.curves import value_at
from stylegan_tl.study.statistics import mean_interval, spearman

if TYPE_CHECKING:
    from stylegan_tl.study.opened import Opened

__all__ = [
    "MARKS",
    "Comparison",
    "Published",
    "Table",
    "agreement",
    "command",
    "compare",
    "load_published",
]

MARKS = {"V": "read", "M": "from memory"}
_REQUIRED = frozenset(("title", "metric", "score", "tolerance", "columns", "rows"))
_OPTIONAL = frozenset(("measured", "protocol", "measure", "unit"))


@dataclass(frozen=True)
class Published:
    """One number of a paper: `value` in our unit, its mark, and the cell that it belongs to."""

    cell: Mapping[str, str]
    column: str
    value: float
    mark: str
    kimg: float | None = None


@dataclass(frozen=True)
class Table:
    """One table of a paper. `metric` is the paper's; `measured` what trials are read for."""

    title: str
    metric: str
    measured: str
    score: str
    tolerance: float
    measure: str
    protocol: str
    numbers: tuple[Published, ...]


@dataclass(frozen=True)
class Comparison:
    """A published number and the values of the complete runs of its cell.

    `begun` runs there are, `complete` of them, and `runs` have a value of the metric.
    """

    published: Published
    runs: tuple[float, ...]
    begun: int
    complete: int
    tolerance: float | None

    @property
    def mean(self) -> float:
        """Of the runs; NaN without any."""
        return float(np.mean(self.runs)) if self.runs else math.nan

    @property
    def verdict(self) -> str:
        """Whether the mean, or its interval over seeds, meets published ± tolerance."""
        if not self.runs:
            begun = f"not complete ({self.begun} begun)" if self.begun else "not run"
            return "not measured" if self.complete else begun
        if self.tolerance is None:
            return ""
        value, slack = self.published.value, self.tolerance * abs(self.published.value)
        low, high = mean_interval(self.runs)
        low, high = (self.mean, self.mean) if math.isnan(low) else (low, high)
        if abs(self.mean - value) <= slack:
            return "agrees"
        near = low <= value + slack and high >= value - slack
        return "agrees within seeds" if near else "differs"


def compare(
    root: str | Path,
    published: Sequence[Mapping[str, Any]],
    *,
    out: str | Path | None = None,
    factors: Sequence[str] = (),
    same_reals: bool = True,
) -> str:
    """Set the trials under `root` beside a study's `published` tables; return the Markdown.

    Writes compare.csv and compare.md to `out` (`root` if None). What was not run is listed so.
    Raises ValueError for tables that are not well-formed and for a number that several cells could
    be meant by; ProtocolMismatch for trials that were measured differently.
    """
    tables = load_published(published)
    outcomes = collect(root, factors)
    check_unique(outcomes, root)
    check_protocols(outcomes, sorted({t.measured for t in tables}), same_reals=same_reals)
    found = [(table, [_compared(n, table, outcomes) for n in table.numbers]) for table in tables]
    text = "\n".join([f"# {Path(root).name}: measured beside published\n", *_markdown(found)])
    folder = Path(out if out is not None else root)
    write_atomic(folder / "compare.csv", _csv(found).encode())
    write_atomic(folder / "compare.md", text.encode())
    return text


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Compare the study of a command line; `out=` and `same_reals=` are its options."""
    study = opened.study
    text = compare(
        opened.runs / study.name,
        study.published or (),
        out=options.get("out"),
        factors=list(study.factors),
        same_reals=options.get("same_reals", "true").lower() == "true",
    )
    print(text)
    return 0


def load_published(published: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The tables of a study's `published:`; ValueError with everything that is wrong."""
    if not isinstance(published, Sequence) or not published:
        raise ValueError("study.published: expected a list of tables; this study has none")
    problems = [p for i, table in enumerate(published) for p in _problems(i, table)]
    if problems:
        raise ValueError("the published tables are not well-formed:\n  " + "\n  ".join(problems))
    return [_table(table) for table in published]


def agreement(found: Sequence[Comparison]) -> list[tuple[str, int, float]]:
    """(column, rows, Spearman of measured and published) for each column with two rows of both."""
    result = []
    for column in dict.fromkeys(c.published.column for c in found):
        own = [c for c in found if c.published.column == column and c.runs]
        if len(own) > 1:
            rho = spearman([c.published.value for c in own], [c.mean for c in own])
            result.append((column, len(own), float(rho)))
    return result


def _problems(number: int, table: Any) -> Iterator[str]:
    where = f"published[{number}]"
    if not isinstance(table, Mapping):
        yield f"{where}: expected a mapping"
        return
    for key in sorted(_REQUIRED - table.keys()):
        yield f"{where}.{key} is missing"
    for key in sorted(table.keys() - _REQUIRED - _OPTIONAL):
        yield f"{where}.{key}: no such key; there are {', '.join(sorted(_REQUIRED | _OPTIONAL))}"
    if _REQUIRED - table.keys():
        return
    if table["score"] not in ("values", "ranks"):
        yield f"{where}.score={table['score']}: use values or ranks"
    if table["score"] == "values" and table.get("measured", table["metric"]) != table["metric"]:
        yield f"{where}: {table['measured']} is not {table['metric']}: only ranks compare"
    if table.get("measure", "best") not in ("best", "final"):
        yield f"{where}.measure={table['measure']}: use best or final"
    if len(table["columns"]) != 1:
        yield f"{where}.columns: expected one key with a list"
        return
    (columns,) = table["columns"].values()
    for index, row in enumerate(table["rows"]):
        values = row.get("values", [])
        if len(values) != len(columns):
            yield f"{where}.rows[{index}]: {len(values)} values for {len(columns)} columns"
        for value in values:
            if value is not None and _parsed(value) is None:
                yield f"{where}.rows[{index}]: {value!r}: a number and a mark (12.3 V), or null"


def _parsed(text: Any) -> tuple[float, str] | None:
    number, _, mark = str(text).partition(" ")
    try:
        return (float(number), mark) if mark in MARKS else None
    except ValueError:
        return None


def _table(table: Mapping[str, Any]) -> Table:
    ((key, columns),) = table["columns"].items()
    numbers = []
    for row in table["rows"]:
        cell = {k: str(v) for k, v in row.items() if k != "values"}
        for column, text in zip(columns, row["values"], strict=True):
            if text is not None:
                value, mark = _parsed(text)
                at = {"kimg": float(column)} if key == "kimg" else {}
                whole = cell if at else {**cell, key: str(column)}
                unit = float(table.get("unit", 1))
                numbers.append(Published(whole, str(column), value * unit, mark, **at))
    return Table(
        title=str(table["title"]),
        metric=table["metric"],
        measured=table.get("measured", table["metric"]),
        score=table["score"],
        tolerance=float(table["tolerance"]),
        measure=table.get("measure", "best"),
        protocol=str(table.get("protocol", "")),
        numbers=tuple(numbers),
    )


def _compared(number: Published, table: Table, outcomes: Sequence[Outcome]) -> Comparison:
    own = [o for o in outcomes if o.cell and _is_meant(number.cell, o)]
    if len(cells := {tuple(o.cell.values()) for o in own}) > 1:
        raise ValueError(
            f"{table.title}: {dict(number.cell)} could mean several cells: "
            + "; ".join(", ".join(c) for c in sorted(cells))
        )
    complete = [o for o in own if o.is_complete]
    curves = [o.curves[table.measured] for o in complete if table.measured in o.curves]
    values = [_value(c, table.measure, number.kimg) for c in curves]
    tolerance = table.tolerance if table.score == "values" else None
    known = tuple(v for v in values if not math.isnan(v))
    return Comparison(number, known, len(own), len(complete), tolerance)


def _is_meant(cell: Mapping[str, str], outcome: Outcome) -> bool:
    """Whether an outcome is of this cell; scratch has no other source, and data may move."""
    own = {**outcome.cell, "source": "scratch" if outcome.is_scratch else outcome.cell["source"]}
    same = (k in own and (own[k] == v or _last(own[k]) == _last(v)) for k, v in cell.items())
    return all(same)


def _last(name: str) -> str:
    """The last component, without what a packed file is called by: datasets/obama.zip: obama."""
    return name.rstrip("/").rpartition("/")[2].removesuffix(".zip")


def _value(curve: Any, measure: str, kimg: float | None) -> float:
    if kimg is not None:
        return value_at(curve.kimg, curve.values, kimg)
    return curve.best[0] if measure == "best" else curve.final


def _markdown(found: Sequence[tuple[Table, Sequence[Comparison]]]) -> Iterator[str]:
    for table, rows in found:
        yield f"## {table.title}\n"
        other = f", measured: {table.measured}" if table.measured != table.metric else ""
        yield f"Published: {table.metric}{other}. {table.protocol}\n"
        yield f"{_verdict(table, rows)}\n"
        yield "| cell | published | mark | measured | seeds | difference | verdict |"
        yield "|---|---|---|---|---|---|---|"
        yield from map(_line, rows)
        yield ""


def _verdict(table: Table, rows: Sequence[Comparison]) -> str:
    run = [c for c in rows if c.runs]
    marks = Counter(c.published.mark for c in rows)
    ledger = ", ".join(f"{count} {MARKS[mark]}" for mark, count in sorted(marks.items()))
    head = f"{len(rows)} published numbers ({ledger}), {len(run)} of them measured."
    if table.score == "values":
        agree = sum(c.verdict.startswith("agrees") for c in run)
        return f"{head} {agree} of {len(run)} agree within {table.tolerance:.0%}."
    columns = [(name, n, rho) for name, n, rho in agreement(rows) if not math.isnan(rho)]
    if not columns:
        return f"{head} Compared by ranks: no column has two measured rows that differ."
    mean = float(np.mean([rho for *_, rho in columns]))
    each = ", ".join(f"{_last(name)} {rho:+.2f} ({n} rows)" for name, n, rho in columns)
    said = "agrees" if mean >= table.tolerance else "differs"
    return (
        f"{head} Compared by ranks, Spearman over the rows of each column: {each}; "
        f"mean {mean:+.2f}, asked for {table.tolerance:+.2f}: {said}."
    )


def _line(row: Comparison) -> str:
    own = row.published
    cell = ", ".join(_last(v) for v in own.cell.values())
    at = f" at {own.kimg:g} kimg" if own.kimg is not None else ""
    low, high = mean_interval(row.runs)
    spread = "" if math.isnan(low) else f" ± {(high - low) / 2:.2g}"
    measured = f"{row.mean:.4g}{spread}" if row.runs else "–"
    difference = f"{row.mean / own.value - 1:+.0%}" if row.runs and own.value else "–"
    shown = [cell + at, f"{own.value:.4g}", own.mark, measured, f"{len(row.runs)} of {row.begun}"]
    return "| " + " | ".join([*shown, difference, row.verdict]) + " |"


def _csv(found: Sequence[tuple[Table, Sequence[Comparison]]]) -> str:
    names = list(dict.fromkeys(k for _, rows in found for c in rows for k in c.published.cell))
    header = ["table", "metric", "measured_metric", "protocol", *names, "kimg", "published", "mark"]
    text = io.StringIO()
    header += ["measured", "low", "high", "seeds", "begun", "verdict"]
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    for table, rows in found:
        shared = {"table": table.title, "metric": table.metric, "measured_metric": table.measured}
        for row in rows:
            low, high = mean_interval(row.runs)
            numbers = {"measured": row.mean, "low": low, "high": high}
            known = {k: "" if math.isnan(v) else f"{v:.9g}" for k, v in numbers.items()}
            own = {"kimg": row.published.kimg, "published": row.published.value}
            own |= {"mark": row.published.mark, "seeds": len(row.runs), "begun": row.begun}
            own |= {"verdict": row.verdict, "protocol": table.protocol}
            writer.writerow({**shared, **row.published.cell, **own, **known})
    return text.getvalue()
