"""What made a result: the hardware, the versions and the commit. Standard library only."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["commit", "hardware", "versions"]

_PACKAGES = (
    "torch pytorch-lightning torchmetrics hydra-core omegaconf numpy pillow safetensors wandb"
).split()


def hardware(
    device: str = "cpu", *, threads: int | None = None, gpu: str | None = None, devices: int = 1
) -> dict[str, Any]:
    """Where a run ran; `threads` are the compute library's, `memory` is the machine's in GiB,
    `devices` how many of `device` (processes, on a CPU) trained together."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": str(device),
        "cpu": _cpu_name(),
        "cores": cores,
        "threads": threads if threads is not None else cores,
        "gpu": gpu,
        "devices": devices,
        "memory": _memory_gib(),
    }


def versions() -> dict[str, str | None]:
    """Versions of this package, Python and the packages that shape a result; None if missing."""
    from stylegan_tl import __version__

    found: dict[str, str | None] = {"stylegan_tl": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit() -> dict[str, Any] | None:
    """{sha, dirty} of the git checkout this code runs from; None when it is not a checkout.

    An installed copy that merely lies inside somebody's repository is not one: the file must be
    tracked.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    sha = _git(here.parent, "rev-parse", "HEAD")
    changes = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return None if sha is None else {"sha": sha, "dirty": bool(changes)}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # parallel trials share one checkout
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, env=environment, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
