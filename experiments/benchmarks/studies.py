"""Benchmark of studies: planning ten thousand trials, and what the launcher costs per trial.

    python experiments/benchmarks/studies.py [--trials 10000] [--launched 200] [--slots 1 2 4]

Prints one JSON object per measurement: seconds to lay out the trials of a study, to plan it with
nothing there and with every trial complete, to start the launcher on a study that is complete; and
seconds per trial when a trial does nothing, beside the same processes without a launcher.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stylegan_tl.study.__main__ import open_by_arguments
from stylegan_tl.study.opened import Opened
from stylegan_tl.study.plan import make_plan, render
from stylegan_tl.study.pool import Pool
from stylegan_tl.study.progress import Progress
from stylegan_tl.study.provenance import commit, hardware
from stylegan_tl.study.slots import make_slots
from stylegan_tl.study.trial import Trial

ROOMS = ["bedroom", "dining_room", "kitchen", "living_room"]
NOTHING = [sys.executable, "-S", "-c", "pass"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--launched", type=int, default=200)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    print(json.dumps({"hardware": hardware(), "commit": commit()}))
    with tempfile.TemporaryDirectory() as folder:
        planning(Path(folder), args.trials)
        for slots in args.slots:
            launching(Path(folder) / f"slots{slots}", args.launched, slots)


def planning(folder: Path, trials: int) -> None:
    """A study of 4 x 3 pairs, two strategies and the controls: 32 cells, and seeds to fill."""
    opened = _open(folder, -(-trials // 32))
    report("lay out the trials", lambda: len(_open(folder, -(-trials // 32)).trials))
    report("plan, nothing there", lambda: len(render(opened, make_plan(opened))))
    for trial in opened.trials:
        _complete(opened, trial.job.folder)
    report("plan, all complete", lambda: len(render(opened, make_plan(opened))))
    jobs = [trial.job for trial in opened.trials]
    pool = Pool(jobs, make_slots([]), Progress(jobs, io.StringIO()))
    report("launcher, all complete", lambda: len(pool.run()))


def launching(folder: Path, trials: int, slots: int) -> None:
    """Trials whose process does nothing, and the same processes one after another without us."""
    jobs = [trial.job for trial in _open(folder, -(-trials // 32)).trials][:trials]
    pool = Pool(
        jobs, make_slots([], processes=slots), Progress(jobs, io.StringIO()), program=NOTHING
    )
    start = time.perf_counter()
    pool.run()
    ours = time.perf_counter() - start
    start = time.perf_counter()
    for _ in jobs:
        subprocess.run(NOTHING, check=True)
    bare = time.perf_counter() - start
    each = {"launcher_ms": 1e3 * ours / len(jobs), "bare_process_ms": 1e3 * bare / len(jobs)}
    print(json.dumps({"what": "a trial that does nothing", "slots": slots, **each}))


def report(what: str, work: Callable[[], Any]) -> None:
    """Time one call."""
    start = time.perf_counter()
    count = work()
    seconds = time.perf_counter() - start
    print(json.dumps({"what": what, "seconds": round(seconds, 3), "result": count}), flush=True)


def _open(folder: Path, seeds: int) -> Opened:
    names = ",".join(f"rooms/{room}" for room in ROOMS)
    numbers = ",".join(map(str, range(seeds)))
    factors = [f"study.factors.{key}=[{names}]" for key in ("source", "target")]
    own = [f"runs={folder / 'runs'}", f"cache={folder / 'cache'}", f"study.seeds=[{numbers}]"]
    return open_by_arguments(["study=demo", *factors, *own])


def _complete(opened: Opened, folder: Path) -> None:
    trial = Trial("demo", "a to b", 0, {}, dict(opened.config), state="complete")
    trial.kimg, trial.s_per_kimg, trial.hardware = 0.4, 10.0, hardware()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trial.json").write_text(json.dumps(asdict(trial)))


if __name__ == "__main__":
    main()
