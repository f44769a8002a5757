"""FreezeD (Mo et al. 2020, arXiv:2002.10964): the lower layers of D stay the source's.

What: the k resolution blocks nearest the image are frozen, fromRGB with its block; never the head.
When: small targets near the source; it stabilises more than it improves the best value.
Values: at 256-512 px four blocks are 26-31 % of D, at 64 px 72 %: read the share, not k.
NVIDIA counts layers: k blocks are `--freezed` 3k + 1. FreezeD's `feature_loc` counts what stays
trainable. Costs: less than nothing, D's weight gradients there are not computed.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["freeze_d"]


def freeze_d(blocks: int) -> Strategy:
    """Freezes the `blocks` image-side blocks of D; raises ValueError below one."""
    if not isinstance(blocks, int) or blocks < 1:
        raise ValueError(f"freeze.blocks={blocks}: use a whole number from 1, or freeze=none")
    return Strategy(
        freeze=(f"D.block@image:{blocks}",),
        record={"k": blocks, "nvidia_freezed": 3 * blocks + 1},
    )
