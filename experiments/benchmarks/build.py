"""Times of building the kernels: `python experiments/benchmarks/build.py`.

Cold builds into an empty cache, one library after the other, and the first call of a fresh process
with a full cache, without the import of torch. Goals: cold <= 40 s on two cores, warm <= 0.2 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cuda_ops import toolkit
from cuda_ops.compile import SOURCES, CompileError, build

WARM = """
import sys, time
import torch  # not timed
from cuda_ops import compile as building
start = time.perf_counter()
kind, *architectures = sys.argv[1:]
path = building.build(kind, architectures).path
building.ctypes.CDLL(str(path))
print(time.perf_counter() - start)
"""


def main() -> int:
    """Print the table; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="90", help="architecture of the CUDA kernels")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes per library")
    given = parser.parse_args()
    _print_setting()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["STYLEGAN_TL_KERNELS"] = cache
        cold, warm = 0.0, 0.0
        for kind, architectures in (("cpu", []), ("cuda", [given.arch]), ("emulated", [])):
            seconds = _cold(kind, architectures)
            if seconds is None:
                continue
            times = [_warm(kind, architectures) for _ in range(given.repeats)]
            print(
                f"{kind:<10} cold {seconds:6.2f} s   warm {statistics.median(times):.3f} s ", end=""
            )
            print(f"(worst of {given.repeats}: {max(times):.3f} s)")
            cold, warm = cold + seconds, max(warm, statistics.median(times))
    print(f"everything cold {cold:6.2f} s (goal 40 s)   warm at most {warm:.3f} s (goal 0.2 s)")
    return int(cold > 40 or warm > 0.2)


def _print_setting() -> None:
    units = [f"{len(list(SOURCES.glob(f'*.{ending}')))} .{ending}" for ending in ("cpp", "cu")]
    load = os.getloadavg()[0]
    print(f"{len(os.sched_getaffinity(0))} cores, load {load:.1f}; {', '.join(units)}; ", end="")
    print(f"{toolkit.host_compiler().version.splitlines()[0]}; ninja {toolkit.ninja()}")


def _cold(kind: str, architectures: list[str]) -> float | None:
    start = time.perf_counter()
    try:
        build(kind, architectures)
    except CompileError as error:
        print(f"{kind:<10} not run: {str(error).splitlines()[0]}")
        return None
    return time.perf_counter() - start


def _warm(kind: str, architectures: list[str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", WARM, kind, *architectures],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
