"""Area under the ROC curve of two sets of scores: the Mann-Whitney statistic, ties at one half."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["auc"]


def auc(positive: Tensor, negative: Tensor) -> tuple[float, float]:
    """P(p > n) + P(p = n) / 2 of scores `positive` [N] and `negative` [M], and its standard error.

    0.5 where the scores do not tell the sets apart. The error is DeLong's (1988): the variances of
    the placements of each set within the other. It is 0 where all placements are equal, and NaN
    for a set of one. ValueError for an empty set or scores that are not finite.
    """
    p, n = _scores("positive", positive), _scores("negative", negative)
    among_negative, among_positive = _placements(p, n), 1 - _placements(n, p)
    spread = among_negative.std() ** 2 / len(p) if len(p) > 1 else torch.tensor(torch.nan)
    other = among_positive.std() ** 2 / len(n) if len(n) > 1 else torch.tensor(torch.nan)
    return among_negative.mean().item(), (spread + other).sqrt().item()


def _placements(x: Tensor, among: Tensor) -> Tensor:
    """The share of `among` [M] below each of `x` [N], equal ones by half."""
    ordered = among.sort().values
    below = torch.searchsorted(ordered, x, right=False)
    not_above = torch.searchsorted(ordered, x, right=True)
    return (below + not_above).double() / (2 * len(among))


def _scores(name: str, scores: Tensor) -> Tensor:
    scores = scores.detach().double().cpu().flatten()
    if not len(scores):
        raise ValueError(f"AUC needs at least one {name} score")
    if not torch.isfinite(scores).all():
        raise ValueError(f"{name} scores hold NaN or infinity")
    return scores
