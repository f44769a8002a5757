"""A study's summary: a line per source and strategy, a column per target, and what holds overall.

A cell is the mean over seeds with Student's interval. Over all targets a line has the interquartile
mean of its relative improvement on the baseline and the probability that one of its runs beats one
of the baseline's, both with stratified bootstrap intervals (Agarwal et al. 2021), and its mean
rank. Only complete trials count; a cell says how many of how many they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stylegan_tl.study.scores import CONTROLS, MEASURES, Score, controls_of
from stylegan_tl.study.statistics import (
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean_interval,
    probability_of_improvement,
    ranks,
)

__all__ = ["Cell", "Line", "digits", "latex", "markdown", "plus_minus", "summary"]

Interval = tuple[float, float]
UNKNOWN = "–"


@dataclass(frozen=True)
class Cell:
    """One line under one target: the values of its complete runs, and how many were asked for.

    `values` may hold inf (never reached) and lack runs that failed or gave no number.
    """

    values: tuple[float, ...]
    asked: int
    is_best: bool = False

    @property
    def mean(self) -> float:
        """Over the finite values: of a speed those that arrived. NaN without any."""
        known = [v for v in self.values if math.isfinite(v)]
        return float(np.mean(known)) if known else math.nan

    @property
    def interval(self) -> Interval:
        """Of the mean over seeds; NaN for one seed, or where a run never arrived."""
        return mean_interval(self.values)

    @property
    def order(self) -> float:
        """What ranks it: the mean, inf if a run never arrived."""
        return float(np.mean(self.values)) if self.values else math.nan


@dataclass(frozen=True)
class Line:
    """One source and strategy. NaN where there is no baseline, or nothing to draw from.

    `uplift` is the IQM of (baseline − value) / |baseline|, or its negative where more is better;
    beside a baseline near 0, as of KID, only `improvement` and `rank` mean anything.
    """

    key: Mapping[str, str]
    cells: Mapping[str, Cell]
    uplift: float
    uplift_interval: Interval
    improvement: float
    improvement_interval: Interval
    rank: float


def summary(
    found: Sequence[Score],
    measure: str = "final",
    *,
    baseline: str = "scratch",
    generator: np.random.Generator,
    rounds: int = 2000,
    seeds: int = 0,
) -> list[Line]:
    """Lines of one metric's scores, by mean rank. ValueError for scores of several metrics.

    `seeds` is how many trials of a cell were asked for; those that were begun count if more.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r}, allowed: {', '.join(MEASURES)}")
    if len({score.metric for score in found}) > 1:
        raise ValueError("a summary is of one metric")
    groups = _grouped(found)
    values = {key: _values(own, measure) for key, own in groups.items()}
    better = _direction(found, measure)
    order = _ranks(groups, values, better)
    against = _baselines(groups, found, baseline, measure)
    lines = []
    for key in _keys(groups):
        targets = [k for k in groups if k[0] == key]
        pairs = [(values[k], against[k]) for k in targets]
        lines.append(
            Line(
                key=dict(key),
                cells={k[1]: _cell_of(values[k], groups[k], seeds, order[k] == 1) for k in targets},
                **_overall(pairs, better, generator, rounds, measure),
                rank=_mean([order[k] for k in targets]),
            )
        )
    return sorted(lines, key=lambda line: (math.isnan(line.rank), line.rank))


def _cell_of(values: tuple[float, ...], own: Sequence[Score], seeds: int, is_best: bool) -> Cell:
    return Cell(values, max(len(own), seeds), is_best)


def markdown(lines: Sequence[Line], baseline: str) -> str:
    """The lines as a Markdown table; factors that never change are left out."""
    header, rows = _texts(lines, baseline, bold=lambda text: f"**{text}**")
    table = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in table)


def latex(lines: Sequence[Line], baseline: str, caption: str) -> str:
    """The lines as a LaTeX table for `booktabs`."""
    header, rows = _texts(lines, baseline, bold=lambda text: f"\\textbf{{{text}}}", escape=_escape)
    names = len(_changing(lines))
    body = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{_escape(caption)}}}",
            f"\\begin{{tabular}}{{{'l' * names}{'r' * (len(header) - names)}}}",
            r"\toprule",
            " & ".join(map(_escape, header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


Key = tuple[tuple[tuple[str, str], ...], str]  # (the line's factors, the target)


def _grouped(found: Sequence[Score]) -> dict[Key, list[Score]]:
    groups: dict[Key, list[Score]] = defaultdict(list)
    for score in found:
        cell = score.outcome.cell
        if cell:
            line = tuple((k, v) for k, v in cell.items() if k != "target")
            groups[line, cell["target"]].append(score)
    return groups


def _keys(groups: Mapping[Key, object]) -> list[tuple[tuple[str, str], ...]]:
    return list(dict.fromkeys(line for line, _ in groups))


def _values(own: Sequence[Score], measure: str) -> tuple[float, ...]:
    values = [getattr(s, measure) for s in own if s.outcome.is_complete]
    return tuple(v for v in values if not math.isnan(v))


def _direction(found: Sequence[Score], measure: str) -> str:
    return (
        "min" if measure == "kimg_to_reach" else next((s.better for s in found if s.better), "min")
    )


def _ranks(
    groups: Mapping[Key, Sequence[Score]], values: Mapping[Key, tuple[float, ...]], better: str
) -> dict[Key, float]:
    """The rank of each cell's mean among those of its target and model; NaN without a value."""
    places = defaultdict(list)
    order = dict.fromkeys(groups, math.nan)
    for key, own in groups.items():
        if values[key]:
            places[own[0].outcome.place].append(key)
    for keys in places.values():
        means = np.array([np.mean(values[k]) for k in keys])
        placed = ranks(-means if better == "max" else means)
        order |= {key: float(rank) for key, rank in zip(keys, placed, strict=True)}
    return order


def _baselines(
    groups: Mapping[Key, Sequence[Score]], found: Sequence[Score], baseline: str, measure: str
) -> dict[Key, tuple[float, ...]]:
    """For each cell the values of its baseline's runs; none for the baseline itself."""
    peers = defaultdict(list)
    score_of, scratch = {}, defaultdict(list)
    for score in found:
        if score.outcome.is_complete:
            peers[score.outcome.place].append(score.outcome)
            score_of[id(score.outcome)] = score
            if score.outcome.is_scratch:
                scratch[score.outcome.place].append(score.outcome)
    result = {}
    for key, own in groups.items():
        outcome = own[0].outcome
        among = scratch if baseline in CONTROLS else peers
        controls = controls_of(outcome, among[outcome.place], baseline)
        is_itself = any(score.outcome in controls for score in own)
        runs = [] if is_itself else [score_of[id(control)] for control in controls]
        result[key] = _values(runs, measure)
    return result


def _overall(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    better: str,
    generator: np.random.Generator,
    rounds: int,
    measure: str,
) -> dict[str, float | Interval]:
    """A line against its baseline over all targets where both have runs."""
    pairs = [(own, other) for own, other in pairs if own and other]
    ours, theirs = [list(own) for own, _ in pairs], [list(other) for _, other in pairs]
    nothing = (math.nan, math.nan)
    known = {"uplift": math.nan, "uplift_interval": nothing}
    if pairs and measure != "kimg_to_reach":
        strata = [np.array(x, float) for pair in pairs for x in pair]
        known["uplift"] = float(_relative([x[None] for x in strata], better)[0])
        known["uplift_interval"] = bootstrap_interval(
            strata, lambda drawn: _relative(drawn, better), generator=generator, rounds=rounds
        )
    interval = (
        improvement_interval(ours, theirs, better, generator=generator, rounds=rounds)
        if pairs
        else nothing
    )
    return {
        **known,
        "improvement": probability_of_improvement(ours, theirs, better),
        "improvement_interval": interval,
    }


def _relative(strata: Sequence[np.ndarray], better: str) -> np.ndarray:
    """[rounds]: IQM over all runs of the improvement on the baseline's mean, relative to it."""
    sign = 1.0 if better == "max" else -1.0
    gains = []
    for own, other in zip(strata[::2], strata[1::2], strict=True):
        base = other.mean(-1, keepdims=True)
        gains.append(sign * (own - base) / np.where(base, np.abs(base), np.nan))
    return iqm(np.concatenate(gains, -1))


def _mean(x: Sequence[float]) -> float:
    known = [v for v in x if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _texts(
    lines: Sequence[Line],
    baseline: str,
    *,
    bold: Callable[[str], str],
    escape: Callable[[str], str] = str,
) -> tuple[list[str], list[list[str]]]:
    names = _changing(lines)
    targets = list(dict.fromkeys(target for line in lines for target in line.cells))
    overall = [f"IQM of gain on {baseline}", f"P(better than {baseline})", "mean rank"]
    rows = []
    for line in lines:
        cells = []
        for target in targets:
            cell = line.cells.get(target)
            text = escape(_cell(cell)) if cell else UNKNOWN
            cells.append(bold(text) if cell and cell.is_best else text)
        tail = [
            _with_interval(line.uplift, line.uplift_interval, "{:+.1%}"),
            _with_interval(line.improvement, line.improvement_interval, "{:.2f}"),
            UNKNOWN if math.isnan(line.rank) else f"{line.rank:.1f}",
        ]
        rows.append([escape(line.key[n]) for n in names] + cells + [escape(t) for t in tail])
    return [*names, *targets, *overall], rows


def _changing(lines: Sequence[Line]) -> list[str]:
    """Factors to show: source and freeze, and any other that takes more than one value."""
    every = list(dict.fromkeys(name for line in lines for name in line.key))
    return [
        name
        for name in every
        if name in ("source", "freeze") or len({line.key.get(name) for line in lines}) > 1
    ]


def _cell(cell: Cell) -> str:
    known = [v for v in cell.values if math.isfinite(v)]
    count = f" ({len(known)} of {cell.asked})" if len(known) != cell.asked else ""
    if not known:
        return ("never" if cell.values else UNKNOWN) + count
    return plus_minus(cell.mean, cell.interval) + count


def plus_minus(mean: float, interval: Interval, between: str = " ") -> str:
    """A mean and half of its interval, as `5.84 ± 0.9`; the mean alone where there is none."""
    low, high = interval
    spread = "" if math.isnan(low) else f"{between}± {digits((high - low) / 2, 2)}"
    return digits(mean, 3) + spread


def digits(value: float, count: int) -> str:
    """At least `count` significant digits, without an exponent unless the number is tiny."""
    if not value or not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{count}g}"
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(abs(value))))}f}"


def _with_interval(value: float, interval: Interval, form: str) -> str:
    if math.isnan(value):
        return UNKNOWN
    low, high = interval
    shown = "" if math.isnan(low) else f" [{form.format(low)}, {form.format(high)}]"
    return form.format(value) + shown


def _escape(text: str) -> str:
    """Plain text as LaTeX."""
    special = {c: "\\" + c for c in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        ">": "$>$",
        "<": "$<$",
    }
    return "".join(special.get(c, c) for c in text)
