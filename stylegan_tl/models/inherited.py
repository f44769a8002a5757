"""What a model of a transfer is made of, given the source's network: as it was, unless it grows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Inherited", "unchanged"]


@dataclass(frozen=True)
class Inherited:
    """Arguments of the model's constructor, and which tensors do not come from the source.

    `fresh` and `left` are dotted prefixes from the model: what begins anew, by declaration, and
    what the source has beyond that.
    """

    fields: Mapping[str, Any]
    network: Mapping[str, Any]
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def unchanged(fields: Mapping[str, Any], network: Mapping[str, Any], resolution: int) -> Inherited:
    """The source's own network; ValueError where it was trained at another resolution."""
    if network["resolution"] != resolution:
        raise ValueError(
            f"was trained at {network['resolution']} px, resolution={resolution}: use "
            f"resolution={network['resolution']}"
        )
    return Inherited(fields, network)
