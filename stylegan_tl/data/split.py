"""Which images train and which are held out: by content, never by order."""

import numpy as np

from stylegan_tl.data.errors import DataError
from stylegan_tl.data.sampler import stream

__all__ = ["n_shot", "split"]

_N_SHOT_STREAM = 2**64 - 2  # second half of the Philox key; epochs count up from 0


def split(hashes: np.ndarray, held_out: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Divide by hash: read as a number in [0, 1), a hash < `held_out` is held out.

    `hashes` uint8 [N, ≥8]. Returns sorted int64 indices (train, held out). An image keeps its side
    when others are added, removed or reordered.
    """
    if not 0 <= held_out < 1:
        raise DataError(f"held_out={held_out}: expected a fraction, 0 <= held_out < 1")
    hashes = np.ascontiguousarray(np.asarray(hashes, np.uint8)[:, :8])
    numbers = hashes.view(">u8")[:, 0].astype(np.float64) / 2.0**64
    out = numbers < held_out
    return np.flatnonzero(~out), np.flatnonzero(out)


def n_shot(train_idx: np.ndarray, num_images: int | None, seed: int) -> np.ndarray:
    """Choose `num_images` of `train_idx` (None: all), sorted.

    Nested: for one seed the 10-shot subset is part of the 100-shot subset.
    """
    train_idx = np.asarray(train_idx, np.int64)
    if num_images is None:
        return np.sort(train_idx)
    if num_images < 1:
        raise DataError(f"num_images={num_images}: expected at least 1, or null for all")
    if num_images > len(train_idx):
        raise DataError(
            f"num_images={num_images}, but the data set has only {len(train_idx)} training images; "
            "ask for fewer, or null for all"
        )
    raw = stream(seed, _N_SHOT_STREAM).random_raw(len(train_idx))
    return np.sort(train_idx[np.argsort(raw, kind="stable")[:num_images]])
