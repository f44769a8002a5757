"""Images in a zip file, read in place: nothing is ever extracted, so no name can lead anywhere.

Members are found once by the central directory and then read by offset with `os.pread`, which
shares no file position: one zip serves any number of processes.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stylegan_tl.data.errors import DataError, Unusable, hint
from stylegan_tl.data.readers import (
    Entry,
    Listing,
    Skip,
    is_image_name,
    no_image_reason,
    no_subfolder,
)

__all__ = ["ZipReader"]

_MAX_MEMBER = 512 * 2**20  # bytes of one encoded image; more is a mistake or an attack
_LOCAL_HEADER = 30


@dataclass(frozen=True)
class ZipReader:
    """Image members of a zip, or those below `subfolder`."""

    path: Path
    subfolder: str | None = None

    def listing(self) -> Listing:
        """Every readable image member, sorted by name; every other one with the reason."""
        listing, taken = Listing([]), set()
        prefix = self.subfolder.strip("/") + "/" if self.subfolder else ""
        members = [m for m in self._members() if not m.is_dir()]
        inside = [m for m in members if m.filename.startswith(prefix)]
        if prefix and not inside:
            folders = {PurePosixPath(m.filename).parts[0] for m in members if "/" in m.filename}
            raise no_subfolder(self.path, self.subfolder, sorted(folders))
        for member in inside:
            reason = _why_not(member, taken)
            taken.add(member.filename)
            if reason:
                listing.skipped.append(Skip(member.filename, reason))
            else:
                listing.entries.append(_entry(member, prefix))
        listing.entries.sort()
        return listing

    @contextmanager
    def opened(self) -> Iterator[Callable[[Entry], bytes]]:
        """Read members by offset."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            yield lambda entry: _read(file, entry)
        finally:
            os.close(file)

    def read_text(self, name: str) -> str | None:
        """The text of one small member, or None where it does not exist."""
        with self._open() as archive:
            try:
                return archive.read(name).decode("utf-8")
            except KeyError:
                return None
            except (zipfile.BadZipFile, zlib.error, RuntimeError, UnicodeDecodeError) as error:
                raise DataError(f"{self.path}: {name} cannot be read ({error})") from error

    def _members(self) -> list[zipfile.ZipInfo]:
        with self._open() as archive:
            members = archive.infolist()
        if any(PurePosixPath(m.filename).name == "data.mdb" for m in members):
            raise DataError(
                f"{self.path}: holds an LSUN database (data.mdb); unzip it and give the folder"
            )
        return members

    def _open(self) -> zipfile.ZipFile:
        if not self.path.is_file():
            raise DataError(f"path={self.path}: no such file{hint(self.path)}")
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"path={self.path}: not a readable zip file ({error})") from error


def _why_not(member: zipfile.ZipInfo, taken: set[str]) -> str | None:
    name = member.filename
    climbs = name.startswith("/") or ".." in PurePosixPath(name).parts
    if climbs or "\\" in name or name[1:2] == ":":
        return "unsafe name: it leads out of the archive"
    if not is_image_name(name):
        return no_image_reason(name)
    if name in taken:
        return "duplicate name: an earlier member is called the same"
    if member.flag_bits & 0x1:
        return "encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {member.compress_type}; only stored and deflated can be read"
    if member.file_size > _MAX_MEMBER:
        return f"unpacks to {member.file_size} bytes, the limit is {_MAX_MEMBER}"
    return None


def _entry(member: zipfile.ZipInfo, prefix: str) -> Entry:
    where = (member.header_offset, member.compress_size, member.compress_type)
    return Entry(member.filename[len(prefix) :], member.file_size, member.CRC, None, where)


def _read(file: int, entry: Entry) -> bytes:
    """APPNOTE 4.3.7: a local header of 30 bytes, the name, the extra field, then the data."""
    offset, packed_size, method = entry.where
    header = os.pread(file, _LOCAL_HEADER, offset)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise Unusable("damaged zip: no member where the directory says")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    data = os.pread(file, packed_size, offset + _LOCAL_HEADER + names)
    if method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.size + 1)
        except zlib.error as error:
            raise Unusable(f"damaged zip: {error}") from error
    if len(data) != entry.size or zlib.crc32(data) != entry.stamp:
        raise Unusable("damaged zip: size or checksum differ from the directory")
    return data
