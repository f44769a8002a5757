"""`python experiments/freeze_strategies/cost.py [model=…] [--iterations 24]`: what strategies cost.

Time of an iteration over that of `freeze=none` (by CPU time, the least of some), and the memory of
weights, gradients and optimiser state, at 64 px on the procedural rooms. One thread. Writes
cost_<model>.csv.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from stylegan_tl.assembly import build, open_target
from stylegan_tl.bench_worker import alone
from stylegan_tl.composing import compose
from stylegan_tl.config import conf_dir, plain, pretrain_config
from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.freeze.selectors import NotApplicable
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.source.obtain import find_source
from stylegan_tl.source.portable import read_model

SKIPPED = ("selectors", "freeze_d_4")
STAGES = ("head_warmup", "low_to_high", "high_to_low")


def main() -> None:
    """Measure every option, print and write."""
    torch.set_num_threads(1)
    own = [a for a in sys.argv[1:] if "=" in a] or ["model=stylegan2_small"]
    count = int(sys.argv[sys.argv.index("--iterations") + 1]) if "--iterations" in sys.argv else 24
    options = sorted(p.stem for p in (Path(conf_dir()) / "freeze").glob("*.yaml"))
    cases = [[f"freeze={o}"] for o in options if o not in SKIPPED]
    cases += [["freeze=none", f"freeze/schedule={s}"] for s in STAGES]
    rows = [row for case in [["freeze=none"], *cases] if (row := _measure(own, case, count))]
    for row in rows:
        row["over none"] = round(row["CPU s"] / rows[0]["CPU s"], 2)
        print(row, flush=True)
    model = own[0].partition("=")[2]
    with (Path(__file__).parent / f"cost_{model}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows[1:])


def _measure(own: list[str], case: list[str], count: int) -> dict | None:
    small = ["num_images=50"] if case == ["freeze=bsa"] else []
    config = plain(compose("train", [*own, *case, *small]))
    target, freeze = open_target(config), freeze_of(config["freeze"])
    path = find_source(pretrain_config(config), Path(config["cache"]).expanduser())
    try:
        model, _ = build(config, target.dataset, path and read_model(path), freeze.strategy)
        freeze.apply(model)
    except NotApplicable:
        return None
    seconds = sorted(_iterations(alone(model, "cpu"), freeze, config, count))
    name = " ".join(part.partition("=")[2] for part in case)
    typical = round(seconds[len(seconds) // 4], 4)
    return {"strategy": name, "CPU s": typical, "MB": _megabytes(model)}


def _iterations(model: AdversarialModel, freeze: object, config: dict, count: int) -> list[float]:
    batch, size = config["model"]["training"]["batch_size"], config["resolution"]
    data = {
        "image": torch.rand(batch, 3, size, size) * 2 - 1,
        "label": torch.zeros(batch, 0),
        "index": torch.arange(batch),
    }
    found, trainer = [], SimpleNamespace(optimizers=model.optimizers())
    freeze.on_fit_start(trainer, model)
    for index in range(count):
        start = time.process_time()
        freeze.on_train_batch_start(trainer, model, data, index)
        model.training_step(data, index)
        found.append(time.process_time() - start)
    return found[2:]


def _megabytes(model: AdversarialModel) -> float:
    parameters = [*model.G.parameters(), *model.D.parameters()]
    state = [t for o in model.optimizers() for s in o.state.values() for t in s.values()]
    held = [*parameters, *(p.grad for p in parameters if p.grad is not None), *state]
    return round(sum(t.numel() * t.element_size() for t in held) / 1e6, 1)


if __name__ == "__main__":
    main()
