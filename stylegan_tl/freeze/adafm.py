"""AdaFM: filters stay, each is scaled and shifted (Zhao et al. 2020, arXiv:2002.11810).

What: W' = gamma W + beta for every pair of input and output filter, or for every filter.
`adafm`: in G the filters from `from_resolution` px on are frozen and modulated and ToRGB stays;
what is below and the affine layers train; the k image-side blocks of D stay. With `from_kimg`
gamma and beta wait until the rest has found its feet. `adafm_all`: every convolution of G and D is
frozen and modulated, of D the head trains (GAN Memory, Cong et al. 2020, arXiv:2006.07543, where
biases train too; here they stay).
Why: filters near the image are the most general, and one scale each is little to overfit.
When: small and far targets; `adafm_all` to keep the source exactly, beside any number of targets.
Values: the paper waits 160 kimg of 960 and freezes two blocks of D; filters from 16 px on.
The paper also re-draws G's low half small; here it starts from the source.
Costs: gamma and beta per pair are 2/9 of the weights of 3 x 3 filters, per filter next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stylegan_tl.freeze.adapt import Adapt
from stylegan_tl.freeze.strategy import Strategy
from stylegan_tl.networks.adapters import FilterModulation

__all__ = ["adafm", "adafm_all"]


def adafm(
    per: str = "pair", from_resolution: int = 16, blocks: int = 2, from_kimg: float = 0.0
) -> Strategy:
    """Modulates G's filters from a resolution on; freezes ToRGB there and `blocks` blocks of D.

    `per`: "pair" or "filter". Raises ValueError for another one or for a negative `from_kimg`.
    """
    if from_kimg < 0:
        raise ValueError(f"freeze.from_kimg={from_kimg}: use 0 or the kimg at which it begins")
    at = f"@res:{from_resolution}.."
    return Strategy(
        freeze=(f"G.torgb{at}", *([f"D.block@image:{blocks}"] if blocks else [])),
        adapt=(Adapt(f"G.conv{at}", _how(per), from_kimg=from_kimg),),
        record={"k": blocks},
    )


def adafm_all(per: str = "pair") -> Strategy:
    """Modulates every convolution of G and D; else only D's head trains."""
    return Strategy(
        freeze=("G", "D.block", "D.mapping?"),
        adapt=(Adapt("G.conv", _how(per)), Adapt("D.conv", _how(per))),
    )


def _how(per: str) -> Callable[[nn.Module, torch.Generator], nn.Module]:
    if per not in ("pair", "filter"):
        raise ValueError(f"freeze.per={per}: use pair or filter")

    def how(layer: nn.Module, generator: torch.Generator) -> FilterModulation:
        transposed = isinstance(layer, nn.ConvTranspose2d)
        return FilterModulation(layer.weight, None if per == "pair" else int(transposed))

    return how
