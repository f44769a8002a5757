"""NVIDIA's PyTorch pickles (stylegan2-ada-pytorch, stylegan3): classes that carry their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign.names import PERSISTENT_CLASS
from stylegan_tl.source.foreign.values import Record
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["matches", "read"]


def matches(data: Any) -> bool:
    """A dictionary with networks among its values that are persistent classes."""
    values = [data.get(k) for k in ("G_ema", "G", "D")] if isinstance(data, dict) else []
    return any(isinstance(v, Record) and v.name == PERSISTENT_CLASS for v in values)


def read(path: Path, data: Any) -> SourceModel:
    """G_ema and D of the file."""
    raise SourceError("NVIDIA's pickles are not read yet")
