"""What happens every tick, on the clock of images: log line, grid, evaluation, checkpoint."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from stylegan_tl.freeze.groups import GROUPS, Part, parts_of
from stylegan_tl.metrics.change import relative_change
from stylegan_tl.metrics.flags import flags
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.networks.adapters import fold, plain_name
from stylegan_tl.processes import largest, ranks

__all__ = [
    "EvaluationSamples",
    "FixedSamples",
    "Interrupt",
    "SourceChange",
    "Ticker",
    "TrainingDiverged",
    "save_atomic",
    "snapshots",
]

_EVALUATION_SEED = 1_000_003  # latents of metrics: the same in every run, never those of training
_BLOCK = 64  # fakes that share a seed: all of them are made, or none


class TrainingDiverged(RuntimeError):
    """A loss is not finite: the last checkpoint is good, this state is not."""


class Interrupt:
    """Turns SIGTERM and SIGINT into a flag that is read between two batches."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:  # asked twice: do not wait for the batch
            raise KeyboardInterrupt
        self.signal = number

    def take_over(self) -> None:
        """Be the only handler: Lightning's talks to other processes from within a signal."""
        for number in self._before:
            signal.signal(number, self._receive)

    def agree(self) -> None:
        """Let every process know of a signal that came to one."""
        self.signal = largest(self.signal or 0) or None

    @property
    def exit_code(self) -> int:
        """128 + the signal, what a shell and a scheduler read as interrupted; 0 if none came."""
        return 0 if self.signal is None else 128 + self.signal


class FixedSamples:
    """The same latents for every grid of every run, without noise: a function of (seed, z_dim)."""

    def __init__(self, count: int, seed: int, labels: np.ndarray | None = None) -> None:
        self.count, self.seed, self.labels = count, seed, labels

    def __call__(self, model: AdversarialModel) -> np.ndarray:
        """Images of G_ema, uint8 [count, 3, R, R]."""
        z = torch.randn(
            self.count, model.G.z_dim, generator=torch.Generator().manual_seed(self.seed)
        )
        c = None if self.labels is None else torch.from_numpy(self.labels).to(model.device)
        parts = [
            model.sample(
                part.to(model.device), None if c is None else c[i : i + len(part)], **model.still
            )
            for i, part in _parts(z, 16)
        ]
        return torch.cat(parts).cpu().numpy()


class EvaluationSamples:
    """`samples(start, count)`: fake number i is a function of i and the model alone.

    z and label of the block i // 64 come from one seed, drawn on the CPU; the images of a block are
    made whole, in parts of a size that the resolution sets. So neither the batches that a metric
    asks for nor who else asks changes an image. Noise comes from the device's own generator.
    `labels` (float32 [n, c_dim], or None) are those of the reals, drawn from with replacement.
    """

    def __init__(self, model: AdversarialModel, labels: np.ndarray | None = None) -> None:
        self.model, self._labels = model, labels
        self._last: tuple[int, Tensor] | None = None
        self._part = max(4, min(_BLOCK, _BLOCK * 256**2 // model.G.resolution**2))

    def __call__(self, start: int, count: int) -> Tensor:
        """Fakes number start … start + count − 1: uint8 [count, 3, R, R]."""
        return _from_blocks(self._block, start, count)

    def latents(self, start: int, count: int) -> Tensor:
        """Their z [count, z_dim], on the model's device."""
        z = _from_blocks(lambda i: self.model.latents(_BLOCK, _generator(i)), start, count)
        return z.to(self.model.device)

    def labels(self, start: int, count: int) -> Tensor | None:
        """Their labels [count, c_dim], on the model's device; None without classes."""
        if self._labels is None:
            return None
        return _from_blocks(self._drawn, start, count).to(self.model.device)

    def _block(self, number: int) -> Tensor:
        if self._last is None or self._last[0] != number:
            self._last = (number, self._made(number))
        return self._last[1]

    def _made(self, number: int) -> Tensor:
        first, model = number * _BLOCK, self.model
        z, c = self.latents(first, _BLOCK), self.labels(first, _BLOCK)
        noise = torch.Generator(model.device).manual_seed(_seed(number))
        return torch.cat(
            [
                model.sample(part, None if c is None else c[i : i + len(part)], generator=noise)
                for i, part in _parts(z, self._part)
            ]
        )

    def _drawn(self, number: int) -> Tensor:
        rows = np.random.default_rng(_seed(number)).integers(len(self._labels), size=_BLOCK)
        return torch.from_numpy(self._labels[rows])


def _seed(block: int) -> int:
    state = np.random.SeedSequence([_EVALUATION_SEED, block]).generate_state(1, np.uint64)
    return int(state[0]) & (2**63 - 1)


def _generator(block: int) -> torch.Generator:
    return torch.Generator().manual_seed(_seed(block))


def _from_blocks(block: Callable[[int], Tensor], start: int, count: int) -> Tensor:
    """Rows start … start + count − 1 of endless blocks of 64."""
    pieces = []
    for number in range(start // _BLOCK, -(-(start + count) // _BLOCK)):
        first = number * _BLOCK
        pieces.append(block(number)[max(start - first, 0) : start + count - first])
    return torch.cat(pieces) if pieces else block(0)[:0]


class SourceChange:
    """How far the groups of G_ema and of D are from the source model that the run began from.

    Build it while the model holds the source's weights: they are copied, to the CPU. `init` says
    which networks began from the source (freeze/strategy.py); what the source did not give, buffers
    and a block as a whole are left out. Adapters count by what they make of the tensors they adapt.
    """

    def __init__(self, model: AdversarialModel, init: Mapping[str, str]) -> None:
        fresh = tuple(model.reinitialised) or ("\0",)
        parts = [
            part
            for part in parts_of(model)
            if part.is_parameter and "adapter" not in part.groups
            if init.get(part.network) == "source" and not part.name.startswith(fresh)
        ]
        self.groups = _semantic_groups(parts)
        names = {name for group in self.groups.values() for name in group}
        self._source = {k: v.cpu().clone() for k, v in _plain_state(model).items() if k in names}

    def __call__(self, model: AdversarialModel) -> dict[str, float | None]:
        """{"G": …, "G.conv": …, "D.head": …}: relative L2 change, None where it began at zero."""
        return relative_change(self._source, _plain_state(model), self.groups)


def snapshots(budget: int) -> list[int]:
    """The nimg within `budget` images that every run keeps a grid at, whatever its ticks.

    1, 2, 5, 10, 20, 40, 80 … kimg; of a run of at most 10 kimg also 1/8, 1/4 and 1/2 kimg.

    >>> snapshots(2000)
    [125, 250, 500, 1000, 2000]
    """
    marks = [125, 250, 500] if budget <= 10_000 else []
    marks += [1000, 2000, 5000, *(10_000 * 2**i for i in range(budget.bit_length()))]
    return [mark for mark in marks if mark <= budget]


class Ticker(pl.Callback):
    """Every `kimg_per_tick`: statistics, grid, evaluation, record, checkpoint; stops at `kimg`.

    A grid is also kept at each of `snapshots`, so that runs with other ticks can be looked at side
    by side.
    `grid(model, kimg)` writes a picture and returns what it saw of it for the row; `evaluation`
    returns metric records, `change` (SourceChange) how far the weights are from the source, at the
    same ticks and on every process; each of `sinks` receives the row of the tick, on the first.
    `history` holds the rows before this process, in which flags may have begun. Time spent here is
    not counted as training; the ETA of a row has what is left of both.
    """

    def __init__(
        self,
        *,
        kimg: float,
        kimg_per_tick: float,
        checkpoint: Path,
        grid: Callable[[AdversarialModel, float], dict[str, Any] | None],
        evaluation: Callable[[AdversarialModel], list[dict]] | None,
        every_ticks: int,
        sinks: Sequence[Callable[[dict], None]],
        interrupt: Interrupt,
        change: Callable[[AdversarialModel], dict[str, float | None]] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.budget = round(kimg * 1000)
        self.per_tick = max(round(kimg_per_tick * 1000), 1)
        self._snapshots = snapshots(self.budget)
        self.checkpoint, self.grid, self.evaluation = checkpoint, grid, evaluation
        self.every_ticks, self.sinks, self.interrupt = every_ticks, sinks, interrupt
        self.change, self._history = change, list(history)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._seconds = 0.0  # training time of this run so far, over all its processes
        self._evaluation_seconds = 0.0  # likewise
        self._last_evaluation = 0.0  # seconds of the last one
        self._tick_seconds = 0.0
        self._tick_start = 0  # nimg when this tick began
        self._number = 0
        self._mark = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Half-finished sums travel with the checkpoint, so a resumed tick reports the same."""
        return {
            "sums": {k: v.cpu() for k, v in self._sums.items()},
            "counts": dict(self._counts),
            "seconds": self._seconds,
            "evaluation_seconds": self._evaluation_seconds,
            "last_evaluation": self._last_evaluation,
            "tick_seconds": self._tick_seconds,
            "tick_start": self._tick_start,
            "number": self._number,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the tick that was under way."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._seconds, self._tick_seconds = state["seconds"], state["tick_seconds"]
        self._evaluation_seconds = state.get("evaluation_seconds", 0.0)
        self._last_evaluation = state.get("last_evaluation", 0.0)
        self._tick_start, self._number = state["tick_start"], state["number"]

    def on_train_start(self, trainer: pl.Trainer, model: AdversarialModel) -> None:
        """Tick 0: what the source model gives before anything moved."""
        if ranks()[0] > 1:
            self.interrupt.take_over()
        if self._number == 0:
            self._tick(trainer, model)
        elif model.nimg >= self.budget:  # killed between the last checkpoint and the end
            trainer.should_stop = True
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, model: AdversarialModel, outputs: Any, batch: Any, index: int
    ) -> None:
        """Add up the losses; at the end of a tick, of the budget or on a signal, act."""
        self._accumulate(outputs)
        self.interrupt.agree()
        done = model.nimg >= self.budget
        if done or model.nimg // self.per_tick > model.nimg_before // self.per_tick:
            self._stop_watch()
            self._tick(trainer, model, last=done)
            self._mark = time.perf_counter()
        else:
            if any(model.nimg_before < mark <= model.nimg for mark in self._snapshots):
                self._snapshot(trainer, model)
            if self.interrupt.signal is not None:
                self._stop_watch()
                save_atomic(trainer, self.checkpoint)
                self._mark = time.perf_counter()
        if done or self.interrupt.signal is not None:
            trainer.should_stop = True

    def _accumulate(self, outputs: dict[str, Tensor]) -> None:
        for name, value in outputs.items():
            if name in self._sums:
                self._sums[name] = self._sums[name].to(value.device) + value.double()
            else:
                self._sums[name] = value.double()
            self._counts[name] = self._counts.get(name, 0) + 1

    def _stop_watch(self) -> None:
        elapsed = time.perf_counter() - self._mark
        self._seconds += elapsed
        self._tick_seconds += elapsed

    def _snapshot(self, trainer: pl.Trainer, model: AdversarialModel) -> None:
        self._stop_watch()
        if trainer.is_global_zero:
            self.grid(model, model.nimg / 1000)
        self._mark = time.perf_counter()

    def _tick(self, trainer: pl.Trainer, model: AdversarialModel, last: bool = False) -> None:
        row, evaluates = self._row(model), self.evaluation is not None
        if trainer.is_global_zero:
            row |= self.grid(model, row["kimg"]) or {}
        if evaluates and (last or row["tick"] % self.every_ticks == 0):
            row |= self._evaluate(model)
        if evaluates and row["eta_seconds"] is not None:
            left = self._evaluations_left(model.nimg, model.nimg - model.nimg_before)
            row["eta_seconds"] += left * self._last_evaluation
        row["evaluation_seconds"] = self._evaluation_seconds
        if trainer.is_global_zero:
            row |= self._new_flags(row)
            for sink in self.sinks:
                sink(row)
        self._sums, self._counts, self._tick_seconds = {}, {}, 0.0
        self._tick_start = model.nimg
        self._number += 1
        save_atomic(trainer, self.checkpoint)

    def _evaluate(self, model: AdversarialModel) -> dict[str, Any]:
        began = time.perf_counter()
        records = self.evaluation(model)
        found: dict[str, Any] = {record["metric"]: record["value"] for record in records}
        found["evaluations"] = records
        if self.change is not None:
            found["change"] = self.change(model)
            still = [group for group, value in found["change"].items() if value is None]
            if still:
                found["change_note"] = f"{', '.join(still)}: all zero in the source, no ratio"
        self._last_evaluation = time.perf_counter() - began
        self._evaluation_seconds += self._last_evaluation
        return found

    def _evaluations_left(self, nimg: int, step: int) -> int:
        """How many ticks of this run will evaluate after this one, the last among them.

        Iterations are of `step` images: one may pass several borders of ticks at once.
        """
        if nimg >= self.budget:
            return 0
        regular = range((nimg // self.per_tick + 1) * self.per_tick, self.budget, self.per_tick)
        ends = {-(-(border - nimg) // step) for border in (*regular, self.budget)}
        last = self._number + len(ends)
        evaluated = last // self.every_ticks - self._number // self.every_ticks
        return evaluated + (last % self.every_ticks > 0)

    def _new_flags(self, row: dict[str, Any]) -> dict[str, Any]:
        self._history.append({k: v for k, v in row.items() if k not in ("evaluations", "change")})
        new = [flag for flag in flags(self._history) if flag["tick"] == row["tick"]]
        return {"flags": new} if new else {}

    def _row(self, model: AdversarialModel) -> dict[str, Any]:
        stats = {k: v.item() / self._counts[k] for k, v in self._sums.items()}
        broken = [k for k, v in stats.items() if not math.isfinite(v)]
        kimg = model.nimg / 1000
        if broken:
            raise TrainingDiverged(
                f"{', '.join(broken)} not finite in the tick that ends at {kimg:g} kimg; the last "
                f"checkpoint is {self.checkpoint}. Lower model.training.lr_G and lr_D, raise "
                "model.training.r1_gamma, or use model.precision=fp32"
            )
        shown = (model.nimg - self._tick_start) / 1000
        pace = self._tick_seconds / shown if shown else None
        row: dict[str, Any] = {
            "tick": self._number,
            "kimg": kimg,
            "nimg": model.nimg,
            "s_per_kimg": pace,
            "seconds": self._seconds,
            "eta_seconds": None if pace is None else pace * max(self.budget - model.nimg, 0) / 1000,
            **stats,
        }
        if (growth := getattr(model, "growth", None)) is not None:
            row |= growth.stage(model.nimg)
        if model.augment is not None and hasattr(model.augment, "p"):
            row["augment_p"] = float(model.augment.p)
        return row


def save_atomic(trainer: pl.Trainer, path: Path) -> None:
    """Write a checkpoint beside its place, fsync it, then rename: the last good one survives."""
    partial = path.with_name(path.name + ".part")
    trainer.save_checkpoint(partial)
    if trainer.is_global_zero:
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)


def _parts(z: Tensor, size: int) -> list[tuple[int, Tensor]]:
    return [(i, z[i : i + size]) for i in range(0, len(z), size)]


def _plain_state(model: AdversarialModel) -> dict[str, Tensor]:
    """Tensors of G_ema and D by the names they have without adapters: 'G.…' and 'D.…'."""
    G, D = model.G_ema.state_dict(), model.D.state_dict()
    return fold({f"G.{k}": v for k, v in G.items()} | {f"D.{k}": v for k, v in D.items()})


def _semantic_groups(parts: Sequence[Part]) -> dict[str, list[str]]:
    """Names of the tensors of each network as a whole and of each of its groups but "block"."""
    found: dict[str, list[str]] = {}
    for network in "GD":
        own = [part for part in parts if part.network == network]
        found[network] = [plain_name(part.name) for part in own]
        for group in GROUPS:
            names = [plain_name(part.name) for part in own if group in part.groups]
            if names and group != "block":
                found[f"{network}.{group}"] = names
    return {group: names for group, names in found.items() if names}
