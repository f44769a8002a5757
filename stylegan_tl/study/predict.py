"""Predictors from before training beside the outcomes: which of them chooses the best source?

Predictors are records as `python -m stylegan_tl.study distances` writes them (`predictors.py`). A
score is taken within each target, over its sources, and averaged over targets. Positive means
that the predictor is right in the direction that it claims (`better`). "Learned": the direction,
or for the last line the predictor too, is taken from the other targets alone: leave one target out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylegan_tl.files import write_atomic
from stylegan_tl.study.collect import check_protocols, check_unique, collect
from stylegan_tl.study.opened import distances_of
from stylegan_tl.study.predict_text import as_csv, as_markdown
from stylegan_tl.study.predictors import Pair, Predictor, read_predictors
from stylegan_tl.study.scores import MEASURES, scores
from stylegan_tl.study.statistics import kendall, resample, spearman, top_regret

if TYPE_CHECKING:
    from stylegan_tl.study.opened import Opened

__all__ = ["Outcomes", "Prediction", "command", "evaluate", "predict", "predictions"]

CHOSEN = "chosen on the other targets"
Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcomes:
    """The runs of one strategy for each (source, target).

    `kind` is what the strategy shares with others: the model and all else of the cell but `freeze`.
    """

    strategy: str
    better: str
    values: Mapping[Pair, Sequence[float]]
    kind: str = ""
    models: frozenset[str] = frozenset()  # digests of the source models that they began from


@dataclass(frozen=True)
class Prediction:
    """How well one predictor chose sources under one strategy, means over targets.

    `*_seeds` are intervals over training noise for these targets, `*_targets` over targets; NaN
    below three of either. `sources`: how many the target with fewest and the one with most have.
    `regret` is in the metric's unit, `chance` that of a random choice.
    """

    strategy: str
    predictor: str
    targets: int
    pairs: int
    sources: tuple[int, int]
    spearman: float
    spearman_seeds: Interval
    spearman_targets: Interval
    kendall: float
    regret: float
    regret_seeds: Interval
    regret_targets: Interval
    chance: float
    spearman_learned: float
    regret_learned: float
    note: str = ""


def predict(
    root: str | Path,
    distances: str | Path,
    *,
    metric: str,
    measure: str = "final",
    out: str | Path | None = None,
    factors: Sequence[str] = (),
    resolution: int | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> str:
    """The `predictions` as Markdown; writes predict.csv and predict.md to `out`, `root` if None."""
    options = {"factors": factors, "resolution": resolution, "rounds": rounds, "seed": seed}
    found = predictions(root, distances, metric=metric, measure=measure, **options)
    if not found:
        raise ValueError(
            f"{distances} and {root} share no target with two sources, of which one could be "
            "chosen: a study with one source per target has nothing to predict; otherwise run "
            "`python -m stylegan_tl.study distances` for its pairs"
        )
    folder = Path(out if out is not None else root)
    text = as_markdown(found, f"{metric}, {MEASURES[measure]}")
    write_atomic(folder / "predict.csv", as_csv(found).encode())
    write_atomic(folder / "predict.md", text.encode())
    return text


def predictions(
    root: str | Path,
    distances: str | Path,
    *,
    metric: str,
    measure: str = "final",
    factors: Sequence[str] = (),
    resolution: int | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> list[Prediction]:
    """Score every predictor in `distances` (JSON lines) on the trials under `root`.

    First those of every kind with several strategies, means over the strategies of each target;
    then of each strategy. What was measured of a source model predicts only trials that began from
    that model. Raises ValueError for a file without a predictor and for unequal protocols; none
    where no target has two sources.
    """
    if measure not in (allowed := ("final", "best", "area")):
        raise ValueError(f"measure={measure!r}, allowed: {', '.join(allowed)}")
    outcomes = collect(root, factors)
    check_unique(outcomes, root)
    check_protocols(outcomes, [metric])
    strategies, starts = _strategies(scores(outcomes, [metric]), metric, measure)
    found, kinds = [], defaultdict(list)
    for own in strategies:
        known = read_predictors(distances, resolution, own.models or None)
        every = [*known, *starts.get(own.strategy, ())]
        generator = np.random.default_rng(seed)
        tables = _tables(every, own, generator, rounds)
        kinds[own.kind].append(tables)
        found += _scored(tables, own.strategy, generator, rounds)
    pooled = []
    for kind, several in kinds.items():
        if len(several) > 1:
            name = f"all {len(several)} strategies, {kind}"
            pooled += _scored(_pooled(several), name, np.random.default_rng(seed), rounds)
    return pooled + found


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Predictors of a command line's study; options: distances= measures= metrics= out=."""
    study = opened.study
    own = opened.runs / study.name / "distances.jsonl"
    text = predict(
        opened.runs / study.name,
        options.get("distances") or distances_of(opened) or own,
        metric=options.get("metrics", study.metric or ""),
        measure=options.get("measures", "final"),
        out=options.get("out"),
        factors=list(study.factors),
        resolution=opened.config["resolution"],
    )
    print(text)
    return 0


def evaluate(
    predictors: Sequence[Predictor],
    outcomes: Outcomes,
    *,
    generator: np.random.Generator,
    rounds: int = 1000,
) -> list[Prediction]:
    """Score predictors on one strategy, those of most targets first and of them the best; then the
    choice made on other targets.

    A target counts if two of its sources have predictor and outcome and the predictor differs.
    """
    tables = _tables(predictors, outcomes, generator, rounds)
    return _scored(tables, outcomes.strategy, generator, rounds)


@dataclass(frozen=True)
class _Target:
    """One target under one predictor. Index 0 of the last axis of each: as claimed; 1: reversed."""

    spearman: np.ndarray  # [2]
    kendall: np.ndarray  # [2]
    regret: np.ndarray  # [2]
    spearman_rounds: np.ndarray  # [rounds, 2], with seeds drawn anew
    regret_rounds: np.ndarray  # [rounds, 2]
    chance: float
    pairs: int
    seeds: int  # of the pair with fewest


Tables = list[tuple[Predictor, dict[str, _Target]]]


def _tables(
    predictors: Iterable[Predictor],
    outcomes: Outcomes,
    generator: np.random.Generator,
    rounds: int,
) -> Tables:
    """Of each predictor that can be scored on any target, {target: its scores}.

    What is a property of the target alone cannot choose among its sources.
    """
    able = (p for p in predictors if p.of != "target")
    tables = [(p, _table(p, outcomes, generator, rounds)) for p in able]
    return [(p, table) for p, table in tables if table]


def _scored(
    known: Tables, strategy: str, generator: np.random.Generator, rounds: int
) -> list[Prediction]:
    found = [_prediction(p, table, strategy, generator, rounds) for p, table in known]
    found.sort(key=lambda p: (-p.targets, -p.spearman))  # of few targets the best is soon chance
    return found + _chosen([table for _, table in known], strategy, generator, rounds)


def _pooled(several: Sequence[Tables]) -> Tables:
    """The means over strategies of each predictor and target that all of them know."""
    first, *others = ({p.name: (p, table) for p, table in tables} for tables in several)
    result = []
    for name, (predictor, table) in first.items():
        if all(name in other for other in others):
            tables = [table, *(other[name][1] for other in others)]
            common = [t for t in table if all(t in own for own in tables)]
            result.append((predictor, {t: _averaged([own[t] for own in tables]) for t in common}))
    return [(p, table) for p, table in result if table]


def _averaged(scores: Sequence[_Target]) -> _Target:
    """A strategy whose outcomes are all equal has no rank correlation: it counts as 0."""
    arrays = "spearman kendall regret spearman_rounds regret_rounds".split()
    return _Target(
        **{name: np.mean([np.nan_to_num(getattr(s, name)) for s in scores], 0) for name in arrays},
        chance=_mean(s.chance for s in scores),
        pairs=max(s.pairs for s in scores),
        seeds=min(s.seeds for s in scores),
    )


def _table(
    predictor: Predictor, outcomes: Outcomes, generator: np.random.Generator, rounds: int
) -> dict[str, _Target]:
    """{target: its scores}."""
    result = {}
    for target in dict.fromkeys(t for _, t in outcomes.values):
        pairs = [p for p in outcomes.values if p[1] == target and p in predictor.values]
        x = np.array([predictor.values[p] for p in pairs])
        runs = [np.asarray(outcomes.values[p], float) for p in pairs]
        if len(pairs) > 1 and len(set(x)) > 1:
            result[target] = _target(x, predictor.better, runs, outcomes.better, generator, rounds)
    return result


def _target(
    x: np.ndarray,
    claimed: str,
    runs: Sequence[np.ndarray],
    better: str,
    generator: np.random.Generator,
    rounds: int,
) -> _Target:
    means = np.array([r.mean() for r in runs])
    drawn = np.stack([resample(r, rounds, generator).mean(-1) for r in runs], axis=-1)
    same = 1.0 if claimed == better else -1.0
    signs = same * np.array([1.0, -1.0])
    ways = (claimed, "max" if claimed == "min" else "min")

    def regrets(y: np.ndarray) -> np.ndarray:
        ours = [top_regret(x, y, predicted_better=way, better=better) for way in ways]
        return np.stack(ours, axis=-1)

    worse = means - means.min() if better == "min" else means.max() - means
    return _Target(
        spearman=spearman(x, means) * signs,
        kendall=kendall(x, means) * signs,
        regret=regrets(means),
        spearman_rounds=np.nan_to_num(spearman(x, drawn))[:, None] * signs,
        regret_rounds=regrets(drawn),
        chance=float(worse.mean()),
        pairs=len(x),
        seeds=min(map(len, runs)),
    )


def _prediction(
    predictor: Predictor,
    table: Mapping[str, _Target],
    strategy: str,
    generator: np.random.Generator,
    rounds: int,
) -> Prediction:
    learned = [_learned([table], target) for target in table]
    ways = [(t, way) for t, (_, way) in zip(table.values(), learned, strict=True)]
    whole = len(table) > 1  # or there is no other target to learn from
    return Prediction(
        **_means([(t, 0) for t in table.values()], strategy, generator, rounds),
        predictor=predictor.name,
        spearman_learned=_mean(t.spearman[w] for t, w in ways) if whole else math.nan,
        regret_learned=_mean(t.regret[w] for t, w in ways) if whole else math.nan,
        note=predictor.note,
    )


def _chosen(
    tables: Sequence[Mapping[str, _Target]],
    strategy: str,
    generator: np.random.Generator,
    rounds: int,
) -> list[Prediction]:
    """For each target the predictor and direction that did best on the others, scored on it."""
    whole = [t for t in tables if len(t) == max(map(len, tables))]  # know every target
    if not whole or len(whole[0]) < 3 or len(whole) < 2:
        return []
    picks = []
    for target in whole[0]:
        table, way = _learned(whole, target)
        picks.append((table[target], way))
    numbers = _means(picks, strategy, generator, rounds)
    learned = {"spearman_learned": numbers["spearman"], "regret_learned": numbers["regret"]}
    return [Prediction(**numbers, **learned, predictor=CHOSEN)]


def _learned(
    tables: Sequence[Mapping[str, _Target]], left_out: str
) -> tuple[Mapping[str, _Target], int]:
    """The table and direction with the best mean rank correlation on targets but `left_out`."""
    best, choice = -math.inf, (tables[0], 0)
    for table in tables:
        for way in (0, 1):
            mean = _mean(t.spearman[way] for name, t in table.items() if name != left_out)
            if mean > best:
                best, choice = mean, (table, way)
    return choice


def _means(
    picks: Sequence[tuple[_Target, int]],
    strategy: str,
    generator: np.random.Generator,
    rounds: int,
) -> dict[str, Any]:
    """The mean over targets of each score, and its intervals over seeds and over targets."""
    numbers: dict[str, Any] = {"strategy": strategy, "targets": len(picks)}
    counts = [t.pairs for t, _ in picks]
    numbers |= {"pairs": sum(counts), "sources": (min(counts), max(counts))}
    for name in ("spearman", "regret"):
        each = np.array([getattr(t, name)[w] for t, w in picks])
        rounds_of = [getattr(t, f"{name}_rounds")[:, w] for t, w in picks]
        over_seeds = (
            np.mean(rounds_of, axis=0) if all(t.seeds > 2 for t, _ in picks) else [math.nan]
        )
        over_targets = resample(each, rounds, generator).mean(-1) if len(each) > 2 else [math.nan]
        numbers[name] = _mean(each)
        numbers[f"{name}_seeds"] = _percentiles(over_seeds)
        numbers[f"{name}_targets"] = _percentiles(over_targets)
    numbers["kendall"] = _mean(t.kendall[w] for t, w in picks)
    numbers["chance"] = _mean(t.chance for t, _ in picks)
    return numbers


def _percentiles(values: Sequence[float] | np.ndarray) -> Interval:
    low, high = (
        np.nanquantile(values, [0.025, 0.975]) if not np.isnan(values).all() else (np.nan,) * 2
    )
    return float(low), float(high)


def _mean(values: Iterable[float]) -> float:
    """Of those that are known: rank correlation with equal outcomes is not."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _strategies(
    found: Iterable[Any], metric: str, measure: str
) -> tuple[list[Outcomes], dict[str, list[Predictor]]]:
    """Outcomes of each strategy, and what its curves began with as a predictor of its own."""
    values: dict[str, dict[Pair, list[float]]] = defaultdict(lambda: defaultdict(list))
    starts: dict[str, dict[Pair, list[float]]] = defaultdict(lambda: defaultdict(list))
    models: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, str] = {}
    better = "min"
    for score in found:
        outcome, value = score.outcome, getattr(score, measure)
        if not outcome.is_complete or outcome.is_scratch or math.isnan(value):
            continue
        better = score.better
        pair = outcome.cell["source"], outcome.cell["target"]
        rest = {k: v for k, v in outcome.cell.items() if k not in ("source", "target")}
        strategy = ", ".join(rest.values())
        kinds[strategy] = ", ".join(v for k, v in rest.items() if k != "freeze")
        values[strategy][pair].append(value)
        models[strategy] |= {outcome.source_model} - {None}
        curve = outcome.curves[metric]
        if curve.kimg[0] == 0 and not math.isnan(curve.values[0]):
            starts[strategy][pair].append(float(curve.values[0]))
    every = [Outcomes(n, better, v, kinds[n], frozenset(models[n])) for n, v in values.items()]
    begins = {
        name: [Predictor(f"{metric} at 0 kimg", better, {p: _mean(v) for p, v in own.items()})]
        for name, own in starts.items()
    }
    return every, begins
