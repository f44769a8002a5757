"""The container Torch7 (`.t7`), binary: values, tables, tensors and objects, without Lua.

The format is that of torch7's `File.lua`, `generic/Tensor.c` and `generic/Storage.c`: a type tag
(int32), then the value; what can be shared carries an index, and a second mention is the index
alone. Longs have 8 bytes. An object of a class is the class's name and the table of its fields;
the bytecode of a function is passed over.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

import torch

from stylegan_tl.source.foreign.values import Budget, Limits, Record, Storage, Stored
from stylegan_tl.source.portable import IncompleteError, SourceError

__all__ = ["is_torch7", "read_torch7"]

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, FUNCTION, OLD_CLOSURE, CLOSURE = range(9)
MAX_DEPTH = 100
"""Of values in values; a module in a container is four levels below it."""
_DTYPES = {
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
}
_DTYPES |= {f"Cuda{name}": dtype for name, dtype in _DTYPES.items()} | {"Cuda": torch.float32}
_TENSORS = {f"torch.{name}Tensor": dtype for name, dtype in _DTYPES.items()}
_STORAGES = {f"torch.{name}Storage": dtype for name, dtype in _DTYPES.items()}
_CLASSES = (b"torch.", b"nn.", b"cudnn.", b"V ")


def is_torch7(head: bytes) -> bool:
    """Whether a file that begins with `head` (32 bytes or more) is a table or object of Torch7."""
    if len(head) < 16:
        return False
    tag, index, count, following = struct.unpack_from("<4i", head)
    if index < 1 or count < 0:
        return False
    if tag == OBJECT:
        return head[12:32].startswith(_CLASSES)
    return tag == TABLE and (count == 0 or following in range(1, 9))


def read_torch7(data: bytes | mmap.mmap, budget: Budget) -> Any:
    """The one value that `data` holds: None, bool, float, str, dict, Stored or Record.

    Tables come as dictionaries, whole numbers as int keys; an object of a class is a Record of its
    name, the version it was written by, and its fields. Raises SourceError saying what is wrong at
    which byte; every count is checked against the bytes that are left before it is used.
    """
    return _Reader(data, budget).value(0)


class _Reader:
    """One pass over the bytes."""

    def __init__(self, data: bytes | mmap.mmap, budget: Budget) -> None:
        self.data, self.budget = data, budget
        self.at = 0
        self.seen: dict[int, Any] = {}

    def value(self, depth: int) -> Any:
        start = self.at
        self.budget.step()
        if depth > MAX_DEPTH:
            raise SourceError(f"values are nested deeper than {MAX_DEPTH} at byte {start}")
        tag = self._int()
        plain = {
            NIL: lambda: None,
            NUMBER: lambda: self._unpack("<d")[0],
            BOOLEAN: lambda: self._int() != 0,
            STRING: self._string,
            FUNCTION: lambda: self._function(depth),
        }
        if tag in plain:
            return plain[tag]()
        shared = {TABLE: self._table, OBJECT: self._object}
        shared |= {CLOSURE: self._function, OLD_CLOSURE: self._function}
        if tag not in shared:
            raise SourceError(f"{tag} at byte {start} is no type of Torch7")
        index = self._int()
        return self.seen[index] if index in self.seen else shared[tag](depth, index)

    def _table(self, depth: int, index: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        self.seen[index] = found
        for _ in range(self._count(self._int(), 8)):  # a key and a value: two tags at least
            key, value = self.value(depth + 1), self.value(depth + 1)
            if isinstance(key, float) and key.is_integer():
                key = int(key)
            if isinstance(key, str | int | float):
                found[key] = value
        return found

    def _object(self, depth: int, index: int) -> Any:
        version, number = self._string(), 0  # before there were versions, it was the name
        name = version
        if version.startswith("V ") and version[2:].isdecimal():
            name, number = self._string(), int(version[2:8])
        if name in _TENSORS:
            self.seen[index] = self._tensor(_TENSORS[name], depth)
        elif name in _STORAGES:
            self.seen[index] = self._storage(_STORAGES[name])
        else:
            self.seen[index] = record = Record(name, (number,))
            record.state = self.value(depth + 1)
            if not isinstance(record.state, dict):
                raise SourceError(f"an object of {name[:60]!r} before byte {self.at} has no fields")
        return self.seen[index]

    def _tensor(self, dtype: torch.dtype, depth: int) -> Stored:
        dimensions = self._int()
        if not 0 <= dimensions <= Limits.dimensions:
            raise SourceError(f"a tensor of {dimensions} dimensions before byte {self.at}")
        shape, stride = self._longs(dimensions), self._longs(dimensions)
        (offset,) = self._longs(1)
        storage = self.value(depth + 1)
        if storage is None or dimensions == 0:
            return Stored(Storage(dtype, 0, lambda: b""), (0,), (1,))
        if not isinstance(storage, Storage) or storage.dtype != dtype:
            raise SourceError(f"a tensor before byte {self.at} has no storage of its type")
        return Stored(storage, shape, stride, offset - 1)  # the first number is number 1

    def _storage(self, dtype: torch.dtype) -> Storage:
        (length,) = self._longs(1)
        start = self.at
        self.at += self._count(length, dtype.itemsize) * dtype.itemsize
        end = self.at
        return Storage(dtype, length, lambda: self.data[start:end])

    def _function(self, depth: int, index: int | None = None) -> Record:
        found = Record("function", (self._count(self._int(), 1),))
        self.at += found.args[0]
        if index is not None:
            self.seen[index] = found
        self.value(depth + 1)  # the upvalues
        return found

    def _string(self) -> str:
        length = self._count(self._int(), 1)
        self.budget.copy(length)
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8", "replace")

    def _int(self) -> int:
        return self._unpack("<i")[0]

    def _longs(self, count: int) -> tuple[int, ...]:
        return self._unpack(f"<{count}q")

    def _unpack(self, form: str) -> tuple[Any, ...]:
        start = self.at
        self.at += struct.calcsize(form)
        if self.at > len(self.data):
            raise IncompleteError(f"it ends at byte {len(self.data)} in the middle of a value")
        return struct.unpack_from(form, self.data, start)

    def _count(self, count: int, width: int) -> int:
        """A count of things of `width` bytes or more, if so many can follow."""
        left = len(self.data) - self.at
        if not 0 <= count * width <= left:
            kind = SourceError if count < 0 else IncompleteError
            raise kind(f"{count} items at byte {self.at} of {len(self.data)}: more than follow")
        return count
