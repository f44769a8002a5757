"""Two processes on the CPU train one model: what they do is what one process does."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_train import _assert_same, _rows, _run, _start, _state, _wait

from stylegan_tl import runner
from stylegan_tl.callbacks import TrainingDiverged
from stylegan_tl.config import ConfigError, validate
from stylegan_tl.models import stylegan2
from stylegan_tl.models.dcgan import DCGAN
from stylegan_tl.models.stylegan2 import StyleGAN2
from stylegan_tl.parallel import count_of, joined, launch, trainer_options
from stylegan_tl.processes import agree, average_gradients, largest, mean, ranks

BATCH = 8
TRAINER = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "threads": None}
ALONE = {**TRAINER, "devices": 1}
NETWORKS = {
    "stylegan2": dict(
        resolution=16, z_dim=8, w_dim=8, c_dim=0, num_mapping_layers=2,
        channel_base=128, channel_max=16, mbstd_group_size=4,
    ),
    "dcgan": dict(resolution=32, z_dim=8, c_dim=0, width=4),
}  # fmt: skip


class _Whole:
    """Latents of the whole batch from one stream: each process takes its part; steps are SGD."""

    def generator(self, stream, *, rank=None):
        return super().generator(stream, rank=0)

    def latents(self, count, generator):
        together, rank = ranks()
        return super().latents(count * together, generator)[rank * count : (rank + 1) * count]

    def configure_optimizers(self):
        return [torch.optim.SGD(net.parameters(), lr=0.05) for net in (self.G, self.D)]


class _StyleGAN2(_Whole, StyleGAN2):
    pass


class _DCGAN(_Whole, DCGAN):
    pass


def _model(name):
    """One process takes parts of half the batch where a batch has statistics: those of the two."""
    groups = name == "stylegan2, no groups"
    micro = BATCH // 2 if ranks()[0] == 1 and not groups else None
    training = dict(batch_size=BATCH, micro_batch=micro, r1_interval=1, betas=(0.0, 0.99))
    if name == "dcgan":
        return _DCGAN(network=NETWORKS[name], training=training)
    how = dict(style_mixing=0.0, pl_interval=1, precision="fp32")
    network = {**NETWORKS["stylegan2"], "mbstd_group_size": 1 if groups else 4}
    model = _StyleGAN2(network=network, training=training, **how)
    for key, parameter in model.named_parameters():
        if "noise_strength" in key:  # zero: the noise, drawn by each process, shows nowhere
            assert not parameter.any()
            parameter.requires_grad_(False)
    return model


class _Batches:
    def __init__(self, steps, resolution):
        self.steps, self.resolution = steps, resolution

    def __iter__(self):
        together, rank = ranks()
        own = BATCH // together
        generator = torch.Generator().manual_seed(5)
        for _ in range(self.steps):
            image = (
                torch.rand(BATCH, 3, self.resolution, self.resolution, generator=generator) * 2 - 1
            )
            part = slice(rank * own, (rank + 1) * own)
            yield {"image": image[part], "label": torch.zeros(own, 0)}


class _Kept(pl.Callback):
    def __init__(self):
        self.stats = []

    def on_train_batch_end(self, trainer, model, outputs, batch, index):
        self.stats.append({key: value.item() for key, value in outputs.items()})


def _same_directions(images, ws, noise):
    """Path lengths along one direction for all images, whoever makes them."""
    own = torch.Generator().manual_seed(9)
    direction = torch.randn(images.shape[1:], generator=own).expand_as(images)
    return _PATH_LENGTHS(images, ws, direction)


_PATH_LENGTHS = stylegan2.losses.path_lengths


def _train(name, steps, folder, trainer=TRAINER):
    stylegan2.losses.path_lengths = _same_directions
    try:
        with joined(trainer):
            model, kept = _model(name), _Kept()
            options = trainer_options(trainer)
            pl.Trainer(
                **options, max_epochs=1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, callbacks=[kept],
            ).fit(model, _Batches(steps, model.G.resolution))  # fmt: skip
            found = {"state": model.state_dict(), "stats": kept.stats, "nimg": model.nimg}
            torch.save(found, Path(folder) / f"{ranks()[1]}.pt")
    finally:
        stylegan2.losses.path_lengths = _PATH_LENGTHS
    return 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "steps"), [("stylegan2", 1), ("stylegan2, no groups", 3), ("dcgan", 1)]
)
def test_two_processes_take_the_step_of_one_on_the_whole_batch(tmp_path, name, steps) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    _train(name, steps, tmp_path / "one", ALONE)
    assert launch(_train, 2, (name, steps, str(tmp_path / "two"))) == 0
    wanted = torch.load(tmp_path / "one" / "0.pt")
    first, second = (torch.load(tmp_path / "two" / f"{rank}.pt") for rank in (0, 1))
    assert first["nimg"] == second["nimg"] == wanted["nimg"] == steps * BATCH
    assert first["stats"] == second["stats"]
    assert all(torch.equal(first["state"][k], second["state"][k]) for k in first["state"])
    before = _model(name).state_dict()
    for key, value in wanted["state"].items():
        if "groups" not in name and any(part in key for part in ("running", "tracked", "w_avg")):
            continue  # one process moves them twice, by each half; two processes once
        assert torch.allclose(first["state"][key], value, rtol=1e-4, atol=2e-6), key
    moved = [k for k, v in before.items() if not torch.equal(v, wanted["state"][k])]
    assert any(k.startswith("G.") for k in moved)
    assert any(k.startswith("D.") for k in moved)
    for one, two in zip(wanted["stats"], first["stats"], strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-5)


def _talk(folder):
    with joined({**TRAINER, "devices": 3}):
        together, rank = ranks()
        equal = torch.tensor([0.1, 1e-30, 3e7])
        mixed = torch.tensor([float(rank)])
        whole = torch.tensor([rank])  # a number of what is counted is left alone
        agree([equal, mixed, whole])
        weight = torch.nn.Parameter(torch.zeros(2))
        weight.grad = torch.tensor([1.0, 10.0]) * (rank + 1)
        average_gradients([weight, torch.nn.Parameter(torch.zeros(1))])
        found = {
            "equal": equal, "mixed": mixed, "whole": whole, "gradient": weight.grad,
            "mean": mean(torch.tensor(float(rank))), "largest": largest(15 * (rank == 1)),
        }  # fmt: skip
        torch.save(found, f"{folder}/{rank}.pt")
    return 0


def test_three_processes_agree(tmp_path) -> None:
    threads = set(threading.enumerate())
    assert launch(_talk, 3, (str(tmp_path),)) == 0
    assert set(threading.enumerate()) <= threads  # none that could hold a lock while this one forks
    for rank in range(3):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(found["equal"], torch.tensor([0.1, 1e-30, 3e7]))
        assert (found["mixed"].item(), found["mean"].item()) == (1, 1)
        assert (found["whole"].item(), found["largest"]) == (rank, 15)
        assert torch.equal(found["gradient"], torch.tensor([2.0, 20.0]))


def _fail_on_one():
    with joined(TRAINER):
        if ranks()[1] == 1:
            raise ValueError("what this process alone found")
        return largest(1)  # waits for the other


def test_a_failure_of_one_process_ends_all_and_is_told(monkeypatch) -> None:
    monkeypatch.setattr("stylegan_tl.parallel._GRACE", 0.5)
    began = time.monotonic()
    with pytest.raises(ValueError, match="what this process alone found"):
        launch(_fail_on_one, 2, ())
    assert time.monotonic() - began < 60


def _sleep(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(100)
    return 0


def test_processes_end_with_the_one_that_started_them(tmp_path) -> None:
    child = _start(launch, _sleep, 2, (str(tmp_path),))
    until = time.monotonic() + 100
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    _wait(child)
    began, workers = [int(p.name) for p in tmp_path.iterdir()], set()
    assert len(began) == 2
    while time.monotonic() < until:
        workers = {pid for pid in began if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)}
        if not workers:
            break
        time.sleep(0.05)
    assert not workers


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def config(compose, tiny_overrides):
    """`config(devices, *overrides)` of a tiny transfer."""

    def make(devices: int, *more: str, model: str = "dcgan") -> dict:
        own = ["trainer=cpu", f"trainer.devices={devices}", "trainer.strategy=ddp", *more]
        return compose(tiny_overrides(model, *own))

    return make


def test_a_trial_of_two_processes_leaves_what_one_leaves(config, tmp_path) -> None:
    more = ["metric=small", "metric.names=[kid16_train_small,fid16_train_small]"]
    more += ["metric.best=kid16_train_small", "metric.every_ticks=1", "augment=ada"]
    for devices in (2, 1):  # two processes find no source model and train it together
        folder = tmp_path / str(devices)
        assert _run(config(devices, *more), folder) == 0
    two, one = _rows(tmp_path / "2"), _rows(tmp_path / "1")
    assert [row["nimg"] for row in two] == [row["nimg"] for row in one] == [0, 16, 32]
    for key in ("kid16_train_small", "fid16_train_small", "diversity"):
        assert two[0][key] == pytest.approx(one[0][key])  # one source model, shared evaluation
    assert all(np.isfinite(row["loss_G"]) for row in two[1:])
    names = [sorted(p.name for p in (tmp_path / d / "grids").iterdir()) for d in "12"]
    assert names[0] == names[1]
    record = json.loads((tmp_path / "2" / "trial.json").read_text())
    assert (record["state"], record["config"]["trainer"]["devices"]) == ("complete", 2)
    assert _run(config(2, *more), tmp_path / "2") == 0  # skipped


class _Digests(pl.Callback):
    def on_train_end(self, trainer, model):
        bits = b"".join(v.cpu().numpy().tobytes() for v in model.state_dict().values())
        found = [None] * ranks()[0]
        torch.distributed.all_gather_object(found, hashlib.sha256(bits).hexdigest())
        assert len(set(found)) == 1, found


def _watched_trial(config, folder):
    made = runner._trainer
    runner._trainer = lambda c, f, callbacks: made(c, f, [*callbacks, _Digests()])
    return _run(config, folder)


@pytest.mark.parametrize(
    "overrides",
    [
        ["freeze=rick", "freeze.every_kimg=0.008"],
        ["freeze=bsa", "num_images=8"],
        ["freeze=freeze_d_1", "freeze/anchor=[ewc,cdc]"],
    ],
    ids=lambda o: o[0],
)
def test_masks_objectives_and_anchors_stay_the_same_everywhere(config, tmp_path, overrides) -> None:
    own = config(2, *overrides, model="stylegan2_small")
    assert launch(_watched_trial, 2, (own, tmp_path)) == 0


def test_interrupted_together_and_resumed_exactly(config, tmp_path) -> None:
    own = config(2, "kimg=0.128", "kimg_per_tick=0.032", "augment=ada", "augment.interval=3")
    assert _run(own, tmp_path / "whole") == 0
    folder = tmp_path / "cut"
    child = _start(_run, own, folder)
    rows = folder / "metrics.jsonl"
    until = time.monotonic() + 120
    while time.monotonic() < until and (not rows.is_file() or rows.read_text().count("\n") < 2):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGTERM)
    assert _wait(child) == 128 + signal.SIGTERM
    assert json.loads((folder / "trial.json").read_text())["state"] == "interrupted"
    assert _run(own, folder) == 0
    _assert_same(tmp_path / "whole", folder)


def test_training_that_diverges_is_told_by_all(config, tmp_path) -> None:
    own = config(2, "model.training.lr_G=1e30", "model.training.lr_D=1e30", model="stylegan2_small")
    with pytest.raises(TrainingDiverged, match="not finite"):
        _run(own, tmp_path)
    assert json.loads((tmp_path / "trial.json").read_text())["state"] == "failed"


def test_torchrun_is_the_same_run(config, tiny_overrides, tmp_path) -> None:
    assert _run(config(2), tmp_path / "own") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "stylegan_tl.train", "trainer=cpu"]
    own = [*tiny_overrides("dcgan"), f"hydra.run.dir={tmp_path / 'theirs'}"]
    subprocess.run([*command, *own], check=True, cwd=Path(__file__).parent.parent, timeout=200)
    a, b = _state(tmp_path / "own"), _state(tmp_path / "theirs")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.devices=0"], "trainer.devices=0: use a whole number"),
        (["trainer.devices=3"], "model.training.batch_size=4: 3 devices share it equally"),
        (["trainer.devices=[0,1]", "trainer.strategy=fsdp"], "trainer.strategy=fsdp: use ddp"),
    ],
)
def test_devices_that_cannot_be_are_refused(compose, tiny_overrides, overrides, words) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate(compose(tiny_overrides("dcgan", *overrides)))
    assert words in str(refusal.value)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, accelerator) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ValueError, match=f"accelerator={accelerator}: torch finds no GPU here"):
        count_of({**ALONE, "accelerator": accelerator})


def test_more_gpus_than_there_are_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ValueError, match="this machine has 1 GPU"):
        count_of({**TRAINER, "accelerator": "gpu"})
