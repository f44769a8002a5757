"""A whole trial on tiny settings: transfer, skip, refuse, kill, resume, interrupt."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from stylegan_tl import runner
from stylegan_tl.runner import run_trial
from stylegan_tl.study.trial import Trial, TrialMismatch

TIMES = {"s_per_kimg", "seconds", "eta_seconds", "evaluations", "evaluation_seconds"}


@pytest.fixture
def config(compose, tiny_overrides):
    """`config(*overrides, model=, source=)` of a tiny transfer."""

    def make(*more: str, model: str = "stylegan2_small", source: str = "rooms/bedroom") -> dict:
        return compose(tiny_overrides(model, *more, source=source))

    return make


@pytest.fixture
def run(config):
    """`run(folder, *overrides, model=, source=) -> exit code`."""

    def make(folder: Path, *more: str, **which: str) -> int:
        return _run(config(*more, **which), folder)

    return make


def _run(config: dict, folder: Path) -> int:
    return run_trial(config, folder, choices={"freeze": "none"})


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


def _rows(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def _assert_same(one: Path, other: Path) -> None:
    a, b = _state(one), _state(other)
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different
    assert _rows(one) == _rows(other)


_FRESH = multiprocessing.get_context("forkserver")  # not this one's fork: it has threads
_FRESH.set_forkserver_preload(["stylegan_tl.runner"])


def _start(work: Callable[..., int], *arguments: Any) -> Any:
    """Begin `work(*arguments)`, which gives the exit code, in a fresh process; return that."""
    process = _FRESH.Process(target=_exit_with, args=(work, *arguments))
    process.start()
    return process


def _exit_with(work: Callable[..., int], *arguments: Any) -> None:
    torch.set_num_threads(1)
    sys.exit(work(*arguments))


def _wait(process: Any) -> int:
    """Exit code of the process, or minus the signal that ended it."""
    process.join()
    return process.exitcode


@pytest.mark.parametrize("model", ["stylegan2_small", "dcgan"])
def test_a_transfer_leaves_all_that_it_promises(run, tmp_path, cache, model: str) -> None:
    names = ["metric=small", "metric.names=[kid16_train_small,fid16_train_small,swd16_train]"]
    more = [*names, "metric.best=kid16_train_small", "metric.every_ticks=1", "logger.mode=offline"]
    assert run(tmp_path, *more, "freeze=freeze_d_1", model=model) == 0
    trial = Trial.load(tmp_path / "trial.json")
    assert trial.state == "complete"
    assert trial.kimg == 0.032
    assert [row["kimg"] for row in trial.metrics["fid16_train_small"]["at"]] == [0, 0.016, 0.032]
    assert trial.freeze["k"] == 1
    assert trial.freeze["D"]["share"] > 0
    assert trial.load_report["D"]["missing"] == trial.load_report["G"]["unexpected"] == []
    assert trial.source["kimg"] == 0.016
    assert [row["tick"] for row in _rows(tmp_path)] == [0, 1, 2]
    for name in ("grids", "checkpoint", "before_after", "animation", "fid16_train_small", "wandb"):
        assert (tmp_path / trial.files[name]).exists(), name
    assert len(list((tmp_path / "grids").glob("*.png"))) == 3
    with Image.open(tmp_path / trial.files["animation"]) as animation:
        assert animation.n_frames == 3
    lineage = torch.load(tmp_path / "last.ckpt", weights_only=True)["stylegan_tl"]["lineage"]
    assert lineage["source"]["sha256"] == trial.source["sha256"]


def test_the_same_command_again_is_skipped_and_another_is_refused(run, tmp_path, caplog) -> None:
    assert run(tmp_path) == 0
    stamp = (tmp_path / "last.ckpt").stat().st_mtime_ns
    assert run(tmp_path) == 0
    assert (tmp_path / "last.ckpt").stat().st_mtime_ns == stamp
    with pytest.raises(TrialMismatch, match="kimg"):
        run(tmp_path, "kimg=0.064")


def test_the_same_seed_gives_the_same_run_and_another_does_not(run, tmp_path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(tmp_path / name, f"seed={seed}", "augment=ada", "augment.p=0.5") == 0
    _assert_same(tmp_path / "a", tmp_path / "b")
    assert not torch.equal(
        _state(tmp_path / "a")["D.b4.out.weight"], _state(tmp_path / "c")["D.b4.out.weight"]
    )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_in_batch(monkeypatch, count: int) -> None:
    from stylegan_tl.models.adversarial import AdversarialModel

    original, seen = AdversarialModel.training_step, []

    def step(self, batch, index):
        seen.append(1)
        return _die() if len(seen) == count else original(self, batch, index)

    monkeypatch.setattr(AdversarialModel, "training_step", step)


def _kill_in_checkpoint(monkeypatch, count: int) -> None:
    original, seen = pl.Trainer.save_checkpoint, []

    def save(self, path, *args, **kwargs):
        seen.append(1)
        original(self, path, *args, **kwargs)
        if len(seen) == count:  # half of the file is on the disk
            os.truncate(path, Path(path).stat().st_size // 2)
            _die()

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", save)


def _kill_after_rename(monkeypatch, count: int) -> None:
    import stylegan_tl.callbacks as callbacks

    original, seen = callbacks.save_atomic, []

    def save(trainer, path):
        original(trainer, path)
        seen.append(1)
        if len(seen) == count:
            _die()

    monkeypatch.setattr(callbacks, "save_atomic", save)


def _run_and_die(arrange: Callable, count: int, config: dict, folder: Path) -> int:
    """A run that `arrange` ends; in a process of its own, where the patches can stay."""
    arrange(pytest.MonkeyPatch(), count)
    return _run(config, folder)


KILLS = {
    "in the first tick, before any training": (_kill_in_checkpoint, 1),
    "in a batch": (_kill_in_batch, 6),
    "while the checkpoint of tick 1 is written, its row already in the log": (
        _kill_in_checkpoint,
        2,
    ),
    "after the last checkpoint, before the record is closed": (_kill_after_rename, 3),
}


@pytest.mark.parametrize("model", ["stylegan2_small", "stylegan_small", "dcgan"])
def test_killed_at_any_moment_and_resumed_is_bit_identical(
    run, config, tmp_path, model: str
) -> None:
    more = ("augment=ada", "augment.p=0.3", "augment.interval=2", "augment.kimg=1")
    assert run(tmp_path / "whole", *more, model=model) == 0
    for number, (arrange, count) in enumerate(KILLS.values()):
        folder = tmp_path / str(number)
        child = _start(_run_and_die, arrange, count, config(*more, model=model), folder)
        assert _wait(child) == -signal.SIGKILL
        assert Trial.load(folder / "trial.json").state == "running"
        assert run(folder, *more, model=model) == 0
        _assert_same(tmp_path / "whole", folder)
        assert Trial.load(folder / "trial.json").state == "complete"


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("stylegan3_small", ["model.blur_init_sigma=2", "model.blur_fade_kimg=0.04"]),
        ("gangogh_small", ["model.pretrain_kimg=0.02"]),  # the kill is in its second phase
        ("dcgan_tf_small", ["model.training.label_flipping=0.2", "model.training.D_steps=2"]),
        ("dcgan_tf_small", ["model.training.loss=wgan_gp", "model.network.norm_D=layer"]),
    ],
)
def test_several_steps_their_targets_and_phases_resume_bit_identically(
    compose, tiny_overrides, tmp_path, model: str, more: list[str]
) -> None:
    _class_folders(tmp_path / "classes", ("bedroom", "kitchen"))
    small = [o for o in tiny_overrides(model, source="scratch") if not o.startswith("target.")]
    target = ["target=folder", f"target.path={tmp_path / 'classes'}", "kimg=0.048"]
    own = compose([*small, *target, *more])
    assert _run(own, tmp_path / "whole") == 0
    child = _start(_run_and_die, _kill_in_batch, 6, own, tmp_path / "killed")
    assert _wait(child) == -signal.SIGKILL
    assert _run(own, tmp_path / "killed") == 0
    _assert_same(tmp_path / "whole", tmp_path / "killed")
    rows = _rows(tmp_path / "whole")[1:]
    assert ("loss_G" in rows[0]) == (model != "gangogh_small")
    assert all(np.isfinite([row["loss_G"], row["loss_D"]]).all() for row in rows[1:])


def test_sigterm_saves_says_interrupted_and_resumes_bit_identically(run, config, tmp_path) -> None:
    more = ("kimg=0.16", "kimg_per_tick=0.08")
    assert run(tmp_path / "whole", *more) == 0
    folder = tmp_path / "stopped"
    child = _start(_run, config(*more), folder)
    while not (folder / "last.ckpt").exists():
        time.sleep(0.01)
    time.sleep(0.2)  # in the middle of a tick
    os.kill(child.pid, signal.SIGTERM)
    assert _wait(child) == 128 + signal.SIGTERM
    assert Trial.load(folder / "trial.json").state == "interrupted"
    reached = torch.load(folder / "last.ckpt", weights_only=True)["stylegan_tl"]["nimg"]
    assert 0 < reached < 160
    assert run(folder, *more) == 0
    _assert_same(tmp_path / "whole", folder)


def test_a_signal_after_the_last_image_is_told_and_the_trial_is_complete(
    run, tmp_path, monkeypatch, caplog
) -> None:
    finish = runner.finish

    def asked_while_finishing(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        finish(*arguments)

    monkeypatch.setattr(runner, "finish", asked_while_finishing)
    with caplog.at_level("INFO", "stylegan_tl"):
        assert run(tmp_path) == 0
    assert caplog.messages[-1] == "signal 15 came after the last image: the trial is complete"
    assert Trial.load(tmp_path / "trial.json").state == "complete"


def test_parallel_trials_train_the_source_once(config, tmp_path, cache) -> None:
    own = config("pretrain.seed=77")  # a source model that no other test asks for
    children = [_start(_run, own, tmp_path / name) for name in "ab"]
    assert [_wait(child) for child in children] == [0, 0]
    a, b = (Trial.load(tmp_path / name / "trial.json").source for name in "ab")
    assert a["sha256"] == b["sha256"]
    trained = [
        folder
        for folder in (cache / "sources").iterdir()
        if folder.is_dir() and Trial.load(folder / "trial.json").seed == 77
    ]
    assert len(trained) == 1
    assert [row["tick"] for row in _rows(trained[0])] == [0, 1, 2, 3, 4]  # each written once


def test_scratch_is_a_control_with_its_own_random_weights(run, tmp_path) -> None:
    assert run(tmp_path, source="scratch") == 0
    trial = Trial.load(tmp_path / "trial.json")
    assert trial.source == {}
    assert trial.load_report == {}


def test_micro_batches_leave_the_real_side_of_d_unchanged(compose, tiny_overrides) -> None:
    """Gradient accumulation: with no minibatch statistics two halves give the whole's gradient."""
    from hydra.utils import instantiate

    overrides = tiny_overrides("stylegan2_small", "model.network.mbstd_group_size=1")
    grads = []
    for micro in (4, 2):
        config = compose([*overrides, f"model.training.micro_batch={micro}"])
        model = instantiate(config["model"], seed=0, _convert_="all")
        image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
        for part in model._micro_batches(4):
            logits = model.D(image[part])
            (torch.nn.functional.softplus(-logits).sum() / 4).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.D.parameters()]))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["stylegan2_small", "dcgan"])
def test_losses_move_sensibly(run, tmp_path, model: str) -> None:
    """From scratch D learns to tell bedrooms from noise: its loss falls below chance, 2 ln 2."""
    size = {"stylegan2_small": [], "dcgan": ["model.training.lr_D=0.002"]}[model]
    assert (
        run(tmp_path, "kimg=0.16", "kimg_per_tick=0.04", *size, source="scratch", model=model) == 0
    )
    losses = [row["loss_D"] for row in _rows(tmp_path)[1:]]
    assert losses[-1] < 2 * np.log(2)
    assert losses[-1] < losses[0]
    assert all(np.isfinite([row["loss_G"] for row in _rows(tmp_path)[1:]]))


def _class_folders(folder: Path, rooms: tuple[str, ...]) -> None:
    from stylegan_tl.data.procedural import render

    for room in rooms:
        (folder / room).mkdir(parents=True)
        for index in range(6):
            picture = render(f"rooms/{room}", index, 32).transpose(1, 2, 0)
            Image.fromarray(picture).save(folder / room / f"{index}.png")


def test_images_that_are_enlarged_are_told(compose, tiny_overrides, tmp_path, caplog) -> None:
    _class_folders(tmp_path / "rooms", ("bedroom", "kitchen"))
    for small in ("0", "1", "2"):
        path = tmp_path / "rooms" / "kitchen" / f"{small}.png"
        Image.open(path).resize((20, 20)).save(path)
    own = [o for o in tiny_overrides("dcgan", source="scratch") if not o.startswith("target.")]
    target = ["target=folder", f"target.path={tmp_path / 'rooms'}"]
    with caplog.at_level("INFO", "stylegan_tl"):
        assert _run(compose([*own, *target]), tmp_path / "run") == 0
    assert "         3 of 12 were smaller: they are enlarged" in caplog.messages


@pytest.mark.parametrize("model", ["stylegan2_small", "stylegan_small", "dcgan", "gangogh_small"])
def test_class_folders_train_a_conditional_model_and_transfer_to_other_classes(
    compose, tiny_overrides, tmp_path, model: str
) -> None:
    """Two classes, then three: each row is the source's by name, or new and said to be."""
    _class_folders(tmp_path / "two", ("bedroom", "kitchen"))
    _class_folders(tmp_path / "three", ("bedroom", "dining_room", "kitchen"))

    def go(name: str, folder: str, *more: str, source: str) -> Trial:
        small = [o for o in tiny_overrides(model, source=source) if not o.startswith("target.")]
        target = ["target=folder", f"target.path={tmp_path / folder}", "augment=diffaugment"]
        config = compose([*small, *target, *more])
        assert run_trial(config, tmp_path / name, choices={"model": model}) == 0
        return Trial.load(tmp_path / name / "trial.json")

    go("source", "two", source="scratch")
    checkpoint, add = f"source.checkpoint={tmp_path / 'source'}", "freeze=add_category"
    child = go("child", "three", checkpoint, add, "freeze.init=kitchen", source="checkpoint")
    for network in ("G", "G_ema", "D"):
        report = child.load_report[network]
        new = "new, as kitchen"
        origins = {"bedroom": "bedroom", "dining_room": new, "kitchen": "kitchen"}
        assert report["classes"] == origins
        assert report["mismatched"] == report["missing"] == []
        assert not [name for name in report["reinitialised"] if "embed" in name]
    assert child.source["network"]["c_dim"] == 2
    assert child.source["lineage"]["classes"] == ["bedroom", "kitchen"]


def test_a_category_for_a_target_without_classes_is_refused_before_a_source_is_trained(
    run, tmp_path
) -> None:
    own = f"cache={tmp_path / 'cache'}"
    with pytest.raises(ValueError, match="rooms/kitchen has no classes"):
        run(tmp_path / "run", own, "freeze=add_category", model="gangogh_small")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_source_that_does_not_fit_is_refused_before_training(run, tmp_path) -> None:
    assert run(tmp_path / "source", source="scratch", model="dcgan") == 0
    checkpoint = f"source.checkpoint={tmp_path / 'source'}"
    with pytest.raises(ValueError, match="choose the model option of the source"):
        run(tmp_path / "other", checkpoint, source="checkpoint")
    with pytest.raises(ValueError, match="use resolution=32"):
        run(tmp_path / "large", checkpoint, "resolution=64", source="checkpoint", model="dcgan")
    with pytest.raises(ValueError, match="does not exist"):
        run(tmp_path / "none", "source.checkpoint=/no/such.ckpt", source="checkpoint")
    assert not list(tmp_path.glob("*/last.ckpt"))[1:]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (["metric.names=[kid16_train_inception]"], "inception"),
        (["metric.names=[fid16_train_small]", "num_images=2"], "holds 2 images"),
        (["metric.names=[intra16_train_small]"], "middle of a cluster"),
        (["metric.names=[fid16_train_small]", "metric.rounds=40", "num_images=4"], "intervals"),
        (
            ["metric.names=[fid16_train_small]", "metric.extractors.small.path=/no/file"],
            "/no/file",
        ),
        (["metric.names=[paired16_small]", "freeze=scratch"], "source model"),
    ],
)
def test_metrics_that_cannot_be_measured_are_refused_before_a_source_is_trained(
    run, tmp_path, metric: list[str], reason: str
) -> None:
    own = f"cache={tmp_path / 'cache'}"
    with pytest.raises(ValueError, match=reason):
        run(tmp_path / "run", own, *metric, "metric.best=null")
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list((tmp_path / "cache").glob("sources/*"))


def test_families_and_values_that_are_none_finish_with_their_plots(run, tmp_path) -> None:
    names = "pr16_train_small,residue16_small,fid16_train_small"
    assert run(tmp_path, f"metric.names=[{names}]", "metric.best=null") == 0
    trial = Trial.load(tmp_path / "trial.json")
    assert trial.is_complete
    assert {"precision16_train_small", "recall16_train_small"} <= set(trial.metrics)
    assert trial.metrics["recall16_train_small"]["better"] == "max"
    assert (tmp_path / "precision16_train_small.png").is_file()


def test_what_is_left_of_the_source_is_measured_while_training(run, tmp_path) -> None:
    names = "kid16_source_small,paired16_small,residue16_small"
    assert run(tmp_path, f"metric.names=[{names}]", "metric.best=null") == 0
    trial = Trial.load(tmp_path / "trial.json")
    assert sorted(trial.metrics) == sorted(names.split(","))
    paired = [row["value"] for row in trial.metrics["paired16_small"]["at"]]
    assert paired[0] == 0  # tick 0: still the source model
    assert all(value > 0 for value in paired[1:])
    assert trial.evaluation_seconds > 0


def test_a_run_does_not_resume_on_other_images(run, config, tmp_path, monkeypatch) -> None:
    """Killed on 24 images and asked for again when there are 30: refused, nothing overwritten."""
    import stylegan_tl.assembly as assembly

    child = _start(_run_and_die, _kill_in_batch, 6, config(), tmp_path)
    assert _wait(child) == -signal.SIGKILL
    content = (tmp_path / "last.ckpt").read_bytes()
    original = assembly.open_dataset
    more = lambda spec, **kw: original({**spec, "size": 30}, **kw)  # noqa: E731
    monkeypatch.setattr(assembly, "open_dataset", more)
    with pytest.raises(TrialMismatch, match="target images changed"):
        run(tmp_path)
    assert (tmp_path / "last.ckpt").read_bytes() == content
