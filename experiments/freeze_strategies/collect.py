"""`python experiments/freeze_strategies/collect.py [runs/freeze_strategies]`: table and figures.

Reads every finished trial and its checkpoint; writes table.csv, table.md, figure.png, and for each
target grid_<target>.jpg, the same latents under every strategy.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from stylegan_tl.config import pretrain_config
from stylegan_tl.freeze.groups import parts_of
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.restore import restore
from stylegan_tl.source.obtain import find_source
from stylegan_tl.study.comparable import comparable
from stylegan_tl.study.trial import Trial

HERE = Path(__file__).parent
METRICS = {"KID": "kid1k_train_small", "FID": "fid1k_train_small", "SWD": "swd500_train"}
GROUPS = ("mapping", "affine", "conv", "torgb")
IMAGES = 8


def main() -> None:
    """Collect, check that all rows were measured alike, write."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/freeze_strategies")
    found = [(path.parent, Trial.load(path)) for path in sorted(root.rglob("trial.json"))]
    found = [(folder, trial) for folder, trial in found if trial.is_complete]
    if not found:
        sys.exit(f"no finished trial under {root}")
    for name in METRICS.values():
        for target in {t.name for _, t in found}:
            protocols = [t.metrics[name]["protocol"] for _, t in found if t.name == target]
            for protocol in protocols:
                comparable({"metric": name, **protocols[0]}, {"metric": name, **protocol})
    cells = defaultdict(list)
    for folder, trial in found:
        cells[trial.name, trial.choices["freeze"]].append((folder, trial))
    source = next(_source(t) for _, t in found if t.source)
    rows = [_row(*key, cells[key], source) for key in sorted(cells, key=lambda k: _rank(cells, k))]
    with (HERE / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    header = "| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0])
    body = "\n".join("| " + " | ".join(map(str, row.values())) + " |" for row in rows)
    (HERE / "table.md").write_text(f"{header}\n{body}\n")
    _figure(cells)
    for name in {name for name, _ in cells}:
        _grid(name, cells, source)
    print(f"{header}\n{body}")


def _rank(cells: dict, key: tuple[str, str]) -> tuple[str, float]:
    return key[0], _final(cells[key], "FID")


def _final(trials: list, metric: str) -> float:
    return mean(t.metrics[METRICS[metric]]["final"]["value"] for _, t in trials)


def _source(trial: Trial) -> AdversarialModel:
    """The model that every transfer of this experiment started from."""
    path = find_source(pretrain_config(trial.config), Path(trial.config["cache"]).expanduser())
    return restore(path)[0]


def _row(name: str, strategy: str, trials: list, source: AdversarialModel) -> dict[str, object]:
    first = trials[0][1]
    row: dict[str, object] = {"pair": name, "strategy": strategy, "seeds": len(trials)}
    row |= {metric: f"{_final(trials, metric):.3g}" for metric in METRICS}
    row |= {f"trains of {net}": f"{1 - first.freeze[net]['share']:.1%}" for net in "GD"}
    changes = [_changes(restore(folder)[0], source) for folder, _ in trials]
    return row | {f"change of {g}": f"{mean(c[g] for c in changes):.1%}" for g in changes[0]}


@torch.no_grad()
def _changes(model: AdversarialModel, source: AdversarialModel) -> dict[str, float]:
    """|after - before| / |before| of each group of G's parameters, and of D's."""
    before = source.state_dict()
    after = {k.replace("G_ema.", "G.", 1): v for k, v in model.state_dict().items()}
    before |= {k.replace("G_ema.", "G.", 1): v for k, v in before.items() if k.startswith("G_ema")}
    parts = [p for p in parts_of(source) if p.is_parameter]
    sets = {g: [p.name for p in parts if p.network == "G" and g in p.groups] for g in GROUPS}
    sets["D"] = [p.name for p in parts if p.network == "D"]
    return {g: _relative(names, before, after) for g, names in sets.items()}


def _relative(names: list[str], before: dict, after: dict) -> float:
    moved = sum(float((after[n] - before[n]).double().square().sum()) for n in names)
    return (moved / sum(float(before[n].double().square().sum()) for n in names)) ** 0.5


def _figure(cells: dict) -> None:
    names = sorted({name for name, _ in cells})
    figure = Figure(figsize=(6 * len(names), 0.24 * len(cells) / len(names) + 1.2))
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = sorted((k for k in cells if k[0] == name), key=lambda k: -_final(cells[k], "FID"))
        for place, key in enumerate(own):
            values = [t.metrics[METRICS["FID"]]["final"]["value"] for _, t in cells[key]]
            axes.plot(values, [place] * len(values), "o", color="tab:blue")
        axes.set_yticks(range(len(own)), [strategy for _, strategy in own], fontsize=8)
        axes.set(title=name, xlabel=f"{METRICS['FID']} at the end", xscale="log")
        axes.grid(axis="x", which="both", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / "figure.png", dpi=110)


@torch.no_grad()
def _grid(name: str, cells: dict, source: AdversarialModel) -> None:
    """One row of images a strategy, best first, the source model on top: the same latents."""
    own = sorted((k for k in cells if k[0] == name), key=lambda k: _final(cells[k], "FID"))
    models = [("source", source)] + [(key[1], restore(cells[key][0][0])[0]) for key in own]
    z = torch.randn(IMAGES, source.G.z_dim, generator=torch.Generator().manual_seed(0))
    size = source.G.resolution
    figure = Figure(figsize=((IMAGES * size + 150) / 100, len(models) * size / 100), dpi=100)
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(models), 1, gridspec_kw={"hspace": 0, "left": 0.23, "right": 1,
                                                        "top": 1, "bottom": 0})  # fmt: skip
    for axes, (label, model) in zip(rows, models, strict=True):
        images = model.sample(z, **model.still).permute(2, 0, 3, 1).reshape(size, -1, 3)
        axes.imshow(np.asarray(Image.fromarray(images.numpy())), aspect="auto")
        axes.set_axis_off()
        axes.text(-0.01, 0.5, label, transform=axes.transAxes, ha="right", va="center", fontsize=8)
    target = name.rpartition("/")[2]
    figure.savefig(HERE / f"grid_{target}.jpg", pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
