"""Statistics of a study: aggregates, intervals, improvement, rank agreement. NumPy alone.

The runs of one strategy come as `tasks`: a 1-D array of seeds for each task (a target, say).
Nothing here draws without an explicit generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "bootstrap_interval",
    "difference_interval",
    "improvement_interval",
    "iqm",
    "kendall",
    "mean_interval",
    "probability_of_improvement",
    "ranks",
    "resample",
    "spearman",
    "strata_interval",
    "student_quantile",
    "top_regret",
]

Array = NDArray[np.float64]
Tasks = Sequence[ArrayLike]
Interval = tuple[float, float]


def iqm(x: ArrayLike) -> Array:
    """Interquartile mean over the last axis: the mean of the middle half (Agarwal et al. 2021).

    ⌊n/4⌋ values go at each end, as in the paper's code; NaN without values.
    """
    x = np.sort(np.asarray(x, float), axis=-1)
    cut = x.shape[-1] // 4
    middle = x[..., cut : x.shape[-1] - cut]
    return middle.mean(-1) if middle.shape[-1] else np.full(x.shape[:-1], np.nan)


def mean_interval(x: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the mean of few runs, Student (1908); (NaN, NaN) for fewer than two.

    Student's and not the bootstrap's: of three seeds a bootstrap covers far less than it says.
    """
    x = np.asarray(x, float)
    if len(x) < 2 or not np.isfinite(x).all():
        return math.nan, math.nan
    error = x.std(ddof=1) / math.sqrt(len(x))
    half = student_quantile(0.5 + level / 2, len(x) - 1) * error
    return float(x.mean() - half), float(x.mean() + half)


def difference_interval(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of mean(x) − mean(y), variances unequal (Welch 1947); NaN below two runs each."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if min(len(x), len(y)) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan, math.nan
    half = _half_of_sum([x, y], level)
    return float(x.mean() - y.mean() - half), float(x.mean() - y.mean() + half)


def strata_interval(strata: Tasks, level: float = 0.95) -> Interval:
    """Interval of the mean over strata of their means, for these strata (Welch 1947).

    NaN without strata, and where one of them has fewer than two runs. Of three runs a bootstrap
    would be too narrow by a fifth: its variance is 2/3 of the unbiased one.
    """
    strata = [_float(x) for x in strata]
    if not strata or not all(len(x) > 1 and np.isfinite(x).all() for x in strata):
        return math.nan, math.nan
    mean = np.mean([x.mean() for x in strata])
    half = _half_of_sum(strata, level) / len(strata)
    return float(mean - half), float(mean + half)


@lru_cache(maxsize=1024)
def student_quantile(p: float, freedom: float) -> float:
    """The t with P(T ≤ t) = p, for any real `freedom` ≥ 1. Absolute error of P below 1e-9."""
    if not 0 < p < 1 or freedom < 1:
        raise ValueError(f"p={p} must lie within 0 and 1, freedom={freedom} be at least 1")
    if p < 0.5:
        return -student_quantile(1 - p, freedom)
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < p:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < p else (low, middle)
    return high


def probability_of_improvement(x: Tasks, y: Tasks, better: str = "min") -> float:
    """P(a run of `x` beats one of `y`), the mean over tasks (Agarwal et al. 2021). Ties are half.

    Per task it is Mann and Whitney's U over the number of pairs. Tasks without runs on both sides
    do not count; NaN if none is left.
    """
    shares = [wins.mean() for wins in _wins(x, y, better)]
    return float(np.mean(shares)) if shares else math.nan


def improvement_interval(
    x: Tasks,
    y: Tasks,
    better: str = "min",
    *,
    generator: np.random.Generator,
    rounds: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of the probability of improvement: both sides' runs drawn anew in every task.

    As `bootstrap_interval`, but drawn as counts of each run. It has no width where no run of one
    side falls among the other's.
    """
    tables = _wins(x, y, better)
    if not tables or min(min(wins.shape) for wins in tables) < _LEAST:
        return math.nan, math.nan
    shares = np.zeros(rounds)
    for wins in tables:
        ours, theirs = (_counts(n, rounds, generator) for n in wins.shape)
        shares += ((ours @ wins) * theirs).sum(-1) / wins.size / len(tables)
    return _percentiles(shares, level)


def bootstrap_interval(
    strata: Tasks,
    statistic: Callable[[list[Array]], Array],
    *,
    generator: np.random.Generator,
    rounds: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of `statistic` by the stratified bootstrap (Agarwal et al. 2021).

    Runs are drawn anew within every stratum, strata stay. `statistic` maps the list of their
    [rounds, n] to [rounds]. (NaN, NaN) unless every stratum that has runs has three: of fewer the
    draws say nothing.
    """
    counts = [len(_float(stratum)) for stratum in strata]
    if not any(counts) or any(0 < count < _LEAST for count in counts):
        return math.nan, math.nan
    drawn = [resample(stratum, rounds, generator) for stratum in strata]
    return _percentiles(statistic(drawn), level)


def resample(x: ArrayLike, rounds: int, generator: np.random.Generator) -> Array:
    """[rounds, n]: `rounds` draws of n of the n values with replacement (Efron 1979)."""
    x = np.asarray(x, float)
    return x[generator.integers(0, max(1, len(x)), (rounds, len(x)))]


def ranks(x: ArrayLike) -> Array:
    """Ranks from 1 (smallest) along the last axis, the mean rank for ties. O(n²) memory."""
    x = np.asarray(x, float)
    below = (x[..., None, :] < x[..., :, None]).sum(-1)
    same = (x[..., None, :] == x[..., :, None]).sum(-1)
    return below + (same + 1) / 2


def spearman(x: ArrayLike, y: ArrayLike) -> Array:
    """Rank correlation along the last axis (Spearman 1904), mean ranks for ties.

    Leading axes broadcast. NaN where one side is constant or there is one value only.
    """
    a, b = (r - r.mean(-1, keepdims=True) for r in (ranks(x), ranks(y)))
    return _ratio((a * b).sum(-1), (a * a).sum(-1) * (b * b).sum(-1))


def kendall(x: ArrayLike, y: ArrayLike) -> Array:
    """Rank correlation tau-b along the last axis (Kendall 1945); NaN where a side is constant."""
    a, b = (_order(_float(v)) for v in (x, y))
    pairs = (-2, -1)
    return _ratio((a * b).sum(pairs), (a * a).sum(pairs) * (b * b).sum(pairs))


def top_regret(
    predicted: ArrayLike, outcome: ArrayLike, *, predicted_better: str, better: str
) -> Array:
    """How much worse the outcome of the choice predicted best is than the best one's, at least 0.

    Along the last axis; leading axes of `outcome` broadcast. Choices that tie count as their mean.
    """
    predicted = _sign(predicted_better) * _float(predicted)
    outcome = _sign(better) * _float(outcome)
    chosen = predicted == predicted.max(-1, keepdims=True)
    return outcome.max(-1) - (outcome * chosen).sum(-1) / chosen.sum(-1)


def _wins(x: Tasks, y: Tasks, better: str) -> list[Array]:
    """[n, m] of each task with runs on both sides: 1 where x's run beats y's, ½ for a tie."""
    sign, tables = _sign(better), []
    for a, b in zip(x, y, strict=True):
        one, other = sign * _float(a)[:, None], sign * _float(b)[None, :]
        if one.size and other.size:
            tables.append((one > other) + 0.5 * (one == other))
    return tables


def _half_of_sum(strata: Sequence[Array], level: float) -> float:
    """Half the interval of the sum of means with unequal variances; its freedom is real (1947)."""
    parts = np.array([x.var(ddof=1) / len(x) for x in strata])
    total = parts.sum()
    if not total:
        return 0.0
    freedom = total**2 / (parts**2 / [len(x) - 1 for x in strata]).sum()
    return student_quantile(0.5 + level / 2, freedom) * math.sqrt(total)


def _counts(n: int, rounds: int, generator: np.random.Generator) -> Array:
    """[rounds, n]: how often each of n runs comes in n draws."""
    drawn = generator.integers(0, n, (rounds, n)) + n * np.arange(rounds)[:, None]
    return np.bincount(drawn.ravel(), minlength=rounds * n).reshape(rounds, n)


def _percentiles(values: Array, level: float) -> Interval:
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _student_cdf(t: float, freedom: float) -> float:
    """For t ≥ 0. With t = √freedom tan θ the density is c cos^(freedom−1) θ: smooth, bounded."""
    top = math.atan(t / math.sqrt(freedom))
    nodes, weights = _LEGENDRE
    integral = top / 2 * (weights * np.cos(top / 2 * (nodes + 1)) ** (freedom - 1)).sum()
    log_c = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return 0.5 + math.exp(log_c) * float(integral)


def _order(x: Array) -> Array:
    """-1, 0 or 1 of every pair; infinities compare too."""
    one, other = x[..., :, None], x[..., None, :]
    return (one > other).astype(float) - (one < other)


def _ratio(product: Array, squares: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0, product / np.sqrt(squares), np.nan)


def _sign(better: str) -> float:
    if better not in ("min", "max"):
        raise ValueError(f"better={better!r}: expected 'min' or 'max'")
    return -1.0 if better == "min" else 1.0


def _float(x: ArrayLike) -> Array:
    return np.asarray(x, float)


_LEAST = 3  # runs below which a bootstrap says nothing
_LEGENDRE = np.polynomial.legendre.leggauss(64)
