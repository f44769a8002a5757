"""What a study of thousands of trials costs beside its training.

    python experiments/benchmarks/tables.py [--trials 10000] [--only collect]

Each part runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from stylegan_tl.study.trial import Trial

PROTOCOL = {
    "of": "model",
    "num_fakes": 1000,
    "num_reals": 1796,
    "split": "train",
    "extractor": "small",
    "extractor_digest": "4edee7f0bfda2ab29f8707c5e3e7c4819025cdcac8ebf9d8fbf52606c151d8b8",
    "precision": "fp32",
    "resize": "antialiased bilinear to 64 px",
    "estimator": "as it is",
}
METRICS = ("kid1k_train_small", "fid1k_train_small", "swd500_train")


def main() -> None:
    """Measure each part and print seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--only", choices=sorted(PARTS), help="one part")
    args = parser.parse_args()
    print(f"{args.trials} trials, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "runs", "made")
        write_trials(root, args.trials)
        for name in [args.only] if args.only else PARTS:
            print(f"{name:10s} {apart(PARTS[name], root)}", flush=True)


def collecting(root: Path) -> str:
    """Reading every record."""
    from stylegan_tl.study.collect import collect

    return f"{len(collect(root))} records"


def tabulating(root: Path) -> str:
    """The whole of `study table`: CSV, Markdown and LaTeX, with bootstrap intervals."""
    from stylegan_tl.study.table import table

    return f"{len(table(root, metrics=METRICS[:1]))} characters"


PARTS: dict[str, Callable[[Path], str]] = {"collect": collecting, "table": tabulating}


def apart(part: Callable[[Path], str], root: Path) -> str:
    """Run `part` in a fresh process: its answer, seconds, peak memory."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(part, root, theirs))
    process.start()
    text, seconds, cpu, idle, peak = ours.recv()
    process.join()
    return f"{seconds:6.1f} s ({cpu:.1f} of CPU)  peak {peak:.0f} MiB ({idle:.0f} before)  {text}"


def _measured(part: Callable[[Path], str], root: Path, pipe: object) -> None:
    import stylegan_tl.study.table  # noqa: F401  what every command imports

    idle, began, cpu = _peak_mib(), time.perf_counter(), time.process_time()
    text = part(root)
    seconds = time.perf_counter() - began, time.process_time() - cpu
    pipe.send((text, *seconds, idle, _peak_mib()))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_trials(root: Path, count: int, evaluations: int = 20) -> None:
    """`count` whole records of a full grid: sources x targets x 4 strategies x 5 seeds."""
    side = max(1, math.isqrt(count // 20))
    for number in range(count):
        rest, seed = divmod(number, 5)
        rest, strategy = divmod(rest, 4)
        target, source = rest % side, rest // side
        names = f"source={source}", f"target={target}", f"freeze=s{strategy}"
        folder = root / ",".join(names) / f"seed={seed}"
        folder.mkdir(parents=True)
        record = _record(source, target, strategy, seed, evaluations)
        (folder / "trial.json").write_text(json.dumps(record, indent=2))


def _record(source: int, target: int, strategy: int, seed: int, evaluations: int) -> dict:
    name = "scratch" if source == 0 else f"set/{source}"
    choices = {"source": name, "target": f"set/{target}", "freeze": f"s{strategy}"}
    choices |= {"model": "dcgan", "augment": "none"}
    kind = "scratch" if source == 0 else "packed"
    config = {"source": {"kind": kind, "name": name}, "target": {"name": f"set/{target}"}}
    config |= {"padding": ["x" * 40] * 100}  # a real configuration is about so long
    trial = Trial("made", f"{name} to {target}", seed, choices, config, "complete", kimg=4.0)
    trial.freeze = {net: {"parameters": 10**6, "share": 0.1 * strategy} for net in "GD"}
    for metric in METRICS:
        at = [
            {"kimg": 0.2 * tick, "value": 9.0 / (1 + tick) + (seed + source) % 7 / 10 + target}
            for tick in range(evaluations + 1)
        ]
        protocol = {**PROTOCOL, "reference_hash": str(target)}
        trial.metrics[metric] = {"better": "min", "protocol": protocol, "at": at}
    return vars(trial)


if __name__ == "__main__":
    main()
