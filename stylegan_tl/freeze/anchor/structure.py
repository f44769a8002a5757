"""Structure loss (Back 2021, arXiv:2106.12445): the coarse picture stays where it was.

What: lambda mean_r |rgb_target^r(z) - rgb_source^r(z)|^2 / size, where rgb^r is the RGB image that
the skip generator has added up at resolution r, for the lowest `levels` resolutions.
When: shape should stay and texture change (photo to cartoon); near domains of equal layout.
Values: weight 1, levels 3 (4, 8 and 16 px). Not for a DCGAN, the original StyleGAN or
StyleGAN3, which make RGB at one resolution alone.
Costs: two forward passes and one backward pass of G per step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_tl.freeze.anchor.base import Anchor, blocks, features, needs_styles, weighted
from stylegan_tl.freeze.anchor.feature_distillation import feature_distance
from stylegan_tl.freeze.selectors import NotApplicable

__all__ = ["Structure"]


class Structure(Anchor):
    """Partial RGB at the low resolutions."""

    name = "structure"
    networks = "G"

    def __init__(self, weight: float, levels: int) -> None:
        weighted("structure", weight=weight)
        self.weight, self.levels = weight, levels

    def check(self, model: nn.Module) -> None:
        """Raise NotApplicable for a G without partial RGB, ValueError for levels it lacks."""
        needs_styles("structure", model, "it compares the RGB images within a skip generator")
        if not model.G.synthesis.skips:
            raise NotApplicable(
                "freeze/anchor=structure: it compares the RGB images within a skip generator, "
                "and this model's G has none: it makes RGB at its last resolution alone; "
                "cdc, l2_sp and ewc serve it"
            )
        most = len(blocks(model.G))
        if not 1 <= self.levels <= most:
            raise ValueError(f"freeze.anchor.structure.levels={self.levels}: use 1 to {most}")

    def of_G(self, model: nn.Module, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """The distance at `z`."""
        at = [*blocks(model.G)][: self.levels]
        pairs = features(model.G, self.source.G, at, z, c, generator=generator)
        return self.weight * feature_distance([(a[1], b[1]) for a, b in pairs])
