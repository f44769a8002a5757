"""One trial, from its configuration to its record: data, source, freeze, fit, pictures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock, Timeout
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stylegan_tl.assembly import (
    Target,
    blank_model,
    build,
    cache_of,
    check_strategy,
    check_target,
    model_of,
    named_source,
    open_target,
    samples_of,
)
from stylegan_tl.callbacks import Interrupt, SourceChange, Ticker, TrainingDiverged
from stylegan_tl.config import pretrain_config
from stylegan_tl.data.module import ImageData
from stylegan_tl.freeze.base import Freeze, additions, freeze_of
from stylegan_tl.measuring import check_metrics, evaluation_of
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.parallel import count_of, is_worker, joined, launch, trainer_options
from stylegan_tl.processes import from_first, ranks
from stylegan_tl.record import (
    announce,
    diversity_of,
    finish,
    new_trial,
    say_tick,
    start_mirror,
    update,
    write_grid,
)
from stylegan_tl.source.obtain import find_source, obtain_source
from stylegan_tl.source.portable import SourceModel, read_model
from stylegan_tl.study.trial import MetricsLog, Trial, TrialMismatch, check_same
from stylegan_tl.tracking import Mirror, mirror_of

__all__ = ["run_trial"]

say = logging.getLogger("stylegan_tl").info


class _Interrupted(Exception):
    """A signal ended a run inside this one."""

    def __init__(self, code: int) -> None:
        self.code = code


def run_trial(config: dict[str, Any], folder: str | Path, *, choices: dict[str, Any]) -> int:
    """Run, resume or skip the trial of `config` in `folder`; return the exit code.

    0: complete (now or before). 128 + n: ended by signal n, the same command resumes.
    With trainer.devices above 1 it starts a process for each, unless torchrun has. Raises
    TrialMismatch if the folder holds another configuration, ValueErrors for bad input.
    """
    count = count_of(config["trainer"])
    if count > 1 and not is_worker() and not config["dry_run"]:
        return launch(_run_once, count, (config, Path(folder).resolve(), choices))
    return _run_once(config, Path(folder).resolve(), choices)


def _run_once(config: dict[str, Any], folder: Path, choices: dict[str, Any]) -> int:
    """Run unless it is complete; the first process of a trial asks and has the lock."""
    with joined(config["trainer"]):
        lock = FileLock(folder / ".lock")
        try:
            if from_first(lambda: _is_complete(config, folder, lock)):
                say(f"complete already, nothing to do: {folder}")
                return 0
            return _run(config, folder, choices)
        except _Interrupted as interrupted:
            return interrupted.code
        finally:
            lock.release()  # does nothing where it was not acquired


def _is_complete(config: dict[str, Any], folder: Path, lock: FileLock) -> bool:
    """Whether there is nothing to do; if there is, the folder is locked."""
    folder.mkdir(parents=True, exist_ok=True)
    before = check_same(folder, config)
    if before is not None and before.is_complete:
        return True
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process is running the trial in {folder}") from None
    return False


def _run(config: dict[str, Any], folder: Path, choices: dict[str, Any]) -> int:
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    freeze, named = freeze_of(config["freeze"]), named_source(config)
    blank, transfers = check_strategy(freeze, config, named), _takes_source(freeze)
    target = open_target(config)
    check_target(target, freeze.strategy)
    check_metrics(config, target, blank.G, transfers)
    if config["dry_run"]:
        return _dry_run(config, target, folder, freeze, named)
    source = _source(config, named) if transfers else None
    model, reports = build(config, target.dataset, source, freeze.strategy)
    trial = new_trial(config, folder, choices, source, reports)
    trial.freeze = freeze.apply(model)
    announce(config, folder, target, model, source, reports, trial)
    with Interrupt() as interrupt, mirror_of(config["logger"], say=say) as mirror:
        if _is_first():
            start_mirror(mirror, config, trial, folder)
        try:
            code = _fit(config, folder, target, source, model, freeze, trial, mirror, interrupt)
        except BaseException as error:
            if interrupt.signal is not None:  # asked twice to stop: the last checkpoint stands
                _close(trial, folder, "interrupted", f"signal {interrupt.signal}")
                return interrupt.exit_code
            _close(trial, folder, "failed", f"{type(error).__name__}: {error}")
            raise
        mirror.finish(code)
    return code


def _fit(
    config: dict[str, Any],
    folder: Path,
    target: Target,
    source: SourceModel | None,
    model: AdversarialModel,
    freeze: Freeze,
    trial: Trial,
    mirror: Mirror,
    interrupt: Interrupt,
) -> int:
    log, checkpoint = MetricsLog(folder / "metrics.jsonl"), folder / "last.ckpt"
    samples = samples_of(config, model)
    before = samples(model)  # the source model, before a checkpoint of this run is loaded
    resume = _rewind(log, trial, checkpoint, model)
    columns, relative = config["grid"]["columns"], diversity_of(target, samples)
    grid = partial(write_grid, folder, samples, relative, mirror, columns)
    measured = bool(config["metric"]["names"]) and model.lineage["source"] is not None
    ticker = Ticker(
        kimg=config["kimg"],
        kimg_per_tick=config["kimg_per_tick"],
        checkpoint=checkpoint,
        grid=grid,
        evaluation=evaluation_of(config, target, source),
        every_ticks=config["metric"]["every_ticks"],
        sinks=[log.append, partial(update, trial, folder), mirror.row, say_tick],
        interrupt=interrupt,
        change=SourceChange(model, freeze.strategy.init) if measured else None,
        history=log.read() if _is_first() else (),
    )
    data = ImageData(
        target.dataset,
        target.train,
        batch_size=partial(_share, model),
        seed=config["seed"],
        xflip=bool(config["target"].get("xflip", False)),
    )
    with _quiet_lightning():
        trainer = _trainer(config, folder, [freeze, ticker])
        with suppress(SIGTERMException):  # Lightning's, after the ticker has saved
            trainer.fit(model, data, ckpt_path=checkpoint if resume else None)
    if interrupt.signal is not None and model.nimg < ticker.budget:
        _close(trial, folder, "interrupted", f"signal {interrupt.signal}")
        say(f"interrupted at {model.nimg / 1000:g} kimg; the same command resumes. {folder}")
        return interrupt.exit_code
    from_first(lambda: finish(config, folder, trial, target, before, samples(model), mirror))
    if interrupt.signal is not None:
        say(f"signal {interrupt.signal} came after the last image: the trial is complete")
    return 0


def _takes_source(freeze: Freeze) -> bool:
    return "source" in freeze.strategy.init.values()


def _share(model: AdversarialModel, nimg: int) -> int:
    """This process's part of the images of the iteration that begins at `nimg`."""
    count, steps = ranks()[0], model.training_plan.D_steps
    size = model.images_at(nimg) // steps
    if size % count:
        raise ValueError(
            f"model.training.batch_size={size}: {count} processes share it equally, so use a "
            "multiple"
        )
    return size // count * steps


def _is_first() -> bool:
    return ranks()[1] == 0


def _close(trial: Trial, folder: Path, state: str, reason: str) -> None:
    """How the run ended, in the record."""
    trial.close(state, reason)
    if _is_first():
        trial.save(folder / "trial.json")


def _source(config: dict[str, Any], named: SourceModel | None) -> SourceModel | None:
    if named is not None or config["source"]["kind"] == "scratch":
        return named
    own, cache = pretrain_config(config), cache_of(config)
    if ranks()[0] == 1:
        return obtain_source(own, cache, _train_source, say)
    if _is_first():
        _lead(own, cache)
    else:
        _follow(own)
    return read_model(find_source(own, cache))


def _lead(config: dict[str, Any], cache: Path) -> None:
    """Get or train the source model; tell the other processes when to train with this one."""

    def train(own: dict[str, Any], folder: Path) -> None:
        from_first(lambda: ("train", folder))
        _train_source(own, folder)

    try:
        obtain_source(config, cache, train, say)
    except Exception as error:
        reason = str(error)
        with suppress(RuntimeError):  # the others may be gone
            from_first(lambda: ("failed", reason))
        raise
    from_first(lambda: ("done", None))


def _follow(config: dict[str, Any]) -> None:
    """What the first process says. What ends a training ends it in all alike."""
    error: Exception | None = None
    while (said := from_first(lambda: None))[0] != "done":
        if said[0] == "failed":
            raise error or ValueError(said[1])
        try:
            _train_source(config, said[1])
        except (TrainingDiverged, _Interrupted) as ended:
            error = ended


def _train_source(config: dict[str, Any], folder: Path) -> None:
    choices = {"source": "scratch", "target": config["target"]["name"], "freeze": "none"}
    code = run_trial(config, folder, choices=choices)
    if code:
        raise _Interrupted(code)


def _rewind(log: MetricsLog, trial: Trial, checkpoint: Path, model: AdversarialModel) -> bool:
    """Forget what was recorded after the last checkpoint; say whether there is one to resume."""
    resume = checkpoint.is_file()
    nimg = -1
    if resume:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        nimg = state["stylegan_tl"]["nimg"]
        _check_unchanged(checkpoint, state["stylegan_tl"]["lineage"], model.lineage)
        say(f"resumes at {nimg / 1000:g} kimg")
    if _is_first():
        log.rewind(nimg)
    trial.rewind(nimg / 1000)
    return resume


def _check_unchanged(checkpoint: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """A run resumes on the images and the source model that it began with, or not at all."""
    for what, old, new in (
        ("target images", then["content_hash"], now["content_hash"]),
        ("source model", *((x["source"] or {}).get("sha256") for x in (then, now))),
    ):
        if old != new:
            raise TrialMismatch(
                f"{checkpoint}: the {what} changed since this run began ({old} -> {new}); "
                "restore them, choose another folder, or delete this one"
            )


def _trainer(config: dict[str, Any], folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        **trainer_options(config["trainer"]),
        max_epochs=1,
        max_steps=-1,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hush the banner, and the warning that a loader cannot resume: ours starts at nimg."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
            warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended.*")
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.13
            yield
    finally:
        logger.setLevel(level)


def _dry_run(
    config: dict[str, Any],
    target: Target,
    folder: Path,
    freeze: Freeze,
    named: SourceModel | None,
) -> int:
    model = model_of(config, {**config["model"]["network"], "c_dim": target.dataset.label_dim})
    counts = [sum(p.numel() for p in net.parameters()) for net in (model.G, model.D)]
    say(f"would train {config['kimg']:g} kimg on {len(target.train)} images in {folder}")
    say(f"G has {counts[0]:,} parameters, D {counts[1]:,}")
    record = freeze.apply(blank_model(config, freeze.strategy, named))
    G, D = record["G"]["share"], record["D"]["share"]
    say(f"freeze {record['strategy']}: {G:.1%} of G and {D:.1%} of D")
    for line in additions(record):
        say(line)
    if config["source"]["kind"] != "scratch" and named is None:
        found = find_source(pretrain_config(config), cache_of(config))
        say(f"source model: {found or 'none yet, would be trained first'}")
    return 0
