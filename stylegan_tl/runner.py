"""One trial, from its configuration to its record: data, source, freeze, fit, pictures."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.utilities.exceptions import SIGTERMException

from stylegan_tl import pictures
from stylegan_tl.callbacks import Evaluation, FixedSamples, Interrupt, Ticker
from stylegan_tl.config import pretrain_config
from stylegan_tl.data.module import ImageData
from stylegan_tl.data.open import open_dataset
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.data.split import n_shot, split
from stylegan_tl.freeze.base import Freeze
from stylegan_tl.metrics.evaluate import evaluate
from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.protocol import Protocol
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.source.load import load_into
from stylegan_tl.source.obtain import find_source, obtain_source
from stylegan_tl.source.portable import SourceError, SourceModel, read_model
from stylegan_tl.study.trial import MetricsLog, Trial, check_same, commit, hardware, versions
from stylegan_tl.tracking import WandbMirror, resolve_mode, run_id

__all__ = ["evaluation_of", "open_target", "run_trial"]

say = logging.getLogger("stylegan_tl").info


@dataclass
class Target:
    """The target's images: the packed dataset, and which of them train and which are held out."""

    dataset: PackedDataset
    train: np.ndarray
    held_out: np.ndarray

    @property
    def splits(self) -> dict[str, tuple[PackedDataset, np.ndarray]]:
        """What the metrics compare with, by the split's name in a protocol."""
        return {"train": (self.dataset, self.train), "heldout": (self.dataset, self.held_out)}


class _Interrupted(Exception):
    """A signal ended a run inside this one."""

    def __init__(self, code: int) -> None:
        self.code = code


def run_trial(config: dict[str, Any], folder: str | Path, *, choices: dict[str, Any]) -> int:
    """Run, resume or skip the trial of `config` in `folder`; return the exit code.

    0: complete (now or before). 128 + n: ended by signal n, the same command resumes.
    Raises TrialMismatch if the folder holds another configuration, ValueErrors for bad input.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    before = check_same(folder, config)
    if before is not None and before.is_complete:
        say(f"complete already, nothing to do: {folder}")
        return 0
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process is running the trial in {folder}") from None
    try:
        return _run(config, folder, choices)
    except _Interrupted as interrupted:
        return interrupted.code
    finally:
        lock.release()


def open_target(config: dict[str, Any]) -> Target:
    """Open (packing once, if need be) the target, set images aside, choose the n shots."""
    spec = {k: v for k, v in config["target"].items() if k not in ("xflip", "checkpoint")}
    dataset = open_dataset(spec, resolution=config["resolution"], cache=_cache(config))
    train, held_out = split(dataset.image_hashes, config["held_out"])
    return Target(dataset, n_shot(train, config["num_images"], config["seed"]), held_out)


def _run(config: dict[str, Any], folder: Path, choices: dict[str, Any]) -> int:
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    freeze: Freeze = instantiate(config["freeze"])
    _check_strategy(freeze, config)
    target = open_target(config)
    if config["dry_run"]:
        return _dry_run(config, target, folder)
    source = _source(config)
    model, reports = _build(config, target.dataset, source)
    trial = _trial(config, folder, choices, source, reports)
    trial.freeze = freeze.apply(model)
    _announce(config, folder, target, model, source, trial)
    with Interrupt() as interrupt, WandbMirror(say=say) as mirror:
        _start_mirror(mirror, config, trial, folder)
        try:
            code = _fit(config, folder, target, model, freeze, trial, mirror, interrupt)
        except BaseException as error:
            trial.close("failed", f"{type(error).__name__}: {error}")
            trial.save(folder / "trial.json")
            raise
        mirror.finish(code)
    return code


def _fit(
    config: dict[str, Any],
    folder: Path,
    target: Target,
    model: AdversarialModel,
    freeze: Freeze,
    trial: Trial,
    mirror: WandbMirror,
    interrupt: Interrupt,
) -> int:
    log, checkpoint = MetricsLog(folder / "metrics.jsonl"), folder / "last.ckpt"
    samples = _samples(config, model, target)
    before = samples(model)  # the source model, before a checkpoint of this run is loaded
    resume = _rewind(log, trial, checkpoint)
    grid = partial(_grid, folder, samples, mirror)
    ticker = Ticker(
        kimg=config["kimg"],
        kimg_per_tick=config["kimg_per_tick"],
        checkpoint=checkpoint,
        grid=grid,
        evaluation=evaluation_of(config, target, model),
        every_ticks=config["metric"]["every_ticks"],
        sinks=[log.append, partial(_update, trial, folder), mirror.log, _say_tick],
        interrupt=interrupt,
    )
    data = ImageData(
        target.dataset,
        target.train,
        batch_size=config["model"]["training"]["batch_size"],
        seed=config["seed"],
        xflip=bool(config["target"].get("xflip", False)),
    )
    with _quiet_lightning():
        trainer = _trainer(config, folder, [freeze, ticker])
        with suppress(SIGTERMException):  # Lightning's, after the ticker has saved
            trainer.fit(model, data, ckpt_path=checkpoint if resume else None)
    if interrupt.signal is not None and model.nimg < ticker.budget:
        trial.close("interrupted", f"signal {interrupt.signal}")
        trial.save(folder / "trial.json")
        say(f"interrupted at {model.nimg / 1000:g} kimg; the same command resumes. {folder}")
        return interrupt.exit_code
    _finish(config, folder, trial, before, samples(model), mirror)
    return 0


# -- parts ---------------------------------------------------------------------------------------


def _cache(config: dict[str, Any]) -> Path:
    return Path(config["cache"]).expanduser()


def _model(config: dict[str, Any], network: dict[str, Any]) -> AdversarialModel:
    fields = {k: v for k, v in config["model"].items() if k != "network"}
    return instantiate(fields, network=network, seed=config["seed"], _convert_="all")


def _check_strategy(freeze: Freeze, config: dict[str, Any]) -> None:
    """Fail on a strategy that does not fit the model before any source model is trained."""
    if config["source"].get("checkpoint"):
        return  # the architecture is in the file; `apply` checks against it at once
    with torch.device("meta"):
        model = _model(config, {**config["model"]["network"], "c_dim": 0})
    freeze.select(model)


def _source(config: dict[str, Any]) -> SourceModel | None:
    if config["source"]["kind"] == "scratch":
        return None
    if config["source"]["checkpoint"]:
        return read_model(Path(config["source"]["checkpoint"]))
    return obtain_source(pretrain_config(config), _cache(config), _train_source, say)


def _train_source(config: dict[str, Any], folder: Path) -> None:
    choices = {"source": "scratch", "target": config["target"]["name"], "freeze": "none"}
    code = run_trial(config, folder, choices=choices)
    if code:
        raise _Interrupted(code)


def _build(
    config: dict[str, Any], dataset: PackedDataset, source: SourceModel | None
) -> tuple[AdversarialModel, dict[str, Any]]:
    """The model with the source's weights in it, and the load reports."""
    augment = instantiate(config["augment"]) if config["augment"].get("_target_") else None
    if source is None:
        model = _model(config, {**config["model"]["network"], "c_dim": dataset.label_dim})
        reports = {}
    else:
        model, reports = _from_source(config, dataset, source)
    model.augment = augment
    model.lineage = {
        "dataset": config["target"]["name"],
        "content_hash": dataset.content_hash,
        "num_images": config["num_images"],
        "freeze": config["freeze"],
        "source": None if source is None else source.record(),
    }
    return model, reports


def _from_source(
    config: dict[str, Any], dataset: PackedDataset, source: SourceModel
) -> tuple[AdversarialModel, dict[str, Any]]:
    if source.model != config["model"]["_target_"]:
        raise SourceError(
            f"{source.path} is a {source.model}, model= is {config['model']['_target_']}: "
            "choose the model option of the source"
        )
    if source.network["resolution"] != config["resolution"]:
        raise SourceError(
            f"{source.path} was trained at {source.network['resolution']} px, resolution="
            f"{config['resolution']}: use resolution={source.network['resolution']}"
        )
    for key, value in config["model"]["network"].items():
        if source.network.get(key, value) != value:
            say(f"model.network.{key}: the source has {source.network[key]}, not {value}; used")
    had = source.network.get("c_dim", 0)
    c_dim = dataset.label_dim if had else 0  # an unconditional source stays unconditional
    reinit = ("G.mapping.embed", "G_ema.mapping.embed", "D.mapping.embed") if c_dim != had else ()
    reinit += ("G.embed", "G_ema.embed", "D.embed") if c_dim != had else ()
    model = _model(config, {**source.network, "c_dim": c_dim})
    reports = load_into(model, source, reinit=reinit)
    for report in reports.values():
        say(f"         {report}")
    return model, {name: report.record() for name, report in reports.items()}


def _samples(config: dict[str, Any], model: AdversarialModel, target: Target) -> FixedSamples:
    count = config["grid"]["columns"] * config["grid"]["rows"]
    labels = None
    if model.G.c_dim:  # one class per row, in turn
        classes = np.arange(count) // config["grid"]["columns"] % model.G.c_dim
        labels = np.eye(model.G.c_dim, dtype=np.float32)[classes]
    return FixedSamples(count, config["grid"]["seed"], labels)


def evaluation_of(
    config: dict[str, Any], target: Target, model: AdversarialModel
) -> Evaluation | None:
    """What measures `model` against the target by the metrics of `config`; None for none."""
    metric = config["metric"]
    if not metric["names"]:
        return None
    used = {Protocol.parse(name).extractor for name in metric["names"]} - {None}
    extractors = {name: load_extractor(name, **metric["extractors"].get(name, {})) for name in used}
    measure = partial(
        evaluate,
        metric["names"],
        reals=target.splits,
        cache=_cache(config) / "statistics",
        extractors={name: extractor.to(model.device) for name, extractor in extractors.items()},
    )
    labels = target.dataset.labels(target.train) if model.G.c_dim else None
    return Evaluation(measure, labels)


def _rewind(log: MetricsLog, trial: Trial, checkpoint: Path) -> bool:
    """Forget what was recorded after the last checkpoint; say whether there is one to resume."""
    resume = checkpoint.is_file()
    nimg = -1
    if resume:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        nimg = state["stylegan_tl"]["nimg"]
        say(f"resumes at {nimg / 1000:g} kimg")
    log.rewind(nimg)
    trial.rewind(nimg / 1000)
    return resume


def _trainer(config: dict[str, Any], folder: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    own = config["trainer"]
    return pl.Trainer(
        accelerator=own["accelerator"],
        devices=own["devices"],
        strategy=own["strategy"],
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


# -- record and pictures -------------------------------------------------------------------------


def _trial(
    config: dict[str, Any],
    folder: Path,
    choices: dict[str, Any],
    source: SourceModel | None,
    reports: dict[str, Any],
) -> Trial:
    path = folder / "trial.json"
    trial = Trial.load(path) if path.is_file() else None
    if trial is None:
        name = f"{config['source']['name']} to {config['target']['name']}"
        trial = Trial(config["study"]["name"], name, config["seed"], choices, config)
    trial.close("running")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    device = "cuda" if gpu else "cpu"
    trial.hardware = hardware(device, threads=torch.get_num_threads(), gpu=gpu)
    trial.versions, trial.commit, trial.command = versions(), commit(), sys.argv
    trial.source = {} if source is None else source.record()
    trial.load_report = reports
    return trial


def _start_mirror(mirror: WandbMirror, config: dict[str, Any], trial: Trial, folder: Path) -> None:
    logger = config["logger"]
    source, target = config["source"]["name"], config["target"]["name"]
    mirror.start(
        folder,
        project=logger["project"],
        group=f"{source}->{target}",
        job_type="scratch" if config["source"]["kind"] == "scratch" else "transfer",
        tags=[
            str(v) for k, v in trial.choices.items() if v and k in ("freeze", "model", "augment")
        ],
        name=f"{trial.name}, {trial.choices.get('freeze')}, seed {trial.seed}",
        id=run_id(trial.study, trial.name, trial.seed, trial.started),
        config=config,
        mode=resolve_mode(logger["mode"]),
    )


def _announce(
    config: dict[str, Any],
    folder: Path,
    target: Target,
    model: AdversarialModel,
    source: SourceModel | None,
    trial: Trial,
) -> None:
    origin = "random weights" if source is None else _describe(source)
    say(f"source   {config['source']['name']}: {origin}")
    say(
        f"target   {config['target']['name']}: {len(target.train)} images to train on, "
        f"{len(target.held_out)} held out, {config['resolution']} px"
    )
    G, D = trial.freeze["G"], trial.freeze["D"]
    say(
        f"freeze   {trial.freeze['strategy']}: {G['share']:.1%} of G ({G['parameters']:,} "
        f"parameters) and {D['share']:.1%} of D ({D['parameters']:,})"
    )
    say(f"folder   {folder}")


def _describe(source: SourceModel) -> str:
    return f"{source.path.name}, {source.nimg / 1000:g} kimg, sha256 {source.sha256[:12]}"


def _grid(
    folder: Path, samples: FixedSamples, mirror: WandbMirror, model: AdversarialModel, kimg: float
) -> None:
    path = folder / "grids" / f"kimg{kimg:010.3f}.png"
    pictures.save_grid(path, samples(model), caption=f"{kimg:.3f} kimg")
    mirror.image(path, kimg=kimg, caption=f"{kimg:.3f} kimg")


def _update(trial: Trial, folder: Path, row: dict[str, Any]) -> None:
    trial.kimg, trial.wall_seconds = row["kimg"], row["seconds"]
    trial.s_per_kimg = row["seconds"] / row["kimg"] if row["kimg"] else None
    for record in row.get("evaluations", []):
        trial.observe(record, kimg=row["kimg"])
    trial.save(folder / "trial.json")


def _say_tick(row: dict[str, Any]) -> None:
    parts = [f"tick {row['tick']:<4d} kimg {row['kimg']:<8.3f}"]
    if row["s_per_kimg"] is not None:
        parts.append(f"s/kimg {row['s_per_kimg']:<6.1f} ETA {_clock(row['eta_seconds'])}")
        parts.append(f"loss G {row['loss_G']:.3f} D {row['loss_D']:.3f}")
    parts += [f"{r['metric']} {r['value']:.4g}" for r in row.get("evaluations", [])]
    say("  ".join(parts))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _finish(
    config: dict[str, Any],
    folder: Path,
    trial: Trial,
    before: np.ndarray,
    after: np.ndarray,
    mirror: WandbMirror,
) -> None:
    """Write the pictures of the whole run and close the record."""
    source, target = config["source"]["name"], config["target"]["name"]
    files = {"grids": "grids", "checkpoint": "last.ckpt", "metrics": "metrics.jsonl"}
    files["before_after"] = "before_after.png"
    captions = (f"{source}, 0 kimg", f"{target}, {trial.kimg:g} kimg")
    pictures.before_after(folder / "before_after.png", before, after, captions)
    files["animation"] = pictures.animation(
        folder / "grids.webp", sorted((folder / "grids").glob("kimg*.png"))
    ).name
    for name in config["metric"]["names"]:
        pictures.plot_metric(folder / f"{name}.png", trial.metrics[name]["at"], name)
        files[name] = f"{name}.png"
    if mirror.path is not None:
        files["wandb"] = str(Path(mirror.path).relative_to(folder))
    trial.files = files
    trial.close("complete")
    trial.save(folder / "trial.json")
    mirror.summary({"state": "complete", "seconds": trial.wall_seconds})
    say(f"\ndone in {_clock(trial.wall_seconds)} of training; in {folder}:")
    for label, name in {**files, "record": "trial.json"}.items():
        say(f"  {label:<24} {name}")


def _dry_run(config: dict[str, Any], target: Target, folder: Path) -> int:
    model = _model(config, {**config["model"]["network"], "c_dim": target.dataset.label_dim})
    counts = [sum(p.numel() for p in net.parameters()) for net in (model.G, model.D)]
    say(f"would train {config['kimg']:g} kimg on {len(target.train)} images in {folder}")
    say(f"G has {counts[0]:,} parameters, D {counts[1]:,}")
    if config["source"]["kind"] != "scratch" and not config["source"]["checkpoint"]:
        found = find_source(pretrain_config(config), _cache(config))
        say(f"source model: {found or 'none yet, would be trained first'}")
    return 0
