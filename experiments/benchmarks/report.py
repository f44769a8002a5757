"""How long the page of a study takes to make, its size, and the memory that making it needs.

    python experiments/benchmarks/report.py [--trials 100 1000] [--kimg 0 1 2 5 10 20] [--open]

Run folders are made first: grids of noise (the worst case for WebP) of 4 x 3 images at 64 px. Peak
memory is that of a fresh process for each size. `--open` times headless Chromium, from its start to
the laid-out page, less the same for an empty page.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stylegan_tl.pictures import save_grid
from stylegan_tl.study.report import report
from stylegan_tl.study.trial import MetricsLog, Trial

METRIC = "kid1k_heldout_small"
STRATEGIES = ("none", "freeze_d", "freeze_g", "lora", "init_g")
SEEDS = range(4)


def main() -> None:
    """Make the studies, measure each in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--kimg", type=float, nargs="+", default=[0, 1, 2, 5, 10, 20])
    parser.add_argument("--open", action="store_true", help="time Chromium too")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one)
        return
    for count in args.trials:
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch, "runs"), count, args.kimg)
            print(f"{count} trials, {len(args.kimg)} grids each")
            for _ in ("new", "again"):
                subprocess.run([sys.executable, __file__, "--one", scratch], check=True)
            if args.open:
                print(f"  opened in {opened(Path(scratch, 'page.html')):.2f} s")


def make(root: Path, count: int, kimg: Sequence[float]) -> None:
    """`count` run folders: the cells of a square matrix x strategies x seeds."""
    side = int(np.ceil(np.sqrt(count / len(STRATEGIES) / len(SEEDS)))) + 1
    pairs = [(s, t) for s in range(side) for t in range(side) if s != t]
    first = None
    for pair, strategy, seed in itertools.islice(
        itertools.product(pairs, STRATEGIES, SEEDS), count
    ):
        folder = root / f"{pair[0]}-{pair[1]},{strategy}" / f"seed={seed}"
        if first is None:
            first = folder
            log = MetricsLog(folder / "metrics.jsonl")
            for k in kimg:
                log.append({"kimg": k, "nimg": int(k * 1000), "loss_G": 1.0, "loss_D": 1.0})
                images = np.random.default_rng(int(k * 1000)).integers(0, 256, (12, 3, 64, 64))
                path = folder / "grids" / f"kimg{k:010.3f}.png"
                save_grid(path, images.astype(np.uint8), f"{k} kimg")
        else:
            shutil.copytree(first, folder)
        write_trial(folder, (f"domain/{pair[0]}", f"domain/{pair[1]}"), strategy, seed, kimg)


def write_trial(
    folder: Path, pair: tuple[str, str], strategy: str, seed: int, kimg: Sequence[float]
) -> None:
    """A record with one metric, whose values are drawn."""
    source, target = ({"kind": "zip", "name": name} for name in pair)
    grid = {"columns": 4, "rows": 3, "seed": 0}
    config = {"source": source, "target": target, "resolution": 64, "grid": grid}
    choices = {"source": pair[0], "target": pair[1], "freeze": strategy, "model": "dcgan"}
    trial = Trial("bench", f"{pair[0]} to {pair[1]}", seed, choices, config)
    values = np.random.default_rng([seed, *map(ord, strategy)]).uniform(1, 9, len(kimg))
    at = [{"kimg": k, "value": float(v)} for k, v in zip(kimg, values, strict=True)]
    trial.metrics = {METRIC: {"better": "min", "protocol": {"num_fakes": 1000}, "at": at}}
    trial.kimg = kimg[-1]
    trial.close("complete")
    trial.save(folder / "trial.json")


def measure(scratch: Path) -> None:
    """Time and peak memory of one report; the second one finds its pictures made."""
    began = time.perf_counter()
    page = report(scratch / "runs", scratch / "page.html")
    seconds = time.perf_counter() - began
    beside = sum(f.stat().st_size for f in scratch.glob("page_files/*")) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = page.stat().st_size / 2**20
    print(f"  {seconds:6.1f} s, page {size:.1f} MiB, beside it {beside:.1f}, peak {peak:.0f} MiB")


def opened(page: Path, rounds: int = 3) -> float:
    """Median seconds of a browser with the page, less with an empty one."""

    def once(url: str) -> float:
        flags = "--headless --no-sandbox --disable-gpu --disable-background-networking".split()
        began = time.perf_counter()
        command = ["chromium", *flags, "--dump-dom", url]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began

    pairs = [(once(page.as_uri()), once("about:blank")) for _ in range(rounds)]
    return statistics.median(full - empty for full, empty in pairs)


if __name__ == "__main__":
    main()
