"""Cross-domain correspondence (Ojha et al. 2021, arXiv:2104.06820): distances between samples stay.

What: y_i^l = softmax over j != i of the cosine of features l at z_i and z_j; the loss is
lambda mean_{l, i} KL(y_i^{l, target} || y_i^{l, source}) (equations 2 and 3; the paper draws one
layer l per step, here all blocks count, which is its expectation). Of the paper's method this is
the consistency loss; its relaxed realism (D on patches away from the anchors) is not here.
When: ten or so images: it keeps the diversity of the source. With thousands it costs quality.
Values: batch 4; weight 300, which is the published 1000 over N - 1 at their batch of 4.
Costs: two forward passes and one backward pass of G on `batch` latents per step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_tl.freeze.anchor.base import Anchor, blocks, features, features_of, weighted

__all__ = ["CDC", "consistency"]


def consistency(target: Tensor, source: Tensor) -> Tensor:
    """KL(y_target || y_source) of each sample, [N], from features [N, ...], N at least 3."""
    log_t, log_s = (_similarities(x).log_softmax(dim=1) for x in (target, source))
    return (log_t.exp() * (log_t - log_s)).sum(dim=1)


class CDC(Anchor):
    """The consistency of pairwise similarities, on the first `batch` latents of a micro-batch."""

    name = "cdc"
    networks = "G"

    def __init__(self, weight: float, batch: int) -> None:
        weighted("cdc", weight=weight)
        if batch < 3:
            raise ValueError(f"freeze.anchor.cdc.batch={batch}: use 3 or more, to have distances")
        self.weight, self.batch = weight, batch

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if the micro-batches are too small to have distances."""
        plan = model.training_plan
        if (plan.micro_batch or plan.batch_size) < 3:
            raise ValueError(
                "freeze/anchor=cdc compares the samples of a micro-batch: use "
                "model.training.micro_batch (or batch_size) of 3 or more"
            )

    def of_G(
        self, model: nn.Module, z: Tensor, c: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The loss at the first latents of `z`; None where a last micro-batch is too small."""
        z, c, at = z[: self.batch], c[: self.batch], [*blocks(model.G)]
        if len(z) < 3:
            return None
        pairs = features(model.G, self.source.G, at, z, c, generator=generator)
        both = [(features_of(a), features_of(b)) for a, b in pairs]
        return self.weight * torch.stack([consistency(a, b).mean() for a, b in both]).mean()


def _similarities(features: Tensor) -> Tensor:
    """The cosines of every sample with every other, [N, N - 1]."""
    unit = F.normalize(features.float().flatten(1), dim=1)
    count = len(unit)
    without_diagonal = (unit @ unit.t()).flatten()[1:].view(count - 1, count + 1)[:, :-1]
    return without_diagonal.reshape(count, count - 1)
