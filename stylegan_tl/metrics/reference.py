"""Features and statistics of a set of reals, computed once and kept under a hash of what they are.

The key covers the images (dataset content hash and indices), the extractor's digest and its resize.
A damaged file is recomputed, never trusted; concurrent trials compute it once (file lock).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.statistics import FeatureStatistics, StatisticsAccumulator

__all__ = ["MAX_FEATURES", "Images", "Reference", "cached_reference", "reference_hash", "spread"]

MAX_FEATURES = 10_000  # rows kept unless asked for more; FID's statistics always cover every image
FORMAT = 2
_log = logging.getLogger(__name__)


class Images(Protocol):
    """What a dataset must offer here: a content hash and batches of uint8 images by index."""

    content_hash: str

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Return uint8 [N, 3, R, R]."""


@dataclass(frozen=True)
class Reference:
    """`statistics` of all reals; `features` float32 [≤ keep, F], evenly spaced rows."""

    statistics: FeatureStatistics
    features: Tensor


def reference_hash(dataset: Images, indices: np.ndarray) -> str:
    """Identity of a set of reals: dataset content and indices (hex, 16 digits)."""
    digest = hashlib.sha256(dataset.content_hash.encode())
    digest.update(np.ascontiguousarray(indices, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def cached_reference(
    extractor: Extractor,
    dataset: Images,
    indices: np.ndarray,
    *,
    cache: str | Path | None = None,
    batch_size: int = 64,
    keep: int = MAX_FEATURES,
) -> Reference:
    """Return the reference of `dataset[indices]`, from `cache/reals/` if it is there and whole.

    `keep` rows of features at most are kept beside the statistics.
    """
    wanted = spread(len(indices), keep)
    if cache is None:
        return _compute(extractor, dataset, indices, batch_size, wanted)
    key = _key(extractor, dataset, indices, len(wanted))
    path = Path(cache) / "reals" / f"{key}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        found = _read(path, extractor.num_features, len(indices), len(wanted))
        if found is None:
            found = _compute(extractor, dataset, indices, batch_size, wanted)
            _write(path, found)
    return found


def spread(count: int, limit: int) -> np.ndarray:
    """Return min(count, limit) positions in range(count), evenly spaced."""
    return np.arange(count) if count <= limit else np.arange(limit) * count // limit


def _key(extractor: Extractor, dataset: Images, indices: np.ndarray, rows: int) -> str:
    network = [extractor.digest, extractor.resize, extractor.precision]
    parts = [FORMAT, reference_hash(dataset, indices), *network, rows]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _compute(
    extractor: Extractor,
    dataset: Images,
    indices: np.ndarray,
    batch_size: int,
    wanted: np.ndarray,
) -> Reference:
    accumulator, kept = StatisticsAccumulator(extractor.num_features), []
    for start in range(0, len(indices), batch_size):
        batch = np.ascontiguousarray(dataset.images(indices[start : start + batch_size]))
        features = extractor(torch.from_numpy(batch)).cpu()
        accumulator.update(features)
        inside = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
        kept.append(features[torch.from_numpy(inside)])
    return Reference(accumulator.compute(), torch.cat(kept))


def _read(path: Path, num_features: int, count: int, rows: int) -> Reference | None:
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("count", "mean", "scatter", "features")}
        return _checked(arrays, num_features, count, rows)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged and is computed again: %s", path, error)
        return None


def _checked(arrays: dict[str, np.ndarray], num_features: int, count: int, rows: int) -> Reference:
    shapes = [arrays[name].shape for name in ("mean", "scatter", "features")]
    if shapes != [(num_features,), (num_features,) * 2, (rows, num_features)]:
        raise ValueError(f"shapes {shapes}")
    if int(arrays["count"]) != count:
        raise ValueError(f"{int(arrays['count'])} images instead of {count}")
    mean, scatter, features = (torch.from_numpy(arrays[n]) for n in ("mean", "scatter", "features"))
    return Reference(FeatureStatistics(count, mean, scatter), features)


def _write(path: Path, reference: Reference) -> None:
    statistics = reference.statistics
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                count=statistics.count,
                mean=statistics.mean.numpy(),
                scatter=statistics.scatter.numpy(),
                features=reference.features.numpy(),
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
