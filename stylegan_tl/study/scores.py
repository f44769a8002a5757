"""What is read off each trial's curve, and how much better it is than its controls."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylegan_tl.study.collect import Outcome
from stylegan_tl.study.curves import goal, kimg_to_reach, log_area, value_at

__all__ = ["CONTROLS", "MEASURES", "Score", "controls_of", "measures_of", "scores"]

CONTROLS = ("scratch", "scratch_augment")
MEASURES = {
    "final": "at the end",
    "best": "best evaluation",
    "area": "mean over log kimg",
    "kimg_to_reach": "kimg to reach X",
}
"""What a summary can be made of."""


@dataclass(frozen=True, slots=True)
class Score:
    """One trial under one metric. NaN: unknown; inf kimg_to_reach: not within the budget.

    `goal` is the X to reach; the area is the curve's mean over log kimg within `area_range`.
    `uplift` is {control: how much better at equal kimg, in the metric's unit}, `equal_kimg` where.
    """

    outcome: Outcome
    metric: str
    better: str = "min"
    best: float = math.nan
    best_kimg: float = math.nan
    final: float = math.nan
    goal: float = math.nan
    kimg_to_reach: float = math.nan
    area: float = math.nan
    area_range: tuple[float, float] = (math.nan, math.nan)
    uplift: Mapping[str, float] | None = None
    equal_kimg: Mapping[str, float] | None = None

    def row(self) -> dict[str, Any]:
        """The row of a tidy CSV: one trial and one metric."""
        o, uplift, equal = self.outcome, self.uplift or {}, self.equal_kimg or {}
        return {
            "study": o.study,
            **o.cell,
            "seed": o.seed,
            "metric": self.metric,
            "better": self.better,
            "state": o.state,
            "kimg": o.kimg,
            "best": self.best,
            "best_kimg": self.best_kimg,
            "final": self.final,
            "goal": self.goal,
            "kimg_to_reach": self.kimg_to_reach,
            "area": self.area,
            "area_from": self.area_range[0],
            "area_to": self.area_range[1],
            **{f"uplift_{c}": uplift.get(c, math.nan) for c in CONTROLS},
            **{f"uplift_{c}_kimg": equal.get(c, math.nan) for c in CONTROLS},
            **{f"frozen_{net}": o.frozen.get(net) for net in "GD"},
            **{f"parameters_{net}": o.parameters.get(net) for net in "GD"},
            "seconds": o.seconds,
            "run": o.run,
            "reason": o.reason,
        }


def measures_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The names of all metrics that any trial has."""
    return sorted({name for outcome in outcomes for name in outcome.curves})


def scores(
    outcomes: Sequence[Outcome], metrics: Sequence[str], baseline: str = "scratch"
) -> Iterator[Score]:
    """A score for every trial and metric, in this order; nothing is left out.

    A trial that is not complete keeps what it measured, but is compared with nothing.
    """
    places = defaultdict(list)
    for outcome in outcomes:
        if outcome.is_complete:
            places[outcome.place].append(outcome)
    for metric in metrics:
        shared = {place: _Place(peers, metric, baseline) for place, peers in places.items()}
        for outcome in outcomes:
            yield _score(outcome, metric, shared.get(outcome.place))


def controls_of(outcome: Outcome, peers: Sequence[Outcome], name: str) -> list[Outcome]:
    """The runs that `outcome` is held against, among complete `peers` of its target and model.

    "scratch" is the one without augmentation; "scratch_augment" that with the outcome's own, else
    with ada, else with the only one there is. Any other name is a strategy: that of the same source
    and augmentation.
    """
    if name not in CONTROLS:
        same = [p for p in peers if p.cell["freeze"] == name and not p.is_scratch]
        return [p for p in same if all(p.cell[k] == outcome.cell[k] for k in ("source", "augment"))]
    scratch = [p for p in peers if p.is_scratch]
    if name == "scratch":
        return [p for p in scratch if p.cell["augment"] == "none"]
    kinds = {p.cell["augment"] for p in scratch} - {"none"}
    wanted = next((k for k in (outcome.cell["augment"], "ada") if k in kinds), None)
    wanted = wanted or (kinds.pop() if len(kinds) == 1 else None)
    return [p for p in scratch if p.cell["augment"] == wanted]


class _Place:
    """What trials of one target and model share under one metric: range of areas, controls."""

    def __init__(self, peers: Sequence[Outcome], metric: str, baseline: str) -> None:
        self.metric, self.baseline = metric, baseline
        self.peers = [p for p in peers if metric in p.curves]
        curves = [p.curves[metric].kimg for p in self.peers]
        starts = [kimg[kimg > 0][:1] for kimg in curves]
        whole = bool(curves) and all(len(s) for s in starts)
        self.range = (
            (float(max(s[0] for s in starts)), float(min(k[-1] for k in curves)))
            if whole
            else (math.nan, math.nan)
        )
        self._known: dict[tuple, Any] = {}

    def controls(self, outcome: Outcome, name: str) -> list[Outcome]:
        key = _control_key(outcome, name)
        if key not in self._known:
            self._known[key] = controls_of(outcome, self.peers, name)
        return self._known[key]

    def goal(self, outcome: Outcome, better: str) -> float:
        key = ("goal", *_control_key(outcome, self.baseline))
        if key not in self._known:
            runs = self.controls(outcome, self.baseline)
            best = [p.curves[self.metric].best[0] for p in runs]
            known = [b for b in best if not math.isnan(b)]
            self._known[key] = goal(float(np.mean(known)), better) if known else math.nan
        return self._known[key]

    def level(self, outcome: Outcome, name: str) -> tuple[float, float]:
        """(the control's mean at the last kimg that it and `outcome` have, that kimg)."""
        curves = [p.curves[self.metric] for p in self.controls(outcome, name)]
        if not curves:
            return math.nan, math.nan
        at = float(min(c.kimg[-1] for c in [outcome.curves[self.metric], *curves]))
        key = ("level", at, *_control_key(outcome, name))
        if key not in self._known:
            self._known[key] = float(np.mean([value_at(c.kimg, c.values, at) for c in curves]))
        return self._known[key], at


def _control_key(outcome: Outcome, name: str) -> tuple[str, str, str]:
    """What `controls_of` looks at."""
    return name, "" if name in CONTROLS else outcome.cell["source"], outcome.cell["augment"]


def _score(outcome: Outcome, metric: str, place: _Place | None) -> Score:
    curve = outcome.curves.get(metric)
    if curve is None:
        return Score(outcome, metric, better="")
    best, best_kimg = curve.best
    own = {"better": curve.better, "best": best, "best_kimg": best_kimg, "final": curve.final}
    if not outcome.is_complete or place is None:
        return Score(outcome, metric, **own)
    x = place.goal(outcome, curve.better)
    reach = kimg_to_reach(curve.kimg, curve.values, x, curve.better)
    start, end = place.range
    compared = {name: _uplift(outcome, place, name) for name in CONTROLS}
    return Score(
        outcome,
        metric,
        **own,
        goal=x,
        kimg_to_reach=math.nan if math.isnan(x) else reach,
        area=log_area(curve.kimg, curve.values, start, end) if 0 < start < end else math.nan,
        area_range=place.range if 0 < start < end else (math.nan, math.nan),
        uplift={name: value for name, (value, _) in compared.items()},
        equal_kimg={name: at for name, (_, at) in compared.items()},
    )


def _uplift(outcome: Outcome, place: _Place, name: str) -> tuple[float, float]:
    """(how much better than the control's mean, at which kimg)."""
    control, at = place.level(outcome, name)
    own = outcome.curves[place.metric]
    if math.isnan(at):
        return math.nan, math.nan
    difference = value_at(own.kimg, own.values, at) - control
    return (difference if own.better == "max" else 0.0 - difference), at
