"""From scratch: the control without which no transfer can be judged.

What: G and D keep their fresh initialisation; a named source is neither trained nor read.
When: always beside the transfers, at equal kimg, and once more with augment=diffaugment or ada:
on small targets augmentation alone beats many a transfer (Zhao et al. 2020, arXiv:2006.10738).
Costs: nothing; it needs more kimg than a transfer.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["scratch"]


def scratch() -> Strategy:
    """Takes nothing from the source and freezes nothing."""
    return Strategy(init={"G": "scratch", "D": "scratch"})
