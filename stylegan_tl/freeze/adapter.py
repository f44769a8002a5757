"""Adapters: the source's weights stay, and a small change beside them trains.

What: of G all weights stay and D trains. `lora`: W + up down of rank r on convolutions and styles
(Hu et al. 2021, arXiv:2106.09685, eq. 3; in a GAN StyleDomain's AffineLight+, arXiv:2212.10229).
`kml`: W (1 + u v^T) on convolutions, one factor per kernel, of rank one (AdAM, Zhao et al. 2022,
arXiv:2210.16559). `style_offset`: a vector added to the styles of every layer (StyleSpace;
StyleDomain, Alanov et al. 2023); a DCGAN has no styles, and says so: there use scale_shift.
When: many targets from one source, small targets. Offsets for near ones, more rank for far ones.
Values: rank 4 to 16; lr of offsets 8 times the usual (StyleDomain's 0.02). With `D` the
convolutions of D are adapted too, and of D only these and the head train.
Costs: the merge, once per forward; gradients pass all of G, so time is that of full fine-tune.
G_ema averages the factors (up, down, u, v), not their product.
`stylegan_tl.generate` and a next transfer read the merged weights; `stylegan_tl.convert` with
`adapters=false` gives the source back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from stylegan_tl.freeze.adapt import Adapt
from stylegan_tl.freeze.strategy import Strategy
from stylegan_tl.networks.adapters import KernelModulation, LowRank, Offset

__all__ = ["kml", "lora", "style_offset"]


def lora(rank: int, adapt: Sequence[str] = ("G.conv", "G.style?"), D: bool = False) -> Strategy:
    """Low-rank changes of rank `rank` on the weights that the selectors `adapt` mean."""
    if rank < 1:
        raise ValueError(f"freeze.rank={rank}: use a whole number from 1")

    def how(layer: nn.Module, generator: torch.Generator) -> LowRank:
        return LowRank(layer.weight, min(rank, *_matrix(layer.weight)), generator)

    return _adapters(adapt, D, how, {"rank": rank})


def kml(adapt: Sequence[str] = ("G.conv",), D: bool = False) -> Strategy:
    """Kernel modulation of rank one on the weights that the selectors `adapt` mean."""

    def how(layer: nn.Module, generator: torch.Generator) -> KernelModulation:
        return KernelModulation(layer.weight, generator)

    return _adapters(adapt, D, how, {})


def style_offset() -> Strategy:
    """One trainable vector per layer, added to its styles."""

    def how(layer: nn.Module, generator: torch.Generator) -> Offset:
        return Offset(layer.bias)

    return Strategy(freeze=("G",), adapt=(Adapt("G.style", how, tensor="bias"),))


def _adapters(
    adapt: Sequence[str],
    D: bool,
    how: Callable[[nn.Module, torch.Generator], nn.Module],
    record: dict[str, int],
) -> Strategy:
    freeze = ("G", "D.block", "D.mapping?") if D else ("G",)
    return Strategy(
        freeze=freeze,
        adapt=tuple(Adapt(selector, how) for selector in (*adapt, *(["D.conv"] if D else []))),
        record=record,
    )


def _matrix(weight: torch.Tensor) -> tuple[int, int]:
    return weight.shape[0], weight[0].numel()
