"""Freeze the mapping network: the target re-uses the source's latent space w.

What: z -> w and the running mean `w_avg` stand still; the synthesis network and D adapt.
When: edits and directions found in the source should keep working (StyleAlign, Wu et al. 2021).
A DCGAN has no mapping network, and says so.
"""

from __future__ import annotations

import pytorch_lightning as pl

from stylegan_tl.freeze.base import Freeze
from stylegan_tl.freeze.selectors import mapping

__all__ = ["FreezeMapping"]


class FreezeMapping(Freeze):
    """Freezes G's mapping network."""

    def select(self, model: pl.LightningModule) -> list[str]:
        """The mapping network."""
        return [f"G.{mapping(model.G)}"]
