"""The records of a pair: their fields, the file they are kept in, the table they are shown in."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.protocol import KINDS as PROTOCOLS
from stylegan_tl.pair.pair import Pair
from stylegan_tl.study.trial import write_records

__all__ = ["KINDS", "MEASURES", "left_of", "part", "record", "table"]

say = logging.getLogger("stylegan_tl").info

MEASURES = ("fid", "kid", "precision", "recall", "density", "coverage")
FORMAT = 1  # raise it when a number would come out differently

KINDS = {  # the direction that speaks for the pair, and the words of the table
    **{kind: (PROTOCOLS[kind].better, PROTOCOLS[kind].what) for kind in MEASURES},
    "nearest": ("min", "to the nearest source image / to the nearest target image, means"),
    "nearestmedian": ("min", "the same of medians"),
    "radius": ("min", "mean distance to the 5th neighbour; small where images are dense"),
    "meandistance": ("max", "mean distance of two images"),
    "vendi": ("max", "Vendi score: the effective number of different images"),
    "dlogit": ("max", "mean logit of the source's D"),
    "dauc": ("max", "how often the source's D ranks an image above a fake"),
    "inversion": ("min", "perceptual error of the image that the source's G draws instead"),
    "inversionpixel": ("min", "its mean squared error, pixels in [-1, 1]"),
    "inversionratio": ("min", "perceptual error / that of held-out source images"),
    "inversionpixelratio": ("min", "squared error / that of held-out source images"),
}
_HEADINGS = {
    "images": "source images in the place of fakes, target images as the reals",
    "neighbours": "nearest neighbours, density and diversity, at equal numbers of images",
    "no model": "the source model",
    "model": "samples of the source model, and its D",
    "inversion": "inversion in the source model",
}
_NOT_FINITE = "not a finite number"  # which a file holds as null


def part(
    pair: Pair, name: str, inputs: list[Any], rows: Callable[[], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The records of a part: those in `out` if they are whole, else made and appended.

    They are known by a hash of all that they depend on: `pair.inputs` and `inputs`.
    """
    out = Path(pair.config["out"]).expanduser()
    text = json.dumps([FORMAT, name, pair.inputs, inputs], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    known = _last_whole([r for r in _lines(out) if r.get("key") == key])
    if known:
        say(f"{_HEADINGS[name]}: known, from {out}")
        return known
    began = perf_counter()
    made = rows()
    about = {
        "source": pair.config["source"]["name"],
        "target": pair.config["target"]["name"],
        "resolution": pair.config["resolution"],
        "seed": pair.config["seed"],
        "part": name,
        "source_model": pair.source_model.sha256 if pair.source_model else None,
        "key": key,
        "part_rows": len(made),
        "shared_seconds": round(perf_counter() - began, 3),
    }
    records = [{**about, "part_row": number, **row} for number, row in enumerate(made)]
    write_records(out, records)
    return records


def record(
    row: dict[str, Any],
    left: dict[str, Any],
    split: str,
    *,
    reals: str | None,
    extractor: Extractor | None,
) -> dict[str, Any]:
    """A record from a `row` (kind, value, num_fakes, num_reals, estimator, …) and its identity.

    `left` says who is measured, `split` against which reals, `reals` is their hash.
    """
    kind, count = row["kind"], row["num_fakes"]
    thousands, rest = divmod(count, 1000)
    size = f"{count}" if rest or not count else f"{thousands}k"
    name = extractor.name if extractor else None
    return {
        "metric": "_".join(filter(None, (f"{kind}{size}", split, name))),
        "better": KINDS[kind][0],
        "estimator": None,  # of a value that is missing
        **row,
        **left,
        "split": split,
        "reference_hash": reals,
        "extractor": name,
        "extractor_digest": extractor.digest if extractor else None,
        "precision": extractor.precision if extractor else None,
        "resize": extractor.resize if extractor else None,
    }


def left_of(pair: Pair, who: str) -> dict[str, Any]:
    """Who is measured: the images of the `source` or the `target`, or the source's `model`."""
    if who == "model":
        file = pair.source_model
        known = {"name": str(file.path), "sha256": file.sha256, "kimg": file.nimg / 1000}
        return {"of": "model", **known}
    content = getattr(pair, who).dataset.content_hash
    return {"of": "images", "name": pair.config[who]["name"], "sha256": content}


def table(config: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """The records as text, a line each under the heading of its part."""
    pair = f"{config['source']['name']} → {config['target']['name']}"
    lines = [f"{pair}, {config['resolution']} px, extractor {config['extractor']}"]
    for name, heading in _HEADINGS.items():
        rows = [r for r in records if r["part"] == name]
        lines += ["", heading] if rows else []
        lines += [_line(row) for row in rows if row["value"] is not None]
        notes = dict.fromkeys(row["note"] for row in rows if row.get("note"))
        both = max((row.get("in_both", 0) for row in rows), default=0)
        notes |= {f"{both} images are on both sides": None} if both else {}
        lines += [f"  note: {note}" for note in notes]
        reasons: dict[str, list[str]] = {}
        for row in (r for r in rows if r["value"] is None):
            reasons.setdefault(row.get("missing") or _NOT_FINITE, []).append(row["kind"])
        for reason, names in reasons.items():
            lines += [f"  {reason}", f"    missing: {', '.join(names)}"]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    error = f"± {row['stderr']:.2g}" if row.get("stderr") is not None else ""
    if row.get("interval"):
        error = "[{:.3g}, {:.3g}]".format(*row["interval"])
    return f"  {row['metric']:<38} {row['value']:>9.4g} {error:<9}  {KINDS[row['kind']][1]}"


def _last_whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a part that its last run appended, or none if not all of them are there."""
    count = rows[-1]["part_rows"] if rows else 0
    last = rows[len(rows) - count :] if count <= len(rows) else []
    whole = [r.get("part_row", i) for i, r in enumerate(last)] == list(range(count))
    return last if whole else []


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records in a file; a line that a killed run left half is closed and skipped."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        with open(path, "a", encoding="utf-8") as file:
            file.write("\n")
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in found if isinstance(row, dict)]
