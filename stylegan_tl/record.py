"""What a trial leaves behind: its record, its tick lines, its pictures, its mirror in a tracker."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_tl import pictures
from stylegan_tl.assembly import Target, cache_of
from stylegan_tl.callbacks import FixedSamples
from stylegan_tl.data.open import read_report
from stylegan_tl.files import file_sha256
from stylegan_tl.freeze.base import additions
from stylegan_tl.metrics.flags import diversity
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.nearest import extractor_for, write_nearest
from stylegan_tl.processes import ranks
from stylegan_tl.source.load import LoadReport
from stylegan_tl.source.portable import SourceModel
from stylegan_tl.study.collect import cell_of
from stylegan_tl.study.trial import Trial, commit, hardware, identity, versions
from stylegan_tl.tracking import About, Mirror, run_id

__all__ = [
    "announce",
    "clock",
    "diversity_of",
    "finish",
    "new_trial",
    "say_tick",
    "start_mirror",
    "update",
    "write_grid",
]

_REALS = 256  # whose diversity the grid's is compared with

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
    count, threads = ranks()[0], torch.get_num_threads()
    trial.hardware = hardware(device, threads=threads, gpu=gpu, devices=count)
    trial.versions, trial.commit, trial.command = versions(), commit(), sys.argv
    trial.source = {} if source is None else source.record()
    trial.load_report = {name: report.record() for name, report in reports.items()}
    return trial


def start_mirror(mirror: Mirror, config: dict[str, Any], trial: Trial, folder: Path) -> None:
    """Begin the mirrored run: grouped by pair, tagged by strategy, model, augmentation, study.tags.

    Its configuration begins with what runs are grouped by, one value each (source, target, freeze,
    model, augment, study, seed); `options` holds the whole.
    """
    logger, cell = config["logger"], cell_of(trial)
    source, target = config["source"]["name"], config["target"]["name"]
    chosen = [str(trial.choices[k]) for k in ("freeze", "model", "augment") if trial.choices.get(k)]
    about = About(
        project=logger["project"],
        group=f"{source}->{target}",
        job_type="scratch" if config["source"]["kind"] == "scratch" else "transfer",
        tags=[*chosen, *map(str, config["study"].get("tags") or ())],
        name=f"{trial.name}, {trial.choices.get('freeze')}, seed {trial.seed}",
        id=run_id(trial.study, identity(trial.config), trial.seed, trial.started),
        config={**cell, "study": trial.study, "seed": trial.seed, "options": config},
    )
    mirror.start(folder, about, mode=logger["mode"])


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
    packing = read_report(target.dataset)
    if packing and packing.enlarged:
        count = f"{packing.enlarged} of {target.dataset.num_images}"
        say(f"         {count} were smaller: they are enlarged")
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


def diversity_of(target: Target, samples: FixedSamples) -> Callable[[np.ndarray], float | None]:
    """What a grid's diversity is to that of the reals it should look like: 1 is as diverse.

    Under labels, images of one class are compared. None where the grid or the reals have too few
    images, or the reals are all one.
    """
    indices = target.train[np.linspace(0, len(target.train) - 1, _REALS).astype(int)]
    indices = np.unique(indices)
    labelled = samples.labels is not None
    classes = target.dataset.labels(indices).argmax(1) if labelled else None
    shown = samples.labels.argmax(1) if labelled else None
    of_reals = diversity(target.dataset.images(indices), classes)

    def relative(images: np.ndarray) -> float | None:
        found = diversity(images, shown)
        return found / of_reals if of_reals and found is not None else None

    return relative


def write_grid(
    folder: Path,
    samples: FixedSamples,
    relative: Callable[[np.ndarray], float | None],
    mirror: Mirror,
    columns: int,
    model: AdversarialModel,
    kimg: float,
) -> dict[str, float | None]:
    """One picture of the fixed latents, on disk and in the mirror; its diversity for the row."""
    path, images = folder / "grids" / f"kimg{kimg:010.3f}.png", samples(model)
    pictures.save_grid(path, images, caption=f"{kimg:.3f} kimg", columns=columns)
    mirror.image(path, kimg=kimg, caption=f"{kimg:.3f} kimg")
    return {"diversity": relative(images)}


def update(trial: Trial, folder: Path, row: dict[str, Any]) -> None:
    """Carry the row of a tick into the record and save it."""
    trial.kimg, trial.wall_seconds = row["kimg"], row["seconds"]
    trial.evaluation_seconds = row["evaluation_seconds"]
    trial.s_per_kimg = row["seconds"] / row["kimg"] if row["kimg"] else None
    for record in row.get("evaluations", []):
        trial.observe(record, kimg=row["kimg"])
    if "change" in row:
        trial.observe_change(row["change"], kimg=row["kimg"])
    trial.flags += row.get("flags", [])
    trial.save(folder / "trial.json")


def say_tick(row: dict[str, Any]) -> None:
    """The line that a person reads, and one for every flag that begins."""
    parts = [f"tick {row['tick']:<4d} kimg {row['kimg']:<8.3f}"]
    if row["s_per_kimg"] is not None:
        parts.append(f"s/kimg {row['s_per_kimg']:<6.1f} ETA {clock(row['eta_seconds'])}")
        if "fade_in" in row:
            parts.append(_stage(row))
        losses = [f"{net} {row[key]:.3f}" for net in "GD" if (key := f"loss_{net}") in row]
        parts.append(" ".join(["loss", *losses]))
    for r in row.get("evaluations", []):
        parts.append(f"{r['metric']} {'–' if r['value'] is None else format(r['value'], '.4g')}")
    say("  ".join(parts))
    for flag in row.get("flags", []):
        say(f"WARNING  {flag['flag']} at tick {flag['tick']}: {flag['evidence']}")


def _stage(row: dict[str, Any]) -> str:
    """'at 16 px', or how far these have faded in."""
    fading = f" {row['fade_in']:.0%} in" if row["fade_in"] < 1 else ""
    return f"at {row['resolution']} px{fading}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def finish(
    config: dict[str, Any],
    folder: Path,
    trial: Trial,
    target: Target,
    before: np.ndarray,
    after: np.ndarray,
    mirror: Mirror,
) -> None:
    """Write the pictures of the whole run and close the record."""
    files = {"grids": "grids", "checkpoint": "last.ckpt", "metrics": "metrics.jsonl"}
    files["before_after"] = "before_after.png"
    # what a source model was trained on: the option's name may be the path of a file
    began = f"{trial.source['name']}, the source model" if trial.source else "random weights"
    captions = (began, f"{config['target']['name']}, {trial.kimg:g} kimg")
    columns = config["grid"]["columns"]
    pictures.before_after(folder / "before_after.png", before, after, captions, columns)
    files["animation"] = pictures.animation(
        folder / "grids.webp", sorted((folder / "grids").glob("kimg*.png"))
    ).name
    if trial.metrics:  # their features are there
        extractor = extractor_for(config["metric"], "cpu")
        name = write_nearest(folder, after, target, extractor, cache_of(config))
        files |= {"nearest": name} if name else {}
    for name, entry in trial.metrics.items():
        if entry["best"] is not None:  # else no evaluation had a value
            path = folder / f"{name}.png"
            pictures.plot_metric(path, entry["at"], name, better=entry["better"])
            files[name] = path.name
    if mirror.path is not None:
        kind = config["logger"].get("kind", "wandb")
        files[kind] = str(Path(mirror.path).relative_to(folder))
    trial.files = {**files, "checkpoint_sha256": file_sha256(folder / "last.ckpt")}
    trial.close("complete")
    trial.save(folder / "trial.json")
    mirror.summary({"state": "complete", "seconds": trial.wall_seconds})
    say(f"\ndone in {_times(trial)}; in {folder}:")
    for label, name in {**files, "record": "trial.json"}.items():
        say(f"  {label:<24} {name}")


def _times(trial: Trial) -> str:
    """'1:02:03 of training and 0:01:00 of evaluation (1.6%)'."""
    training, measuring = trial.wall_seconds, trial.evaluation_seconds
    if not measuring:
        return f"{clock(training)} of training"
    share = measuring / (training + measuring)
    return f"{clock(training)} of training and {clock(measuring)} of evaluation ({share:.1%})"
