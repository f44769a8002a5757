"""FreezeD (Mo et al. 2020, arXiv:2002.10964): the lower layers of D stay the source's.

What: the k resolution blocks nearest the image are frozen, fromRGB with its block.
When: small targets near the source; it stabilises more than it improves the best value.
Values: at 256-512 px four blocks are 26-31 % of D, at 64 px 72 %: read the share, not k.
NVIDIA counts layers: k blocks are `--freezed` 3k + 1. Costs nothing, saves D's weight gradients.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import nn

from stylegan_tl.freeze.base import Freeze
from stylegan_tl.freeze.selectors import blocks

__all__ = ["FreezeD", "freeze_d"]


def freeze_d(D: nn.Module, count: int) -> list[str]:
    """Names of the `count` image-side blocks of D, image first; the 4x4 head never freezes."""
    names = [name for resolution, name in blocks(D).items() if resolution > 4][::-1]
    if not 1 <= count <= len(names):
        raise ValueError(
            f"freeze.blocks={count}, but this D has blocks {', '.join(names)} besides its head: "
            f"choose 1 to {len(names)}"
        )
    return names[:count]


class FreezeD(Freeze):
    """Freezes `blocks` image-side blocks of D."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks

    def select(self, model: pl.LightningModule) -> list[str]:
        """Image-side blocks of D."""
        return [f"D.{name}" for name in freeze_d(model.D, self.blocks)]

    def settings(self) -> dict[str, Any]:
        """The number k and what NVIDIA's --freezed calls it."""
        return {"k": self.blocks, "nvidia_freezed": 3 * self.blocks + 1}
