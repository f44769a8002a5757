"""`python -m stylegan_tl.study figures study=…`: a study's matrix and its pictures, as PNG.

What a page on paper shows of it; the page to look at and to click is `report`.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stylegan_tl.files import write_atomic
from stylegan_tl.study.collect import Outcome, check_protocols, collect
from stylegan_tl.study.report.frames import choose_steps, frame, grids_of
from stylegan_tl.study.scores import MEASURES, Score, measures_of, scores
from stylegan_tl.study.statistics import mean_interval
from stylegan_tl.study.summary import plus_minus
from stylegan_tl.study.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stylegan_tl.study.opened import Opened

__all__ = ["command", "draw_matrix", "draw_pictures"]

_LATENTS = 4  # images of a run that a row of pictures shows, at each kimg
_MOMENTS = 4  # kimg that it shows
_LETTERS = 14  # of a title, per inch


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Draw the study of a command line; options: out= metric= measure= freeze=."""
    root = opened.runs / opened.study.name
    out = Path(options.get("out", root))
    outcomes = collect(root, list(opened.study.factors))
    metric = options.get("metric") or opened.study.metric or (measures_of(outcomes) or [""])[0]
    measure = options.get("measure", "final")
    if measure not in MEASURES:
        raise ValueError(f"measure={measure}: there are {', '.join(MEASURES)}")
    if metric not in measures_of(outcomes):
        raise ValueError(f"metric={metric}: trials have {', '.join(measures_of(outcomes))}")
    check_protocols(outcomes, [metric])
    baseline = opened.study.baseline or "scratch"
    found = list(scores(outcomes, [metric], baseline))
    written = [out / "matrix.png"]
    draw_matrix(written[0], found, measure)
    freeze = options.get("freeze", "none")
    for model in dict.fromkeys(o.cell["model"] for o in outcomes if o.cell):
        own = [o for o in outcomes if o.cell and o.cell["model"] == model]
        shown = [o for o in own if o.is_scratch or o.cell["freeze"] == freeze]
        written.append(out / f"pictures_{model}_{freeze}.png")
        draw_pictures(written[-1], shown, root)
    print("\n".join(map(str, written)))
    return 0


def draw_matrix(path: str | Path, found: Sequence[Score], measure: str = "final") -> None:
    """One heat map per model (down) and strategy (across), source x target; controls below.

    A cell has the mean over seeds ± half of Student's 95 % interval. Colour is how many times
    better (purple) or worse (orange) than scratch of the same target and model; white without it.
    """
    cells = _cells(found, measure)
    models, strategies, sources, targets = (sorted({key[i] for key in cells}) for i in range(4))
    strategies.sort(key=lambda name: name != "none")
    sources.sort(key=lambda name: name.startswith("scratch"))
    better = next((s.better for s in found if s.better), "min")
    lower = better == "min" or measure == "kimg_to_reach"
    side = 0.95 * len(targets) + 1.7, 0.45 * len(sources) + 1.1
    size = side[0] * len(strategies), side[1] * len(models) + 0.5
    figure, grid = _figure(size, len(models), len(strategies))
    for axes, (model, strategy) in zip(
        grid, ((m, s) for m in models for s in strategies), strict=True
    ):
        axes.set_title(f"{model}, {strategy}", fontsize=8)
        _heat_map(axes, cells, (model, strategy), sources, targets, lower)
    way = "lower is better" if lower else "higher is better"
    colour = "purple: better than scratch, orange: worse; ± half of Student's 95 % interval"
    title = f"{found[0].metric}, {MEASURES[measure]} ({way}; {colour})"
    figure.suptitle(textwrap.fill(title, round(_LETTERS * size[0])), fontsize=9)
    _write(figure, path)


def draw_pictures(path: str | Path, outcomes: Sequence[Outcome], root: str | Path) -> None:
    """A row per source and target, a column per kimg: the same latents in all, of the first seed.

    ValueError if no run has a grid.
    """
    first: dict[tuple, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda o: o.seed or 0):
        if grids_of(Path(root) / outcome.run):
            cell = outcome.cell
            control = outcome.is_scratch and cell["augment"] != "none"
            name = f"scratch, {cell['augment']}" if control else cell["source"]
            first.setdefault((cell["target"], outcome.is_scratch, name), outcome)
    if not first:
        raise ValueError(f"{root}: no run has a grid to show")
    recorded = {key: grids_of(Path(root) / run.run) for key, run in sorted(first.items())}
    moments = choose_steps((k for grids in recorded.values() for k, _ in grids), _MOMENTS)
    figure, grid = _figure((2.4 * len(moments) + 1, 0.66 * len(recorded)), len(recorded),
                           len(moments))  # fmt: skip
    for place, axes in enumerate(grid):
        row, column = divmod(place, len(moments))
        key, grids = list(recorded.items())[row]
        axes.set(xticks=[], yticks=[], frame_on=False)
        if row == 0:
            axes.set_title(f"{moments[column]:g} kimg", fontsize=8)
        if column == 0:
            label = f"{key[2]}\n-> {key[0]}"
            axes.set_ylabel(label, fontsize=6, rotation=0, ha="right", va="center")
        until = [file for kimg, file in grids if kimg <= moments[column] + 1e-9]
        config = Trial.load(Path(root) / first[key].run / "trial.json").config
        picture = frame(until[-1], config, _LATENTS) if until else None
        if picture is not None:
            axes.imshow(np.asarray(picture), interpolation="lanczos")
    _write(figure, path)


Key = tuple[str, str, str, str]  # model, strategy, source or control, target


def _cells(found: Sequence[Score], measure: str) -> dict[Key, np.ndarray]:
    """The values of complete runs. A control belongs to every strategy."""
    values: dict[Key, list[float]] = defaultdict(list)
    whole = [s for s in found if s.outcome.is_complete]
    strategies = list(
        dict.fromkeys(s.outcome.cell["freeze"] for s in whole if not s.outcome.is_scratch)
    )
    for score in sorted(whole, key=lambda s: s.outcome.is_scratch):
        cell, value = score.outcome.cell, getattr(score, measure)
        name = cell["source"]
        if score.outcome.is_scratch:
            name = "scratch" if cell["augment"] == "none" else f"scratch, {cell['augment']}"
        for strategy in strategies if score.outcome.is_scratch else [cell["freeze"]]:
            values[cell["model"], strategy, name, cell["target"]].append(value)
    return {key: np.array(own) for key, own in values.items()}


def _heat_map(
    axes: Axes,
    cells: Mapping[Key, np.ndarray],
    panel: tuple[str, str],
    sources: Sequence[str],
    targets: Sequence[str],
    lower: bool,
) -> None:
    ratio = np.full((len(sources), len(targets)), np.nan)
    for row, source in enumerate(sources):
        for column, target in enumerate(targets):
            own = cells.get((*panel, source, target))
            if own is None:
                continue
            base = cells.get((*panel, "scratch", target))
            ratio[row, column] = _times(own, base) * (1 if lower else -1)
            dark = abs(ratio[row, column]) > 2.2
            text = plus_minus(float(own.mean()), mean_interval(own), between="\n")
            axes.text(column, row, text, ha="center", va="center", fontsize=6,
                      color="white" if dark else "black")  # fmt: skip
    axes.imshow(ratio, cmap="PuOr", vmin=-4, vmax=4, aspect="auto")
    axes.set_xticks(range(len(targets)), [t.split("/")[-1] for t in targets], fontsize=7)
    axes.set_yticks(range(len(sources)), sources, fontsize=7)


def _times(own: np.ndarray, base: np.ndarray | None) -> float:
    """log2 of how many times smaller than scratch the mean is; 0 where no ratio has a sense."""
    if base is None or not 0 < own.mean() < math.inf or not 0 < base.mean() < math.inf:
        return 0.0
    return math.log2(base.mean() / own.mean())


def _figure(size: tuple[float, float], rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _write(figure: Figure, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())
