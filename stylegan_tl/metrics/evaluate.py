"""Measure one generator by several protocols: fakes are made and featurised once for them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.fid import feature_distance
from stylegan_tl.metrics.kid import kernel_distance
from stylegan_tl.metrics.protocol import Protocol
from stylegan_tl.metrics.reference import (
    MAX_FEATURES,
    Images,
    Reference,
    cached_reference,
    reference_hash,
    spread,
)
from stylegan_tl.metrics.swd import sliced_wasserstein

__all__ = ["FEW_REALS", "evaluate"]

FEW_REALS = 5_000
SWD_IMAGES = 16_384  # Karras et al. 2018

Sample = Callable[[int, int], Tensor]
Reals = Mapping[str, tuple[Images, np.ndarray]]


@dataclass(frozen=True)
class _Fakes:
    features: dict[str, Tensor]
    images: Tensor | None


def evaluate(
    protocols: Iterable[str | Protocol],
    *,
    sample: Sample,
    reals: Reals,
    extractors: Mapping[str, Extractor],
    cache: str | Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return one JSON-able record per protocol; KID first where a split has under 5 000 reals.

    sample:     (start, count) → uint8 [count, 3, R, R]: fakes number start … start + count − 1.
    reals:      split → (dataset, indices).
    extractors: name → extractor, for the names that the protocols use.
    cache:      folder for statistics of reals; None keeps nothing.
    seed:       of SWD's patches and projections.

    A record holds metric, value, num_fakes, num_reals, split, extractor, extractor_digest, resize,
    reference_hash, estimator, seconds (this distance) and shared_seconds (fakes and features, once
    for all records); KID adds stderr, SWD levels, FID with few reals note. FID uses all reals. KID
    uses all pairs of at most 10 000 evenly spaced images a side, so small splits need no subset
    rule. SWD uses as many reals as fakes, evenly spaced: the fewer of both, at most 16 384.
    """
    parsed = [p if isinstance(p, Protocol) else Protocol.parse(p) for p in protocols]
    _check(parsed, reals, extractors)
    if not parsed:
        return []
    began = perf_counter()
    fakes = _make_fakes(parsed, sample, extractors, batch_size)
    pairs = {(p.split, p.extractor) for p in parsed if p.extractor}
    references = {
        (split, name): cached_reference(
            extractors[name], *reals[split], cache=cache, batch_size=batch_size
        )
        for split, name in sorted(pairs)
    }
    shared = round(perf_counter() - began, 3)
    records = []
    for protocol in parsed:
        reference = references.get((protocol.split, protocol.extractor))
        record = _record(protocol, fakes, reals[protocol.split], reference, seed)
        record |= _identity(protocol, reals, extractors)
        records.append({**record, "shared_seconds": shared})
    few = any(len(reals[p.split][1]) < FEW_REALS for p in parsed)
    return sorted(records, key=lambda r: few and not r["metric"].startswith("kid"))


def _make_fakes(
    protocols: list[Protocol], sample: Sample, extractors: Mapping[str, Extractor], batch_size: int
) -> _Fakes:
    counts = {p.extractor: 0 for p in protocols}
    for p in protocols:
        counts[p.extractor] = max(counts[p.extractor], p.num_fakes)
    features: dict[str, list[Tensor]] = {name: [] for name in counts if name}
    images = []
    for start in range(0, max(counts.values()), batch_size):
        batch = _batch(sample, start, min(batch_size, max(counts.values()) - start))
        for name, rows in features.items():
            if start < counts[name]:
                rows.append(extractors[name](batch[: counts[name] - start]).cpu())
        if start < counts.get(None, 0):
            images.append(batch[: counts[None] - start].cpu())
    joined = {name: torch.cat(rows) for name, rows in features.items()}
    return _Fakes(joined, torch.cat(images) if images else None)


def _batch(sample: Sample, start: int, count: int) -> Tensor:
    batch = sample(start, count)
    if batch.dtype != torch.uint8 or batch.shape[:2] != (count, 3):
        raise ValueError(
            f"sample({start}, {count}) must give uint8 [{count}, 3, R, R], "
            f"got {batch.dtype} {tuple(batch.shape)}"
        )
    return batch


def _record(
    protocol: Protocol,
    fakes: _Fakes,
    reals: tuple[Images, np.ndarray],
    reference: Reference | None,
    seed: int,
) -> dict[str, Any]:
    began = perf_counter()
    if protocol.kind == "swd":
        found = _swd(fakes.images[: protocol.num_fakes], *reals, seed)
    elif protocol.kind == "kid":
        found = _kid(fakes.features[protocol.extractor][: protocol.num_fakes], reference)
    else:
        found = _fid(fakes.features[protocol.extractor][: protocol.num_fakes], reference)
    return {"metric": str(protocol), **found, "seconds": round(perf_counter() - began, 3)}


def _fid(fakes: Tensor, reference: Reference) -> dict[str, Any]:
    num_reals = reference.statistics.count
    found: dict[str, Any] = {
        "value": feature_distance(fakes, reference.statistics),
        "num_reals": num_reals,
        "estimator": "Fréchet distance, unbiased covariances, float64",
    }
    if num_reals < FEW_REALS:
        found["note"] = (
            f"{num_reals} reals (fewer than {FEW_REALS}): the value is biased upwards by the "
            "sample sizes, compare it only at equal counts and read KID first"
        )
    return found


def _kid(fakes: Tensor, reference: Reference) -> dict[str, Any]:
    chosen = fakes[torch.from_numpy(spread(len(fakes), MAX_FEATURES))]
    value, stderr = kernel_distance(chosen, reference.features)
    return {
        "value": value,
        "stderr": stderr,
        "num_reals": len(reference.features),
        "estimator": "unbiased MMD² of all pairs, cubic kernel, jackknife error",
    }


def _swd(fakes: Tensor, dataset: Images, indices: np.ndarray, seed: int) -> dict[str, Any]:
    count = min(len(fakes), len(indices), SWD_IMAGES)
    real = torch.from_numpy(dataset.images(indices[spread(len(indices), count)]))
    fake = fakes[torch.from_numpy(spread(len(fakes), count))]
    generator = torch.Generator().manual_seed(seed)
    levels = sliced_wasserstein(real, fake, generator=generator)
    return {
        "value": levels.pop("mean"),
        "levels": levels,
        "num_reals": count,
        "estimator": f"×10³, 128 patches, 512 projections, seed {seed}",
    }


def _identity(
    protocol: Protocol, reals: Reals, extractors: Mapping[str, Extractor]
) -> dict[str, Any]:
    extractor = extractors[protocol.extractor] if protocol.extractor else None
    return {
        "of": "model",
        "num_fakes": protocol.num_fakes,
        "split": protocol.split,
        "extractor": protocol.extractor,
        "extractor_digest": extractor.digest if extractor else None,
        "precision": "fp32" if extractor else None,
        "resize": extractor.resize if extractor else None,
        "reference_hash": reference_hash(*reals[protocol.split]),
    }


def _check(
    protocols: list[Protocol], reals: Reals, extractors: Mapping[str, Extractor]
) -> None:
    problems = []
    for p in protocols:
        if p.split not in reals:
            problems.append(f"{p}: no {p.split} images were given (there is {list(reals)})")
        elif len(reals[p.split][1]) < 3:
            problems.append(
                f"{p}: the {p.split} split holds {len(reals[p.split][1])} images and at least 3 "
                "are needed: use more images or another split"
            )
        if p.extractor is not None and p.extractor not in extractors:
            problems.append(f"{p}: extractor {p.extractor!r} is not loaded")
    if problems:
        raise ValueError("; ".join(problems))
