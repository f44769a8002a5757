"""What a curve of a metric over kimg says: speed, area, values at equal kimg. NumPy alone.

One rule throughout: between two evaluations the metric is a straight line over log kimg; only from
0 kimg, where the logarithm is not defined, to the next evaluation it is one over kimg.
`kimg` [n] ascends; an evaluation that gave no number is NaN, and nothing is known beside it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["goal", "kimg_to_reach", "log_area", "value_at"]


def goal(best: float, better: str = "min", slack: float = 0.1) -> float:
    """The X to reach: `slack` worse than the baseline's best, 1.1 × FID. Also for negative KIDs."""
    return best + (-1 if better == "max" else 1) * slack * abs(best)


def value_at(kimg: ArrayLike, values: ArrayLike, at: float) -> float:
    """The curve's value at `at` kimg; NaN outside the evaluated range."""
    kimg, values = _curve(kimg, values)
    right = int(np.searchsorted(kimg, at))
    if right == len(kimg):
        return math.nan
    if kimg[right] == at:
        return float(values[right])
    if right == 0:
        return math.nan
    x = _axis(kimg[right - 1 : right + 1], at)
    return float(values[right - 1] + x * (values[right] - values[right - 1]))


def kimg_to_reach(kimg: ArrayLike, values: ArrayLike, x: float, better: str = "min") -> float:
    """The kimg at which the curve is first as good as `x`; inf if it never is.

    Censored, so: a median over runs is right, a mean is only one of those that arrived.
    """
    kimg, values = _curve(kimg, values)
    sign = -1.0 if better == "max" else 1.0
    there = np.flatnonzero(sign * values <= sign * x)
    if not len(there):
        return math.inf
    first = int(there[0])
    before = values[first - 1] if first else math.nan
    if math.isnan(before):
        return float(kimg[first])
    return _between(kimg[first - 1 : first + 1], (before - x) / (before - values[first]))


def log_area(kimg: ArrayLike, values: ArrayLike, start: float, end: float) -> float:
    """Area under the curve over log kimg from `start` to `end`, divided by log(end / start).

    So it is a mean value in the metric's unit. Trapezia are exact for the rule above. NaN if the
    range is not evaluated whole. ValueError unless 0 < start < end.
    """
    if not 0 < start < end:
        raise ValueError(f"an area over log kimg needs 0 < start < end, got {start} and {end}")
    kimg, values = _curve(kimg, values)
    inner = (kimg > start) & (kimg < end)
    x = np.log([start, *kimg[inner], end])
    y = np.array([value_at(kimg, values, start), *values[inner], value_at(kimg, values, end)])
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / math.log(end / start))


def _axis(segment: np.ndarray, at: float) -> float:
    """Where `at` lies within a segment, 0 to 1."""
    low, high = segment
    return (at - low) / (high - low) if low == 0 else math.log(at / low) / math.log(high / low)


def _between(segment: np.ndarray, share: float) -> float:
    low, high = (float(v) for v in segment)
    return share * high if low == 0 else low * (high / low) ** share


def _curve(kimg: ArrayLike, values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    kimg, values = np.asarray(kimg, float), np.asarray(values, float)
    if kimg.shape != values.shape or kimg.ndim != 1:
        raise ValueError(f"kimg {kimg.shape} and values {values.shape} must be equally long")
    if len(kimg) and (kimg[0] < 0 or (np.diff(kimg) <= 0).any()):
        raise ValueError(f"kimg must ascend from 0: {kimg.tolist()}")
    return kimg, values
