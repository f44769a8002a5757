"""Files that are whole or absent, and their digests."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check_free", "file_sha256", "is_safetensors", "missing_safetensors", "write_atomic"]

_HEADER = 100_000_000
"""Bytes of a safetensors header that its readers accept."""


def check_free(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise ValueError if a file is there that would be written over, unless that is wished."""
    there = [] if overwrite else [path for path in paths if path.exists()]
    if there:
        more = f" and {len(there) - 1} more files" if len(there) > 1 else ""
        raise ValueError(
            f"{there[0]}{more} would be written over: name another place, or use overwrite=true"
        )


def file_sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header in JSON, and the header."""
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _HEADER


def missing_safetensors(path: str | Path) -> int:
    """How many bytes short a safetensors file is of what its header announces; 0 where none is."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        if start > size:
            return start - size
        try:
            entries = json.loads(file.read(start - 8))
            ends = [v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"]
            return max(start + max(ends, default=0) - size, 0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return 0  # damaged otherwise: its reader says how


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to a temporary file in the same folder, fsync it, rename it over `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder cannot be opened on Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
