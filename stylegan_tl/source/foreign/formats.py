"""Recognise a file by what is in it, never by its name, and hand it to its reader.

Each format is one module with `matches(data) -> bool`, which looks at the plain values that the
container gave, and `read(path, data) -> SourceModel`, which is called while the file is open.
"""

from __future__ import annotations

from pathlib import Path

from stylegan_tl.source import checkpoint
from stylegan_tl.source.foreign import (
    mmgeneration,
    nvidia,
    nvidia_state,
    pytorch_examples,
    rosinality,
    studiogan,
    tensorflow,
    torch7_dcgan,
)
from stylegan_tl.source.foreign.containers import opened
from stylegan_tl.source.foreign.origin import recall
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["FORMATS", "read_foreign"]

FORMATS = (
    checkpoint,
    nvidia,
    nvidia_state,
    tensorflow,
    rosinality,
    studiogan,
    mmgeneration,
    pytorch_examples,
    torch7_dcgan,
)


def read_foreign(path: Path) -> SourceModel:
    """Read a file of another project, or a checkpoint of this one.

    Of the former `extra` has format, licence and the report.

    Nothing in it is executed. Raises SourceError, or whatever a damaged file leads to.
    """
    with opened(path) as data:
        for module in FORMATS:
            if module.matches(data):
                return recall(module.read(path, data), data)
        raise SourceError(_unknown(data))


def _unknown(data: object) -> str:
    if isinstance(data, dict):
        return f"it has the keys {', '.join(sorted(str(k)[:40] for k in data)[:8])}"
    return f"it holds a {type(data).__name__}"
