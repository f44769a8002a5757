"""The initialisation matrix {G, D} x {source, scratch} (TransferGAN, Wang et al. 2018, table 1).

What: each network starts from the source or from its fresh initialisation; nothing is frozen.
Why: it tells which of the two carries the transfer. The paper finds that a transferred D matters
more than a transferred G, and that G alone can be worse than scratch.
When: to understand a pair; both from the source is `none`, neither is `scratch`.
Costs: nothing.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["init_matrix"]


def init_matrix(G: str, D: str) -> Strategy:
    """`G` and `D` are "source" or "scratch"."""
    return Strategy(init={"G": G, "D": D})
