"""Singular values alone (FSGAN: Robb et al. 2020, arXiv:2010.11943).

What: every convolution of G and D is W = U S V^T, as a matrix [filters, rest]; U and V stay and the
singular values train: W' = U (lambda S) V^T, lambda one at first. All else of G stays, and of D
all but the head. A DCGAN's transposed convolutions are matrices by their input filters.
Why: the source's features are re-weighted, never replaced.
When: few images (the paper: less than 100) of a domain near the source. Far ones need new features.
Values: the usual rate, 30 kimg. Costs: U and V beside each W make three times the memory of these
weights, one matrix product per weight and step, and seconds of decomposition at the start.
"""

from __future__ import annotations

import torch
from torch import nn

from stylegan_tl.freeze.adapt import Adapt
from stylegan_tl.freeze.strategy import Strategy
from stylegan_tl.networks.adapters import SingularValues

__all__ = ["svd"]


def svd(D: bool = True) -> Strategy:
    """Trains the singular values of G's convolutions; with `D` of D's too, and D's head."""
    freeze = ("G", "D.block", "D.mapping?") if D else ("G",)
    adapt = ("G.conv", "D.conv") if D else ("G.conv",)
    return Strategy(freeze=freeze, adapt=tuple(Adapt(s, _how) for s in adapt))


def _how(layer: nn.Module, generator: torch.Generator) -> SingularValues:
    return SingularValues(layer.weight)
