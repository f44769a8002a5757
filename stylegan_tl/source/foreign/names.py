"""The names that a foreign file may use, and the inert value that calling each one makes."""

from __future__ import annotations

import math
import struct
from typing import Any

import torch

from stylegan_tl.source.foreign.pickles import Make, key_of
from stylegan_tl.source.foreign.values import Budget, Name, Record, Storage, Stored, short
from stylegan_tl.source.portable import SourceError

__all__ = ["NAMES", "PERSISTENT_CLASS", "TF_NETWORK", "array", "storage_dtype"]

PERSISTENT_CLASS = "torch_utils.persistence._reconstruct_persistent_obj"
TF_NETWORK = "dnnlib.tflib.network.Network"

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_NUMPY = {
    **{"f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "u1": torch.uint8},
    **{"i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64, "b1": torch.bool},
}
_CORES = ("numpy.core", "numpy._core")  # NumPy 1 and 2
_ARRAYS = tuple(f"{core}.multiarray._reconstruct" for core in _CORES)
_BUFFERS = tuple(f"{core}.numeric._frombuffer" for core in _CORES)  # protocol 5


def storage_dtype(what: Any) -> torch.dtype:
    """The number type of a storage class that a file names."""
    name = what.name.rpartition(".")[2] if isinstance(what, Name) else ""
    if name not in _STORAGES:
        raise SourceError(f"a storage of {name or 'no class'}; {', '.join(_STORAGES)} are read")
    return _STORAGES[name]


def array(value: Any) -> Stored:
    """The NumPy array that `value` records; a number is one of no dimensions."""
    if isinstance(value, int | float):
        data = struct.pack("<d", value)
        return Stored(Storage(torch.float64, 1, lambda: data), (), ())
    shape, dtype, by_columns, data = _array_parts(value)
    data = data.encode("latin1") if isinstance(data, str) else data  # Python 2
    kind = _dtype(dtype)
    whole = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(data, bytes) or len(data) != math.prod(shape) * kind.itemsize:
        raise SourceError("a NumPy array whose shape does not fit its numbers")
    storage = Storage(kind, math.prod(shape), lambda: data)
    return Stored(storage, shape, _strides(shape, by_columns))


def _array_parts(value: Any) -> tuple[Any, Any, bool, Any]:
    """Shape, number type, whether the first index moves fastest, and the bytes."""
    if isinstance(value, Record) and value.name in _BUFFERS and len(value.args) == 4:
        data, dtype, shape, order = value.args
        return shape, dtype, order == "F", data
    made = isinstance(value, Record) and value.name in _ARRAYS
    if not made or not isinstance(value.state, tuple) or len(value.state) != 5:
        raise SourceError(f"a {type(value).__name__} where a NumPy array should be")
    _, shape, dtype, by_columns, data = value.state
    return shape, dtype, bool(by_columns), data


def _strides(shape: tuple[int, ...], by_columns: bool) -> tuple[int, ...]:
    """Steps between neighbours: the last index moves fastest, or the first."""
    axes = range(len(shape))
    if by_columns:
        return tuple(math.prod(shape[:axis]) for axis in axes)
    return tuple(math.prod(shape[axis + 1 :]) for axis in axes)


def _dtype(value: Any) -> torch.dtype:
    made = isinstance(value, Record) and value.name == "numpy.dtype" and value.args
    name = short(value.args[0]) if made else "?"
    big = made and isinstance(value.state, tuple) and value.state[1:2] == (">",)
    if name not in _NUMPY or big:
        raise SourceError(f"a NumPy array of {name}; little-endian {', '.join(_NUMPY)} are read")
    return _NUMPY[name]


def _record(name: str) -> Make:
    return lambda args, budget: Record(name, args)


def _dictionary(args: tuple, budget: Budget) -> dict:
    """OrderedDict() and its relatives, of pairs if Python 2 wrote them; items follow otherwise."""
    pairs = args[-1] if args and isinstance(args[-1], list) else []
    budget.copy(len(pairs))
    return {key_of(key): value for key, value in pairs}


def _set(args: tuple, budget: Budget) -> set:
    items = args[0] if args else []
    if not isinstance(items, list):
        raise SourceError("a set of no list")
    budget.copy(len(items))
    return set(map(key_of, items))


def _encode(args: tuple, budget: Budget) -> bytes:
    """Bytes as protocol 2 spells them: text and 'latin1'."""
    text = args[0] if args else ""
    if not isinstance(text, str):
        raise SourceError("bytes that are no text")
    budget.copy(len(text))
    return text.encode("latin1")


def _same(args: tuple, budget: Budget) -> Any:
    """What stands for its first argument: a parameter for its tensor, a size for its tuple."""
    return args[0] if args else ()


def _scalar(args: tuple, budget: Budget) -> Any:
    """A NumPy number as a plain one."""
    dtype, data = args
    kind = _dtype(dtype)
    data = data.encode("latin1") if isinstance(data, str) else data
    one = Stored(Storage(kind, len(data) // kind.itemsize, lambda: data), (), ())
    return one.read().item()


def _tensor(args: tuple, budget: Budget) -> Stored:
    storage, offset, shape, stride = args[:4]
    if not isinstance(storage, Storage):
        raise SourceError("a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise SourceError("a tensor without a shape")
    return Stored(storage, shape, stride, offset)


def _storage_in_bytes(args: tuple, budget: Budget) -> Any:
    """The storage that PyTorch writes as a file in the file; read by the same machine."""
    from stylegan_tl.source.foreign.containers import read_pickles

    data = args[0] if args else b""
    data = data.encode("latin1") if isinstance(data, str) else data
    budget.copy(len(data))  # a file that is mentioned twice is read twice
    found = read_pickles(data, {k: v for k, v in NAMES.items() if k not in _NESTING}, budget)
    if not isinstance(found, Storage):
        raise SourceError("a nested file that is no storage")
    return found


_NESTING = ("torch.storage._load_from_bytes", PERSISTENT_CLASS, TF_NETWORK)
_ONLY_NAMED = (
    *(f"torch.{name}" for name in _STORAGES),
    *(f"torch.storage.{name}" for name in ("UntypedStorage", "TypedStorage", "_UntypedStorage")),
    *(f"torch.{name}" for name in ("float32", "float64", "float16", "bfloat16")),
    *(f"torch.{name}" for name in ("int64", "int32", "int16", "int8", "uint8", "bool")),
    "numpy.ndarray",
    "builtins.object",
    "__builtin__.object",
    "builtins.dict",
    "builtins.list",
)
NAMES: dict[str, Make | None] = {
    **dict.fromkeys(_ONLY_NAMED),
    **dict.fromkeys(("collections.OrderedDict", "collections.defaultdict"), _dictionary),
    "dnnlib.util.EasyDict": _dictionary,
    **dict.fromkeys(("builtins.set", "__builtin__.set"), _set),
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch.Size": _same,
    "torch.device": _record("torch.device"),
    "torch.storage._load_from_bytes": _storage_in_bytes,
    "argparse.Namespace": _record("argparse.Namespace"),
    "numpy.dtype": _record("numpy.dtype"),
    **{name: _record(name) for name in (*_ARRAYS, *_BUFFERS)},
    **{f"{core}.multiarray.scalar": _scalar for core in _CORES},
    PERSISTENT_CLASS: _record(PERSISTENT_CLASS),
    TF_NETWORK: _record(TF_NETWORK),
}
