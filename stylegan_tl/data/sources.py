"""What can be packed: files decoded by a rule, or images rendered by a procedural domain."""

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple, Protocol

from stylegan_tl.data.decode import Decoded, Rule, decode
from stylegan_tl.data.errors import DataError, Unusable
from stylegan_tl.data.readers import Entry, Label, Listing, Reader, Skip, read_or_skip

__all__ = ["Chunk", "FileChunk", "Files", "RenderChunk", "Rendered", "Source"]


class Chunk(Protocol):
    """A few images of a source: small to send to another process, worked off in order."""

    def images(self) -> Iterator[Decoded | Unusable]:
        """Each image, or why it is left out."""
        ...


class Source(Protocol):
    """What can be packed."""

    resolution: int
    keys: list[str]
    labels: list[Label]
    skipped: list[Skip]
    classes: list[str]

    def chunk(self, start: int, stop: int) -> Chunk:
        """The images numbered start … stop - 1."""
        ...


class Files:
    """The files of a reader, decoded by a rule."""

    def __init__(self, reader: Reader, listing: Listing, rule: Rule) -> None:
        self.reader, self.rule, self.entries = reader, rule, listing.entries
        self.resolution = rule.resolution
        self.keys = [entry.key for entry in listing.entries]
        self.labels = [entry.label for entry in listing.entries]
        self.skipped, self.classes = listing.skipped, listing.classes

    def chunk(self, start: int, stop: int) -> "FileChunk":
        """The files numbered start … stop - 1."""
        return FileChunk(self.reader, self.entries[start:stop], self.rule)


class FileChunk(NamedTuple):
    """Files to read and decode."""

    reader: Reader
    entries: list[Entry]
    rule: Rule

    def images(self) -> Iterator[Decoded | Unusable]:
        """Each file's image, or why it is left out."""
        with self.reader.opened() as read:
            for entry in self.entries:
                try:
                    yield decode(read_or_skip(read, entry), self.rule)
                except Unusable as error:
                    yield error
                except DataError as error:
                    raise DataError(f"{entry.key}: {error}") from error


class Rendered:
    """`size` images of a procedural domain from index `first` on."""

    skipped: list[Skip] = []
    classes: list[str] = []

    def __init__(
        self, domain: str, size: int, distance: float, resolution: int, first: int = 0
    ) -> None:
        self.domain, self.distance, self.resolution = domain, distance, resolution
        self.first = first
        self.keys = [f"{domain}/{i}" for i in range(first, first + size)]
        self.labels = [None] * size

    def chunk(self, start: int, stop: int) -> "RenderChunk":
        """The images numbered start … stop - 1."""
        indices = self.first + start, self.first + stop
        return RenderChunk(self.domain, *indices, self.resolution, self.distance)


class RenderChunk(NamedTuple):
    """Images to render."""

    domain: str
    start: int
    stop: int
    resolution: int
    distance: float

    def images(self) -> Iterator[Decoded | Unusable]:
        """Each rendered image."""
        render = import_module("stylegan_tl.data.procedural").render
        for index in range(self.start, self.stop):
            pixels = render(self.domain, index, self.resolution, distance=self.distance)
            yield Decoded(pixels, False)
