"""What goes wrong in a run, found in its tick rows: mode collapse, and D overpowering G.

Pure functions of the rows of `metrics.jsonl`, so that a finished run can be read again. A row needs
`tick` and `kimg`; a test passes over rows that lack its numbers (absent, None or not finite).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["diversity", "flags"]

COLLAPSED = 0.2
"""Of the reals' diversity. Trained generators, good and bad, lie between 0.5 and 1.2; one that maps
every latent to one image lies at 0, however the image moves from tick to tick."""
ARMED_KIMG = 50.0
"""A fresh generator draws the same grey for every latent: until here collapse is a fall from above
the threshold, and only later a value below it."""
COLLAPSED_TICKS = 2
"""One tick may catch G on its way from one mode to another."""
SIGN = 0.95
"""Of E[sign D(real)], ADA's r_t (Karras et al. 2020, section 3): it holds 0.6, and takes values
near 1 for a D that knows every real."""
LOSS_D = 0.1
"""Of both halves of D's loss together: chance is 2 ln 2 = 1.39; 0.1 is a mean probability of error
of 5 % on reals and on fakes, where the gradient of G says little."""
LOSS_G = 5.0
"""Of softplus(-D(fake)): D gives fakes odds of e^5 against. Whether it still grows is no sign: lost
runs were seen with a loss that rises from 8 to 13, and with one that falls from 300 to 30."""
OVERPOWERING_TICKS = 4
"""D leads for a while in every healthy run; here it leads on."""

_WINDOW = max(COLLAPSED_TICKS, OVERPOWERING_TICKS)
_SIDE = 16
_FEWEST = 8  # images; of fewer the spread is a matter of luck

Row = Mapping[str, Any]


def flags(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Where in `rows`, in order, something begins to go wrong: {flag, tick, kimg, evidence}.

    A flag is raised at the tick that completes its evidence, and again only if it has gone between.
    """
    found, highest = [], 0.0
    seen: dict[str, list[Row]] = {name: [] for name in _TESTS}
    standing = dict.fromkeys(_TESTS, False)
    for row in rows:
        highest = max(highest, row["diversity"] if _known(row, "diversity") else 0.0)
        for name, (test, needed) in _TESTS.items():
            if not _known(row, *needed):
                continue
            seen[name].append(row)
            evidence = test(seen[name][-_WINDOW:], highest)
            if evidence and not standing[name]:
                at = {"tick": row["tick"], "kimg": row["kimg"]}
                found.append({"flag": name, **at, "evidence": evidence})
            standing[name] = evidence is not None
    return found


def diversity(images: np.ndarray, classes: np.ndarray | None = None) -> float | None:
    """Root mean square difference of two images of a set, at 16 px, of the range of a pixel.

    images:  uint8 [N, 3, R, R]; means of blocks, so that noise and sharpness count little.
    classes: int [N]; only images of one class are then compared.

    Over all pairs the mean square is twice the unbiased variance, so no pair is formed. None for
    fewer than 8 images, or if no class holds two.
    """
    if len(images) < _FEWEST:
        return None
    small = _shrunk(images)
    classes = np.zeros(len(small), int) if classes is None else np.asarray(classes)
    kinds = np.unique(classes)
    if len(kinds) == len(small):
        return None
    groups = [small[classes == kind] for kind in kinds]
    squares = sum(((group - group.mean(0)) ** 2).sum() for group in groups)
    return float((2 * squares / (len(small) - len(kinds)) / small.shape[1]) ** 0.5)


def _shrunk(images: np.ndarray) -> np.ndarray:
    """float64 [N, 3 · side²] in [0, 1]: means of blocks."""
    n, channels, height, width = images.shape
    side = min(_SIDE, height)
    blocks = images.reshape(n, channels, side, height // side, side, width // side)
    return blocks.mean((3, 5)).reshape(n, -1) / 255


def _collapse(rows: Sequence[Row], highest: float) -> str | None:
    recent = rows[-COLLAPSED_TICKS:]
    if len(recent) < COLLAPSED_TICKS or max(r["diversity"] for r in recent) >= COLLAPSED:
        return None
    if highest < COLLAPSED and rows[-1]["kimg"] < ARMED_KIMG:
        return None
    return (
        f"images of the grid differ {recent[-1]['diversity']:.2g} times as much as reals do, below "
        f"{COLLAPSED:g} for {COLLAPSED_TICKS} ticks; it was {highest:.2g} at most"
    )


def _overpowering(rows: Sequence[Row], highest: float) -> str | None:
    recent = rows[-OVERPOWERING_TICKS:]
    if len(recent) < OVERPOWERING_TICKS:
        return None
    sign = min(r["D_sign_real"] for r in recent)
    loss_D, loss_G = max(r["loss_D"] for r in recent), min(r["loss_G"] for r in recent)
    if sign < SIGN or loss_D > LOSS_D or loss_G < LOSS_G:
        return None
    return (
        f"for {OVERPOWERING_TICKS} ticks D called reals real (mean sign {sign:.2f} or more) with a "
        f"loss of {loss_D:.2g} or less, and G had a loss of {loss_G:.2g} or more"
    )


def _known(row: Row, *keys: str) -> bool:
    values = [row.get(key) for key in keys]
    return all(value is not None and math.isfinite(value) for value in values)


_TESTS: dict[str, tuple[Callable[[Sequence[Row], float], str | None], tuple[str, ...]]] = {
    "mode collapse": (_collapse, ("diversity",)),
    "D overpowering": (_overpowering, ("D_sign_real", "loss_D", "loss_G")),
}
