"""The trials of a study as small records: every `trial.json` under a folder, none left out.

Pictures and checkpoints are never looked at: below a run folder nothing is listed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_tl.study.comparable import ProtocolMismatch, comparable
from stylegan_tl.study.trial import Trial

__all__ = ["CELL", "Curve", "Outcome", "cell_of", "check_protocols", "check_unique"]
__all__ += ["collect", "run_folders"]

CELL = ("source", "target", "freeze", "model", "augment")
"""What every cell has; a study's further factors come after these."""
_NAMED_BY_PATH = frozenset("folder zip packed nvidia checkpoint".split())
_PART_OF_CELL = (".path", ".checkpoint", ".subfolder", "freeze/")  # the names above tell them


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One metric of one trial: values [n] at kimg [n], NaN where there was no number."""

    metric: str
    better: str
    protocol: Mapping[str, Any]
    kimg: np.ndarray
    values: np.ndarray

    @property
    def best(self) -> tuple[float, float]:
        """(value, kimg) of the best evaluation; NaN if none gave a number."""
        if np.isnan(self.values).all():
            return np.nan, np.nan
        at = int((np.nanargmax if self.better == "max" else np.nanargmin)(self.values))
        return float(self.values[at]), float(self.kimg[at])

    @property
    def final(self) -> float:
        """The value of the last evaluation."""
        return float(self.values[-1])


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a table needs of one trial. `cell` is {factor: value}: CELL first, then further ones."""

    run: str
    state: str
    reason: str | None = None
    study: str = ""
    cell: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    kimg: float = 0.0
    seconds: float = 0.0
    frozen: Mapping[str, float | None] = field(default_factory=dict)  # {"G": share, "D": share}
    parameters: Mapping[str, int | None] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    source_model: str | None = None  # the digest of its file

    @property
    def is_complete(self) -> bool:
        """Whether its numbers may stand in a summary."""
        return self.state == "complete"

    @property
    def is_scratch(self) -> bool:
        """Whether nothing came from a source model."""
        return "scratch" in (self.cell.get("source"), self.cell.get("freeze"))

    @property
    def place(self) -> tuple[str, ...]:
        """The factors without source, freeze and augment: what a control shares with it."""
        out = ("source", "freeze", "augment")
        return tuple(v for k, v in self.cell.items() if k not in out)


def collect(root: str | Path, factors: Sequence[str] = ()) -> list[Outcome]:
    """All trials under `root`, by path. `factors`: further keys of a study's grid (num_images …).

    A record that cannot be read is an outcome of state "unreadable" with the reason. ValueError if
    there is no trial, or no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder; a study's runs lie in <runs>/<study>, and "
            f"`python -m stylegan_tl.study run study={root.name}` makes them"
        )
    further = [f for f in factors if f not in CELL and not any(p in f for p in _PART_OF_CELL)]
    same: dict[str, Any] = {}
    found = [_outcome(folder, root, further, same) for folder in run_folders(root)]
    if not found:
        raise ValueError(
            f"{root}: no trial.json in it or below; nothing has been trained yet: "
            f"`python -m stylegan_tl.study run study={root.name}`"
        )
    return found


def run_folders(root: str | Path) -> Iterator[Path]:
    """Folders under `root` that hold a `trial.json`, by name; what lies below them is not read."""
    if os.path.exists(os.path.join(root, "trial.json")):
        yield Path(root)
        return
    with os.scandir(root) as entries:
        below = sorted(e.name for e in entries if e.is_dir())
    for name in below:
        yield from run_folders(os.path.join(root, name))


def check_unique(outcomes: Sequence[Outcome], root: str | Path) -> None:
    """ValueError if two complete trials are the same cell and seed: a factor is then unnamed."""
    seen: dict[tuple, Outcome] = {}
    problems = []
    for outcome in filter(lambda o: o.is_complete, outcomes):
        key = (*outcome.cell.values(), outcome.seed)
        if key in seen:
            problems.append(_twice(seen[key], outcome, Path(root)))
        seen.setdefault(key, outcome)
    if problems:
        raise ValueError(
            "the same cell and seed more than once; name what differs in factors=[…], or move one "
            "away:\n  " + "\n  ".join(problems[:10] + [f"… {len(problems)} in all"])
        )


def check_protocols(
    outcomes: Sequence[Outcome], metrics: Sequence[str], *, same_reals: bool = True
) -> None:
    """ProtocolMismatch, with all differences, unless each metric was measured alike everywhere.

    Reals may differ between targets; `same_reals=False` lets them differ within one (few-shot
    subsets that each seed draws anew).
    """
    problems: dict[str, tuple[str, str]] = {}  # each difference once, with the first two trials
    for metric in metrics:
        first: dict[str, Outcome] = {}  # of each target
        checked: set[tuple[int, int, bool]] = set()
        anyone = None
        for outcome in outcomes:
            if not outcome.is_complete or metric not in outcome.curves:
                continue
            anyone = anyone or outcome
            peer = first.setdefault(outcome.cell["target"], outcome)
            for other, reals in ((peer, same_reals), (anyone, False)):
                pair = *(id(o.curves[metric].protocol) for o in (other, outcome)), reals
                if pair not in checked:
                    checked.add(pair)
                    if difference := _difference(metric, other, outcome, reals):
                        problems.setdefault(difference, (other.run, outcome.run))
    if problems:
        told = [f"{d}\n    {a}\n    {b}" for d, (a, b) in list(problems.items())[:10]]
        told += [f"… {len(problems)} differences in all"] if len(problems) > 10 else []
        raise ProtocolMismatch("unequal protocols in one table:\n  " + "\n  ".join(told))


def _difference(metric: str, one: Outcome, other: Outcome, reals: bool) -> str:
    a, b = ({"metric": metric, **o.curves[metric].protocol} for o in (one, other))
    try:
        comparable(a, b, reference=reals)
    except ProtocolMismatch as error:
        return f"{metric}: {str(error).partition('; ')[2]}"
    return ""


def _outcome(folder: Path, root: Path, further: Sequence[str], same: dict[str, Any]) -> Outcome:
    run = folder.relative_to(root).as_posix()
    try:
        trial = Trial.load(folder / "trial.json")
        digest = trial.source.get("sha256")
        return Outcome(
            run=run,
            state=trial.state,
            reason=trial.reason,
            study=trial.study,
            cell=_shared({**cell_of(trial), **{f: _value(trial, f) for f in further}}, same),
            seed=trial.seed,
            kimg=trial.kimg,
            seconds=trial.wall_seconds,
            frozen={n: trial.freeze.get(n, {}).get("share") for n in "GD"},
            parameters={n: trial.freeze.get(n, {}).get("parameters") for n in "GD"},
            curves={
                name: _curve(name, entry, same)
                for name, entry in trial.metrics.items()
                if entry["at"]
            },
            source_model=same.setdefault(digest, digest),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".removeprefix("ValueError: ")
        return Outcome(run=run, state="unreadable", reason=reason)


def cell_of(trial: Trial) -> dict[str, str]:
    """What a trial has for each of CELL; a chain of sources is written a->b."""
    config, choices = trial.config, trial.choices
    return {
        "source": _source(trial),
        "target": _dataset(config["target"], choices.get("target")),
        **{key: str(choices.get(key) or "none") for key in CELL[2:]},
    }


def _source(trial: Trial) -> str:
    """The source dataset; of a chain all of them in order: bedroom->bathroom."""
    config = trial.config["source"]
    if config["kind"] == "scratch":
        return "scratch"
    names, parent = [], trial.source
    while parent:
        names.append(str(parent.get("name")))
        parent = (parent.get("lineage") or {}).get("source")
    own = _dataset(config, trial.choices.get("source"))
    return "->".join(reversed(names)) if len(names) > 1 else own


def _dataset(config: Mapping[str, Any], choice: str | None) -> str:
    return str(config.get("name") if choice is None or choice in _NAMED_BY_PATH else choice)


def _value(trial: Trial, factor: str) -> str:
    """What a trial has for a factor: the group's option, or the value in its configuration."""
    if factor in trial.choices:
        return str(trial.choices[factor])
    value: Any = trial.config
    for part in factor.split("@")[-1].replace("/", ".").split("."):
        if not isinstance(value, Mapping) or part not in value:
            return "(absent)"
        value = value[part]
    return value if isinstance(value, str) else json.dumps(value)


def _curve(name: str, entry: Mapping[str, Any], same: dict[str, Any]) -> Curve:
    rows = entry["at"]
    return Curve(
        metric=same.setdefault(name, name),
        better=same.setdefault(entry["better"], entry["better"]),
        protocol=_shared(entry["protocol"], same),
        kimg=np.array([row["kimg"] for row in rows], float),
        values=np.array([np.nan if r["value"] is None else r["value"] for r in rows], float),
    )


def _shared(value: Mapping[str, Any], same: dict[str, Any]) -> Mapping[str, Any]:
    """The one dictionary of this content: thousands of trials have few protocols."""
    return same.setdefault(json.dumps(value, sort_keys=True), value)


def _twice(one: Outcome, other: Outcome, root: Path) -> str:
    from stylegan_tl.study.trial import TrialMismatch, check_same

    try:
        check_same(root / one.run, Trial.load(root / other.run / "trial.json").config)
    except TrialMismatch as error:
        lines = str(error).splitlines()[1:-1]
        return f"{one.run} and {other.run} differ in " + "; ".join(s.strip() for s in lines)
    return f"{one.run} and {other.run} are the same configuration"
