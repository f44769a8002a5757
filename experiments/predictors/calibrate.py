"""Does each predictor find an order of sources that is known by construction? `calibrate.py OUT`.

Targets: the eight procedural domains. Sources: the same domain at five known distances from it,
none of its pictures among the target's. Writes table.csv beside this file; the records, and the
source models if any, are kept, so the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_tl.composing import compose
from stylegan_tl.config import plain
from stylegan_tl.data.procedural import DOMAINS
from stylegan_tl.pair.every import measure_all
from stylegan_tl.pair.known import KnownPair, calibrate, known_pairs
from stylegan_tl.study.predict import Prediction

HERE = Path(__file__).parent
COLUMNS = ("spearman", "spearman_targets", "kendall", "regret", "chance", "spearman_learned")


def main() -> None:
    """Measure what is missing, score it, write the table, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the records")
    parser.add_argument("--images", type=int, nargs="+", default=[64, 225], help="of each side")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), help="the targets")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--kimg", type=float, default=0.0, help="of source models; 0: without")
    parser.add_argument("--steps", type=int, default=40, help="of an inversion")
    parser.add_argument("--cache", type=Path, required=True)
    given = parser.parse_args()
    pairs, rows = known_pairs(given.domains), []
    for count in given.images:
        records = given.out / f"records_{count}.jsonl"
        last = count == max(given.images)  # models are drawn from and inverted once
        problems = measure_all(_configs(given, pairs, count, records, last), print)
        if problems:
            raise SystemExit("\n".join(problems))
        found = calibrate(records, pairs, generator=np.random.default_rng(0))
        rows += [_row(count, prediction) for prediction in found]
    _write(HERE / "table.csv", rows)


def _configs(
    given: argparse.Namespace, pairs: list[KnownPair], count: int, records: Path, models: bool
) -> list[dict[str, Any]]:
    own = [f"resolution={given.resolution}", f"num_images={count}", f"cache='{given.cache}'"]
    own += ["model=dcgan_small", f"out='{records}'", "device=cpu", "trainer.threads=1"]
    own += [f"runs='{given.out}'"]
    if given.kimg and models:
        own += ["train_source=true", f"pretrain.kimg={given.kimg}"]
        own += [f"inversion.steps={given.steps}"]
    else:
        own += ["inversion.images=0", "pretrain.seed=99"]  # a model that nobody has trained
    config = plain(compose("distance", own))
    return [{**config, "source": p.source, "target": p.target} for p in pairs]


def _row(count: int, prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {"images": count, "predictor": prediction.predictor}
    row["targets"] = prediction.targets
    for name in COLUMNS:
        value = getattr(prediction, name)
        if isinstance(value, tuple):
            row |= {f"{name}_low": _short(value[0]), f"{name}_high": _short(value[1])}
        else:
            row[name] = _short(value)
    return row


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value + 0.0:.3f}"


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{value!s:<10}" for value in row.values()))


if __name__ == "__main__":
    main()
