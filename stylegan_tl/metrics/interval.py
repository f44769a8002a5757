"""An interval for any score of image sets, from half-samples (Politis & Romano 1994).

Half of the images, drawn without replacement, scatter about the whole set as the whole set does
about the population: 1/(n/2) − 1/n = 1/n. The usual bootstrap draws with replacement; its
duplicates look like covered modes and nearest neighbours, and bias FID, KID and every k-NN score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.metrics.statistics import draw

__all__ = ["interval"]

SMALLEST = 10  # 252 different halves


def interval(
    score: Callable[..., Mapping[str, float]],
    *samples: Tensor,
    generator: torch.Generator,
    rounds: int = 100,
    level: float = 0.95,
) -> dict[str, tuple[float, float] | None]:
    """{name: (low, high)} of `score(*samples)`, at confidence `level`.

    score:   from samples to numbers by name, e.g. `lambda f, r: fid_infinity(f, r, generator=g)`.
    samples: tensors [N, …] of independent images, each halved by itself. What belongs together
             (pairs) goes into one tensor; what is fixed (statistics of all reals) stays inside
             `score` and adds nothing to the width.

    In each of `rounds` rounds every sample is halved. The deviations of the halves' scores from
    their own mean are placed on the score of everything (not mirrored: scores here spread more
    where they are large). So the greater bias of smaller sets (FID) neither moves nor widens the
    interval: it is one for the score's expectation at these very numbers of images. For squared
    distances (FID, KID) of two sets that hardly differ it is up to √3 times too wide: their error
    falls there like 1/n, so a half's is twice the whole's.

    None for a name whose score is not finite, of everything or of any half: what halves cannot
    always tell has no interval here.
    ValueError for fewer than 10 images in a sample or too few rounds for the level.
    """
    _check(samples, rounds, level)
    whole = score(*samples)
    halves = [
        score(*(draw(rows, len(rows) // 2, generator) for rows in samples)) for _ in range(rounds)
    ]
    return {name: _around(whole[name], [half[name] for half in halves], level) for name in whole}


def _around(whole: float, halves: list[float], level: float) -> tuple[float, float] | None:
    if not np.isfinite([whole, *halves]).all():
        return None
    tails = [(1 - level) / 2, (1 + level) / 2]
    # "weibull": position p · (rounds + 1), between which a further value falls with chance `level`
    low, high = np.quantile(np.array(halves) - np.mean(halves), tails, method="weibull")
    return float(whole + low), float(whole + high)


def _check(samples: tuple[Tensor, ...], rounds: int, level: float) -> None:
    counts = [len(rows) for rows in samples]
    if not counts or min(counts) < SMALLEST:
        raise ValueError(f"an interval needs samples of at least {SMALLEST} images, got {counts}")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: allowed is between 0 and 1, such as 0.95")
    needed = round(2 / (1 - level)) - 1
    if rounds < needed:
        raise ValueError(f"rounds={rounds}: a level of {level} needs at least {needed}")
