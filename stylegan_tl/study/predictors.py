"""What was known of pairs before training: the records of `python -m stylegan_tl.distance`.

They are JSON lines with source, target, kind, value, better, …; any other line with these keys is
one too, a distance known by construction say. One quantity over many pairs is a predictor.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NAMES", "Pair", "Predictor", "read_predictors", "read_records"]

Pair = tuple[str, str]
NAMES = (
    "A predictor's name: what is measured; of which images (source: the source's, model: samples "
    "of the source model, target: the target's); against which (train: the target's, source: the "
    "source's); in which features. dlogit and dauc are of the source model's D: its mean logit, "
    "and how well it tells these images from samples; sourceheldout are source images that it has "
    "not seen, fakes its own samples."
)
_ALIKE = ("extractor_digest", "precision", "resize")  # or two values are of different spaces


@dataclass(frozen=True)
class Predictor:
    """A number for each (source, target), and which end of it should choose the source.

    `of`: what it tells of: the source `model`, `images` (the source's, alone or beside the
    target's), or the `target`'s alone, which is the same for all of its sources.
    """

    name: str
    better: str
    values: Mapping[Pair, float]
    note: str = ""
    of: str = "images"
    metric: str = ""


def read_predictors(
    path: str | Path, resolution: int | None = None, models: Collection[str] | None = None
) -> list[Predictor]:
    """The predictors in a file of JSON lines; several seeds of one pair are averaged.

    `models`: digests of source models; what was measured of other ones is left out. A half-written
    line is skipped. ValueError if values of one predictor come from different features, or if
    several resolutions are there and none is chosen.
    """
    rows = [r for r in read_records(path) if _is_number(r.get("value"))]
    rows = [r for r in rows if resolution is None or r.get("resolution", resolution) == resolution]
    if len(sizes := {r["resolution"] for r in rows if "resolution" in r}) > 1:
        raise ValueError(f"{path} holds resolutions {sorted(sizes)}: choose one with resolution=…")
    named = defaultdict(list)
    for row in rows:
        own = row.get("source_model")
        if own is None or models is None or own in models:
            named[_name(row)].append(row)
    if not rows:
        raise ValueError(f"{path}: no line with source, target, kind and value")
    return [_predictor(name, own, path) for name, own in named.items()]


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The lines that name source, target and kind. ValueError if there is no such file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; `python -m stylegan_tl.study distances` writes it for a study, "
            "`python -m stylegan_tl.distance` for a pair"
        )
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"source", "target", "kind"} <= row.keys():
            found.append(row)
    return found


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _predictor(name: str, rows: Sequence[Mapping[str, Any]], path: str | Path) -> Predictor:
    for field in _ALIKE:
        if len(kinds := {str(r.get(field)) for r in rows}) > 1:
            raise ValueError(
                f"{path}: {name} was measured in different ways, {field}: "
                f"{' ≠ '.join(sorted(kinds))}"
            )
    values = defaultdict(list)
    for row in rows:
        values[row["source"], row["target"]].append(float(row["value"]))
    counts = sorted({r["num_fakes"] for r in rows if "num_fakes" in r})
    note = f"of {counts[0]} to {counts[-1]} images" if len(counts) > 1 else ""
    means = {pair: math.fsum(v) / len(v) for pair, v in values.items()}
    first = rows[0]
    metric = str(first.get("metric") or first["kind"])
    return Predictor(name, first.get("better", "min"), means, note, _of(first), metric)


def _of(row: Mapping[str, Any]) -> str:
    return "model" if row.get("source_model") else _side(row)


def _side(row: Mapping[str, Any]) -> str:
    if row.get("of") == "images":
        return "images" if row.get("name") == row["source"] else "target"
    return "model" if row.get("of") == "model" else "images"


def _name(row: Mapping[str, Any]) -> str:
    """Kind, whose images, against which, in which features: fid source train small."""
    side = {"images": "source"}.get(_side(row), _side(row)) if row.get("of") else ""
    parts = (row["kind"], side, row.get("split"), row.get("extractor"))
    return " ".join(str(p) for p in parts if p)
