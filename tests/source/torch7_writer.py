"""A writer of Torch7's binary format for tests, from the description in torch7's File.lua."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAMES = {np.dtype("f4"): "Float", np.dtype("f8"): "Double", np.dtype("i8"): "Long"}


@dataclass(eq=False)
class Module:
    """An object of a Lua class with its fields."""

    name: str
    fields: dict[Any, Any] = field(default_factory=dict)
    version: str = "V 1"


@dataclass
class Closure:
    """A Lua function: bytecode and upvalues."""

    code: bytes = b"\x1bLJ\x02 os.execute"
    tag: int = 8


class Writer:
    """`torch.save`: `Writer().dump(value)` gives the bytes."""

    def __init__(self, cuda: bool = False) -> None:
        self.cuda, self.indices, self.kept = cuda, {}, []

    def dump(self, value: Any) -> bytes:
        """One value: None, bool, number, str, dict, array, Module or Closure."""
        if value is None:
            return _int(0)
        if isinstance(value, bool):
            return _int(5) + _int(int(value))
        if isinstance(value, int | float):
            return _int(1) + struct.pack("<d", value)
        if isinstance(value, str):
            return _int(2) + _text(value)
        if isinstance(value, Closure):
            return _int(value.tag) + self._index(value, lambda: self._closure(value))
        if isinstance(value, dict):
            return _int(3) + self._index(value, lambda: self._table(value))
        if isinstance(value, np.ndarray):
            return _int(4) + self._index(value, lambda: self._tensor(value))
        assert isinstance(value, Module)
        return _int(4) + self._index(value, lambda: self._object(value))

    def _index(self, value: Any, body: Any) -> bytes:
        if id(value) in self.indices:
            return _int(self.indices[id(value)])
        self.indices[id(value)] = len(self.indices) + 1
        self.kept.append(value)  # its id stays its own
        index = _int(self.indices[id(value)])
        return index + body()

    def _table(self, table: dict) -> bytes:
        items = (self.dump(k) + self.dump(v) for k, v in table.items())
        return _int(len(table)) + b"".join(items)

    def _closure(self, value: Closure) -> bytes:
        return _text(value.code.decode("latin1")) + self.dump({1: {"name": "x", "value": 3}})

    def _object(self, value: Module) -> bytes:
        version = _text(value.version) if value.version else b""
        return version + _text(value.name) + self.dump(value.fields)

    def _tensor(self, array: np.ndarray) -> bytes:
        name = "Cuda" if self.cuda and array.dtype == np.float32 else NAMES[array.dtype]
        steps = [s // array.itemsize for s in array.strides]
        longs = struct.pack(f"<{2 * array.ndim + 1}q", *array.shape, *steps, 1)
        head = _text("V 1") + _text(f"torch.{name}Tensor") + _int(array.ndim) + longs
        if array.ndim == 0 or array.size == 0:
            return head + self.dump(None)
        storage = _int(4) + _int(len(self.indices) + 1)
        self.indices[id(storage)] = len(self.indices) + 1
        self.kept.append(storage)
        storage += _text("V 1") + _text(f"torch.{name}Storage") + struct.pack("<q", array.size)
        return head + storage + array.tobytes()


def _int(value: int) -> bytes:
    return struct.pack("<i", value)


def _text(value: str) -> bytes:
    data = value.encode("latin1")
    return _int(len(data)) + data
