"""Benchmark of several trials at a time on one device against one at a time.

    python experiments/benchmarks/packing.py [--device cuda] [--at-a-time 1 2 4] [--overrides …]

Runs the procedural demo's first pair with other seeds, its source model trained before the clock
starts: on a GPU with `gpus=[0] per_gpu=K`, on a CPU with K processes that share the cores. The
overrides, KEY=VALUE, are those of every trial, such as kimg=4 resolution=64. Prints a JSON object
per measurement: seconds for all trials, trials per hour, and how many times those of the first row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stylegan_tl.study.collect import collect
from stylegan_tl.study.provenance import commit, hardware

PAIR = ["source=[rooms/bedroom]", "target=[rooms/kitchen]", "freeze=[none]"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--at-a-time", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--overrides", nargs="*", default=[])
    args = parser.parse_args()
    about = {"trials": args.trials, "overrides": args.overrides}
    print(json.dumps({"hardware": hardware(), "commit": commit(), **about}), flush=True)
    first = None
    with tempfile.TemporaryDirectory() as folder:
        study(Path(folder), "source", [0], slots(args.device, 1), args.overrides)
        for count in args.at_a_time:
            seeds = list(range(args.trials))
            where, name = slots(args.device, count), f"at_a_time{count}"
            seconds = study(Path(folder), name, seeds, where, args.overrides)
            rate = 3600 * args.trials / seconds
            first = first or rate
            row = {"at_a_time": count, "seconds": round(seconds, 1), "trials_per_hour": round(rate)}
            print(json.dumps({**row, "times_the_first": round(rate / first, 3)}), flush=True)


def slots(device: str, count: int) -> list[str]:
    """The launcher's words for so many trials at a time on one device."""
    if device == "cuda":
        return ["gpus=[0]", f"per_gpu={count}"]
    return ["gpus=[]", f"processes={count}", f"threads={max(1, (os.cpu_count() or 1) // count)}"]


def study(folder: Path, name: str, seeds: list[int], where: list[str], more: list[str]) -> float:
    """Run the trials in a folder of their own; seconds. SystemExit if one is not complete."""
    words = [f"study.factors.{pair}" for pair in PAIR]
    words += ["study.controls=[]", "study.baseline=null", f"study.seeds={seeds}".replace(" ", "")]
    words += [f"runs={folder / name}", f"cache={folder / 'cache'}", *where, *more]
    command = [sys.executable, "-m", "stylegan_tl.study", "run", "study=demo", *words]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    complete = done.returncode == 0 and all(o.is_complete for o in collect(folder / name))
    return seconds if complete else sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


if __name__ == "__main__":
    main()
