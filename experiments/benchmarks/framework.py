"""`python experiments/benchmarks/framework.py`: what the framework itself costs.

Latency of `--help`, and Lightning's overhead per iteration over a bare loop that calls the same
training step with the same networks, optimizers and batches. Ratios come from one run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings

import pytorch_lightning as pl
import torch

from stylegan_tl.models.dcgan import DCGAN

TRAINING = {
    "batch_size": 4,
    "micro_batch": None,
    "lr_G": 2e-4,
    "lr_D": 2e-4,
    "betas": (0.5, 0.999),
    "r1_gamma": 0.0,
    "r1_interval": 16,
    "ema_kimg": 1.0,
    "ema_rampup": None,
}


class _Batches:
    def __iter__(self):
        batch = {"image": torch.zeros(4, 3, 32, 32), "label": torch.zeros(4, 0)}
        while True:
            yield batch


class _Clock(pl.Callback):
    """Stops after `count` iterations and keeps the time between the first and the last."""

    def __init__(self, count: int) -> None:
        self.count, self.times = count, []

    def on_train_batch_end(self, trainer, *_) -> None:
        self.times.append(time.perf_counter())
        if len(self.times) == self.count:
            trainer.should_stop = True


def _model() -> DCGAN:
    network = {"resolution": 32, "z_dim": 8, "width": 4}
    return DCGAN(network=network, training=TRAINING)


class _Bare(DCGAN):
    """The same step without Lightning: raw optimizers, requires_grad set by hand."""

    def optimizers(self):
        return self.raw

    def manual_backward(self, loss):
        loss.backward()

    def toggled_optimizer(self, optimizer):
        own, other = (self.G, self.D) if optimizer is self.raw[0] else (self.D, self.G)
        own.requires_grad_(True)
        other.requires_grad_(False)
        return torch.enable_grad()


def _lightning_ms(count: int) -> float:
    clock = _Clock(count)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(_model(), _Batches())
    return 1000 * statistics.median(_steps(clock.times))


def _bare_ms(count: int) -> float:
    model = _Bare(network={"resolution": 32, "z_dim": 8, "width": 4}, training=TRAINING).train()
    model.raw = model.configure_optimizers()
    batch, times = next(iter(_Batches())), []
    for index in range(count):
        model.training_step(batch, index)
        times.append(time.perf_counter())
    return 1000 * statistics.median(_steps(times))


def _steps(times: list[float]) -> list[float]:
    times = times[len(times) // 4 :]  # warm
    return [b - a for a, b in zip(times, times[1:], strict=False)]


def main() -> None:
    """Print two lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [
        (_lightning_ms(args.iterations), _bare_ms(args.iterations)) for _ in range(args.rounds)
    ]
    with_lightning, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"iteration of a toy DCGAN: {with_lightning:.2f} ms under Lightning, {bare:.2f} ms bare: "
        f"{with_lightning - bare:.2f} ms overhead"
    )
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "stylegan_tl.train", "--help"], check=True, capture_output=True
        )
        times.append(time.perf_counter() - start)
    print(f"--help answers in {statistics.median(times):.2f} s (median of 5)")


if __name__ == "__main__":
    main()
