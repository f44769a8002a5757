"""Any source of images to a packed folder: all cores busy, fixed order, all or nothing."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stylegan_tl.data.decode import Decoded
from stylegan_tl.data.errors import DataError, Unusable
from stylegan_tl.data.packed import (
    FORMAT,
    HEADER,
    PackedDataset,
    checksum,
    image_hash,
    write_header,
)
from stylegan_tl.data.readers import Label, Skip
from stylegan_tl.data.sources import Chunk, Source

__all__ = ["Report", "check_found", "locked", "pack", "replacing"]

_CHUNK = 16  # images per task
_ALONE_SECONDS = 0.3  # work that ends sooner is not worth starting processes for


@dataclass
class Report:
    """What packing did with every file that did not simply go in."""

    found: int
    kept: int
    enlarged: int
    skipped: list[Skip] = field(default_factory=list)
    duplicates: list[Skip] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people."""
        said = [f"{self.kept} images"]
        if self.duplicates:
            said.append(f"{len(self.duplicates)} dropped as duplicates")
        if self.skipped:
            first = self.skipped[0]
            said.append(f"{len(self.skipped)} skipped (e.g. {first.file}: {first.reason})")
        if self.enlarged:
            said.append(f"{self.enlarged} enlarged: they were smaller")
        return "; ".join(said)

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "Report":
        """Read what `as_json` gave."""
        skipped = [Skip(s["file"], s["reason"]) for s in plain["skipped"]]
        duplicates = [Skip(d["file"], d["same_as"]) for d in plain["duplicates"]]
        counts = (plain["found"], plain["kept"], plain["enlarged"])
        return Report(*counts, skipped, duplicates)

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists, every file named."""
        plain = asdict(self) | {"skipped": [s._asdict() for s in self.skipped]}
        pairs = [{"file": d.file, "same_as": d.reason} for d in self.duplicates]
        return plain | {"duplicates": pairs}


class Outcome(NamedTuple):
    """What became of one image: its hash, or the reason it was left out."""

    digest: bytes | None
    reason: str = ""
    enlarged: bool = False


def pack(
    source: Source,
    out: Path,
    meta: dict[str, Any],
    *,
    workers: int | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> PackedDataset:
    """Write `source` to the folder `out`, which appears complete or not at all.

    `meta` is stored beside the format's own keys. Equal images are kept once, unless `meta` has
    `keep_duplicates`. `tick(done)` is called as images become ready. Raises `DataError` when no
    image is usable or the disk is too small. The caller holds `locked(out)`.
    """
    check_found(source, meta)
    with _partial(out) as folder:
        _check_disk(folder, source)
        file = folder / "images.npy"
        outcomes = _write_all(source, file, workers or _cores(), tick)
        keep, report = _judge(source, outcomes, meta.get("keep_duplicates", False))
        _drop_rows(file, keep, len(outcomes), source.resolution)
        digests = b"".join(outcomes[i].digest for i in keep)
        hashes = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        _write_rest(folder, source, keep, hashes, meta, report)
    return PackedDataset(out)


def check_found(source: Source, meta: dict[str, Any]) -> None:
    """Raise `DataError` when there is nothing to pack; before `locked`, whose file would stay."""
    if not source.keys:
        where = meta.get("path", meta["name"])
        raise DataError(f"no image found in {where}{_said(source.skipped)}")


@contextmanager
def locked(out: Path, *, keep: bool = True) -> Iterator[None]:
    """Keep other processes from making `out`; says so when it has to wait.

    The lock's file stays, or goes with `keep=False` once `out` exists: by then it is not needed.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that prepares {out}", flush=True)
        lock.acquire()
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    try:
        yield
    finally:
        if not keep and out.exists():
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A name to write to; the file becomes `file` at the end, or is removed after an error."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        _fsync(partial)
        os.replace(partial, file)
        _fsync(file.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` at the end; what a killed run left there goes first."""
    folder = out.with_name(f".{out.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        for path in (*folder.iterdir(), folder):
            _fsync(path)
        os.replace(folder, out)
        _fsync(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _check_disk(folder: Path, source: Source) -> None:
    need = len(source.keys) * 3 * source.resolution**2
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DataError(
            f"{folder.parent}: {len(source.keys)} images at {source.resolution} px need "
            f"{need / 1e9:.1f} GB, only {free / 1e9:.1f} GB are free"
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_all(
    source: Source, file: Path, workers: int, tick: Callable[[int], None]
) -> list[Outcome]:
    """Each image to its own row of `file`; outcomes in the order of the source."""
    count = len(source.keys)
    with open(file, "wb") as handle:
        write_header(handle, count, source.resolution)
        handle.truncate(HEADER + count * 3 * source.resolution**2)
    tasks = (
        (source.chunk(start, min(start + _CHUNK, count)), file, start)
        for start in range(0, count, _CHUNK)
    )
    if multiprocessing.current_process().daemon:  # it may not start processes
        workers = 1
    outcomes: list[Outcome] = []
    for part in chain(_alone(tasks, workers), _in_pool(tasks, workers)):
        outcomes += part
        tick(len(outcomes))
    return outcomes


def _alone(tasks: Iterator[tuple], workers: int) -> Iterator[list[Outcome]]:
    """Results of this process: all of them, or with more workers those of a first moment."""
    begun = time.monotonic()
    while workers == 1 or time.monotonic() - begun < _ALONE_SECONDS:
        if (task := next(tasks, None)) is None:
            return
        yield _write_chunk(*task)


def _in_pool(tasks: Iterator[tuple], workers: int) -> Iterator[list[Outcome]]:
    """Results in order, a few tasks ahead. Fresh processes: forking one with threads can hang."""
    waiting: deque[Future] = deque()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with_parent)
    try:
        for task in tasks:
            waiting.append(pool.submit(_write_chunk, *task))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that prepares images was killed (out of memory?); use fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_chunk(chunk: Chunk, path: Path, row: int) -> list[Outcome]:
    file = os.open(path, os.O_WRONLY)
    try:
        return [_write(file, row + i, image) for i, image in enumerate(chunk.images())]
    finally:
        os.close(file)


def _write(file: int, row: int, image: Decoded | Unusable) -> Outcome:
    if isinstance(image, Unusable):
        return Outcome(None, str(image))
    pixels = np.ascontiguousarray(image.pixels)
    try:
        written = os.pwrite(file, pixels.data, HEADER + row * pixels.nbytes)
    except OSError as error:
        raise DataError(f"an image could not be written ({error.strerror})") from error
    if written != pixels.nbytes:
        raise DataError("an image could not be written whole (is the disk full?)")
    return Outcome(image_hash(pixels), enlarged=image.enlarged)


def _judge(
    source: Source, outcomes: list[Outcome], keep_duplicates: bool
) -> tuple[list[int], Report]:
    """Which rows stay: usable ones, and of equal ones the first or all."""
    first: dict[bytes, int] = {}
    keep = []
    skipped, duplicates = list(source.skipped), []
    for index, (key, outcome) in enumerate(zip(source.keys, outcomes, strict=True)):
        if outcome.digest is None:
            skipped.append(Skip(key, outcome.reason))
        elif outcome.digest in first and not keep_duplicates:
            duplicates.append(Skip(key, source.keys[first[outcome.digest]]))
        else:
            first[outcome.digest] = index
            keep.append(index)
    if not keep:
        raise DataError(f"none of {len(outcomes)} files is usable{_said(skipped)}")
    enlarged = sum(outcomes[i].enlarged for i in keep)
    return keep, Report(len(outcomes), len(keep), enlarged, skipped, duplicates)


def _said(skipped: list[Skip]) -> str:
    return "".join(f"\n  {s.file}: {s.reason}" for s in skipped[:10])


def _drop_rows(file: Path, keep: list[int], count: int, resolution: int) -> None:
    """Close the gaps that skipped files and duplicates left."""
    if len(keep) == count:
        return
    row = 3 * resolution**2
    with open(file, "r+b") as handle:
        for to, index in enumerate(keep):
            if to != index:
                pixels = os.pread(handle.fileno(), row, HEADER + index * row)
                os.pwrite(handle.fileno(), pixels, HEADER + to * row)
        write_header(handle, len(keep), resolution)
        handle.truncate(HEADER + len(keep) * row)


def _write_rest(
    folder: Path,
    source: Source,
    keep: list[int],
    hashes: np.ndarray,
    meta: dict[str, Any],
    report: Report,
) -> None:
    labels, label_dim = _label_array([source.labels[i] for i in keep], len(source.classes))
    np.save(folder / "hashes.npy", hashes)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    own = {
        "format": FORMAT,
        "resolution": source.resolution,
        "num_images": len(keep),
        "label_dim": label_dim,
        "classes": source.classes,
        "checksum": checksum(hashes, labels),
    }
    _write_json(folder / "report.json", report.as_json())
    _write_json(folder / "meta.json", own | meta)


def _label_array(labels: list[Label], num_classes: int) -> tuple[np.ndarray | None, int]:
    if labels[0] is None:
        return None, 0
    if isinstance(labels[0], int):
        array = np.asarray(labels, np.int64)
        return array, max(num_classes, int(array.max()) + 1)
    return np.asarray(labels, np.float32), len(labels[0])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
