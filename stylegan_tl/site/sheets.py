"""Many small images in few WebP files: tile i is row by row at place i of sheet i // per sheet."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, features

from stylegan_tl.files import write_atomic

__all__ = ["OURS", "columns_of", "sheet_of", "write_sheets"]

OURS = re.compile(r"[0-9a-f]{16}\.webp")
"""The names of our files: digests of what is in them."""
_SIDE = 1024  # pixels of a sheet, unless one image is larger
_QUALITY = 90


def columns_of(resolution: int) -> int:
    """Tiles across, and down, a sheet.

    >>> [columns_of(r) for r in (32, 64, 256, 2048)]
    [16, 16, 4, 1]
    """
    return max(1, min(16, _SIDE // resolution))


def sheet_of(images: np.ndarray) -> Image.Image:
    """Images uint8 [N, 3, R, R] as one picture without gaps; empty places are black."""
    count, _, side, _ = images.shape
    columns = columns_of(side)
    rows = -(-count // columns)
    canvas = np.zeros((rows * side, columns * side, 3), np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * side, (i % columns) * side
        canvas[y : y + side, x : x + side] = image.transpose(1, 2, 0)
    return Image.fromarray(canvas)


def write_sheets(into: Path, batches: Iterable[np.ndarray]) -> list[str]:
    """Write all images of `batches` (uint8 [n, 3, R, R]); the sheets' names in order.

    One sheet is in memory at a time. ValueError where Pillow has no WebP.
    """
    if not features.check("webp"):
        raise ValueError("page=: this Pillow was built without WebP; install another build of it")
    names = []
    for images in _filled(batches):
        buffer = io.BytesIO()
        sheet_of(images).save(buffer, "WEBP", quality=_QUALITY, method=4)
        names.append(hashlib.sha256(buffer.getvalue()).hexdigest()[:16] + ".webp")
        write_atomic(into / names[-1], buffer.getvalue())
    return names


def _filled(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same images in batches of a whole sheet; the last may be shorter."""
    held: np.ndarray | None = None
    for batch in batches:
        held = batch if held is None else np.concatenate([held, batch])
        size = columns_of(held.shape[-1]) ** 2
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if held is not None and len(held):
        yield held
