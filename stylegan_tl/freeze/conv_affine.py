"""Convolutions or styles: which half of the synthesis carries a domain? (StyleDomain, StyleAlign.)

What: `conv_only` trains G's convolutions, noise, constant and ToRGB's convolution and freezes the
mapping network and the affine layers (SyntConv, Alanov et al. 2023, arXiv:2212.10229, table 1);
`affine_only` is its complement: the affine layers alone. `freeze_conv` and `freeze_affine` freeze
just the one group and train all the rest. D trains. A DCGAN's affine is batch normalisation's scale
and shift.
When: near domains are reached by the affine layers alone, far ones need the convolutions.
Values: 241 kimg at the usual rate. Affine layers are 15 % of G at 256 px. Costs: the frozen half's
weight gradients are saved.
"""

from __future__ import annotations

from stylegan_tl.freeze.strategy import Strategy

__all__ = ["affine_only", "conv_only", "freeze_affine", "freeze_conv"]


def conv_only() -> Strategy:
    """Of G, freezes mapping and affine layers."""
    return Strategy(freeze=("G.mapping?", "G.affine"))


def affine_only() -> Strategy:
    """Of G, trains the affine layers alone."""
    return Strategy(train=("G.affine",))


def freeze_affine() -> Strategy:
    """Of G, freezes the affine layers alone."""
    return Strategy(freeze=("G.affine",))


def freeze_conv() -> Strategy:
    """Of G, freezes the convolutions alone."""
    return Strategy(freeze=("G.conv",))
