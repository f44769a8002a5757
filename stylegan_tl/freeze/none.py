"""Full fine-tune: every weight of G and D moves (TransferGAN, Wang et al. 2018, arXiv:1805.01677).

What: G and D start from the source model, nothing is frozen; optimizers and counters are new.
When: the default, and the row that every other strategy is compared with.
Values: the model's own learning rates; TransferGAN used 1e-5 with WGAN-GP at 64 px.
Costs: nothing.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["none"]


def none() -> Strategy:
    """Freezes nothing."""
    return Strategy()
