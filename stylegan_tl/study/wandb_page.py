"""`python -m stylegan_tl.study wandb study=…`: a report on W&B of the runs that are there.

The matrix source x target comes from the trials' own records; W&B draws the curves and the grids
from its runs, grouped by source and freeze. The package wandb-workspaces makes the report.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylegan_tl.study.collect import Outcome, check_protocols, collect, run_folders
from stylegan_tl.study.scores import measures_of
from stylegan_tl.study.summary import UNKNOWN
from stylegan_tl.tracking import resolve_mode

if TYPE_CHECKING:
    from stylegan_tl.study.definition import Study
    from stylegan_tl.study.opened import Opened

__all__ = ["command", "matrices", "missing", "report", "unsynced"]

_GROUPED_BY = ("source", "freeze", "model", "augment")
_CURVES = ("loss_G", "loss_D")  # beside the metrics


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Make the report and print its address, or what is missing; options: entity= project=."""
    study, logger = opened.study, opened.config["logger"]
    root = opened.runs / study.name
    outcomes = collect(root, list(study.factors))
    here = unsynced(root)
    mode = resolve_mode(logger["mode"]) if logger.get("kind", "wandb") == "wandb" else "disabled"
    lacking = [*missing(mode), *_to_sync(here)]
    if mode != "online" or find_spec("wandb_workspaces") is None:
        print("\n".join(["no report was made on W&B:", *lacking]))
        return 1
    import wandb

    entity = options.get("entity") or wandb.Api().default_entity
    made = report(study, outcomes, entity, options.get("project", logger["project"]))
    made.save()
    print("\n".join([made.url, *lacking]))
    return 0


def missing(mode: str) -> list[str]:
    """What a report needs and has not, in words; `mode` is that of W&B's runs here."""
    lacking = []
    if find_spec("wandb_workspaces") is None:
        lacking.append("  the package wandb-workspaces: pip install 'stylegan_tl[report]'")
    if mode == "disabled":
        lacking.append("  W&B is turned off: logger=wandb, and logger.mode=null or online")
    elif mode == "offline":
        lacking.append(
            "  W&B is offline: it needs a key (wandb login, or WANDB_API_KEY), a network, and "
            "neither logger.mode=offline nor WANDB_MODE=offline"
        )
    return lacking


def unsynced(root: str | Path) -> list[Path]:
    """The folders of offline runs below `root` that `wandb sync` has not uploaded yet, by name."""
    found = (f for run in run_folders(root) for f in (run / "wandb").glob("offline-run-*"))
    return sorted(f for f in found if not any(f.glob("*.wandb.synced")))


def _to_sync(folders: Sequence[Path]) -> Iterator[str]:
    if folders:
        yield (
            f"  {len(folders)} offline runs are not uploaded; they keep group, tags and steps. "
            "With a key and a network:"
        )
        yield from (f"    wandb sync '{folder}'" for folder in folders)


def report(study: Study, outcomes: Sequence[Outcome], entity: str, project: str) -> Any:
    """The `wandb_workspaces` report, not saved: matrices, then curves per target, then grids."""
    import wandb_workspaces.reports.v2 as wr

    metric = study.metric or next(iter(measures_of(outcomes)), None)
    blocks: list[Any] = [wr.P(study.question), wr.H1("Pairs")]
    for title, table in matrices(outcomes, metric, study.direction):
        blocks += [wr.H2(title), wr.MarkdownBlock(table)]
    blocks.append(wr.H1("Curves"))
    for target in sorted({o.cell["target"] for o in outcomes if o.cell}):
        blocks += [wr.H2(f"to {target}"), _curves(study.name, target, measures_of(outcomes))]
    blocks += [wr.H1("The same latents over time"), _grids(study.name)]
    description = f"{metric}, {len(outcomes)} trials"
    return wr.Report(
        entity=entity,
        project=project,
        title=study.name,
        description=description,
        blocks=blocks,
        width="fluid",
    )


def matrices(
    outcomes: Sequence[Outcome], metric: str | None, direction: str | None = "min"
) -> list[tuple[str, str]]:
    """(title, Markdown) per strategy: rows are sources, columns targets, cells means over seeds.

    A cell has the final values of its complete trials, best of its column in bold. Raises
    ProtocolMismatch if the metric was not measured alike.
    """
    check_protocols(outcomes, [metric] if metric else [], same_reals=False)
    cells: dict[tuple, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        if outcome.is_complete and metric in outcome.curves:
            key = tuple(v for k, v in outcome.cell.items() if k not in ("source", "target"))
            place = outcome.cell["source"], outcome.cell["target"]
            cells[key][place].append(outcome.curves[metric].final)
    best = max if direction == "max" else min
    return [(", ".join(key), _matrix(own, best)) for key, own in sorted(cells.items())]


def _matrix(cells: Mapping[tuple[str, str], Sequence[float]], best: Any) -> str:
    means = {place: sum(own) / len(own) for place, own in cells.items()}
    sources, targets = (sorted({place[i] for place in cells}) for i in (0, 1))
    tops = {
        t: best((m for (_, own), m in means.items() if own == t and math.isfinite(m)), default=None)
        for t in targets
    }

    def shown(source: str, target: str) -> str:
        mean, values = means.get((source, target)), cells.get((source, target), ())
        if mean is None or not math.isfinite(mean):
            return UNKNOWN
        text = f"{mean:.4g}"
        return (f"**{text}**" if mean == tops[target] else text) + f" ({len(values)})"

    head = [["source \\ target", *targets], ["---"] * (len(targets) + 1)]
    rows = head + [[s, *(shown(s, t) for t in targets)] for s in sources]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _curves(study: str, target: str, metrics: Sequence[str]) -> Any:
    """Every metric over kimg: the mean of a group's runs, and their range."""
    import wandb_workspaces.reports.v2 as wr

    panels = [
        wr.LinePlot(
            title=name,
            x="kimg",
            y=[name],
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            layout=wr.Layout(x=12 * (i % 2), y=8 * (i // 2), w=12, h=8),
        )
        for i, name in enumerate([*metrics, *_CURVES])
    ]
    return wr.PanelGrid(runsets=[_runset(study, target)], panels=panels)


def _grids(study: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    browser = wr.MediaBrowser(
        title="grid",
        media_keys=["grid"],
        num_columns=4,
        mode="gallery",
        gallery_axis="step",
        layout=wr.Layout(x=0, y=0, w=24, h=16),
    )
    return wr.PanelGrid(runsets=[_runset(study)], panels=[browser])


def _runset(study: str, target: str | None = None) -> Any:
    """The runs of a study, those of one target grouped; of the report's own project."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    of_study = expr.Config("study") == study
    if target is None:
        return wr.Runset(name=study, filters=expr.And(of_study))
    wanted = expr.And(of_study, expr.Config("target") == target)
    return wr.Runset(name=target, filters=wanted, groupby=[f"config.{k}" for k in _GROUPED_BY])
