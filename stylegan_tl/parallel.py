"""One trial on several devices: a process for each, started here or by torchrun.

Every process has its part of each batch; what they compute is averaged in `stylegan_tl.processes`
and not by DistributedDataParallel, whose hooks know one backward pass per step and one set of
trained parameters, where a GAN has up to four and stages change the set.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.multiprocessing as mp
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed

from stylegan_tl.processes import agree, ranks

__all__ = ["PerDevice", "count_of", "is_worker", "joined", "launch", "trainer_options"]

_TIMEOUT = timedelta(days=1)  # others wait while the first waits for a source model
_GRACE = 20.0  # seconds from the failure of one process to the end of all


class PerDevice(DDPStrategy):
    """Lightning's process per device with the model as it is: it averages gradients itself."""

    def configure_ddp(self) -> None:
        """Begin equal everywhere; wrap nothing."""
        agree([*self.model.parameters(), *self.model.buffers()])


def is_worker() -> bool:
    """Whether this process is one of several that torchrun, or `launch`, started."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


def count_of(trainer: Mapping[str, Any]) -> int:
    """How many processes a trial takes in all. ValueError where torchrun or the GPUs disagree."""
    devices = trainer["devices"]
    wanted = len(devices) if isinstance(devices, list) else devices
    if not is_worker():
        _check_gpus(trainer, devices, wanted)
        return wanted
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    if wanted not in (1, local):
        raise ValueError(f"trainer.devices={devices}, but torchrun starts {local} processes here")
    return int(os.environ["WORLD_SIZE"])


def trainer_options(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of Lightning's trainer that say where it runs."""
    chosen = {key: trainer[key] for key in ("accelerator", "devices", "strategy")}
    if not is_worker():
        alone = "auto" if chosen["strategy"] == "ddp" else chosen["strategy"]
        return {**chosen, "strategy": alone}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    if not isinstance(chosen["devices"], list):
        chosen["devices"] = local
    nodes = int(os.environ["WORLD_SIZE"]) // local
    environment = TorchElasticEnvironment()
    return {**chosen, "strategy": PerDevice(), "num_nodes": nodes, "plugins": [environment]}


@contextmanager
def joined(trainer: Mapping[str, Any]) -> Iterator[None]:
    """Within it, the processes of a trial can talk; only the first has something to say to people.

    Does nothing in a process of its own, or where they talk already.
    """
    if not is_worker() or distributed.is_initialized():
        yield
        return
    count_of(trainer)
    backend = "gloo"
    if _on_gpus(trainer):
        local, devices = int(os.environ["LOCAL_RANK"]), trainer["devices"]
        torch.cuda.set_device(devices[local] if isinstance(devices, list) else local)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_TIMEOUT)
    if ranks()[1]:
        logging.getLogger("stylegan_tl").setLevel(logging.WARNING)
    yield
    distributed.destroy_process_group()  # after an error others see this process go, once it told


def launch(work: Callable[..., int], count: int, arguments: Sequence[Any]) -> int:
    """Run `work(*arguments)` in `count` processes as torchrun would; return their exit code.

    An exception of one ends all and is raised here. Signals are handed on to all; processes whose
    parent dies end too.
    """
    context = mp.get_context("spawn")
    lines, results = context.Queue(), context.SimpleQueue()
    root, port = logging.getLogger(), _free_port()
    processes = [
        context.Process(
            target=_work, args=(rank, count, port, root.level, lines, results, work, arguments)
        )
        for rank in range(count)
    ]
    listener = logging.handlers.QueueListener(lines, *root.handlers, respect_handler_level=True)
    listener.start()
    try:
        with _handed_on(processes) as signals:
            for process in processes:
                process.start()
            _supervise(processes)
    finally:
        listener.stop()
        lines.close()
        lines.join_thread()  # which frees what it holds of the queue: later that could hang a fork
    return _result(results, processes, signals)


def _work(
    rank: int,
    count: int,
    port: int,
    level: int,
    lines: Any,
    results: Any,
    work: Callable[..., int],
    arguments: Sequence[Any],
) -> None:
    os.setsid()  # a terminal's Ctrl-C reaches the parent, which hands it on
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    handler = logging.handlers.QueueHandler(lines)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    torch.set_num_threads(max(torch.get_num_threads() // count, 1))
    code, error = 1, None
    try:
        code = work(*arguments)
    except Exception as failure:
        error = _portable(failure)
    results.put((rank, code, error))
    sys.stdout.flush()
    lines.close()
    lines.join_thread()
    os._exit(0 if error is None and code == 0 else 1)  # peers may be gone: wait for nobody


def _die_with_parent() -> None:
    mp.parent_process().join()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or where it cannot be sent to another process, its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def _handed_on(processes: Sequence[Any]) -> Iterator[list[int]]:
    """Send the processes what comes here; yields the list of it."""
    received: list[int] = []

    def send(number: int, frame: Any) -> None:
        received.append(number)
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {n: signal.signal(n, send) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _supervise(processes: Sequence[Any]) -> None:
    """Wait for all; once one has failed, the others get `_GRACE` to end."""
    deadline = None
    while any(p.is_alive() for p in processes):
        if deadline is None and any(p.exitcode for p in processes):
            deadline = time.monotonic() + _GRACE
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)


def _result(results: Any, processes: Sequence[Any], signals: Sequence[int]) -> int:
    """The code of the first process. Raises the error that came first: others follow from it."""
    found: dict[int, int] = {}
    first: Exception | None = None
    while not results.empty():
        rank, found[rank], error = results.get()
        first = first or error
    if first is not None:
        raise first
    if len(found) < len(processes) and signals:
        return 128 + signals[0]
    if len(found) < len(processes):
        codes = ", ".join(f"{i}: {p.exitcode}" for i, p in enumerate(processes))
        raise RuntimeError(f"a process of the trial was killed (exit codes {codes})")
    return found[0]


def _on_gpus(trainer: Mapping[str, Any]) -> bool:
    wanted = trainer["accelerator"]
    return wanted in ("gpu", "cuda") or (wanted == "auto" and torch.cuda.is_available())


def _check_gpus(trainer: Mapping[str, Any], devices: Any, wanted: int) -> None:
    there, named = torch.cuda.device_count(), trainer["accelerator"]
    apple = named == "gpu" and torch.backends.mps.is_available()
    if named in ("gpu", "cuda") and not there and not apple:
        raise ValueError(
            f"trainer.accelerator={named}: torch finds no GPU here; use trainer=auto or trainer=cpu"
        )
    if wanted > 1 and _on_gpus(trainer) and wanted > there:
        raise ValueError(f"trainer.devices={devices}: this machine has {there} GPUs")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
