"""Images against images: quality and coverage, nearest neighbours, density and diversity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.assembly import Target
from stylegan_tl.metrics.diversity import mean_distance, neighbour_radius, vendi_score
from stylegan_tl.metrics.fakes import Fakes, Rows
from stylegan_tl.metrics.measure import Bank, measure
from stylegan_tl.metrics.protocol import Protocol
from stylegan_tl.metrics.proximity import nearest_ratio
from stylegan_tl.metrics.reference import reference_hash, spread
from stylegan_tl.pair.pair import Pair
from stylegan_tl.pair.records import MEASURES, left_of, record

__all__ = ["images", "measure_pair", "neighbours"]


def measure_pair(
    pair: Pair,
    features: Tensor,
    fakes: Fakes,
    side: Target,
    split: str,
    kinds: Sequence[str] = MEASURES,
) -> list[dict[str, Any]]:
    """Each of `kinds` of `features` [N, F] of the fakes against the images of a side."""
    name = pair.extractor.name
    bank = Bank(
        rows=Rows({name: features}),
        fakes=fakes,
        reals={split: (side.dataset, side.train)},
        extractors={name: pair.extractor},
        cache=pair.statistics,
        batch_size=64,
        seed=pair.config["seed"],
        rounds=pair.config["metric"]["rounds"],
    )
    count = len(features)
    return [
        {"kind": kind, "num_fakes": count, **measure(Protocol(kind, count, split, name), bank)}
        for kind in kinds
    ]


def images(pair: Pair) -> list[dict[str, Any]]:
    """Source images in the place of the fakes, target images as the reals."""
    features = pair.reference(pair.source).features
    fakes = Fakes(pair.source.dataset.images, of="images", count=len(features))
    rows = measure_pair(pair, features, fakes, pair.target, "train")
    return [_source_to_target(pair, {**row, "in_both": _in_both(pair)}) for row in rows]


def neighbours(pair: Pair) -> list[dict[str, Any]]:
    """The target's nearest source images; density and diversity of each side, equally many."""
    x, y = (pair.reference(side).features for side in (pair.target, pair.source))
    near = nearest_ratio(x, y)
    shared = {"num_fakes": len(y), "num_reals": len(x), "distance": near["distance"]}
    shared |= {"own": near["own"], "estimator": f"expected nearest of {near['m']} on either side"}
    records = [
        _source_to_target(pair, {"kind": kind, "value": near[of], **shared})
        for kind, of in (("nearest", "mean"), ("nearestmedian", "median"))
    ]
    count = min(len(x), len(y))
    for who, split, features in (("source", "source", y), ("target", "train", x)):
        side = getattr(pair, who)
        left, reals = left_of(pair, who), reference_hash(side.dataset, side.train)
        rows = _inside(features[torch.from_numpy(spread(len(features), count))])
        records += [record(r, left, split, reals=reals, extractor=pair.extractor) for r in rows]
    return records


def _source_to_target(pair: Pair, row: dict[str, Any]) -> dict[str, Any]:
    reals = reference_hash(pair.target.dataset, pair.target.train)
    return record(row, left_of(pair, "source"), "train", reals=reals, extractor=pair.extractor)


def _inside(features: Tensor) -> list[dict[str, Any]]:
    """Density and diversity of one set of features [N, F]."""
    values = {
        "radius": (neighbour_radius(features, k=5), "mean distance to the 5th neighbour"),
        "meandistance": (mean_distance(features), "mean over all pairs"),
        "vendi": (vendi_score(features), "cosine kernel"),
    }
    counts = {"num_fakes": len(features), "num_reals": len(features)}
    return [
        {"kind": kind, "value": float(value), "estimator": estimator, **counts}
        for kind, (value, estimator) in values.items()
    ]


def _in_both(pair: Pair) -> int:
    """How many of the images are on both sides, bit by bit."""
    sets = [
        {row.tobytes() for row in side.dataset.image_hashes[side.train]}
        for side in (pair.source, pair.target)
    ]
    return len(sets[0] & sets[1])
