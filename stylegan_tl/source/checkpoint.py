"""Checkpoints of this project: weights, clock and lineage; the optimizers' states stay behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.files import file_sha256
from stylegan_tl.source.foreign.values import Stored
from stylegan_tl.source.portable import NETWORKS, SourceModel

__all__ = ["matches", "read"]


def matches(data: Any) -> bool:
    """A dictionary with what every checkpoint of this project has."""
    return isinstance(data, dict) and {"stylegan_tl", "hyper_parameters"} <= data.keys()


def read(path: Path, data: dict[str, Any]) -> SourceModel:
    """G_ema and D; floating point numbers as float32."""
    own, state = data["stylegan_tl"], data["state_dict"]
    found = {k: v for k, v in state.items() if k.partition(".")[0] in NETWORKS}
    return SourceModel(
        model=own["model"],
        network=data["hyper_parameters"]["network"],
        nimg=own["nimg"],
        dataset=own["lineage"].get("dataset", "unknown"),
        lineage=own["lineage"],
        tensors={k: v.read() for k, v in found.items() if isinstance(v, Stored)},
        path=path,
        sha256=file_sha256(path),
    )
