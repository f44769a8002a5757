"""Which parts of a network a name means, for both families, by resolution."""

from __future__ import annotations

import re

from torch import nn

__all__ = ["NotApplicable", "blocks", "mapping"]

_BLOCK = re.compile(r"(?:synthesis\.)?b(\d+)")


class NotApplicable(ValueError):
    """The strategy means nothing for this model, and says why."""


def blocks(network: nn.Module) -> dict[int, str]:
    """Resolution -> module name of every block of G or D, lowest resolution first."""
    found = {
        int(match[1]): name
        for name, _ in network.named_modules()
        if (match := _BLOCK.fullmatch(name))
    }
    if not found:
        raise ValueError(f"{type(network).__name__} has no blocks named b<resolution>")
    return dict(sorted(found.items()))


def mapping(G: nn.Module) -> str:
    """The module name of G's mapping network."""
    if not hasattr(G, "mapping"):
        raise NotApplicable(
            "freeze=freeze_mapping does not apply to this model: its generator has no mapping "
            "network. Use freeze=none, freeze_d or freeze_g"
        )
    return "mapping"
