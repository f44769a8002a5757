"""Full fine-tune: every weight of G and D moves (TransferGAN, Wang et al. 2018).

When: the default, and the row that every other strategy is compared with. Costs nothing.
"""

from __future__ import annotations

import pytorch_lightning as pl

from stylegan_tl.freeze.base import Freeze

__all__ = ["NoFreeze"]


class NoFreeze(Freeze):
    """Freezes nothing."""

    def select(self, model: pl.LightningModule) -> list[str]:
        """Nothing."""
        return []
