"""`python -m stylegan_tl.study table study=…`: the trials of a study as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylegan_tl.files import write_atomic
from stylegan_tl.study import course
from stylegan_tl.study.collect import Outcome, check_protocols, check_unique, collect
from stylegan_tl.study.scores import MEASURES, Score, measures_of, scores
from stylegan_tl.study.summary import latex, markdown, summary

if TYPE_CHECKING:
    from stylegan_tl.study.opened import Opened

__all__ = ["command", "table"]


def table(
    root: str | Path,
    *,
    out: str | Path | None = None,
    metrics: Sequence[str] = (),
    direction: str | None = None,
    baseline: str = "scratch",
    factors: Sequence[str] = (),
    question: str = "",
    planned: Iterable[str] = (),
    measures: Sequence[str] = ("final", "best"),
    same_reals: bool = True,
    seeds: int = 0,
    rounds: int = 2000,
    seed: int = 0,
) -> str:
    """Write table.csv, table.md and table.tex of all trials under `root`; return the Markdown.

    root      runs/<study>; every trial.json in it or below is a row or is listed as missing
    out       folder of the three files; `root` if None
    metrics   to summarise; all that any trial has if empty. The CSV has all of them anyway
    direction of the first metric, min or max: checked against the records
    baseline  scratch, scratch_augment or a strategy: what speed and improvement are held against
    factors   keys of the study's grid; those beyond source, target, freeze, model, augment split
              cells further
    planned   run folders, relative to `root`, that the study asks for
    measures  a summary of each: final, best, area, kimg_to_reach
    same_reals  whether all trials of a target must have met the same reals
    seeds     how many trials of a cell are asked for
    seed      of the bootstrap, with `rounds` rounds

    Raises ProtocolMismatch if a metric was not measured alike everywhere; ValueError without
    trials, for an unknown metric, and for one cell and seed run twice.
    """
    root, out = Path(root), Path(out if out is not None else root)
    outcomes = collect(root, factors)
    names, every = _names(outcomes, metrics, direction), measures_of(outcomes)
    check_unique(outcomes, root)
    check_protocols(outcomes, every, same_reals=same_reals)
    found = list(scores(outcomes, every or [""], baseline))
    generator = np.random.default_rng(seed)
    sections, tex = [], []
    for name in names:
        own = [score for score in found if score.metric == name]
        for measure in measures:
            lines = summary(
                own, measure, baseline=baseline, generator=generator, rounds=rounds, seeds=seeds
            )
            title = _title(name, measure, own, baseline)
            sections.append(f"## {title}\n\n{markdown(lines, baseline)}\n")
            tex.append(latex(lines, baseline, f"{root.name}: {title}"))
        if over := course.courses(outcomes, name):
            title = f"{name} over kimg, mean over all pairs [95 % interval over seeds]"
            sections.append(f"## {title}\n\n{course.markdown(over)}\n")
    missing = _missing(outcomes, planned)
    text = "\n".join([_head(root.name, question, outcomes, missing), *sections, _listed(missing)])
    write_atomic(out / "table.csv", _csv(found).encode())
    write_atomic(out / "table.md", text.encode())
    write_atomic(out / "table.tex", "\n\n".join(tex).encode() + b"\n")
    return text


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Tabulate the study of a command line; options: out= metrics= measures= same_reals=."""
    study = opened.study
    root = opened.runs / study.name
    metrics = options.get("metrics", study.metric or "")
    text = table(
        root,
        out=options.get("out"),
        metrics=[m for m in metrics.split(",") if m],
        direction=study.direction if metrics and metrics == study.metric else None,
        baseline=study.baseline or "scratch",
        factors=list(study.factors),
        question=study.question,
        seeds=len(study.seeds),
        planned=[t.job.folder.relative_to(root).as_posix() for t in opened.trials],
        measures=options.get("measures", "final,best").split(","),
        same_reals=options.get("same_reals", "true").lower() == "true",
    )
    print(text)
    names = ("table.csv", "table.md", "table.tex")
    print("written:", ", ".join(str(Path(options.get("out") or root) / name) for name in names))
    return 0


def _names(outcomes: Sequence[Outcome], wanted: Sequence[str], direction: str | None) -> list[str]:
    known = measures_of(outcomes)
    for name in wanted:
        if name not in known and any(o.is_complete for o in outcomes):
            raise ValueError(f"metric {name!r}: no trial has it; they have {', '.join(known)}")
    names = [name for name in wanted if name in known] if wanted else known
    for outcome in outcomes:
        curve = outcome.curves.get(names[0]) if names else None
        if direction and curve and curve.better != direction:
            raise ValueError(
                f"metric {names[0]}: the study says {direction} is better, the record of "
                f"{outcome.run} says {curve.better}"
            )
    return names


def _title(metric: str, measure: str, found: Sequence[Score], baseline: str) -> str:
    better = next((s.better for s in found if s.better), "min")
    if measure == "kimg_to_reach":
        slack = "10 % worse than the best of"
        return f"kimg until {metric} is {slack} {baseline} (lower is better)"
    return f"{metric}, {MEASURES[measure]} ({'lower' if better == 'min' else 'higher'} is better)"


def _head(
    name: str, question: str, outcomes: Sequence[Outcome], missing: Sequence[Sequence[str]]
) -> str:
    states = Counter(o.state for o in outcomes)
    unstarted = sum(state == "not started" for _, state, _ in missing)
    states |= Counter({"not started": unstarted} if unstarted else {})
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [f"# {name}", *([question] if question else []), f"Trials: {counted}."]
    lines += _budget(outcomes)
    lines.append(
        "Cells: mean over seeds ± half of Student's 95 % interval; (n of m): only n of m trials "
        "have a value. **Bold**: best mean of the target. Intervals in brackets: stratified "
        "bootstrap over seeds, 95 %."
    )
    return "\n\n".join(lines) + "\n"


def _budget(outcomes: Sequence[Outcome]) -> list[str]:
    """A warning where complete trials of one target and model had unequal budgets."""
    by_place: dict[tuple, list[float]] = {}
    for outcome in outcomes:
        if outcome.is_complete:
            by_place.setdefault(outcome.place, []).append(outcome.kimg)
    wide = [(min(k), max(k)) for k in by_place.values() if max(k) > 1.05 * min(k)]
    if not wide:
        return []
    low, high = min(a for a, _ in wide), max(b for _, b in wide)
    return [
        f"Budgets differ among trials that share a target and a model, from {low:g} to {high:g} "
        "kimg: their final and best values are not of equal training. The uplift columns of "
        "the CSV are."
    ]


def _missing(outcomes: Sequence[Outcome], planned: Iterable[str]) -> list[tuple[str, str, str]]:
    """(run, state, reason) of all that is not complete, also of what was never started."""
    rows = [(o.run, o.state, o.reason or "") for o in outcomes if not o.is_complete]
    there = {o.run for o in outcomes}
    return rows + [(run, "not started", "") for run in planned if run not in there]


def _listed(missing: Sequence[Sequence[str]]) -> str:
    if not missing:
        return "All trials are complete.\n"
    rows = [[run, state, reason.replace("|", "\\|")] for run, state, reason in missing]
    lines = ["## Not complete, and in no cell", "", "| trial | state | reason |", "|---|---|---|"]
    return (
        "\n".join(lines + ["| " + " | ".join(" ".join(c.split()) for c in r) + " |" for r in rows])
        + "\n"
    )


def _csv(found: Sequence[Score]) -> str:
    """One row per trial and metric. Unknown is empty; inf is never."""
    text = io.StringIO()
    whole = next((s for s in found if s.outcome.cell), found[0])  # the unreadable have no factors
    writer = csv.DictWriter(text, list(whole.row()), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _number(v) for k, v in score.row().items()} for score in found)
    return text.getvalue()


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value
