"""The same latents after each recorded kimg, as one picture per trial: a strip of frames.

A frame is the first `samples` images of a run's grid; a strip stacks the frames of one trial, so
that a page moves through them without loading again. One picture is in memory at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stylegan_tl.files import write_atomic

__all__ = [
    "Strip",
    "choose_steps",
    "frame",
    "grids_of",
    "nearest_of",
    "ratio_of",
    "write_picture",
    "write_strip",
]

_GAP = 2  # white pixels between and around the images of a grid
_LARGEST = 128  # pixels of an image in a strip
_SIDE = 16383  # WebP's longest side
_QUALITY = 82
_MARKS = (0.125, 0.25, 0.5, 1, 2, 5, *(10 * 2**i for i in range(14)))  # as callbacks.snapshots
_BATCH = 0.07  # kimg
_NAME = re.compile(r"kimg(\d+(?:\.\d+)?)\.png")


@dataclass(frozen=True)
class Strip:
    """A picture file, how many frames are stacked in it, and the pixels of one frame."""

    file: str
    kimg: tuple[float, ...]
    width: int
    height: int


def grids_of(folder: Path) -> list[tuple[float, Path]]:
    """(kimg, file) of every grid of a run, in order of kimg."""
    found = ((_NAME.fullmatch(path.name), path) for path in (folder / "grids").glob("kimg*.png"))
    return sorted((float(match[1]), path) for match, path in found if match)


def nearest_of(folder: Path) -> Path | None:
    """The picture of generated images beside their nearest training images, if the run has one."""
    found = [p for p in sorted(folder.glob("nearest*")) if p.suffix in (".png", ".jpg", ".webp")]
    return found[0] if found else None


def ratio_of(folder: Path) -> list[float] | None:
    """The smallest and the largest ratio in nearest.json: a distance to the nearest training image,
    over the one that training images have among themselves."""
    try:
        rows = json.loads((folder / "nearest.json").read_text(encoding="utf-8"))["rows"]
        ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [min(ratios), max(ratios)] if ratios else None


def choose_steps(recorded: Iterable[float], most: int) -> list[float]:
    """At most `most` of the `recorded` kimg: the first, the last, those that all runs keep (1/8, …,
    1, 2, 5, 10, 20, 40, …; a batch later for some), and between them even in log kimg.

    >>> choose_steps([0, 1, 2, 3, 4, 5, 6, 7, 8], 5)
    [0, 1, 2, 5, 8]
    """
    known = sorted(set(recorded))
    if len(known) <= most:
        return known
    kept = {known[0], known[-1], *(_at(mark, known) for mark in _MARKS)}
    if len(kept) > most:
        return _even(sorted(kept), most)
    more = (k for k in _even(known, most) if k not in kept)
    return sorted([*kept, *itertools.islice(more, most - len(kept))])


def _at(mark: float, known: Sequence[float]) -> float:
    """The grid of a mark: that of the run whose batch passed it last; the first if none is near."""
    near = [k for k in known if mark <= k <= 1.05 * mark]
    soon = [k for k in near if k <= mark + _BATCH]
    return max(soon) if soon else min(near, default=known[0])


def _even(known: Sequence[float], most: int) -> list[float]:
    """At most `most` of them, the first and the last with them, even in log kimg."""
    start = known[:1] if known[0] <= 0 else []
    positive = known[len(start) :]
    count = max(most - len(start), 2)
    ratio = (positive[-1] / positive[0]) ** (1 / (count - 1))
    wanted = [positive[0] * ratio**i for i in range(count)]
    chosen = {min(positive, key=lambda k: abs(math.log(k / w))) for w in wanted}
    return start + sorted(chosen)


def write_strip(
    into: Path,
    grids: Sequence[tuple[float, Path]],
    steps: Sequence[float],
    config: Mapping[str, Any],
    samples: int,
) -> Strip | None:
    """Stack a run's frames at `steps` (the last grid up to each) in one WebP file in `into`.

    The file's name is a digest of what went in: one that is there already is not made again.
    None for a run without a readable grid.
    """
    chosen = _chosen(grids, steps)
    frames = ((kimg, frame(path, config, samples)) for kimg, path in chosen)
    first = next(((k, f) for k, f in frames if f is not None), None)
    if first is None:
        return None
    width, height = first[1].size
    chosen = chosen[: _SIDE // height]
    name = _digest([path for _, path in chosen], f"{samples} {width} {height} {_QUALITY}")
    if (into / name).exists():
        return Strip(name, tuple(kimg for kimg, _ in chosen), width, height)
    canvas = Image.new("RGB", (width, height * len(chosen)), "white")
    for row, (_, path) in enumerate(chosen):
        picture = frame(path, config, samples)
        if picture is not None:
            canvas.paste(picture.resize((width, height)), (0, row * height))
    _save(into / name, canvas)
    return Strip(name, tuple(kimg for kimg, _ in chosen), width, height)


def write_picture(into: Path, path: Path, widest: int = 800) -> str | None:
    """Copy a picture as WebP, at most `widest` pixels wide; its file name, None if unreadable."""
    name = _digest([path], str(widest))
    if not (into / name).exists():
        picture = _opened(path)
        if picture is None:
            return None
        if picture.width > widest:
            picture = picture.resize((widest, round(picture.height * widest / picture.width)))
        _save(into / name, picture)
    return name


def _chosen(
    grids: Sequence[tuple[float, Path]], steps: Sequence[float]
) -> list[tuple[float, Path]]:
    """For each step the last grid up to it, each once."""
    found: dict[float, Path] = {}
    for step in steps:
        until = [grid for grid in grids if grid[0] <= step + 1e-9]
        if until:
            found.setdefault(*until[-1])
    return list(found.items())


def frame(path: Path, config: Mapping[str, Any], samples: int) -> Image.Image | None:
    """The first images of a grid, four in a row without gaps; a grid of unknown form whole."""
    picture = _opened(path)
    if picture is None:
        return None
    size = config.get("resolution")
    places = config.get("grid") or {}
    count = (places.get("columns") or 0) * (places.get("rows") or 0)
    if not size or not count:
        scale = min(1.0, 4 * _LARGEST / picture.width)
        return picture.resize((round(picture.width * scale), round(picture.height * scale)))
    columns, top = _layout(picture, size, count)
    samples = min(samples, count)
    across = min(4, samples)
    side = min(size, _LARGEST)
    made = Image.new("RGB", (across * side, math.ceil(samples / across) * side), "white")
    for i in range(samples):
        y, x = divmod(i, columns)
        box = (x * (size + _GAP) + _GAP, top + y * (size + _GAP) + _GAP)
        tile = picture.crop((*box, box[0] + size, box[1] + size))
        if side != size:
            tile = tile.resize((side, side), Image.Resampling.LANCZOS)
        made.paste(tile, (i % across * side, i // across * side))
    return made


def _layout(picture: Image.Image, size: int, count: int) -> tuple[int, int]:
    """Columns of a grid and the height of the caption's strip above it.

    A caption may have widened the picture, so every number of columns that fits is tried. What it
    leaves above must be about a caption's height or nothing; then it should fill the width, then
    every place, then be a little wider than high.
    """
    step = size + _GAP

    def above(columns: int) -> int:
        return picture.height - _GAP - math.ceil(count / columns) * step

    def unlikely(columns: int) -> tuple[float, ...]:
        caption = max(13, (columns * step + _GAP) // 26) * 1.7
        miss = min(abs(above(columns)), abs(above(columns) - caption))
        wide = picture.width != columns * step + _GAP
        return round(miss / 3), wide, count % columns > 0, abs(columns - math.sqrt(count * 4 / 3))

    widest = max(1, min(count, (picture.width - _GAP) // step))
    fitting = [c for c in range(1, widest + 1) if above(c) >= 0] or [widest]
    columns = min(fitting, key=unlikely)
    return columns, max(above(columns), 0)


def _opened(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError):  # gone, or torn by a kill
        return None


def _digest(paths: Sequence[Path], more: str) -> str:
    digest = hashlib.sha256(more.encode())
    for path in paths:
        known = path.stat()
        digest.update(f"{path} {known.st_size} {known.st_mtime_ns}\n".encode())
    return f"{digest.hexdigest()[:16]}.webp"


def _save(path: Path, picture: Image.Image) -> None:
    import io

    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_QUALITY, method=2)
    write_atomic(path, buffer.getvalue())
