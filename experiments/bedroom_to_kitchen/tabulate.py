"""`python experiments/bedroom_to_kitchen/tabulate.py [runs/bedroom_to_kitchen]`: table and figure.

Reads the `trial.json` of every finished trial; writes table.csv, table.md and figure.png here.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stylegan_tl.study.comparable import comparable
from stylegan_tl.study.trial import Trial

HERE = Path(__file__).parent
METRICS = ("kid1k_train_small", "fid1k_train_small", "swd500_train")
LABELS = {"scratch": "from scratch", "none": "full fine-tune", "freeze_d": "FreezeD, k = 2"}
COLOURS = {"scratch": "tab:gray", "none": "tab:blue", "freeze_d": "tab:orange"}


def main() -> None:
    """Collect, check that all rows were measured alike, write."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/bedroom_to_kitchen")
    trials = [t for t in map(Trial.load, sorted(root.rglob("trial.json"))) if t.is_complete]
    if not trials:
        sys.exit(f"no finished trial under {root}")
    for name in METRICS:
        for trial in trials:
            comparable(
                *({"metric": name, **t.metrics[name]["protocol"]} for t in (trials[0], trial))
            )
    cells = defaultdict(list)
    for trial in trials:
        cells[trial.choices["model"], _strategy(trial)].append(trial)
    rows = [_row(model, strategy, cells) for model, strategy in sorted(cells)]
    with (HERE / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    header = "| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0])
    body = "\n".join("| " + " | ".join(map(str, row.values())) + " |" for row in rows)
    (HERE / "table.md").write_text(f"{header}\n{body}\n")
    _figure(cells)
    print(f"{header}\n{body}")


def _strategy(trial: Trial) -> str:
    return "scratch" if trial.choices["source"] == "scratch" else trial.choices["freeze"]


def _row(model: str, strategy: str, cells: dict) -> dict[str, object]:
    trials = cells[model, strategy]
    row: dict[str, object] = {
        "model": model,
        "strategy": LABELS[strategy],
        "seeds": len(trials),
        "kimg": trials[0].kimg,
        "frozen share of D": f"{trials[0].freeze['D']['share']:.0%}",
    }
    for name in METRICS:
        for which in ("best", "final"):
            row[f"{name}, {which}"] = _spread([t.metrics[name][which]["value"] for t in trials])
    row["kimg to scratch's best FID"] = _spread(_kimg_to_reach(trials, cells[model, "scratch"]))
    row["s/kimg"] = _spread([t.s_per_kimg for t in trials])
    return row


def _kimg_to_reach(trials: list[Trial], controls: list[Trial]) -> list[float]:
    """First evaluated kimg at which each trial is at least as good as scratch's mean best FID."""
    if not controls:
        return []
    goal = mean(t.metrics["fid1k_train_small"]["best"]["value"] for t in controls)
    reached = []
    for trial in trials:
        rows = trial.metrics["fid1k_train_small"]["at"]
        reached += [row["kimg"] for row in rows if row["value"] <= goal][:1]
    return reached


def _spread(values: list[float]) -> str:
    if not values:
        return "not reached"
    spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    count = f" (n = {len(values)})" if len(values) != 3 else ""
    return f"{mean(values):.3g}{spread}{count}"


def _figure(cells: dict) -> None:
    models = sorted({model for model, _ in cells})
    figure = Figure(figsize=(5 * len(models), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        for strategy, label in LABELS.items():
            for number, trial in enumerate(cells.get((model, strategy), [])):
                rows = trial.metrics["fid1k_train_small"]["at"]
                axes.plot(
                    [r["kimg"] for r in rows],
                    [r["value"] for r in rows],
                    color=COLOURS[strategy],
                    label=label if number == 0 else None,
                    alpha=0.8,
                )
        axes.set(title=model, xlabel="kimg", ylabel="fid1k_train_small", yscale="log")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "figure.png", dpi=110)


if __name__ == "__main__":
    main()
