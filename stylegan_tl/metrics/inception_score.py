"""Inception score (Salimans et al. 2016): sure about each image, varied over all of them.

`IS = exp(mean KL(p(y|x) ‖ p(y)))` with p(y) the mean of p(y|x): from 1 (every image gives the same
classes) to C. It looks at fakes alone, so it says nothing about the target.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stylegan_tl.metrics.shell import FeatureMetric, arranged, scalars
from stylegan_tl.metrics.statistics import check_features

__all__ = ["InceptionScore", "inception_score"]


def inception_score(logits: Tensor, *, splits: int = 10) -> dict[str, float]:
    """{"value", "stderr"} of `logits` [N, C]: mean and deviation over `splits` contiguous parts.

    `is50k` is 10 splits of 50 000 images. "stderr" is the population deviation (1/S) of the splits,
    as published: that of a score of N / splits images and not the mean's error. The score grows
    with the size of a split, so compare it at equal numbers only.
    """
    check_features(logits)
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"splits={splits}: allowed are 1 to {count}, the number of images")
    log_p = logits.double().log_softmax(1)
    cuts = [i * count // splits for i in range(splits + 1)]
    scores = torch.stack([_score(log_p[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)])
    return {"value": scores.mean().item(), "stderr": scores.std(correction=0).item()}


class InceptionScore(FeatureMetric):
    """`inception_score` of logits [N, C] of fakes: {"value", "stderr"}.

    Images come in another order from several ranks, so the splits are drawn from `seed`.
    """

    higher_is_better = True

    def __init__(self, *, splits: int = 10, seed: int = 0) -> None:
        super().__init__()
        self.splits, self.seed = splits, seed

    def update(self, features: Tensor, *, real: bool = False) -> None:
        """Add the logits [N, C] of fakes; ValueError for reals, which have no part in it."""
        if real:
            raise ValueError("the Inception score is of fakes alone: real=True has no meaning")
        super().update(features, real=False)

    def compute(self) -> dict[str, Tensor]:
        """Return the score of everything seen on all ranks."""
        rows = arranged(self.rows(real=False))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))
        found = inception_score(rows[order.to(rows.device)], splits=self.splits)
        return scalars(found)


def _score(log_p: Tensor) -> Tensor:
    # the marginal in logarithms: classes whose probabilities underflow give 0 and not NaN
    log_marginal = log_p.logsumexp(0) - math.log(len(log_p))
    return (log_p.exp() * (log_p - log_marginal)).sum(1).mean().exp()
