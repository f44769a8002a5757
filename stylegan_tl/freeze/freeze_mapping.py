"""Freeze the mapping network, or all but it: the target re-uses, or re-aims, the latent space w.

What: `freeze_mapping`: z -> w and the running mean `w_avg` stand still, synthesis and D adapt; with
`layers` only the first n. `mapping_only` (StyleDomain, Alanov et al. 2023, arXiv:2212.10229): the
synthesis stands still and a new w is sought in it.
When: frozen, edits and directions found in the source keep working (StyleAlign, Wu et al. 2021,
arXiv:2110.11323: w hardly moves anyway). Only: the target lies inside what the source can draw.
Values: all layers. Costs: frozen, little; only, the synthesis' weight gradients are saved.
A DCGAN has no mapping network, and says so.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["freeze_mapping", "mapping_only"]


def freeze_mapping(layers: int | None = None) -> Strategy:
    """Freezes G's mapping network, or its first `layers` layers (stylegan3-fun's --freezeM)."""
    return Strategy(freeze=("G.mapping" if layers is None else f"G.mapping@layers:{layers}",))


def mapping_only() -> Strategy:
    """Of G, trains the mapping network alone; D trains."""
    return Strategy(train=("G.mapping",))
