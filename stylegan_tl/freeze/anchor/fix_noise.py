"""FixNoise (Lee et al. 2022, arXiv:2204.14079): with fixed noise G keeps the source's features.

What: lambda mean_l |G_target^l(z) - G_source^l(z)|^2 / size with the constant noise images, l over
the blocks' features; the adversarial loss sees random noise alone. So one network holds both:
constant noise keeps the source's content, random noise is free to follow the target.
When: translations that should stay aligned with the source (faces to paintings, photo to drawing).
Values: the paper's weight is 0.05; with the mean over blocks that is used here the term is then
0.0002 after 240 images of bedroom -> kitchen, beside a loss of 2: raise it if nothing stays. Not
for a DCGAN or a StyleGAN3, which have no noise to fix.
Costs: two forward passes and one backward pass of G per step.
"""

from __future__ import annotations

from torch import Tensor, nn

from stylegan_tl.freeze.anchor.base import (
    Anchor,
    blocks,
    features,
    features_of,
    needs_styles,
    weighted,
)
from stylegan_tl.freeze.anchor.feature_distillation import feature_distance
from stylegan_tl.freeze.selectors import NotApplicable

__all__ = ["FixNoise"]


class FixNoise(Anchor):
    """Features of G with constant noise."""

    name = "fix_noise"
    networks = "G"

    def __init__(self, weight: float) -> None:
        weighted("fix_noise", weight=weight)
        self.weight = weight

    def check(self, model: nn.Module) -> None:
        """Raise NotApplicable for a G without noise."""
        needs_styles("fix_noise", model, "it anchors what G makes of constant noise")
        if not any(name.endswith("noise_const") for name, _ in model.G.named_buffers()):
            raise NotApplicable(
                "freeze/anchor=fix_noise: it anchors what G makes of constant noise, and this "
                "model's G has none: its images follow from w alone; cdc, l2_sp and ewc serve it"
            )

    def of_G(self, model: nn.Module, z: Tensor, c: Tensor, *_: object) -> Tensor:
        """The distance at `z`."""
        pairs = features(model.G, self.source.G, [*blocks(model.G)], z, c, noise="const")
        both = [(features_of(a), features_of(b)) for a, b in pairs]
        return self.weight * feature_distance(both)
