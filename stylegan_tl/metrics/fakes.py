"""One pass over the images that are measured: each is made once and featurised once for all.

On a GPU the next batch is generated on a second stream while this one is featurised. What is done
is kept chunk by chunk on disk, so a pass that is killed goes on where it was. Ranks of a process
group make one contiguous part each and exchange the rows: every rank then holds them all.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.protocol import Protocol
from stylegan_tl.processes import ranks

__all__ = ["CHUNK", "Fakes", "Rows", "ahead", "make_rows", "spool_folder"]

CHUNK = 1024  # images between two writes; a multiple of the generator's own blocks

Sample = Callable[[int, int], Tensor]
_Key = tuple[str, str]
_BULKY = 2**26  # bytes of a chunk's images that are worth making again rather than writing


@dataclass(frozen=True)
class Fakes:
    """What is measured: a generator's images, or images themselves (`of="images"`).

    sample:   (start, count) → uint8 [count, 3, R, R], image number start … start + count − 1,
              the same whatever the batches.
    identity: names the images exactly (a digest of the model or of the files); None forbids
              keeping a half-finished pass.
    count:    how many there are; None for a generator.
    G, latents, labels:  for path lengths: the generator, and (start, count) → z and → c or None.
    source:   for paired distances: `sample` of the source model, from the same latents, and
    source_identity, its digest.
    """

    sample: Sample
    of: str = "model"
    identity: str | None = None
    count: int | None = None
    G: nn.Module | None = None
    latents: Callable[[int, int], Tensor] | None = None
    labels: Callable[[int, int], Tensor | None] | None = None
    source: Sample | None = None
    source_identity: str | None = None


@dataclass
class Rows:
    """What the pass leaves: rows in the order of the images, on the CPU."""

    features: dict[str, Tensor] = field(default_factory=dict)  # extractor → float32 [N, F]
    logits: dict[str, Tensor] = field(default_factory=dict)  # extractor → float32 [N, C]
    images: Tensor | None = None  # uint8 [N, 3, R, R]
    source: Tensor | None = None  # uint8, of the source model at the same latents


def make_rows(
    protocols: Iterable[Protocol],
    fakes: Fakes,
    extractors: Mapping[str, Extractor],
    *,
    batch_size: int = 64,
    spool: Path | None = None,
    say: Callable[[int, int], None] | None = None,
) -> Rows:
    """Make what `protocols` are computed from; `say(done, total)` is told of every batch.

    `spool` is a folder of these fakes and extractors alone (`spool_folder`), where every whole
    chunk of features is kept.
    """
    counts = _counts(protocols)
    chunks = _chunks(max(counts.values(), default=0))
    stored = {chunk: _stored(spool, chunk, counts) for chunk in chunks}
    batches = [
        (start, min(batch_size, stop - start))
        for (first, stop) in chunks
        if stored[first, stop] is None
        for start in range(first, stop, batch_size)
    ]
    made = _featurised(batches, fakes, extractors, counts)
    kept: dict[_Key, list[Tensor]] = {key: [] for key in counts}
    tell = _teller(chunks, say)
    for chunk in chunks:
        rows = stored[chunk]
        if rows is None:
            rows = _collected(made, chunk[1], tell)
            _store(spool, chunk, rows)
        for key, part in rows.items():
            kept[key].append(part)
    return _joined(kept)


def spool_folder(cache: Path, fakes: Fakes, extractors: Mapping[str, Extractor]) -> Path | None:
    """Where a half-finished pass over these fakes with these extractors is kept, if it can be."""
    if fakes.identity is None:
        return None
    parts = [fakes.identity, *sorted(f"{e.digest} {e.precision}" for e in extractors.values())]
    return cache / "passes" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def ahead(
    make: Callable[..., Tensor], items: Iterable[Any], device: torch.device | str
) -> Iterator[tuple[Any, Tensor]]:
    """Yield (item, make(*item)); on a GPU the next is under way on a second stream meanwhile."""
    if torch.device(device).type != "cuda":
        yield from ((item, make(*item)) for item in items)
        return
    side, main = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    side.wait_stream(main)  # the weights may still be on their way

    def launch(item: Any) -> tuple[Any, Tensor, torch.cuda.Event]:
        with torch.cuda.stream(side):
            return item, make(*item), side.record_event()

    waiting = None
    for item in items:
        following = launch(item)
        if waiting is not None:
            yield _arrived(waiting, main)
        waiting = following
    if waiting is not None:
        yield _arrived(waiting, main)


def _arrived(made: tuple[Any, Tensor, Any], stream: Any) -> tuple[Any, Tensor]:
    item, images, event = made
    stream.wait_event(event)
    if images.is_cuda:
        images.record_stream(stream)  # its memory stays until this stream has read it
    return item, images


def _counts(protocols: Iterable[Protocol]) -> dict[_Key, int]:
    """How many rows of each kind: (features | logits, extractor), ("images" | "source", "")."""
    counts: dict[_Key, int] = {}
    for p in protocols:
        for what, key in (
            ("features", ("features", p.extractor)),
            ("logits", ("logits", p.extractor)),
            ("images", ("images", "")),
            ("G_source", ("source", "")),
        ):
            if p.needs(what):
                counts[key] = max(counts.get(key, 0), p.num_fakes)
    return counts


def _chunks(total: int) -> list[tuple[int, int]]:
    """This rank's part of range(total): (start, stop) of its chunks."""
    together, rank = ranks()
    share = -(-total // (64 * together)) * 64
    first, last = min(rank * share, total), min((rank + 1) * share, total)
    return [(start, min(start + CHUNK, last)) for start in range(first, last, CHUNK)]


def _featurised(
    batches: list[tuple[int, int]],
    fakes: Fakes,
    extractors: Mapping[str, Extractor],
    counts: Mapping[_Key, int],
) -> Iterator[tuple[int, dict[_Key, Tensor]]]:
    """Yield the end of every batch and its rows, still where they were computed."""
    device = next((e.device for e in extractors.values()), torch.device("cpu"))
    for (start, count), images in ahead(fakes.sample, batches, device):
        _check_batch(images, start, count)
        rows = {}
        for (what, name), wanted in counts.items():
            part = images[: max(wanted - start, 0)]
            if not len(part):
                continue
            if what == "source":
                rows[what, name] = fakes.source(start, len(part))
            elif what == "images":
                rows[what, name] = part
            else:
                extractor = extractors[name]
                rows[what, name] = extractor(part) if what == "features" else extractor.logits(part)
        yield start + count, rows


def _check_batch(images: Tensor, start: int, count: int) -> None:
    if images.dtype != torch.uint8 or images.shape[:2] != (count, 3):
        raise ValueError(
            f"sample({start}, {count}) must give uint8 [{count}, 3, R, R], "
            f"got {images.dtype} {tuple(images.shape)}"
        )


def _teller(
    chunks: list[tuple[int, int]], say: Callable[[int, int], None] | None
) -> Callable[[int], None]:
    """From the number of the last image made to how many of this rank's are done."""
    if say is None or not chunks:
        return lambda end: None
    first, total = chunks[0][0], chunks[-1][1] - chunks[0][0]
    say(0, total)
    return lambda end: say(end - first, total)


def _collected(
    made: Iterator[tuple[int, dict[_Key, Tensor]]], stop: int, tell: Callable[[int], None]
) -> dict[_Key, Tensor]:
    """The rows of the batches up to `stop`, on the CPU."""
    parts: dict[_Key, list[Tensor]] = {}
    for end, rows in made:
        for key, part in rows.items():
            parts.setdefault(key, []).append(part)
        tell(end)
        if end >= stop:
            break
    return {key: torch.cat(some).cpu() for key, some in parts.items()}


def _joined(kept: Mapping[_Key, list[Tensor]]) -> Rows:
    found = Rows()
    for (what, name), parts in kept.items():
        rows = _gathered(parts)
        if what in ("images", "source"):
            setattr(found, what, rows)
        else:
            getattr(found, what)[name] = rows
    return found


def _gathered(parts: list[Tensor]) -> Tensor:
    """The rows of all ranks in their order; a rank may have none."""
    together, _ = ranks()
    if together > 1:
        everyone: list[Any] = [None] * together
        distributed.all_gather_object(everyone, parts)
        parts = [part for some in everyone for part in some]
    return torch.cat(parts)


def _stored(
    spool: Path | None, chunk: tuple[int, int], counts: Mapping[_Key, int]
) -> dict[_Key, Tensor] | None:
    """A chunk's rows from an earlier pass, if all are there."""
    start, stop = chunk
    wanted = {key: min(count, stop) - start for key, count in counts.items() if count > start}
    path = None if spool is None else spool / f"{start}.npz"
    if path is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = {key: torch.from_numpy(file[" ".join(key)]) for key in wanted}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = all(len(rows[key]) >= count for key, count in wanted.items())
    return {key: rows[key][:count] for key, count in wanted.items()} if whole else None


def _store(spool: Path | None, chunk: tuple[int, int], rows: Mapping[_Key, Tensor]) -> None:
    keep = {" ".join(key): part.numpy() for key, part in rows.items() if part.nbytes <= _BULKY}
    if spool is None or not keep:
        return
    spool.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=spool, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, **keep)
    os.replace(temporary, spool / f"{chunk[0]}.npz")
