"""StyleGAN2 as state dicts with NVIDIA's names, as this project writes them (`writers`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.options import Options
from stylegan_tl.source.foreign.origin import KEY, UNKNOWN_LICENCE
from stylegan_tl.source.foreign.stylegan2 import finish, flatten, leave_filters
from stylegan_tl.source.foreign.values import Stored
from stylegan_tl.source.portable import SourceModel

__all__ = ["FORMAT", "matches", "read"]

FORMAT = "StyleGAN2 state dicts in NVIDIA's layout"


def matches(data: Any) -> bool:
    """A dictionary whose `G_ema` is a state dict with NVIDIA's constant input."""
    G = data.get("G_ema") if isinstance(data, dict) else None
    return isinstance(G, dict) and isinstance(G.get("synthesis.b4.const"), Stored)


def read(path: Path, data: Any) -> SourceModel:
    """G_ema, and D if it is there."""
    networks = [k for k in ("G_ema", "D") if isinstance(data.get(k), dict)]
    moves = Moves(path, flatten({k: data[k] for k in networks}))
    for name in moves.source:
        if name.endswith(".resample_filter"):
            leave_filters(moves, {name: 1.0})
        else:
            moves.take(name, name)
    for key in data:
        if key not in {*networks, "init_kwargs", KEY}:
            moves.leave(str(key), "no part of the networks")
    given = data.get("init_kwargs", {})
    group = _group(given.get("D", {}) if isinstance(given, dict) else {})
    model = finish(moves, format=FORMAT, licence=UNKNOWN_LICENCE, group=group)
    clamp = _part(given.get("G", {}), "synthesis_kwargs").get("conv_clamp")
    if isinstance(clamp, int | float) and clamp > 0:
        model.network["clamp"] = float(clamp)
    return model


def _group(D: Any) -> int:
    return Options("D", _part(D, "epilogue_kwargs")).whole("mbstd_group_size", 4, least=1)


def _part(values: Any, key: str) -> dict[str, Any]:
    part = values.get(key) if isinstance(values, dict) else None
    return part if isinstance(part, dict) else {}
