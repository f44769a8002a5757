"""FreezeG (Lee 2020): the low-resolution blocks of G stay, so the source's layout stays.

What: every block of the synthesis up to a resolution is frozen, its ToRGB with it; for a
StyleGAN the mapping network too, since w must keep its meaning for the frozen layers.
When: source and target share geometry (faces to portraits, rooms to rooms).
Values: 8 to 32; everything from the next resolution on adapts colour and texture.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import nn

from stylegan_tl.freeze.base import Freeze
from stylegan_tl.freeze.selectors import blocks

__all__ = ["FreezeG", "freeze_g"]


def freeze_g(G: nn.Module, up_to_resolution: int) -> list[str]:
    """Names of G's blocks of at most `up_to_resolution`, and of its mapping network if any."""
    found = blocks(G)
    if up_to_resolution not in list(found)[:-1]:
        raise ValueError(
            f"freeze.up_to_resolution={up_to_resolution}, but this G has blocks at "
            f"{', '.join(map(str, found))}: choose one of them below the last"
        )
    names = [name for resolution, name in found.items() if resolution <= up_to_resolution]
    return (["mapping"] if hasattr(G, "mapping") else []) + names


class FreezeG(Freeze):
    """Freezes G from the latent up to a resolution."""

    def __init__(self, up_to_resolution: int) -> None:
        self.up_to_resolution = up_to_resolution

    def select(self, model: pl.LightningModule) -> list[str]:
        """Low blocks of G."""
        return [f"G.{name}" for name in freeze_g(model.G, self.up_to_resolution)]

    def settings(self) -> dict[str, Any]:
        """The resolution and the number of blocks, k."""
        return {
            "up_to_resolution": self.up_to_resolution,
            "k": self.up_to_resolution.bit_length() - 2,
        }
