"""Which values may stand in one comparison: those whose protocols agree, field by field.

A record without a whole protocol is neither written nor compared. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FIELDS", "REFERENCE_FIELDS", "ProtocolMismatch", "check_record", "comparable"]

FIELDS = (
    "metric",  # the name, fid1k_train_small
    "of",  # what the fakes came from: "model" or "images"
    "num_fakes",
    "num_reals",
    "split",
    "extractor",
    "extractor_digest",
    "precision",  # of the extractor's arithmetic
    "resize",
    "estimator",
    "reference_hash",
)
"""The protocol of a record. A value that does not apply is None; the key is there."""
REFERENCE_FIELDS = ("num_reals", "reference_hash")
"""Those that say which images stood on the other side."""


class ProtocolMismatch(ValueError):
    """Two values were measured differently and do not belong in one comparison."""


def check_record(record: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the fields, unless `record` holds its whole protocol."""
    missing = [field for field in FIELDS if field not in record]
    if missing:
        name = record.get("metric", "an unnamed metric")
        raise ValueError(
            f"the record of {name!r} lacks {', '.join(missing)}: a value "
            "without its protocol cannot be compared; a field that does not apply is None"
        )


def comparable(a: Mapping[str, Any], b: Mapping[str, Any], *, reference: bool = True) -> None:
    """Return if records `a` and `b` were measured alike, else raise ProtocolMismatch.

    The error spells out each difference (`num_fakes: 1000 ≠ 5000`), and what a record lacks: then
    nobody knows that it was measured alike. `reference=False` allows different reals (a table over
    several targets), never other protocols.
    """
    fields = [f for f in FIELDS if reference or f not in REFERENCE_FIELDS]
    wrong = [f"{f}: {_shown(a, f)} ≠ {_shown(b, f)}" for f in fields if _differs(a, b, f)]
    lacking = [f for f in fields if f not in a and f not in b]
    if lacking:
        wrong.append(f"both lack {', '.join(lacking)}")
    if wrong:
        raise ProtocolMismatch(
            "these values were measured differently and cannot be compared; " + "; ".join(wrong)
        )


def _differs(a: Mapping[str, Any], b: Mapping[str, Any], field: str) -> bool:
    return (field in a) != (field in b) or a.get(field) != b.get(field)


def _shown(record: Mapping[str, Any], field: str) -> str:
    return repr(record[field]) if field in record else "(absent)"
