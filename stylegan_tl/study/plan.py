"""`python -m stylegan_tl.study plan study=…`: what a study is, what is there, what is to come.

Times come from finished trials (their `trial.json` has s/kimg), disk from their folders; where
nothing was measured yet the plan says so and guesses nothing.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stylegan_tl.study.definition import Planned
from stylegan_tl.study.opened import Opened
from stylegan_tl.study.progress import STATES, clock, labels
from stylegan_tl.study.provenance import hardware
from stylegan_tl.study.queue import Status, status
from stylegan_tl.study.slots import make_slots, visible_gpus
from stylegan_tl.study.trial import Trial

__all__ = ["Pace", "Plan", "Work", "command", "make_plan", "matrix", "render"]

_SAMPLE = 20  # run folders that are measured for the size of one


@dataclass(frozen=True)
class Pace:
    """Seconds per kimg of trials like these: the median of `trials` of them, on `where`."""

    s_per_kimg: float
    trials: int
    where: str
    here: bool  # measured on hardware like this machine's


@dataclass(frozen=True)
class Work:
    """What is left to train of one `model` (its option), and how fast that goes."""

    model: str
    kimg: float  # of trials
    source_kimg: float  # of source models
    pace: Pace | None

    @property
    def seconds(self) -> float | None:
        """Time in one slot; None if it was never measured and there is something left."""
        left = self.kimg + self.source_kimg
        return left * self.pace.s_per_kimg if self.pace else None if left else 0.0


@dataclass(frozen=True)
class Plan:
    """What the plan says, in numbers. `seconds` and `disk` (bytes) are None if never measured."""

    states: Mapping[Path, Status]
    sources: Mapping[str, int]  # datasets -> how many source models of each
    source_budgets: Sequence[float]  # kimg that they are trained for
    sources_there: int
    work: Sequence[Work]
    disk: float | None
    slots: int
    problems: Sequence[str] = ()  # trials whose configuration does not even compose

    @property
    def kimg(self) -> float:
        """Still to be trained by trials."""
        return sum(work.kimg for work in self.work)

    @property
    def source_kimg(self) -> float:
        """Still to be trained by source models."""
        return sum(work.source_kimg for work in self.work)

    @property
    def seconds(self) -> float | None:
        """Time that is left, all slots at work."""
        each = [work.seconds for work in self.work]
        return None if None in each else sum(each) / self.slots


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Print the plan; `commands=true` prints the command of every trial instead."""
    if options.get("commands", "false").lower() == "true":
        for trial in opened.trials:
            print("python -m stylegan_tl.train " + " ".join(map(_shell, trial.job.overrides)))
        return 0
    print(render(opened, make_plan(opened)))
    return 0


def make_plan(opened: Opened) -> Plan:
    """Look at the files of the study and at what was measured before."""
    trials = opened.trials
    states = {t.job.folder: status(t.job, running=True) for t in trials}
    needed = {t.job.source: t for t in reversed(trials) if t.job.source is not None}
    begun = {t.job.source for t in trials if states[t.job.folder].record is not None}
    problems: list[str] = []
    missing = [
        trial
        for name, trial in needed.items()
        if name not in begun and not _has_source(opened, trial, problems)
    ]
    return Plan(
        states=states,
        sources=Counter(str(t.cell.values["source"]) for t in needed.values()),
        source_budgets=sorted({_source_budget(t, opened) for t in needed.values()}),
        sources_there=len(needed) - len(missing),
        work=_work(opened, states, missing),
        disk=_disk(trials, states),
        slots=len(make_slots()),
        problems=problems,
    )


def render(opened: Opened, plan: Plan) -> str:
    """The plan as text."""
    study, trials = opened.study, opened.trials
    count = Counter(found.state for found in plan.states.values())
    lines = [f"study {study.name}: {study.question}".rstrip(": ")]
    lines += [f"  metric    {study.metric} ({study.direction}), against {study.baseline}"]
    lines += [f"  factors   {key}: {', '.join(map(str, v))}" for key, v in study.factors.items()]
    lines += [f"  chain     {' -> '.join(chain)}" for chain in study.chains]
    lines += ["", *matrix(trials, plan.states), ""]
    done = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    cells = len({id(t.cell) for t in trials})
    lines.append(f"{len(trials)} trials ({cells} cells x {len(study.seeds)} seeds): {done}")
    lines.append(_source_line(opened, plan))
    lines += _time_lines(plan)
    lines.append(_disk_line(plan, len(trials) - count["complete"]))
    lines += [*_not_well(trials, plan.states), *plan.problems]
    return "\n".join(lines)


def matrix(trials: Sequence[Planned], states: Mapping[Path, Status]) -> list[str]:
    """Source x target; in a cell how many of its trials are complete, and how many failed (!)."""
    found: dict[tuple[str, str], Counter] = {}
    for trial in trials:
        place = trial.cell.source, str(trial.cell.values["target"])
        if trial.cell.role not in ("pair", "chain"):
            place = trial.cell.role, place[1]
        found.setdefault(place, Counter())[states[trial.job.folder].state] += 1
    rows, columns = (list(dict.fromkeys(place[i] for place in found)) for i in (0, 1))
    table = [["source \\ target", *columns]]
    table += [[row, *(_entry(found.get((row, c))) for c in columns)] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns) + 1)]
    return ["  ".join(c.ljust(w) for c, w in zip(x, widths, strict=True)).rstrip() for x in table]


def _entry(count: Counter | None) -> str:
    if count is None:
        return "-"
    failed = f" {count['failed']}!" if count["failed"] else ""
    return f"{count['complete']}/{count.total()}{failed}"


def _source_line(opened: Opened, plan: Plan) -> str:
    sources, pretrain = opened.study.sources, opened.config["pretrain"]
    total = sum(plan.sources.values())
    if not total:
        return "no source models"
    equal = sources.condition == "equal" and sources.num_images is not None
    number = sources.num_images if equal else pretrain["num_images"]
    images = "all its images" if number is None else f"{number} images"
    budgets = " or ".join(f"{kimg:g}" for kimg in plan.source_budgets)
    each = f"{sources.condition}: each {budgets} kimg on {images}"
    names = ", ".join(f"{name} x {n}" if n > 1 else name for name, n in plan.sources.items())
    there = f"{plan.sources_there} there already" if plan.sources_there else "none there yet"
    return f"{total} source models ({each}; {there}): {names}"


def _time_lines(plan: Plan) -> Iterator[str]:
    left = f"{plan.kimg:g} kimg of trials and {plan.source_kimg:g} kimg of source models left"
    if not plan.kimg + plan.source_kimg:
        yield "nothing left to train"
        return
    if plan.seconds is not None:
        yield f"{left}: about {clock(plan.seconds)} in {plan.slots} slots"
    else:
        unknown = ", ".join(work.model for work in plan.work if work.seconds is None)
        why = f"no finished trial of this model and resolution yet: {unknown}"
        yield f"{left}; how long is not known: {why}"
    for work in plan.work:
        if pace := work.pace:
            here = "" if pace.here else "other hardware: "
            median = f"{here}median of {pace.trials} trials on {pace.where}"
            yield f"  {work.model}: {pace.s_per_kimg:.3g} s/kimg ({median})"


def _disk_line(plan: Plan, left: int) -> str:
    if plan.disk is None:
        return "disk: not known, no complete trial yet"
    return f"disk: {plan.disk / 2**20:.3g} MiB a trial, {plan.disk * left / 2**30:.3g} GiB to come"


def _not_well(trials: Sequence[Planned], states: Mapping[Path, Status]) -> Iterator[str]:
    names = labels([t.job for t in trials])
    for folder, found in states.items():
        if found.state in ("failed", "interrupted"):
            yield f"  {found.state:<12}{names[folder]}: {found.reason or 'no reason known'}"


def _has_source(opened: Opened, trial: Planned, problems: list[str]) -> bool:
    if opened.has_source is None:
        return False
    try:
        return opened.has_source(opened.compose(trial.job.overrides))
    except ValueError as error:
        said = " ".join(str(error).split())
        problems.append(f"  will fail   source={trial.cell.values['source']}: {said}")
        return False


def _work(opened: Opened, states: Mapping[Path, Status], missing: Sequence[Planned]) -> list[Work]:
    """What is left of every network that the study trains, in the order of its trials."""
    groups: dict[tuple, list[Planned]] = {}
    for trial in opened.trials:
        groups.setdefault(_network_of(trial), []).append(trial)
    finished = _Finished(opened, states)
    return [
        Work(
            model=str(trials[0].job.values.get("model", "the default model")),
            kimg=sum(_kimg_left(t, states[t.job.folder], opened.config["kimg"]) for t in trials),
            source_kimg=sum(_source_budget(t, opened) for t in missing if _network_of(t) == key),
            pace=_pace(finished, _composed(opened, trials[0])),
        )
        for key, trials in groups.items()
    ]


def _network_of(trial: Planned) -> tuple:
    """What of a trial's command decides its network; trials of one are equally fast."""
    return tuple(
        sorted(
            (key, value)
            for key, value in trial.job.values.items()
            if key in ("model", "resolution") or key.startswith("model.")
        )
    )


def _source_budget(trial: Planned, opened: Opened) -> float:
    try:
        return float(trial.job.values.get("pretrain.kimg", opened.config["pretrain"]["kimg"]))
    except ValueError:  # a cell of its own mistake: the trial will say so
        return 0.0


def _kimg_left(trial: Planned, found: Status, default: float) -> float:
    if found.state == "complete":
        return 0.0
    try:
        budget = float(trial.job.values.get("kimg", default))
    except ValueError:  # a cell of its own mistake: the trial will say so
        return 0.0
    return max(budget - found.kimg, 0.0)


class _Finished:
    """Records of finished trials: this study's, and where those do not serve, all others'."""

    def __init__(self, opened: Opened, states: Mapping[Path, Status]) -> None:
        self.own = [f.record for f in states.values() if f.state == "complete" and f.record]
        self._opened = opened

    @cached_property
    def elsewhere(self) -> list[dict[str, Any]]:
        return list(_elsewhere(self._opened))

    def like(self, config: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Those of the network and the resolution of `config`."""
        own = [record for record in self.own if _is_like(record, config)]
        return own or [record for record in self.elsewhere if _is_like(record, config)]


def _composed(opened: Opened, trial: Planned) -> Mapping[str, Any] | None:
    """The configuration of a trial; None if it has a mistake, which the trial will tell."""
    try:
        return opened.compose(trial.job.overrides)
    except ValueError:
        return None


def _pace(finished: _Finished, config: Mapping[str, Any] | None) -> Pace | None:
    """The median s/kimg of finished trials like this: of this hardware if there are any, else of
    whatever they ran on; this study's before other ones'."""
    like = finished.like(config) if config else []
    gpus, mine = bool(visible_gpus()), hardware()
    here = [
        r
        for r in like
        if bool(r["hardware"].get("gpu")) == gpus
        and r["hardware"].get("cpu") == mine["cpu"]
        and r["hardware"].get("cores") == mine["cores"]
    ]
    chosen = here or like
    if not chosen:
        return None
    machine = chosen[-1]["hardware"]
    where = str(machine.get("gpu") or machine.get("cpu"))
    median = statistics.median(r["s_per_kimg"] for r in chosen)
    return Pace(median, len(chosen), where, bool(here))


def _elsewhere(opened: Opened) -> Iterator[dict[str, Any]]:
    """Records of finished trials of any study, and of source models."""
    places = [*opened.runs.glob("*/*/seed=*"), *(opened.cache / "sources").glob("*")]
    for folder in places:
        try:
            trial = Trial.load(folder / "trial.json")
        except (OSError, ValueError):
            continue
        if trial.is_complete:
            yield vars(trial)


def _is_like(record: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    if not record.get("s_per_kimg"):
        return False
    other = record["config"]
    same = other.get("resolution") == config["resolution"]
    return same and other.get("model", {}).get("network") == config["model"]["network"]


def _disk(trials: Sequence[Planned], states: Mapping[Path, Status]) -> float | None:
    """Bytes of a complete run folder: the mean of a few."""
    done = [t.job.folder for t in trials if states[t.job.folder].state == "complete"]
    step = max(len(done) // _SAMPLE, 1)
    sizes = [_size(folder) for folder in done[::step][:_SAMPLE]]
    return statistics.fmean(sizes) if sizes else None


def _size(folder: Path) -> int:
    return sum(
        os.path.getsize(os.path.join(place, file))
        for place, _, files in os.walk(folder)
        for file in files
    )


def _shell(word: str) -> str:
    import shlex

    return shlex.quote(word)
