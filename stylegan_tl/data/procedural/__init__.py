"""Procedural domains: unlimited pictures without a licence, whose distance is known.

Two families, `rooms` and `art`. What the domains of a family share (the room with its walls,
windows, light and camera; the studio with its palette, hand and canvas) is drawn from one
distribution by the index alone: the same index shows the same room in every `rooms/...` domain.

**The knob.** Let P_k be domain k of a family of K at distance 1, and M = (P_1 + ... + P_K) / K its
mixture. At distance d domain k is P_k(d) = d P_k + (1 - d) M: a picture carries its own domain's
content if its u < d, where u is uniform and fixed by (family, index), else the content of a domain
picked at random, the same pick for every domain. Hence P_j(d) - P_k(d) = d (P_j - P_k), and exactly

- total variation and every integral probability metric (Wasserstein-1, MMD) are d times what they
  are at 1; squared ones (MMD squared, which KID estimates) d squared times. FID is neither: it is 0
  at 0 and grows with d, but not in a line;
- it is monotone picture by picture: own content at d stays own content at every larger d;
- at 0 all domains of a family show the same pictures, index by index, and at d a share 1 - d of
  equal indices do. Give source and target disjoint ranges of indices if they must share none.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from stylegan_tl.data.procedural import (
    abstract,
    bedroom,
    dining_room,
    kitchen,
    landscape,
    living_room,
    portrait,
    renaissance,
)
from stylegan_tl.data.procedural.canvas import draw_studio
from stylegan_tl.data.procedural.draws import Draws
from stylegan_tl.data.procedural.room import draw_room
from stylegan_tl.data.procedural.shade import develop, render_scene

__all__ = ["DOMAINS", "VERSION", "content", "render"]

VERSION = 1
"""Grows whenever any picture changes: part of the name of everything that is cached from them."""

_FAMILIES: dict[str, dict[str, ModuleType]] = {
    "rooms": {
        "bedroom": bedroom,
        "kitchen": kitchen,
        "dining_room": dining_room,
        "living_room": living_room,
    },
    "art": {
        "landscape": landscape,
        "abstract": abstract,
        "portrait": portrait,
        "renaissance": renaissance,
    },
}
DOMAINS: tuple[str, ...] = tuple(
    f"{family}/{name}" for family, names in _FAMILIES.items() for name in names
)
_SMALLEST, _LARGEST = 16, 1024


def render(domain: str, index: int, resolution: int, *, distance: float = 1.0) -> np.ndarray:
    """Picture `index` of a domain, uint8 [3, resolution, resolution], RGB.

    The same numbers give the same picture in every process; `resolution` only samples it finer.
    ValueError if the domain is unknown or a number is out of range.
    """
    _check_resolution(resolution)
    family, name = content(domain, index, distance=distance).split("/")
    scale = 2 if resolution >= 48 else 3
    size = resolution * scale
    draw = Draws(family, name, index)
    if family == "rooms":
        room = draw_room(index)
        _FAMILIES[family][name].furnish(room, draw)
        picture = develop(render_scene(room.shell, room.scene, size), room.shell.exposure)
    else:
        picture = _FAMILIES[family][name].paint(draw_studio(index), draw, size)
    return _quantised(picture, scale)


def content(domain: str, index: int, *, distance: float = 1.0) -> str:
    """The domain whose content picture `index` of `domain` carries at this distance."""
    _check(domain, index, distance)
    family = domain.split("/")[0]
    draw = Draws(family, "distance", index)
    own, other = draw.unit(), draw.pick(tuple(_FAMILIES[family]))
    return domain if own < distance else f"{family}/{other}"


def _quantised(picture: np.ndarray, scale: int) -> np.ndarray:
    # The mean over scale x scale pixels, in a fixed order of summation, rounded to bytes.
    total = np.float32(0.0)
    for i in range(scale):
        for j in range(scale):
            total = total + np.clip(picture[:, i::scale, j::scale], 0, 1)
    return (total * np.float32(255 / scale**2) + np.float32(0.5)).astype(np.uint8)


def _check(domain: str, index: int, distance: float) -> None:
    if domain not in DOMAINS:
        raise ValueError(
            f"unknown procedural domain {domain!r}: choose one of {', '.join(DOMAINS)}"
        )
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
        raise ValueError(f"index must be an integer of 0 or more, not {index!r}")
    if not 0.0 <= distance <= 1.0:
        raise ValueError(
            f"distance must lie in [0, 1], not {distance!r}: 0 makes all domains of a family one "
            "distribution, 1 makes them fully distinct"
        )


def _check_resolution(resolution: int) -> None:
    whole = isinstance(resolution, (int, np.integer)) and not isinstance(resolution, bool)
    if not whole or not _SMALLEST <= resolution <= _LARGEST:
        raise ValueError(
            f"resolution must be an integer from {_SMALLEST} to {_LARGEST}, not {resolution!r}"
        )
