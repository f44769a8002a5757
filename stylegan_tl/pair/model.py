"""The source model and the target: its samples, and what its D says of target images."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stylegan_tl.callbacks import EvaluationSamples
from stylegan_tl.data.device import to_float
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.data.progress import Progress
from stylegan_tl.metrics.auc import auc
from stylegan_tl.metrics.fakes import Fakes
from stylegan_tl.metrics.reference import reference_hash
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.pair.images import measure_pair
from stylegan_tl.pair.kept import kept
from stylegan_tl.pair.pair import Pair
from stylegan_tl.pair.records import MEASURES, left_of, record
from stylegan_tl.restore import rebuild

__all__ = ["labels_of", "missing", "model", "scores"]

BATCH = 64


def model(pair: Pair) -> list[dict[str, Any]]:
    """As many samples as source images against both sides, and D's logits.

    Against the target: the transfer's curve at 0 kimg. Against the source: how good the source
    model is (FID, KID).
    """
    trained = rebuild(pair.source_model).to(pair.device)
    samples, count = EvaluationSamples(trained, labels_of(pair, trained)), len(pair.source.train)
    who, identity = left_of(pair, "model"), pair.source_model.sha256
    own = _of_samples(pair, trained, samples, count)
    fakes = Fakes(samples, identity=identity)
    records = []
    for split, side, kinds in (
        ("train", pair.target, MEASURES),
        ("source", pair.source, ("fid", "kid")),
    ):
        rows = measure_pair(pair, own["features"], fakes, side, split, kinds)
        reals = reference_hash(side.dataset, side.train)
        records += [record(r, who, split, reals=reals, extractor=pair.extractor) for r in rows]
    return records + _discriminator(pair, trained.D, own.get("logits"))


def _of_samples(
    pair: Pair, trained: AdversarialModel, samples: EvaluationSamples, count: int
) -> dict[str, Tensor]:
    """`features` [count, F] of the first samples and, unless D wants labels, its `logits` [count].

    They do not depend on the target: all pairs of a source model share them.
    """
    progress, e = Progress("samples of the source model", count), pair.extractor
    labels = labels_of(pair, trained)
    known = None if labels is None else hashlib.sha256(labels.tobytes()).hexdigest()
    inputs = [pair.source_model.sha256, count, known, e.name, e.digest, e.resize, e.precision]

    def make() -> dict[str, Tensor]:
        found = defaultdict(list)
        for start in range(0, count, BATCH):
            images = samples(start, min(BATCH, count - start))
            found["features"].append(e(images).float())
            if not trained.D.c_dim:
                found["logits"].append(scores(trained.D, images))
            progress(min(start + BATCH, count))
        return {name: torch.cat(parts) for name, parts in found.items()}

    return kept(pair.statistics, "samples", inputs, make)


def missing(pair: Pair) -> list[dict[str, Any]]:
    """The rows that need a source model, without values and with the reason."""
    reason = "no source model yet: give source.checkpoint=<file>, or train_source=true"
    row = {"value": None, "missing": reason, "num_reals": len(pair.target.train)}
    row["num_fakes"] = len(pair.source.train)
    left = {"of": "model", "name": None, "sha256": None}
    reals = reference_hash(pair.target.dataset, pair.target.train)
    used = {**dict.fromkeys(MEASURES, pair.extractor), "dlogit": None, "dauc": None}
    used |= dict.fromkeys(("inversion", "inversionratio"), pair.perceptual)
    return [
        record({"kind": kind, **row}, left, "train", reals=reals, extractor=extractor)
        for kind, extractor in used.items()
    ]


def labels_of(pair: Pair, trained: AdversarialModel) -> np.ndarray | None:
    """The labels float32 [N, c_dim] that samples are drawn with: those of the source's images."""
    wanted, have = trained.G.c_dim, pair.source.dataset.label_dim
    if not wanted:
        return None
    if wanted != have:
        raise ValueError(
            f"{pair.source_model.path} has {wanted} classes, {pair.config['source']['name']} has "
            f"{have}: name the dataset that it was trained on"
        )
    return pair.source.dataset.labels(pair.source.train)


@torch.no_grad()
def scores(D: nn.Module, images: Tensor) -> Tensor:
    """D's logits [N] of uint8 images [N, 3, R, R], float32 on the CPU; D in eval mode, no labels.

    Minibatch statistics are taken within groups of 64 images or fewer, and groups are always full:
    the last one is filled with the first images of its batch.
    """
    device = next(D.parameters()).device
    group = getattr(D.b4, "mbstd_group_size", 1)
    found = []
    for batch in images.split(BATCH):
        full = -(-len(batch) // group) * group
        filled = to_float(batch[torch.arange(full) % len(batch)].to(device))
        found.append(D(filled)[: len(batch), 0].float().cpu())
    return torch.cat(found)


def _discriminator(pair: Pair, D: nn.Module, fakes: Tensor | None) -> list[dict[str, Any]]:
    """Mean logits of fakes, target and held-out source images, and how D ranks these over fakes."""
    records = []
    if fakes is not None:
        who = left_of(pair, "model")
        records.append(record(_mean(fakes), who, "fakes", reals=None, extractor=None))
    for split, who, side, indices in (
        ("train", "target", pair.target, pair.target.train),
        ("sourceheldout", "source", pair.source, pair.source.held_out),
    ):
        reason = None if len(indices) else f"no image of {pair.config[who]['name']} is held out"
        reason = "D takes labels, which target images do not have" if fakes is None else reason
        rows = _unranked(reason) if reason else _ranked(D, side.dataset, indices, fakes)
        reals = reference_hash(side.dataset, indices)
        left = left_of(pair, who)
        records += [record(row, left, split, reals=reals, extractor=None) for row in rows]
    return records


def _ranked(
    D: nn.Module, dataset: PackedDataset, indices: np.ndarray, fakes: Tensor
) -> list[dict[str, Any]]:
    parts = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
    logits = torch.cat([scores(D, torch.from_numpy(dataset.images(part))) for part in parts])
    area, stderr = auc(logits, fakes)
    row = {"kind": "dauc", "value": area, "stderr": stderr, "num_fakes": len(logits)}
    row |= {"num_reals": len(fakes), "estimator": "Mann-Whitney against fakes, DeLong error"}
    return [_mean(logits), row]


def _unranked(reason: str) -> list[dict[str, Any]]:
    row = {"value": None, "missing": reason, "num_fakes": 0, "num_reals": 0}
    return [{"kind": kind, **row} for kind in ("dlogit", "dauc")]


def _mean(logits: Tensor) -> dict[str, Any]:
    stderr = (logits.double().std() / len(logits) ** 0.5).item() if len(logits) > 1 else None
    row = {"kind": "dlogit", "value": logits.double().mean().item(), "stderr": stderr}
    return {**row, "num_fakes": len(logits), "num_reals": len(logits), "estimator": "mean"}
