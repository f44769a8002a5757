"""What a strategy does over kimg: the mean over all pairs, of the means over their seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stylegan_tl.study.collect import Outcome
from stylegan_tl.study.statistics import strata_interval
from stylegan_tl.study.summary import digits

__all__ = ["Course", "courses", "markdown"]

_COLUMNS = 9
"""Moments that a table shows at most: the first, the last, and even between them."""


@dataclass(frozen=True, eq=False)
class Course:
    """One strategy, or the controls of one augmentation (`freeze` is then "scratch").

    `mean`, `low` and `high` are [n] at `kimg` [n], where all of its runs were measured. The 95 %
    interval is over seeds, for these pairs (`strata_interval`): NaN where a pair has one.
    """

    key: Mapping[str, str]
    pairs: int
    kimg: tuple[float, ...]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def courses(outcomes: Sequence[Outcome], metric: str) -> list[Course]:
    """One for each strategy, model and whatever else tells cells apart; complete trials only."""
    groups: dict[tuple, dict[tuple, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        if outcome.is_complete and metric in outcome.curves:
            pair = outcome.cell["source"], outcome.cell["target"]
            groups[_key(outcome)][pair].append(outcome)
    found = (_course(dict(k), pairs, metric) for k, pairs in groups.items())
    return [course for course in found if course.kimg]


def markdown(found: Sequence[Course]) -> str:
    """A table for every set of kimg: a line per strategy, a column per moment."""
    shown = [k for k in found[0].key if k == "freeze" or len({c.key.get(k) for c in found}) > 1]
    tables = []
    for kimg in dict.fromkeys(course.kimg for course in found):
        places = np.unique(np.linspace(0, len(kimg) - 1, _COLUMNS).round().astype(int))
        header = [*shown, "pairs", *(f"{kimg[i]:g} kimg" for i in places)]
        rows = [
            [*(c.key.get(k, "") for k in shown), str(c.pairs), *(_text(c, i) for i in places)]
            for c in found
            if c.kimg == kimg
        ]
        lines = [header, ["---"] * len(header), *rows]
        tables.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(tables)


def _key(outcome: Outcome) -> tuple[tuple[str, str], ...]:
    cell = {k: v for k, v in outcome.cell.items() if k not in ("source", "target")}
    if outcome.is_scratch:
        cell["freeze"] = "scratch"
    return tuple(cell.items())


def _course(
    key: Mapping[str, str], pairs: Mapping[tuple, Sequence[Outcome]], metric: str
) -> Course:
    own = [[_measured(o, metric) for o in runs] for runs in pairs.values()]
    common = set.intersection(*(set(run) for runs in own for run in runs))
    kimg = tuple(sorted(common))
    strata = [[np.array([run[k] for run in runs]) for runs in own] for k in kimg]
    mean = np.array([np.mean([runs.mean() for runs in at]) for at in strata])
    low, high = np.array([strata_interval(at) for at in strata]).reshape(-1, 2).T
    return Course(key, len(pairs), kimg, mean, low, high)


def _measured(outcome: Outcome, metric: str) -> dict[float, float]:
    """{kimg: value} of the evaluations that gave a number."""
    curve = outcome.curves[metric]
    rows = zip(curve.kimg.round(6).tolist(), curve.values.tolist(), strict=True)
    return {kimg: value for kimg, value in rows if np.isfinite(value)}


def _text(course: Course, at: int) -> str:
    text = digits(float(course.mean[at]), 3)
    if not course.low[at] < course.high[at]:  # one seed, or what all of them began with
        return text
    return f"{text} [{digits(float(course.low[at]), 3)}, {digits(float(course.high[at]), 3)}]"
