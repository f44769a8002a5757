"""How well the source generator can draw images of the target, held against its own domain."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from stylegan_tl.assembly import Target
from stylegan_tl.data.device import to_float
from stylegan_tl.data.progress import Progress
from stylegan_tl.data.split import n_shot
from stylegan_tl.metrics.inversion import Inversion, invert
from stylegan_tl.metrics.reference import reference_hash
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.pair.kept import kept
from stylegan_tl.pair.model import labels_of
from stylegan_tl.pair.pair import Pair
from stylegan_tl.pair.records import left_of, record
from stylegan_tl.restore import rebuild

__all__ = ["inversion"]


def inversion(pair: Pair) -> list[dict[str, Any]]:
    """Mean errors of inverted target images and held-out source images, and their ratios.

    The ratios are missing where no source image is held out.
    """
    trained = rebuild(pair.source_model).to(pair.device)
    done, errors = [], {}
    for split, who, side, all_of_them in (
        ("train", "target", pair.target, pair.target.train),
        ("sourceheldout", "source", pair.source, pair.source.held_out),
    ):
        if not len(all_of_them):
            continue
        count = min(pair.config["inversion"]["images"], len(all_of_them))
        chosen = n_shot(all_of_them, count, pair.config["seed"])
        found = _invert(pair, trained, side, chosen, f"inverting {count} {who} images")
        errors[split] = found
        reals = reference_hash(side.dataset, chosen)
        done += [
            record(row, left_of(pair, who), split, reals=reals, extractor=extractor)
            for row, extractor in zip(_rows(pair, found), (pair.perceptual, None), strict=True)
        ]
    return done + _ratios(pair, errors)


def _invert(
    pair: Pair, trained: AdversarialModel, side: Target, chosen: np.ndarray, what: str
) -> Inversion:
    own, batch = pair.config["inversion"], 16
    labels = labels_of(pair, trained)
    steps = own["steps"] * -(-len(chosen) // batch)
    inputs = [pair.source_model.sha256, reference_hash(side.dataset, chosen), own]
    inputs += [pair.perceptual.digest, pair.perceptual.precision, pair.config["seed"]]
    if labels is not None:
        inputs.append(hashlib.sha256(labels.tobytes()).hexdigest())

    def make() -> dict[str, torch.Tensor]:
        found = invert(
            trained.G_ema,
            to_float(torch.from_numpy(side.dataset.images(chosen)).to(pair.device)),
            pair.perceptual.embed,
            steps=own["steps"],
            batch_size=batch,
            seed=pair.config["seed"],
            labels=None if labels is None else torch.from_numpy(labels),
            tick=Progress(what, steps, unit=("steps", "step")),
        )
        return {name: value for name, value in vars(found).items() if name != "noise"}

    return Inversion(**kept(pair.statistics, "inversion", inputs, make))


def _rows(pair: Pair, found: Inversion) -> list[dict[str, Any]]:
    estimator = f"Adam, {pair.config['inversion']['steps']} steps from the mean latent, no noise"
    rows = []
    for kind, errors, start in (
        ("inversion", found.perceptual, found.start_perceptual),
        ("inversionpixel", found.pixel, found.start_pixel),
    ):
        stderr = (errors.std() / len(errors) ** 0.5).item() if len(errors) > 1 else None
        row = {"kind": kind, "value": errors.mean().item(), "stderr": stderr}
        row |= {"num_fakes": len(errors), "num_reals": len(errors), "estimator": estimator}
        rows.append({**row, "start": start.mean().item()})
    return rows


def _ratios(pair: Pair, errors: dict[str, Inversion]) -> list[dict[str, Any]]:
    target, source = errors["train"], errors.get("sourceheldout")
    who = left_of(pair, "target")
    records = []
    for kind, field, extractor in (
        ("inversionratio", "perceptual", pair.perceptual),
        ("inversionpixelratio", "pixel", None),
    ):
        top = getattr(target, field)
        row = {"kind": kind, "num_fakes": len(top), "estimator": "ratio of means"}
        if source is None:
            reason = f"no image of {pair.config['source']['name']} is held out"
            row |= {"value": None, "missing": reason, "num_reals": 0}
        else:
            below = getattr(source, field)
            row |= _ratio(top, below) | {"num_reals": len(below)}
        records.append(record(row, who, "sourceheldout", reals=None, extractor=extractor))
    return records


def _ratio(top: torch.Tensor, below: torch.Tensor) -> dict[str, Any]:
    """The ratio of means, and its error to first order."""
    value = (top.mean() / below.mean()).item()
    parts = [(x.std() / x.mean()) ** 2 / len(x) for x in (top, below) if len(x) > 1]
    return {"value": value, "stderr": abs(value) * float(sum(parts)) ** 0.5}
