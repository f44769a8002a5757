"""TensorFlow pickles of StyleGAN (2019) and StyleGAN2 (2020, configurations A, E and F; ADA's).

StyleGAN2's configuration A is the network of StyleGAN: its source file there is the same but for
the licence (stylegan 1e0d5c7 and stylegan2 bf0fe0b, `training/networks_stylegan.py`).

A file is (G, D, Gs), each a `dnnlib.tflib.network.Network`: version, arguments, variables by name,
and parts that are networks themselves. Convolutions are [k, k, in, out] there, dense layers
[in, out].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign import tensorflow_stylegan, tensorflow_stylegan2
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.names import TF_NETWORK, array
from stylegan_tl.source.foreign.options import Options
from stylegan_tl.source.foreign.values import Record, Stored, short
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["matches", "read"]

_MOST_PARTS = 16
_VERSIONS = (2, 3, 4, 5)


def matches(data: Any) -> bool:
    """Three networks."""
    three = isinstance(data, tuple | list) and len(data) == 3
    return three and all(isinstance(v, Record) and v.name == TF_NETWORK for v in data)


def read(path: Path, data: tuple[Record, Record, Record]) -> SourceModel:
    """Gs as G_ema, and D; which of the two generations it is says the modulation of its layers."""
    G, D = (_variables(name, record) for name, record in (("Gs", data[2]), ("D", data[1])))
    moves = Moves(path, G | D)
    moves.leave("G", "not part of a transfer")
    arguments = {"Gs": data[2], "D": data[1]}
    options = [Options(n, _state(n, r).get("static_kwargs")) for n, r in arguments.items()]
    first = "Gs.synthesis/4x4/Const/StyleMod/weight" in G
    return (tensorflow_stylegan if first else tensorflow_stylegan2).convert(moves, *options)


def _state(name: str, record: Any) -> dict[str, Any]:
    made = isinstance(record, Record) and record.name == TF_NETWORK
    state = record.state if made else None
    if not isinstance(state, dict) or state.get("version") not in _VERSIONS:
        raise SourceError(f"{name} is not a network of version {_VERSIONS[0]} to {_VERSIONS[-1]}")
    return state


def _variables(name: str, root: Record) -> dict[str, Stored]:
    """All variables of a network and of its parts, such as `Gs.mapping/Dense0/weight`."""
    found: dict[str, Stored] = {}
    todo, seen = [(f"{name}.", root)], 0
    while todo:
        prefix, record = todo.pop()
        state, seen = _state(name, record), seen + 1
        parts, variables = state.get("components", {}), state.get("variables")
        if seen > _MOST_PARTS or not isinstance(parts, dict) or not isinstance(variables, list):
            raise SourceError(f"{name} has no variables that can be read")
        for key, value in variables:
            found[f"{prefix}{short(key)}"] = array(value)
        todo += reversed([(f"{prefix}{short(key)}/", part) for key, part in parts.items()])
    return found
