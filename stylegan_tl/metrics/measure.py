"""From the rows of one pass and the reals' references to values: one function per kind of metric.

Every function returns what a record holds of the measurement: value, estimator, num_reals where it
compares with reals, and, where they exist, stderr, interval, levels, note and detail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.metrics.density_coverage import density_coverage
from stylegan_tl.metrics.equivariance import equivariance
from stylegan_tl.metrics.fakes import Fakes, Rows
from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.fid import feature_distance, fid_infinity
from stylegan_tl.metrics.inception_score import inception_score
from stylegan_tl.metrics.interval import interval
from stylegan_tl.metrics.intra_lpips import intra_cluster
from stylegan_tl.metrics.kid import kernel_distance
from stylegan_tl.metrics.memory import nearer_share
from stylegan_tl.metrics.ppl import path_length
from stylegan_tl.metrics.precision_recall import precision_recall
from stylegan_tl.metrics.protocol import Protocol
from stylegan_tl.metrics.reference import (
    MAX_FEATURES,
    Images,
    Reference,
    cached_reference,
    spread,
)
from stylegan_tl.metrics.residue import paired_distance, source_residue
from stylegan_tl.metrics.statistics import FeatureStatistics
from stylegan_tl.metrics.swd import sliced_wasserstein

__all__ = ["FEW_REALS", "Bank", "Reals", "measure", "rows_of"]

FEW_REALS = 5_000
SWD_IMAGES = 16_384  # Karras et al. 2018
PRESET_REALS = {"kid": 1_000_000, "precision": 200_000, "recall": 200_000}  # NVIDIA's
Reals = Mapping[str, tuple[Images, np.ndarray]]
Found = dict[str, Any]
Score = Callable[..., Mapping[str, float]]


@dataclass
class Bank:
    """Everything at hand while values are computed; `rounds` > 0 asks for intervals.

    `keeps`: (split, extractor) → rows of features that its reference holds, where not the default.
    """

    rows: Rows
    fakes: Fakes
    reals: Reals
    extractors: Mapping[str, Extractor]
    cache: Path | None
    batch_size: int
    seed: int
    rounds: int = 0
    keeps: Mapping[tuple[str, str | None], int] = field(default_factory=dict)
    _memo: dict[Any, Any] = field(default_factory=dict)

    def generator(self) -> torch.Generator:
        """A fresh one, so that no metric depends on those measured before it."""
        return torch.Generator().manual_seed(self.seed)

    def features(self, protocol: Protocol) -> Tensor:
        """Features [num_fakes, F] of the fakes."""
        return self.rows.features[protocol.extractor][: protocol.num_fakes]

    def images(self, protocol: Protocol) -> Tensor:
        """The fakes, uint8 [num_fakes, 3, R, R]."""
        return self.rows.images[: protocol.num_fakes]

    def reference(self, protocol: Protocol, split: str | None = None) -> Reference:
        """The reals' statistics and as many features as the protocol takes, from the cache."""
        key = (split or protocol.split, protocol.extractor)
        make = lambda: cached_reference(  # noqa: E731
            self.extractors[protocol.extractor],
            *self.reals[key[0]],
            cache=self.cache,
            batch_size=self.batch_size,
            keep=self.keeps.get(key, MAX_FEATURES),
        )
        found = self.once(key, make)
        return replace(found, features=thinned(found.features, rows_of(protocol)))

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returned when it was first asked for under `key`."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def interval(self, score: Score, *samples: Tensor) -> Found:
        """{"interval": [low, high], …} of each of the score's values, if intervals are wanted."""
        if not self.rounds:
            return {}
        found = interval(score, *samples, generator=self.generator(), rounds=self.rounds)
        return {name: {"interval": bounds and list(bounds)} for name, bounds in found.items()}


def rows_of(protocol: Protocol) -> int:
    """How many reals' features a protocol is computed from at the most."""
    return PRESET_REALS.get(protocol.kind, MAX_FEATURES) if protocol.preset else MAX_FEATURES


def thinned(rows: Tensor, count: int) -> Tensor:
    """At most `count` of the rows, evenly spaced."""
    return rows if len(rows) <= count else rows[torch.from_numpy(spread(len(rows), count))]


def measure(protocol: Protocol, bank: Bank) -> Found:
    """Return what a record says of the value of `protocol`; a value that is not defined is None."""
    found = _MEASURES[protocol.kind](protocol, bank)
    if isfinite(found["value"]):
        if found.get("interval"):
            low, high = _RANGES.get(protocol.kind, (-inf, inf))
            found["interval"] = [min(max(end, low), high) for end in found["interval"]]
        return found
    return {**found, "value": None, "stderr": None, "interval": None}


_SHARES = ("precision", "recall", "coverage", "nearer", "residue")
_RANGES = {**dict.fromkeys(_SHARES, (0.0, 1.0)), "fid": (0.0, inf), "density": (0.0, inf)}


def _fid(protocol: Protocol, bank: Bank) -> Found:
    fake, reference = bank.features(protocol), bank.reference(protocol)
    num_reals = reference.statistics.count
    all_kept = len(reference.features) == num_reals  # else many enough to count as given

    def score(fake: Tensor, *real: Tensor) -> Mapping[str, float]:
        side = FeatureStatistics.from_features(real[0]) if real else reference.statistics
        return {"value": feature_distance(fake, side)}

    samples = (fake, reference.features) if all_kept else (fake,)
    return {
        "value": feature_distance(fake, reference.statistics),
        "num_reals": num_reals,
        "estimator": "Fréchet distance, unbiased covariances, float64",
        **bank.interval(score, *samples).get("value", {}),
        **_too_few(num_reals, len(fake), fake.shape[1]),
    }


def _too_few(num_reals: int, num_fakes: int, num_features: int) -> Found:
    if num_reals >= FEW_REALS and min(num_reals, num_fakes) > num_features:
        return {}
    return {
        "note": f"{num_reals} reals and {num_fakes} fakes for {num_features} features (FID asks "
        f"for {FEW_REALS} reals and more images than features): the value is biased upwards by "
        "the numbers, compare it only at equal ones and read KID or fidinf beside it"
    }


def _fidinf(protocol: Protocol, bank: Bank) -> Found:
    fake, reference = bank.features(protocol), bank.reference(protocol)
    all_kept = len(reference.features) == reference.statistics.count
    real = reference.features if all_kept else reference.statistics

    def score(*samples: Tensor) -> Mapping[str, float]:
        given = samples if all_kept else (*samples, reference.statistics)
        return {"value": fid_infinity(*given, generator=bank.generator())["value"]}

    found = fid_infinity(fake, real, generator=bank.generator())
    sides = "fakes and reals" if all_kept else "fakes"
    samples = (fake, reference.features) if all_kept else (fake,)
    return {
        **_named(found, "value"),
        "num_reals": reference.statistics.count,
        "estimator": f"FID over 1/N of the {sides}, least squares, at 1/N = 0",
        "detail": found,
        **bank.interval(score, *samples).get("value", {}),
    }


def _kid(protocol: Protocol, bank: Bank) -> Found:
    fake, real = bank.features(protocol), bank.reference(protocol).features
    few = [thinned(side, MAX_FEATURES) for side in (fake, real)]
    value, stderr = kernel_distance(*few)  # the error of subsets would see no noise of the images
    estimator = "unbiased MMD² of all pairs, cubic kernel, jackknife error"
    if len(fake) > MAX_FEATURES:
        estimator += f", {MAX_FEATURES} fakes evenly spaced"
    if protocol.preset:
        size = min(len(fake), len(real), 1000)
        subsets = dict(subset_size=size, num_subsets=100)
        value, _ = kernel_distance(fake, real, **subsets, generator=bank.generator())
        estimator = f"mean unbiased MMD² of 100 subsets of {size}, cubic kernel, jackknife error"

    def score(fake: Tensor, real: Tensor) -> Mapping[str, float]:
        return {"value": kernel_distance(fake, real)[0]}

    return {
        "value": value,
        "stderr": stderr,
        "num_reals": len(real),
        "estimator": estimator,
        **bank.interval(score, *few).get("value", {}),
    }


def _neighbours(protocol: Protocol, bank: Bank) -> Found:
    """Precision and recall, or density and coverage: both at once, each asked for by its name."""
    score, estimator = _PAIRS[protocol.kind]
    fake, real = bank.features(protocol), bank.reference(protocol).features
    key = (score, protocol.num_fakes, protocol.split, protocol.extractor, len(real))
    values = bank.once(key, lambda: score(fake, real))
    bounds = bank.once((*key, "interval"), lambda: bank.interval(score, fake, real))
    return {
        "value": values[protocol.kind],
        "num_reals": len(real),
        "estimator": estimator,
        **bounds.get(protocol.kind, {}),
    }


_PAIRS = {
    "precision": (precision_recall, "k=3, Kynkäänniemi et al. 2019"),
    "recall": (precision_recall, "k=3, Kynkäänniemi et al. 2019"),
    "density": (density_coverage, "k=5, Naeem et al. 2020"),
    "coverage": (density_coverage, "k=5, Naeem et al. 2020"),
}


def _swd(protocol: Protocol, bank: Bank) -> Found:
    dataset, indices = bank.reals[protocol.split]
    count = min(protocol.num_fakes, len(indices), SWD_IMAGES)
    real = torch.from_numpy(dataset.images(indices[spread(len(indices), count)]))
    fake = bank.images(protocol)[torch.from_numpy(spread(protocol.num_fakes, count))]

    def score(fake: Tensor, real: Tensor) -> Mapping[str, float]:
        return {"value": sliced_wasserstein(real, fake, generator=bank.generator())["mean"]}

    known = {
        "num_reals": count,
        "estimator": f"×10³, 128 patches, 512 projections, seed {bank.seed}",
    }
    try:
        levels = sliced_wasserstein(real, fake, generator=bank.generator())
        bounds = bank.interval(score, fake, real).get("value", {})
    except ValueError as error:  # constant images: a collapsed generator ends no training
        return {"value": float("nan"), "note": str(error), **known}
    return {"value": levels.pop("mean"), "levels": levels, **known, **bounds}


def _inception_score(protocol: Protocol, bank: Bank) -> Found:
    logits = bank.rows.logits[protocol.extractor][: protocol.num_fakes]

    def score(logits: Tensor) -> Mapping[str, float]:
        return {"value": inception_score(logits)["value"]}

    return {
        **inception_score(logits),
        "num_reals": None,
        "estimator": "mean and deviation over 10 splits",
        **bank.interval(score, logits).get("value", {}),
    }


def _path_length(protocol: Protocol, bank: Bank) -> Found:
    space, sampling = protocol.space[0], protocol.space[1:]
    found = path_length(
        bank.fakes.G,
        bank.extractors[protocol.extractor].embed,
        space=space,
        sampling=sampling,
        count=protocol.num_fakes,
        latents=bank.fakes.latents,
        labels=bank.fakes.labels,
        seed=bank.seed,
    )
    return {
        **found,
        "num_reals": None,
        "estimator": f"{space}, {sampling}, ε = 1e-4, 1st to 99th percentile",
        **_normal(found, bank),
    }


def _equivariance(protocol: Protocol, bank: Bank) -> Found:
    found = equivariance(
        bank.fakes.G,
        protocol.shift or "rotation",
        count=protocol.num_fakes,
        latents=bank.fakes.latents,
        labels=bank.fakes.labels,
        seed=bank.seed,
    )
    moved = {"int": "whole pixels", "frac": "parts of pixels"}.get(protocol.shift)
    how = f"shifts by {moved} up to 1/8 of the side" if moved else "rotations by any angle"
    return {
        **found,
        "num_reals": None,
        "estimator": f"PSNR in dB, {how}, Karras et al. 2021",
        **_normal(found, bank),
    }


def _intra(protocol: Protocol, bank: Bank) -> Found:
    dataset, indices = bank.reals[protocol.split]
    anchors = torch.from_numpy(dataset.images(indices))
    embed = bank.extractors[protocol.extractor].embed
    found = intra_cluster(bank.images(protocol), anchors, embed, generator=bank.generator())
    interval = _normal(found, bank)
    return {
        **_named(found, "value", "stderr"),
        "num_reals": len(anchors),
        "estimator": "nearest real by perceptual distance, 50 a cluster, mean of the clusters",
        "detail": found,
        **interval,
    }


def _nearer(protocol: Protocol, bank: Bank) -> Found:
    fake = bank.features(protocol)
    train, held = (bank.reference(protocol, split).features for split in protocol.splits)

    def score(fake: Tensor, train: Tensor, held: Tensor) -> Mapping[str, float]:
        return {"value": nearer_share(fake, train, held, generator=bank.generator())["value"]}

    found = nearer_share(fake, train, held, generator=bank.generator())
    return {
        **_named(found, "value", "stderr"),
        "num_reals": min(len(train), len(held)),
        "estimator": "equal numbers of training and held-out images, ties count half",
        "detail": found,
        **bank.interval(score, fake, train, held).get("value", {}),
    }


def _fidgap(protocol: Protocol, bank: Bank) -> Found:
    fake = bank.features(protocol)
    sides = [bank.reference(protocol, split).features for split in protocol.splits]
    count = min(len(side) for side in sides)
    sides = [side[torch.from_numpy(spread(len(side), count))] for side in sides]

    def score(fake: Tensor, train: Tensor, held: Tensor) -> Mapping[str, float]:
        distances = [
            feature_distance(fake, FeatureStatistics.from_features(s)) for s in (train, held)
        ]
        return {"value": distances[0] - distances[1]}

    return {
        **score(fake, *sides),
        "num_reals": count,
        "estimator": "FID(train) − FID(held out), equal numbers of reals",
        **bank.interval(score, fake, *sides).get("value", {}),
    }


def _paired(protocol: Protocol, bank: Bank) -> Found:
    embed = bank.extractors[protocol.extractor].embed
    source = bank.rows.source[: protocol.num_fakes]
    found = paired_distance(source, bank.images(protocol), embed)
    return {
        **found,
        "num_reals": None,
        "estimator": "mean perceptual distance at the same z",
        **_normal(found, bank),
    }


def _residue(protocol: Protocol, bank: Bank) -> Found:
    fake = bank.features(protocol)
    source, target = (bank.reference(protocol, split).features for split in protocol.splits)

    found = source_residue(fake, source, target, generator=bank.generator())
    interval = _normal(found, bank)
    return {
        **_named(found, "value", "stderr", "note"),
        "num_reals": len(source) + len(target),
        "estimator": "logistic regression on the features, cross-validated",
        "detail": found,
        **interval,
    }


def _named(found: Found, *names: str) -> Found:
    """Take these out of `found`, where they are there."""
    return {name: found.pop(name) for name in names if name in found}


def _normal(found: Found, bank: Bank) -> Found:
    """The interval of a mean, where its standard error is known."""
    if not bank.rounds or found.get("stderr") is None:
        return {}
    return {"interval": [found["value"] + side * 1.96 * found["stderr"] for side in (-1, 1)]}


_MEASURES: dict[str, Callable[[Protocol, Bank], Found]] = {
    "fid": _fid,
    "fidinf": _fidinf,
    "kid": _kid,
    "precision": _neighbours,
    "recall": _neighbours,
    "density": _neighbours,
    "coverage": _neighbours,
    "swd": _swd,
    "is": _inception_score,
    "ppl": _path_length,
    "eqt": _equivariance,
    "eqr": _equivariance,
    "intra": _intra,
    "nearer": _nearer,
    "fidgap": _fidgap,
    "paired": _paired,
    "residue": _residue,
}
