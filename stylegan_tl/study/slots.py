"""Where trials run at the same time: places on GPUs, or processes where there is none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Slot", "check_devices", "gpu_memory", "make_slots", "visible_gpus"]


@dataclass(frozen=True)
class Slot:
    """A place for one trial; `gpu` is what its CUDA_VISIBLE_DEVICES says, None for no GPU."""

    name: str
    gpu: str | None
    threads: int

    @property
    def environment(self) -> dict[str, str]:
        """What the trial's process sees: one GPU or none, and its share of the cores."""
        return {
            "CUDA_VISIBLE_DEVICES": self.gpu or "",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the numbers that nvidia-smi uses
            "OMP_NUM_THREADS": str(self.threads),
        }


def make_slots(
    gpus: Sequence[int | str] | None = None,
    per_gpu: int = 1,
    processes: int | None = None,
    threads: int | None = None,
) -> list[Slot]:
    """`per_gpu` slots on every GPU, one of each GPU first; without GPUs, `processes` slots.

    None means: all GPUs that are visible; one process per `threads` cores; one thread without a
    GPU (the number of threads changes how sums are rounded, so it is not left to the number of
    slots), an equal share of the cores with one. ValueError names a number that cannot be.
    """
    given = {"per_gpu": per_gpu, "processes": processes, "threads": threads}
    wrong = [
        f"{k}={v}" for k, v in given.items() if v is not None and (type(v) is not int or v < 1)
    ]
    if wrong:
        raise ValueError(f"hydra.launcher: {', '.join(wrong)}: use whole numbers from 1")
    devices = visible_gpus() if gpus is None else [str(g) for g in gpus]
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if not devices:
        count = processes or max(cores // (threads or 1), 1)
        return [Slot(f"cpu{i}", None, threads or 1) for i in range(count)]
    share = threads or max(cores // (len(devices) * per_gpu), 1)
    names = [
        (d, f"gpu{d}" + (f".{i}" if per_gpu > 1 else "")) for i in range(per_gpu) for d in devices
    ]
    return [Slot(name, device, share) for device, name in names]


def check_devices(slots: Sequence[Slot], devices: int | str | Sequence[int]) -> None:
    """ValueError if a trial asks for more devices (`trainer.devices`) than a slot has GPUs: one.

    Without a GPU a trial starts as many processes as it asks for.
    """
    text = str(devices).strip()
    count = len(text.strip("[]").split(",")) if text.startswith("[") else int(text)
    if count > 1 and any(slot.gpu is not None for slot in slots):
        raise ValueError(
            f"trainer.devices={text}: the local launcher gives each trial one GPU of "
            f"{len({slot.gpu for slot in slots})}. Use trainer.devices=1, which trains as many "
            "trials at a time as there are GPUs, or train them one after another on all of them: "
            "python -m stylegan_tl.train -m study=… hydra/launcher=basic"
        )


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lists, or else what nvidia-smi does; empty where there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [part for part in chosen.replace(" ", "").split(",") if part and part != "-1"]
    return [line.strip() for line in _nvidia_smi("index")]


def gpu_memory(gpu: str) -> tuple[float, float] | None:
    """(used, free) memory of a GPU in GiB; None if it cannot be asked."""
    for line in _nvidia_smi("memory.used,memory.free", "-i", gpu):
        used, free = (float(part) / 1024 for part in line.split(","))
        return used, free
    return None


def _nvidia_smi(query: str, *more: str) -> list[str]:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
