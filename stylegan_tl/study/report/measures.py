"""Numbers of a page that are not read off a curve directly: as `study table` has them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_tl.study.collect import collect
from stylegan_tl.study.predict import predictions
from stylegan_tl.study.predictors import read_predictors
from stylegan_tl.study.scores import measures_of, scores
from stylegan_tl.study.statistics import bootstrap_interval

__all__ = ["STATS", "add_measures", "choices", "intervals", "predictors"]

STATS = ("final", "best", "area", "kimg_to_reach")
SHOWN = ("value", "gain", "percent")
_NEVER = "never"

Trials = Sequence[dict[str, Any]]
Row = tuple[float, ...]


def add_measures(
    trials: Trials, roots: Sequence[Path], base: Path, factors: Sequence[str], baseline: str
) -> None:
    """Give each trial `measures`: {metric: {stat: value}}, "never" for a goal not reached.

    Those of `study.scores`: area under the curve over log kimg, kimg to reach 1.1 × the best of
    `baseline` (a control) on the same target and model.
    """
    by_folder = {str((base / trial["path"]).resolve()): trial for trial in trials}
    for trial in trials:
        trial["measures"] = defaultdict(dict)
    for root in roots:
        outcomes = collect(root, factors)
        for score in scores(outcomes, measures_of(outcomes), baseline):
            trial = by_folder.get(str((root / score.outcome.run).resolve()))
            if trial is not None and score.metric in score.outcome.curves:
                trial["measures"][score.metric] = {n: _plain(getattr(score, n)) for n in STATS}


def intervals(
    trials: Trials, metrics: Mapping[str, Mapping[str, Any]], controls: Sequence[str], seed: int = 0
) -> dict[str, list[float]]:
    """{metric|stat|shown|control|model|variant|strategy: [low, high]}: 95 % interval of a mean.

    The mean over pairs of their means over seeds, by the stratified bootstrap of
    `study.statistics`: runs, and those of the control beside them, are drawn anew within each pair.
    None where a pair has fewer than three runs.
    """
    found = {}
    for metric in metrics:
        for stat in STATS:
            better = "min" if stat == "kimg_to_reach" else metrics[metric]["better"]
            own, control = _runs(trials, metric, stat)
            for shown in SHOWN:
                for name in [""] if shown == "value" else controls:
                    for (model, variant, freeze), pairs in own.items():
                        key = "|".join((metric, stat, shown, name, model, variant, freeze))
                        strata = list(_strata(pairs, control, name, model, variant))
                        low, high = _interval(strata, shown, better, seed)
                        if not math.isnan(low):
                            found[key] = [_plain(low), _plain(high)]
    return found


def predictors(path: Path, trials: Trials, resolution: int | None) -> list[dict[str, Any]]:
    """Each predictor of two pairs or more: {name, of, metric, better, model, values: {"s|t": x}}.

    `model` is the option of the trials that began from the source model it was measured of.
    """
    models = defaultdict(set)
    for trial in trials:
        models[trial["model"]] |= {trial["parent"]} - {None}
    found = []
    for model, digests in models.items():
        for p in read_predictors(path, resolution, digests or None):
            values = {f"{s}|{t}": _plain(v) for (s, t), v in p.values.items()}
            if len(values) > 1:
                about = {"name": p.name, "of": p.of, "metric": p.metric, "better": p.better}
                found.append({**about, "model": model, "values": values})
    return found


def choices(
    roots: Sequence[Path], path: Path, metric: str, factors: Sequence[str], resolution: int | None
) -> list[dict[str, Any]]:
    """`study predict` at the end of training, as rows: which predictor chooses the best source?"""
    rows = []
    for root in roots:
        known = predictions(root, path, metric=metric, factors=factors, resolution=resolution)
        rows += [{k: _listed(v) for k, v in asdict(p).items()} for p in known]
    return rows


def _runs(trials: Trials, metric: str, stat: str) -> tuple[dict, dict]:
    """{(model, variant, strategy): {(source, target): values}}, and of controls
    {(control, target, model): {variant: values}}; finite ones of complete trials."""
    own: dict[tuple, dict] = defaultdict(lambda: defaultdict(list))
    control: dict[tuple, dict] = defaultdict(lambda: defaultdict(list))
    for t in trials:
        value = t["measures"].get(metric, {}).get(stat)
        if t["state"] != "complete" or not isinstance(value, int | float):
            continue
        if t["scratch"]:
            control[t["source"], t["target"], t["model"]][t["variant"]].append(value)
        else:
            place = t["model"], t["variant"], t["freeze"]
            own[place][t["source"], t["target"]].append(value)
    return own, control


def _strata(
    pairs: Mapping[tuple[str, str], Row],
    control: Mapping[tuple, Mapping[str, Row]],
    name: str,
    model: str,
    variant: str,
) -> Iterator[tuple[Row, Row]]:
    """(runs, the control's runs) of each pair; those of the same variant before all of them."""
    for (_, target), values in pairs.items():
        if not name:
            yield values, ()
        elif known := control.get((name, target, model)):
            every = [v for own in known.values() for v in own]
            yield values, known.get(variant, every)


def _interval(
    strata: Sequence[tuple[Row, Row]], shown: str, better: str, seed: int
) -> tuple[float, float]:
    sign = -1.0 if better == "max" else 1.0
    flat = [runs for pair in strata for runs in (pair if shown != "value" else pair[:1])]

    def statistic(drawn: list[np.ndarray]) -> np.ndarray:
        if shown == "value":
            return np.mean([runs.mean(-1) for runs in drawn], axis=0)
        gains = []
        for own, other in zip(drawn[::2], drawn[1::2], strict=True):
            base = other.mean(-1)
            gain = sign * (base - own.mean(-1))
            gains.append(100 * gain / base if shown == "percent" else gain)
        return np.mean(gains, axis=0)

    if shown == "percent" and any(np.mean(base) <= 0 for _, base in strata):
        return math.nan, math.nan
    return bootstrap_interval(flat, statistic, generator=np.random.default_rng(seed), rounds=1000)


def _listed(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else _plain(value)


def _plain(value: Any) -> Any:
    """Six digits; None for what is not known, "never" for what was not reached."""
    if not isinstance(value, float):
        return value
    if math.isinf(value):
        return _NEVER
    return None if math.isnan(value) else float(f"{value:.6g}")
