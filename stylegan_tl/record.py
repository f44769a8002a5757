"""What a trial leaves behind: its record, its tick lines, its pictures, its mirror on W&B."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_tl import pictures
from stylegan_tl.assembly import Target
from stylegan_tl.callbacks import FixedSamples
from stylegan_tl.files import file_sha256
from stylegan_tl.freeze.base import additions
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.source.load import LoadReport
from stylegan_tl.source.portable import SourceModel
from stylegan_tl.study.trial import Trial, commit, hardware, identity, versions
from stylegan_tl.tracking import WandbMirror, resolve_mode, run_id

__all__ = [
    "announce",
    "clock",
    "finish",
    "new_trial",
    "say_tick",
    "start_mirror",
    "update",
    "write_grid",
]

say = logging.getLogger("stylegan_tl").info


def new_trial(
    config: dict[str, Any],
    folder: Path,
    choices: dict[str, Any],
    source: SourceModel | None,
    reports: dict[str, LoadReport],
) -> Trial:
    """The record of this run, continued from the folder if it began before."""
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
    trial.load_report = {name: report.record() for name, report in reports.items()}
    return trial


def start_mirror(mirror: WandbMirror, config: dict[str, Any], trial: Trial, folder: Path) -> None:
    """Begin the W&B run: grouped by pair, tagged by strategy, model and augmentation."""
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
        id=run_id(trial.study, identity(trial.config), trial.seed, trial.started),
        config=config,
        mode=resolve_mode(logger["mode"]),
    )


def announce(
    config: dict[str, Any],
    folder: Path,
    target: Target,
    model: AdversarialModel,
    source: SourceModel | None,
    reports: dict[str, LoadReport],
    trial: Trial,
) -> None:
    """Say what is about to be trained."""
    origin = "random weights" if source is None else _describe(source)
    say(f"source   {config['source']['name']}: {origin}")
    for report in reports.values():
        say(f"         {report}")
    say(
        f"target   {config['target']['name']}: {len(target.train)} images to train on, "
        f"{len(target.held_out)} held out, {config['resolution']} px"
    )
    G, D = trial.freeze["G"], trial.freeze["D"]
    say(
        f"freeze   {trial.freeze['strategy']}: {G['share']:.1%} of G ({G['parameters']:,} "
        f"parameters) and {D['share']:.1%} of D ({D['parameters']:,})"
    )
    for line in additions(trial.freeze):
        say(f"         {line}")
    last = max((stage["until_kimg"] for stage in trial.freeze["schedule"]), default=0)
    if last >= config["kimg"]:
        say(f"         the stages go on to {last:g} kimg, but this run ends at {config['kimg']:g}")
    say(f"folder   {folder}")


def _describe(source: SourceModel) -> str:
    return f"{source.path.name}, {source.nimg / 1000:g} kimg, sha256 {source.sha256[:12]}"


def write_grid(
    folder: Path, samples: FixedSamples, mirror: WandbMirror, model: AdversarialModel, kimg: float
) -> None:
    """One picture of the fixed latents, on disk and in the mirror."""
    path = folder / "grids" / f"kimg{kimg:010.3f}.png"
    pictures.save_grid(path, samples(model), caption=f"{kimg:.3f} kimg")
    mirror.image(path, kimg=kimg, caption=f"{kimg:.3f} kimg")


def update(trial: Trial, folder: Path, row: dict[str, Any]) -> None:
    """Carry the row of a tick into the record and save it."""
    trial.kimg, trial.wall_seconds = row["kimg"], row["seconds"]
    trial.s_per_kimg = row["seconds"] / row["kimg"] if row["kimg"] else None
    for record in row.get("evaluations", []):
        trial.observe(record, kimg=row["kimg"])
    trial.save(folder / "trial.json")


def say_tick(row: dict[str, Any]) -> None:
    """The line that a person reads."""
    parts = [f"tick {row['tick']:<4d} kimg {row['kimg']:<8.3f}"]
    if row["s_per_kimg"] is not None:
        parts.append(f"s/kimg {row['s_per_kimg']:<6.1f} ETA {clock(row['eta_seconds'])}")
        losses = [f"{net} {row[key]:.3f}" for net in "GD" if (key := f"loss_{net}") in row]
        parts.append(" ".join(["loss", *losses]))
    parts += [f"{r['metric']} {r['value']:.4g}" for r in row.get("evaluations", [])]
    say("  ".join(parts))


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def finish(
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
    trial.files = {**files, "checkpoint_sha256": file_sha256(folder / "last.ckpt")}
    trial.close("complete")
    trial.save(folder / "trial.json")
    mirror.summary({"state": "complete", "seconds": trial.wall_seconds})
    say(f"\ndone in {clock(trial.wall_seconds)} of training; in {folder}:")
    for label, name in {**files, "record": "trial.json"}.items():
        say(f"  {label:<24} {name}")
