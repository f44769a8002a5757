"""What a foreign file may hold: plain values, tensors not read yet, names and records; no code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.source.portable import SourceError

__all__ = ["Budget", "Limits", "Name", "Record", "Storage", "Stored", "check_tree"]


@dataclass(frozen=True)
class Limits:
    """What a file may ask for; the largest published models stay ten times below."""

    file_bytes: int = 8 << 30
    operations: int = 1_000_000  # of the pickle machine, all pickles of a file together
    depth: int = 64  # containers in containers
    pickles: int = 50_000  # a PyTorch tensor in a plain pickle is a pickle of its own
    tensor_elements: int = 1 << 30
    dimensions: int = 8
    integer_bits: int = 128


class Budget:
    """What is left of the limits while a file is read; shared by the pickles inside pickles."""

    def __init__(self, file_bytes: int, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        if file_bytes > self.limits.file_bytes:
            raise SourceError(f"{file_bytes:,} bytes are more than {self.limits.file_bytes:,}")
        self.operations = self.limits.operations
        self.pickles = self.limits.pickles
        self.copied = 4 * file_bytes + (1 << 20)  # bytes and items that values are copied into

    def step(self) -> None:
        """Count one operation of a pickle."""
        self.operations -= 1
        if self.operations < 0:
            raise SourceError(f"more than {self.limits.operations:,} pickle operations")

    def pickle(self) -> None:
        """Count one pickle."""
        self.pickles -= 1
        if self.pickles < 0:
            raise SourceError(f"more than {self.limits.pickles:,} pickles in one file")

    def copy(self, size: int) -> None:
        """Count `size` bytes or items that are copied: one small value cannot become many large."""
        self.copied -= size
        if self.copied < 0:
            raise SourceError("the file unpacks to far more than its own size")


@dataclass(frozen=True)
class Name:
    """A class or function that the file names: the name, nothing else."""

    name: str


@dataclass(eq=False)
class Record:
    """What the file would have built by calling `name(*args)` and setting `state`."""

    name: str
    args: tuple
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """`numel` numbers of `dtype` in a row, little-endian; `read` fetches their bytes."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], bytes]


@dataclass(eq=False)
class Stored:
    """A tensor in a file: its shape and type are known, its numbers are fetched by `read`."""

    storage: Storage
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        """Raise SourceError unless the numbers lie within the storage, each used once."""
        numbers = (*self.shape, *self.stride, self.offset)
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise SourceError("a tensor's shape is not whole numbers from 0")
        if len(self.shape) != len(self.stride) or len(self.shape) > Limits.dimensions:
            raise SourceError(f"a tensor of {len(self.shape)} dimensions, {len(self.stride)} steps")
        count = math.prod(self.shape)
        if count > Limits.tensor_elements:
            raise SourceError(f"a tensor of {count:,} numbers; {Limits.tensor_elements:,} are read")
        last = sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if count and not (count <= self.storage.numel and self.offset + last < self.storage.numel):
            raise SourceError(
                f"a tensor of shape {self.shape} in a storage of {self.storage.numel:,} numbers"
            )

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers in the file."""
        return self.storage.dtype

    def read(self) -> Tensor:
        """The tensor, contiguous, in memory of its own; floating point numbers as float32."""
        data = bytearray(self.storage.read())
        if len(data) != self.storage.numel * self.dtype.itemsize:
            raise SourceError(
                f"{len(data):,} bytes for {self.storage.numel:,} numbers of {self.dtype}"
            )
        if not math.prod(self.shape):
            whole = torch.zeros(self.shape, dtype=self.dtype)
        else:
            flat = torch.frombuffer(data, dtype=self.dtype)
            whole = flat.as_strided(self.shape, self.stride, self.offset)
        kind = torch.float32 if whole.is_floating_point() else whole.dtype
        return whole.to(kind).clone(memory_format=torch.contiguous_format)


def check_tree(root: Any, depth: int = Limits.depth) -> None:
    """Raise SourceError for a value in itself, or for containers nested deeper than `depth`.

    Visits every object once, however often it is shared, and does not recurse.
    """
    height: dict[int, int] = {}
    open_: set[int] = set()
    todo = [(root, False)]
    while todo:
        value, done = todo.pop()
        children, own = _children(value), id(value)
        if not done and own in open_:
            raise SourceError("a value holds itself")
        if not children or (own in height and not done):
            continue
        if not done:
            open_.add(own)
            todo.append((value, True))
            todo += [(child, False) for child in children if id(child) not in height]
            continue
        open_.discard(own)
        height[own] = 1 + max(height.get(id(child), 0) for child in children)
        if height[own] > depth:
            raise SourceError(f"values nested deeper than {depth}")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())  # keys are plain
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Record):
        return [value.args, value.state]
    return []
