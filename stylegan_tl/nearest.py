"""Generated images beside the training images nearest to them: is anything a copy?

`python -m stylegan_tl.study nearest study=…` makes the pictures of trials that have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stylegan_tl import pictures
from stylegan_tl.assembly import Target, cache_of, open_target, samples_of
from stylegan_tl.files import write_atomic
from stylegan_tl.measuring import device_of, extractors_of
from stylegan_tl.metrics.features import Extractor, load_extractor
from stylegan_tl.metrics.memory import nearest_training
from stylegan_tl.metrics.neighbours import nearest
from stylegan_tl.metrics.protocol import FEATURES
from stylegan_tl.metrics.reference import MAX_FEATURES, cached_reference, spread
from stylegan_tl.restore import restore
from stylegan_tl.study.trial import Trial

if TYPE_CHECKING:
    from stylegan_tl.study.opened import Opened

__all__ = ["command", "extractor_for", "nearest_images", "write_nearest"]

COUNT = 8  # pairs that are shown


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """Write nearest.png for every complete trial of the study without one; exit code 0, or 1 if a
    trial could not be read."""
    wanted = [t.job.folder for t in opened.trials]
    there = [folder for folder in wanted if (folder / "trial.json").is_file()]
    missing = [folder for folder in there if not (folder / "nearest.png").is_file()]
    failed = 0
    for number, folder in enumerate(missing, 1):
        trial = Trial.load(folder / "trial.json")
        if not trial.is_complete:
            continue
        try:
            print(f"[{number}/{len(missing)}] {_of_trial(trial, folder)}")
        except (OSError, ValueError) as error:
            failed += 1
            print(f"[{number}/{len(missing)}] {folder}: {error}")
    print(
        f"{len(there) - len(missing)} trials had theirs, {len(wanted) - len(there)} have not begun"
    )
    return 1 if failed else 0


def extractor_for(metric: dict[str, Any], device: torch.device | str) -> Extractor:
    """The one that the metrics use; the bundled one where they use none."""
    used = {n: e for n, e in extractors_of(metric, device).items() if n in FEATURES}
    return next(iter(used.values()), None) or load_extractor("small").to(device)


def nearest_images(
    images: np.ndarray, target: Target, extractor: Extractor, cache: Path
) -> list[dict[str, Any]]:
    """Of generated `images` (uint8 [N, 3, R, R]) the COUNT nearest to a training image, nearest
    first: {sample, image, distance, ratio}.

    `image` is the number in the target's dataset; `ratio` the distance over the median distance of
    a training image to its own nearest one, None where there is none. At most 10 000 training
    images are looked at, evenly spaced; features are cached, and compared block by block.
    """
    looked = target.train[spread(len(target.train), MAX_FEATURES)]
    known = cached_reference(extractor, target.dataset, looked, cache=cache / "statistics")
    fakes = extractor(torch.from_numpy(images)).float().cpu()
    distances, which, found = nearest_training(fakes, known.features, COUNT)
    own = _between(known.features)
    return [
        {
            "sample": int(sample),
            "image": int(looked[image]),
            "distance": float(distance),
            "ratio": float(distance / own) if own else None,
        }
        for distance, sample, image in zip(distances, which, found, strict=True)
    ]


def write_nearest(
    folder: Path, images: np.ndarray, target: Target, extractor: Extractor, cache: Path
) -> str | None:
    """nearest.png (generated above, nearest training image below) and nearest.json in `folder`.

    Each column is captioned with the distance and its ratio, as of `nearest_images`. Returns the
    picture's name; None where there are fewer than two training images.
    """
    if len(target.train) < 2:
        return None
    rows = nearest_images(images, target, extractor, cache)
    fakes = images[[row["sample"] for row in rows]]
    reals = np.concatenate([target.dataset.images(np.array([row["image"]])) for row in rows])
    sides = ["generated", "nearest training image"]
    title = f"distance by {extractor.name}; x the median from one training image to the next"
    shown = np.concatenate([fakes, reals])
    pictures.sheet(folder / "nearest.png", shown, sides, [*map(_caption, rows)], title)
    about = {"extractor": extractor.name, "digest": extractor.digest, "rows": rows}
    write_atomic(folder / "nearest.json", json.dumps(about).encode())
    return "nearest.png"


def _caption(row: dict[str, Any]) -> str:
    near = "" if row["ratio"] is None else f" ({row['ratio']:.2f} x)"
    return f"{row['distance']:.3g}{near}"


def _of_trial(trial: Trial, folder: Path) -> str:
    model, _ = restore(folder)
    device = device_of("auto")
    target, extractor = open_target(trial.config), extractor_for(trial.config["metric"], device)
    images = samples_of(trial.config, model)(model.to(device))
    name = write_nearest(folder, np.asarray(images), target, extractor, cache_of(trial.config))
    return f"{folder}: fewer than two training images" if name is None else str(folder / name)


def _between(features: torch.Tensor, most: int = 1000) -> float:
    """The median distance of a training image to the nearest other one, from `most` of them."""
    rows = features[torch.from_numpy(spread(len(features), most))]
    return float(nearest(rows, rows, same=True)[0].median())
