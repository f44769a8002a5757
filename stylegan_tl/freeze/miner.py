"""MineGAN (Wang et al. 2020, arXiv:1912.05270): look for the target among the source's latents.

What: a small network before G maps z to the part of the latent space that fits the target
(equation 4); it trains alone with D first, then everything trains jointly: `freeze=minegan`, which
is `freeze=miner` with `freeze/schedule=miner_first`. Here z + MLP(z), zero at the start, so
that the run starts from the source; the paper's second miner, on StyleGAN's constant, is not here.
When: small targets that are nearly a part of the source (kitchens among all rooms).
Values: the miner alone for about a tenth of the budget (the authors: 1000 iterations).
Costs: next to nothing; while the miner is alone G's weight gradients are not computed. StyleGAN2's
`w_avg` follows the miner from the start.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["miner"]


def miner() -> Strategy:
    """Freezes nothing; G gets a miner."""
    return Strategy(network={"miner": True}, record={"miner": True})
