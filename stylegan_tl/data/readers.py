"""How images lie on disk: one small reader per format.

A reader's `listing()` finds entries without opening images; `with opened() as read` gives their
bytes. It keeps no handle in between, so it can be sent to any process, forked or not.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import NamedTuple, Protocol

from stylegan_tl.data.errors import DataError, Unusable
from stylegan_tl.data.packed import PackedDataset

__all__ = [
    "Entry",
    "FolderReader",
    "Listing",
    "LmdbReader",
    "PackedReader",
    "Reader",
    "Skip",
    "class_labels",
    "fingerprint_listing",
    "is_image_name",
]

Label = int | tuple[float, ...] | None
_EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .gif .ppm .pgm .pbm .pnm".split()
)
_SHARD = re.compile(r"\d{5}")  # 00000/, 00001/: how FFHQ and NVIDIA cut long listings, not classes


class Entry(NamedTuple):
    """One image: its name, what tells a changed file, its label, and where its reader finds it."""

    key: str
    size: int
    stamp: int
    label: Label = None
    where: tuple[int, ...] = ()


class Skip(NamedTuple):
    """A file that was left out, and why."""

    file: str
    reason: str


@dataclass
class Listing:
    """Images in sorted order, files left out, and class names where labels are classes."""

    entries: list[Entry]
    skipped: list[Skip] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


class Reader(Protocol):
    """What packing needs of a format."""

    def listing(self) -> Listing:
        """Find the images; raises `DataError` where there is nothing to list."""
        ...

    def opened(self) -> "Iterator[Callable[[Entry], bytes]]":
        """Context manager that gives the function from entry to encoded bytes."""
        ...


@dataclass(frozen=True)
class FolderReader:
    """Image files below a folder (or below its `subfolder`), at any depth; links are followed."""

    path: Path
    subfolder: str | None = None

    def listing(self) -> Listing:
        """Every image file, sorted by name."""
        if not self.path.is_dir():
            raise DataError(f"path={self.path}: no such folder")
        root = self._root
        if not root.is_dir():
            there = sorted(p.name for p in self.path.iterdir() if p.is_dir())
            raise no_subfolder(self.path, self.subfolder, there)
        listing = Listing([])
        for name in sorted(_walk(root, listing.skipped)):
            self._add(listing, name)
        return listing

    @contextmanager
    def opened(self) -> Iterator[Callable[[Entry], bytes]]:
        """Read files by name."""
        yield lambda entry: (self._root / entry.key).read_bytes()

    @property
    def _root(self) -> Path:
        return self.path / self.subfolder if self.subfolder else self.path

    def _add(self, listing: Listing, name: str) -> None:
        if not is_image_name(name):
            listing.skipped.append(Skip(name, no_image_reason(name)))
            return
        try:
            stat = (self._root / name).stat()
        except OSError as error:
            listing.skipped.append(Skip(name, f"cannot be opened ({error.strerror})"))
            return
        if not S_ISREG(stat.st_mode):  # reading a pipe would wait for ever
            listing.skipped.append(Skip(name, "not a regular file"))
            return
        listing.entries.append(Entry(name, stat.st_size, stat.st_mtime_ns))


@dataclass(frozen=True)
class LmdbReader:
    """An LSUN database: a folder with data.mdb whose values are JPEG or WebP files."""

    path: Path

    def listing(self) -> Listing:
        """Every key, in the database's order (for LSUN: by hash, so a prefix is a fair sample)."""
        if not (self.path / "data.mdb").is_file():
            raise DataError(f"path={self.path}: no LSUN database here (data.mdb is missing)")
        with self._begin() as cursor:
            return Listing([Entry(bytes(k).decode("latin-1"), len(v), 0) for k, v in cursor])

    @contextmanager
    def opened(self) -> Iterator[Callable[[Entry], bytes]]:
        """Look keys up in one read transaction."""
        with self._begin() as cursor:
            yield lambda entry: bytes(cursor.get(entry.key.encode("latin-1"), b""))

    @contextmanager
    def _begin(self) -> Iterator:
        try:
            import lmdb
        except ImportError:
            raise DataError(
                "reading LSUN databases needs the package lmdb: pip install 'stylegan_tl[lmdb]'"
            ) from None
        try:
            env = lmdb.open(str(self.path), readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"path={self.path}: not a readable LMDB database ({error})") from error
        with env, env.begin(buffers=True) as transaction:
            yield transaction.cursor()


@dataclass(frozen=True)
class PackedReader:
    """A packed folder as a source, to make a smaller size or another format of it."""

    path: Path

    def listing(self) -> Listing:
        """Every image, in stored order, with its label."""
        data = PackedDataset(self.path)
        size = 3 * data.resolution**2
        stamps = data.image_hashes[:, :8].copy().view(">u8")[:, 0].tolist()
        labels = _plain_labels(data)
        rows = zip(stamps, labels, strict=True)
        entries = [Entry(f"{i:08d}", size, s, label, (i,)) for i, (s, label) in enumerate(rows)]
        return Listing(entries, classes=list(data.meta.get("classes") or []))

    @contextmanager
    def opened(self) -> Iterator[Callable[[Entry], bytes]]:
        """Wrap pixels as PPM, the format that is nothing but pixels."""
        data = PackedDataset(self.path)
        head = f"P6 {data.resolution} {data.resolution} 255\n".encode()
        yield lambda entry: head + data.images(entry.where)[0].transpose(1, 2, 0).tobytes()


def class_labels(listing: Listing) -> Listing:
    """Give every image its class: the first folder below what all images share.

    No labels where images lie outside class folders, or where the folders are numbered shards.
    """
    parents = [PurePosixPath(entry.key).parent.parts for entry in listing.entries]
    shared = len(os.path.commonprefix(parents)) if parents else 0
    if not parents or any(len(parts) <= shared for parts in parents):
        return listing
    names = sorted({parts[shared] for parts in parents})
    if all(_SHARD.fullmatch(name) for name in names):
        return listing
    number = {name: i for i, name in enumerate(names)}
    pairs = zip(listing.entries, parents, strict=True)
    entries = [entry._replace(label=number[parts[shared]]) for entry, parts in pairs]
    return replace(listing, entries=entries, classes=names)


def fingerprint_listing(listing: Listing) -> str:
    """Hex sha256 over names, sizes, stamps and labels: changes when the folder or the zip does."""
    digest = hashlib.sha256()
    for entry in listing.entries:
        digest.update(repr(tuple(entry[:4])).encode())
    return digest.hexdigest()


def is_image_name(name: str) -> bool:
    """Whether the name says image; hidden files and macOS leftovers (`__MACOSX/`) do not."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in _EXTENSIONS


def no_image_reason(name: str) -> str:
    """Why a file without an image's name is left out."""
    if PurePosixPath(name).name == "dataset.json":
        return "labels, which only kind=nvidia reads"
    return "not an image by its name"


def no_subfolder(path: Path, subfolder: str | None, there: Iterable[str]) -> DataError:
    """The error for a sub-folder that is not there, with those that are."""
    names = ", ".join(list(there)[:20]) or "none"
    return DataError(f"subfolder={subfolder}: not in {path}; folders there: {names}")


def _walk(root: Path, closed: list[Skip]) -> Iterator[str]:
    def note(error: OSError) -> None:
        closed.append(Skip(str(error.filename), f"cannot be listed ({error.strerror})"))

    seen = set()
    for folder, subfolders, files in os.walk(root, onerror=note, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            subfolders.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name).relative_to(root).as_posix() for name in files)


def _plain_labels(data: PackedDataset) -> list[Label]:
    if data.raw_labels is None:
        return [None] * data.num_images
    return [tuple(v) if isinstance(v, list) else v for v in data.raw_labels.tolist()]


def read_or_skip(read: Callable[[Entry], bytes], entry: Entry) -> bytes:
    """`read(entry)`, with what the system says about one bad file turned into `Unusable`."""
    try:
        return read(entry)
    except OSError as error:
        raise Unusable(f"cannot be read ({error.strerror or error})") from error
