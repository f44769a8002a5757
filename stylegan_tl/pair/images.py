"""Images against images: quality and coverage, nearest neighbours, density and diversity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_tl.metrics.density_coverage import density_coverage
from stylegan_tl.metrics.diversity import mean_distance, neighbour_radius, vendi_score
from stylegan_tl.metrics.fid import feature_distance
from stylegan_tl.metrics.kid import kernel_distance
from stylegan_tl.metrics.precision_recall import precision_recall
from stylegan_tl.metrics.proximity import nearest_ratio
from stylegan_tl.metrics.reference import Reference, reference_hash, spread
from stylegan_tl.pair.pair import Pair
from stylegan_tl.pair.records import left_of, record

__all__ = ["MEASURES", "images", "measure_pair", "neighbours"]

MEASURES = {
    "fid": "Fréchet distance, unbiased covariances, float64",
    "kid": "unbiased MMD² of all pairs, cubic kernel, jackknife error",
    "precision": "balls to the k-th neighbour, k=3",
    "recall": "balls to the k-th neighbour, k=3",
    "density": "balls to the k-th neighbour, k=5",
    "coverage": "balls to the k-th neighbour, k=5",
}


def measure_pair(left: Reference, right: Reference) -> list[dict[str, Any]]:
    """FID, KID, precision, recall, density and coverage of `left` in the place of the fakes."""
    x, y = left.features, right.features
    kid, stderr = kernel_distance(x, y)
    values = {"fid": feature_distance(x, right.statistics), "kid": kid}
    values |= {**precision_recall(x, y), **density_coverage(x, y)}
    counts = {"num_fakes": len(x), "num_reals": len(y)}
    rows = [
        {"kind": kind, "value": float(values[kind]), "estimator": estimator, **counts}
        for kind, estimator in MEASURES.items()
    ]
    rows[1]["stderr"] = stderr
    return rows


def images(pair: Pair) -> list[dict[str, Any]]:
    """Source images in the place of the fakes, target images as the reals."""
    rows = measure_pair(pair.reference(pair.source), pair.reference(pair.target))
    both = _in_both(pair)
    note = {"note": f"{both} images are in both sets"} if both else {}
    return [_source_to_target(pair, {**row, **note}) for row in rows]


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
    sets = [
        {row.tobytes() for row in side.dataset.image_hashes[side.train]}
        for side in (pair.source, pair.target)
    ]
    return len(sets[0] & sets[1])
