"""`report`: trials -> one HTML page, with its pictures inside or in a folder beside it."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

from stylegan_tl import __version__
from stylegan_tl.page import as_json, fill, head, picture
from stylegan_tl.study.predict_text import TWO_SOURCES
from stylegan_tl.study.predictors import NAMES
from stylegan_tl.study.report.collect import (
    Study,
    collect,
    scratch_name,
    usual_augment,
)
from stylegan_tl.study.report.frames import (
    choose_steps,
    grids_of,
    nearest_of,
    ratio_of,
    write_picture,
    write_strip,
)
from stylegan_tl.study.report.measures import add_measures, choices, intervals, predictors

__all__ = ["report"]

MOST_TRIALS = 100
"""With more, pictures lie beside the page."""
MOST_BYTES = 20 * 2**20
"""Of pictures in the page."""
_IMAGES = ("auto", "embed", "folder", "none")
_OURS = re.compile(r"[0-9a-f]{16}\.webp")
_FACTORS = ("source", "target", "freeze", "model")
_PARTS = ("base.js", "charts.js", "sections.js", "page.js")


def report(
    folders: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    question: str | None = None,
    verdict: str | None = None,
    metric: str | None = None,
    distances: Iterable[str | Path] = (),
    factors: Iterable[str] = (),
    baseline: str | None = None,
    cells: Iterable[Mapping[str, Any]] = (),
    seeds: int = 0,
    images: str = "auto",
    samples: int = 8,
    frames: int = 16,
) -> Path:
    """Write the page of the trials under `folders` to `out`; return its path.

    `verdict` is plain text, a blank line between paragraphs; `metric` is shown first; `distances`
    are files of `python -m stylegan_tl.study distances`; `baseline` is the control whose best sets
    the X of "kimg until X" (scratch); `factors` are keys of the configuration that tell
    cells apart beside the chosen options; `cells` (mappings with source, target, freeze, model and
    augment) are shown as missing where no trial is; each of them asks for `seeds` trials. Of each
    run `samples` latents are shown at no more than `frames` kimg. `images`: "embed", "folder"
    (beside the page, `<name>_files`), "none", or "auto": a folder above 100 trials or 20 MB.
    ValueError without a single readable trial. Pictures pass through memory one at a time.
    """
    if images not in _IMAGES:
        raise ValueError(f"images={images!r}, allowed: {', '.join(_IMAGES)}")
    out = Path(out).resolve()
    roots = [Path(f) for f in ([folders] if isinstance(folders, str | os.PathLike) else folders)]
    count = sum(1 for root in roots for _ in root.rglob("trial.json"))
    points = max(12, min(64, 6400 // max(count, 1)))
    study = collect(roots, out.parent, tuple(factors), points)
    if not study.trials:
        found = "; ".join(study.problems) or "there is no trial.json"
        raise ValueError(f"no trial to report under {', '.join(map(str, roots))}: {found}")
    usual, metric = usual_augment(study), _metric(study, metric)
    add_measures(study.trials, roots, out.parent, tuple(factors), baseline or "scratch")
    controls = sorted({t["source"] for t in study.trials if t["scratch"]})
    asked = [_asked(cell, study.trials[0], usual) for cell in cells]
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f"{out.stem}_files")
    steps = [] if images == "none" else _write_pictures(study, beside, samples, frames)
    embed = images == "embed" or (
        images == "auto" and len(study.trials) <= MOST_TRIALS and _bytes(beside) <= MOST_BYTES
    )
    data = {
        "title": title or study.names.most_common(1)[0][0],
        "question": question,
        "verdict": [part.strip() for part in (verdict or "").split("\n\n") if part.strip()],
        "created": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "version": __version__,
        "metric": metric,
        "resolutions": sorted({c["resolution"] for _, c in study.runs if c.get("resolution")}),
        "goal": baseline or "scratch",
        "intervals": intervals(study.trials, study.metrics, controls),
        "metrics": study.metrics,
        "trials": study.trials,
        "sources": study.sources,
        "differences": study.differences,
        **_known_before(study, roots, distances, metric, tuple(factors)),
        "problems": study.problems,
        "cells": asked,
        "seeds": seeds,
        "asked": len(asked) * seeds,
        "steps": steps,
        "pictures": "" if embed else f"{beside.name}/",
    }
    _write(out, data, beside if embed and steps else None)
    if embed or not steps:
        _remove_pictures(beside, keep=set())
    return out


def _metric(study: Study, wanted: str | None) -> str | None:
    return wanted if wanted in study.metrics else next(iter(study.metrics), None)


def _known_before(
    study: Study,
    roots: Iterable[Path],
    distances: Iterable[str | Path],
    metric: str | None,
    factors: Sequence[str],
) -> dict[str, Any]:
    """The predictors, what their names mean, how well each chose; what cannot be scored is told."""
    sizes = {config.get("resolution") for _, config in study.runs} - {None}
    resolution = sizes.pop() if len(sizes) == 1 else None
    found: dict[str, Any] = {"predictors": [], "choices": []}
    found |= {"names": NAMES, "two_sources": TWO_SOURCES}
    for path in map(Path, distances):
        try:
            found["predictors"] += predictors(path, study.trials, resolution)
            if metric is not None:
                found["choices"] += choices(roots, path, metric, factors, resolution)
        except ValueError as error:
            study.problems.append(str(error))
    return found


def _asked(
    cell: Mapping[str, Any], example: Mapping[str, Any], usual: str | None
) -> dict[str, str]:
    """The four factors of a cell; what it does not name is that of any trial."""
    asked = {key: str(cell.get(key) or example[key]) for key in _FACTORS}
    return {**asked, "source": scratch_name(asked["source"], cell.get("augment"), usual)}


def _write_pictures(study: Study, into: Path, samples: int, frames: int) -> list[float]:
    """One strip a trial; what an earlier page left and this one does not use goes."""
    grids = [grids_of(folder) for folder, _ in study.runs]
    steps = choose_steps((kimg for run in grids for kimg, _ in run), frames)
    into.mkdir(parents=True, exist_ok=True)
    used = set()
    for trial, (folder, config), own in zip(study.trials, study.runs, grids, strict=True):
        strip = write_strip(into, own, steps, config, samples)
        if strip:
            used.add(strip.file)
            trial["strip"] = {
                "file": strip.file,
                "kimg": strip.kimg,
                "size": [strip.width, strip.height],
                "pixelated": bool(config.get("resolution") and config["resolution"] < 48),
            }
        nearest = nearest_of(folder)
        if nearest and (name := write_picture(into, nearest)):
            used.add(name)
            trial["nearest"] = {"file": name, "ratio": ratio_of(folder)}
    _remove_pictures(into, keep=used)
    return steps


def _pictures(folder: Path) -> list[Path]:
    """Ours alone: what else somebody put there stays."""
    return sorted(path for path in folder.glob("*.webp") if _OURS.fullmatch(path.name))


def _remove_pictures(folder: Path, keep: set[str]) -> None:
    for path in _pictures(folder):
        if path.name not in keep:
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write(out: Path, data: Mapping[str, Any], embedded: Path | None) -> None:
    """Stream the page to a temporary name, then rename: pictures are never all in memory."""
    here = files("stylegan_tl.study.report")
    page = (here / "template.html").read_text(encoding="utf-8")
    known: dict[str, str | Iterable[str]] = {
        name: (here / name).read_text(encoding="utf-8") for name in _PARTS
    }
    style = (here / "report.css").read_text(encoding="utf-8")
    known |= {"data": as_json(data), "head": head(str(data["title"]), style)}
    known["pictures"] = map(picture, _pictures(embedded) if embedded else ())
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(fill(page, known))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _pictures(folder))
