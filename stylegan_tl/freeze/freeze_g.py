"""FreezeG (Lee 2020) and its opposite: one end of the synthesis stays the source's.

What: the blocks of G at most `up_to` px, or at least `from_` px, are frozen, ToRGB following its
block. Low blocks hold layout and pose, high ones colour and texture. With the low end a StyleGAN's
mapping network stays too, since w must keep its meaning for the frozen layers.
When: low: source and target share geometry (faces to portraits, rooms to rooms). High: they share
texture and light, and differ in shape. Lee trained 2 or 3 resolutions, without path length.
Values: up_to 8 to 32. Costs: low: less than nothing, no gradient passes the frozen blocks.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["freeze_g"]


def freeze_g(
    up_to_resolution: int | None = None,
    from_resolution: int | None = None,
    mapping: bool | None = None,
) -> Strategy:
    """Freezes G's blocks up to or from a resolution; `mapping` adds its mapping network.

    Raises ValueError unless exactly one end is given.
    """
    if (up_to_resolution is None) == (from_resolution is None):
        raise ValueError("freeze_g: give one of freeze.up_to_resolution, freeze.from_resolution")
    low = up_to_resolution is not None
    at = f"..{up_to_resolution}" if low else f"{from_resolution}.."
    optional = ("G.mapping?",) if (low if mapping is None else mapping) else ()
    return Strategy(freeze=(f"G.block@res:{at}", *optional))
