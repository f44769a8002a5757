"""Named streams of random numbers: the only source of chance in the procedural domains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["Colour", "Draws", "dye", "hsv", "mix", "scale"]

T = TypeVar("T")
Colour = tuple[float, float, float]
_BLOCK = 256


class Draws:
    """Uniform numbers of the stream named by `key`: the same in every process, on every platform.

    The name is hashed with SHA-256, so that streams of different names are independent.
    """

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._bits = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
        self._values: list[float] = []

    def unit(self) -> float:
        """One number in [0, 1)."""
        if not self._values:
            self._values = self._bits.random(_BLOCK).tolist()
        return self._values.pop()

    def uniform(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def integer(self, low: int, high: int) -> int:
        """One integer in [low, high], both ends included."""
        return low + int(self.unit() * (high - low + 1))

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, all equally likely."""
        return choices[int(self.unit() * len(choices))]

    def bell(self, centre: float, spread: float) -> float:
        """A bell-shaped number: the sum of three uniforms, within `spread` of the centre."""
        return centre + spread * (2 * (self.unit() + self.unit() + self.unit()) / 3 - 1)

    def field(self, *shape: int) -> np.ndarray:
        """A float32 array of numbers in [0, 1)."""
        return self._bits.random(shape, dtype=np.float32)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """sRGB in [0, 1] from hue (turns), saturation and value."""
    sector = (hue % 1.0) * 6
    part = sector - int(sector)
    p, q, t = 1 - saturation, 1 - saturation * part, 1 - saturation * (1 - part)
    red, green, blue = ((1, t, p), (q, 1, p), (p, 1, t), (p, q, 1), (t, p, 1), (1, p, q))[
        int(sector) % 6
    ]
    return value * red, value * green, value * blue


def dye(
    draw: Draws, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    """A colour of about this hue; greens and magentas come out muted, as they do on real things."""
    hue %= 1.0
    muted = 0.6 if 0.19 < hue < 0.50 or 0.75 < hue < 0.93 else 1.0
    colour = hsv(hue, muted * draw.uniform(*saturation), draw.uniform(*value))
    return scale(colour, 0.85 + 0.15 * muted)


def mix(first: Colour, second: Colour, weight: float) -> Colour:
    """The colour `weight` of the way from the first to the second."""
    keep = 1 - weight
    return (
        keep * first[0] + weight * second[0],
        keep * first[1] + weight * second[1],
        keep * first[2] + weight * second[2],
    )


def scale(colour: Colour, factor: float) -> Colour:
    """The colour made lighter or darker, clipped at 1."""
    return tuple(min(1.0, factor * part) for part in colour)  # type: ignore[return-value]
