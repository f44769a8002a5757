"""How many images of a dataset there are to train on."""

import os
from collections.abc import Mapping
from typing import Any

from stylegan_tl.data.open import open_dataset
from stylegan_tl.data.split import split

__all__ = ["count_train"]


def count_train(
    spec: Mapping[str, Any], resolution: int, cache: str | os.PathLike, held_out: float
) -> int:
    """Images of `spec` (as for `open_dataset`, which packs them if need be) not held out."""
    chosen = {k: v for k, v in spec.items() if k not in ("xflip", "checkpoint")}
    dataset = open_dataset(chosen, resolution=resolution, cache=cache)
    return len(split(dataset.image_hashes, held_out)[0])
