"""The containers of weights: PyTorch's zip, its older file of pickles, a plain pickle, Torch7."""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stylegan_tl.source.foreign.names import NAMES, storage_dtype
from stylegan_tl.source.foreign.pickles import Make, read_pickle
from stylegan_tl.source.foreign.torch7 import is_torch7, read_torch7
from stylegan_tl.source.foreign.values import Budget, Storage, check_tree
from stylegan_tl.source.portable import IncompleteError, SourceError

__all__ = ["opened", "read_pickles"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_END, _ZIP_LAST = b"PK\x05\x06", 22  # the last record of a zip, and its bytes
_ZIP_TAIL = _ZIP_LAST + 0xFFFF  # with the longest comment after it
_DIRECTORY = 4 << 20  # bytes of a zip's list of entries, each of which becomes an object


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """What a file holds, as plain values; tensors in it can be read until the context ends.

    Raises SourceError, or whatever damage leads to; runs nothing.
    """
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise SourceError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            budget = Budget(len(data))
            if data[:4] == b"PK\x03\x04":
                if _is_cut(data):
                    raise IncompleteError("a zip without the list of entries at its end")
                limited = _Limited(file, _DIRECTORY)
                with zipfile.ZipFile(limited) as archive:
                    limited.most = len(data)
                    yield _checked(_read_zip(archive, len(data), budget))
            else:
                yield _checked(_read_data(data, budget))


def _is_cut(data: mmap.mmap) -> bool:
    """Whether a zip lacks its last record, or a part of it."""
    at = data.rfind(_ZIP_END, max(len(data) - _ZIP_TAIL, 0))
    return at < 0 or at + _ZIP_LAST > len(data)


def _checked(root: Any) -> Any:
    check_tree(root)
    return root


def _read_data(data: mmap.mmap, budget: Budget) -> Any:
    """Tell the containers without a directory apart by their first bytes."""
    if data[:1] == b"\x80":
        return read_pickles(data, NAMES, budget)
    if is_torch7(data[:32]):
        return read_torch7(data, budget)
    raise SourceError("its first bytes are those of no known format")


# -- PyTorch 1.6 and later: a zip of data.pkl and one stored entry per storage ----------------


class _Limited:
    """A file of which no more than `most` bytes are read at once: `zipfile` asks for no limit."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.most = most
        self.file, self.seek, self.tell = file, file.seek, file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        """The next bytes; SourceError for too many."""
        if size > self.most:
            raise SourceError(f"a zip that makes one read {size:,} bytes; {self.most:,} are read")
        return self.file.read(size)


def _read_zip(archive: zipfile.ZipFile, size: int, budget: Budget) -> Any:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries.values()):
        raise SourceError("a zip with compressed or encrypted entries; PyTorch writes plain ones")
    if sum(e.file_size for e in entries.values()) > size or len(entries) < len(archive.filelist):
        raise SourceError("a zip whose entries overlap")
    roots = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise SourceError("a zip without one data.pkl: not written by PyTorch")
    root = roots[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in entries and archive.read(order) != b"little":
        raise SourceError("numbers in big-endian order are not read")

    def storage(pid: Any) -> Storage:
        dtype, key, numel = _persistent(pid)
        name = f"{root}data/{key}"
        if name not in entries or entries[name].file_size != numel * dtype.itemsize:
            raise SourceError(f"the storage {name} is missing or not of {numel:,} {dtype}")
        return Storage(dtype, numel, lambda: bytes_of(name))

    def bytes_of(name: str) -> bytes:
        budget.copy(entries[name].file_size)
        return archive.read(name)

    return read_pickle(io.BytesIO(archive.read(roots[0])), NAMES, budget, storage)


def _persistent(pid: Any) -> tuple[Any, str, int]:
    """The number type, key and size of `('storage', class, key, device, size, …)`."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage"):
        raise SourceError("a reference to something else than a storage")
    if not isinstance(pid[2], str) or not isinstance(pid[4], int) or pid[4] < 0:
        raise SourceError("a reference to a damaged storage")
    if any(pid[5:]):
        raise SourceError("a storage that is a view of another is not read")
    return storage_dtype(pid[1]), pid[2], pid[4]


# -- a plain pickle, or PyTorch before 1.6: pickles one after the other, then the storages ----


def read_pickles(data: bytes | mmap.mmap, names: Mapping[str, Make | None], budget: Budget) -> Any:
    """Read a pickle, or PyTorch's older file: magic, version, system, object, keys, storages."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    first = read_pickle(file, names, budget)
    if first != _LEGACY_MAGIC:
        return first
    version, system = read_pickle(file, names, budget), read_pickle(file, names, budget)
    if version != _LEGACY_PROTOCOL or not isinstance(system, dict) or not system["little_endian"]:
        raise SourceError("a PyTorch file of another version or byte order")
    places: dict[str, tuple[int, int]] = {}

    def part(start: int, size: int) -> bytes:
        budget.copy(size)
        return data[start : start + size]

    found = read_pickle(file, names, budget, _promise(places, part))
    keys = read_pickle(file, names, budget)
    _place(file, keys, places, len(data))
    return found


def _promise(
    places: dict[str, tuple[int, int]], part: Callable[[int, int], bytes]
) -> Callable[[Any], Storage]:
    """Storages whose bytes come later in the file; `places` will say where each begins."""

    def storage(pid: Any) -> Storage:
        dtype, key, numel = _persistent(pid)
        if places.setdefault(key, (-1, numel * dtype.itemsize))[1] != numel * dtype.itemsize:
            raise SourceError(f"the storage {key[:60]} in two sizes")
        return Storage(dtype, numel, lambda: part(*places[key]))

    return storage


def _place(file: BinaryIO, keys: Any, places: dict[str, tuple[int, int]], end: int) -> None:
    """Find each storage: its count as eight bytes, then its numbers."""
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not texts or sorted(keys) != sorted(places):
        raise SourceError("the storages of the file are not those of its tensors")
    position = file.tell()
    for key in keys:
        start, size = position + 8, places[key][1]
        position = start + size
        if position > end:
            raise IncompleteError("the file ends within a storage")
        places[key] = (start, size)
