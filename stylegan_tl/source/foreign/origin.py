"""What travels with a model that leaves: where it comes from and what its licence is, as JSON.

A file in another project's layout has it under `KEY`, where that project does not look; read
back here, the model has its history again.
"""

from __future__ import annotations

import json
from typing import Any

from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["KEY", "UNKNOWN_LICENCE", "licence_of", "origin", "recall"]

KEY = "origin"
_UNSEEN = ("clamp", "mbstd_group_size")
"""Of a network: what no tensor shows, and another project's layout need not hold."""
UNKNOWN_LICENCE = "not in the file: it is that of whoever trained it"
_OWN = "no licence was recorded: it is that of whoever trained it, on images with their own"


def licence_of(model: SourceModel) -> str:
    """The licence of the weights: their own, else that of what they were trained from."""
    return str(model.extra.get("licence") or _inherited(model.lineage) or _OWN)


def _inherited(lineage: dict[str, Any]) -> str | None:
    """The licences of the nearest ancestors that have one."""
    found, todo = {}, [lineage]
    while todo:
        one = todo.pop()
        parents = [one.get("source"), (one.get("blend") or {}).get("child")]
        for parent in (parent for parent in parents if isinstance(parent, dict)):
            if licence := parent.get("licence"):
                found[f"{parent.get('name')}, which it was trained from: {licence}"] = None
            else:
                todo.append(parent.get("lineage") or {})
    return f"as far as it is that of {'; that of '.join(found)}" if found else None


def origin(model: SourceModel) -> str:
    """Family, architecture, clock, data, lineage and licence of a model as one JSON text."""
    return json.dumps(
        {
            "model": model.model,
            "network": model.network,
            "nimg": model.nimg,
            "dataset": model.dataset,
            "lineage": model.lineage,
            "licence": licence_of(model),
            "sha256": model.sha256,
            "file": model.path.name,
            "format": model.extra.get("format", "this project's"),
        },
        default=str,
    )


def recall(model: SourceModel, data: Any) -> SourceModel:
    """Give a model that was read its history back, if the file has it; else change nothing."""
    text = data.get(KEY) if isinstance(data, dict) else None
    if not isinstance(text, str):
        return model
    found = json.loads(text)
    fits = isinstance(found, dict) and found.get("model") == model.model
    if not fits or not isinstance(found.get("lineage"), dict):
        raise SourceError(f"its {KEY!r} does not describe the model in it")
    told = found.get("network")
    model.network |= {k: told[k] for k in _UNSEEN if k in told} if isinstance(told, dict) else {}
    model.lineage = found["lineage"]
    model.nimg, model.dataset = int(found["nimg"]), str(found["dataset"])
    model.extra["licence"] = str(found["licence"])
    model.extra["exported_from"] = {k: found.get(k) for k in ("file", "sha256", "format")}
    return model
