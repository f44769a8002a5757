"""What `study predict` found, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from stylegan_tl.study.predictors import NAMES

if TYPE_CHECKING:
    from stylegan_tl.study.predict import Interval, Prediction

__all__ = ["TWO_SOURCES", "as_csv", "as_markdown"]

TWO_SOURCES = (
    "No target has more than two sources: the rank correlation of two can only be +1, -1 or, where "
    "they tie, 0, and their regret all or nothing. Read it as a hint only."
)


def as_csv(found: Sequence[Prediction]) -> str:
    """A row per prediction; an interval is two columns, an unknown number empty."""
    text = io.StringIO()
    rows = []
    for prediction in found:
        row = {f.name: getattr(prediction, f.name) for f in fields(prediction)}
        for key in [k for k, v in row.items() if isinstance(v, tuple)]:
            row |= dict(zip((f"{key}_low", f"{key}_high"), row.pop(key), strict=True))
        rows.append(
            {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        )
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(found: Sequence[Prediction], outcome: str) -> str:
    """A table per strategy, below what all of them share."""
    names = "predictor targets pairs Spearman Kendall".split()
    header = [*names, "top-1 regret", "regret by chance", "Spearman, learned", "note"]
    lines = [
        f"# What chooses the source? Outcome: {outcome}",
        "",
        "Means over targets. First bracket: 95 % interval over seeds, second: over targets.",
        _sources(found),
        NAMES,
    ]
    for strategy in dict.fromkeys(p.strategy for p in found):
        lines += ["", f"## {strategy}", "", "| " + " | ".join(header) + " |", "|---" * 9 + "|"]
        for p in (p for p in found if p.strategy == strategy):
            cells = [p.predictor, str(p.targets), str(p.pairs)]
            cells += [
                _shown(p.spearman, p.spearman_seeds, p.spearman_targets, form="{:+.2f}"),
                _shown(p.kendall, form="{:+.2f}"),
                _shown(p.regret, p.regret_seeds, p.regret_targets, form="{:.3g}"),
                _shown(p.chance, form="{:.3g}"),
                _shown(p.spearman_learned, form="{:+.2f}"),
                p.note,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _sources(found: Sequence[Prediction]) -> str:
    """How many sources each target has, and what that means where they are two."""
    low, high = min(p.sources[0] for p in found), max(p.sources[1] for p in found)
    counts = f"Sources per target: {low}{f' to {high}' if high > low else ''}."
    return f"{counts} {TWO_SOURCES}" if high == 2 else counts


def _shown(value: float, *intervals: Interval, form: str) -> str:
    if math.isnan(value):
        return "–"
    known = [f"[{form.format(a)}, {form.format(b)}]" for a, b in intervals if not math.isnan(a)]
    return " ".join([form.format(value), *known])
