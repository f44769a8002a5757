"""Feature distillation of D (Mo et al. 2020, arXiv:2002.10964, section 3): D sees as it saw.

What: lambda mean_l |D_target^l(x) - D_source^l(x)|^2 / size on the target's real images x, l over
the blocks of D; the paper's softer relative of FreezeD.
When: small targets where frozen blocks are too rigid; the paper finds it about as good as FreezeD.
Values: weight 1; `resolutions` null for all blocks, or a list such as [32, 64] for the image side.
Images come unaugmented. Costs: two forward passes and one backward pass of D per step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stylegan_tl.freeze.anchor.base import Anchor, blocks, features, weighted

__all__ = ["FeatureDistillation", "feature_distance"]


def feature_distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean over layers of the mean squared difference of (target, source) [N, ...], scalar."""
    return torch.stack([(a.float() - b.float()).square().mean() for a, b in pairs]).mean()


class FeatureDistillation(Anchor):
    """Features of D on real images."""

    name = "feature_distillation"
    networks = "D"

    def __init__(self, weight: float, resolutions: Sequence[int] | None = None) -> None:
        weighted("feature_distillation", weight=weight)
        self.weight, self.resolutions = weight, resolutions

    def check(self, model: nn.Module) -> None:
        """Raise ValueError for a resolution that D does not have."""
        there = [*blocks(model.D)]
        if wrong := set(self.resolutions or ()) - set(there):
            raise ValueError(
                f"freeze.anchor.feature_distillation.resolutions: {sorted(wrong)}; "
                f"D has blocks at {', '.join(map(str, there))}"
            )

    def of_D(self, model: nn.Module, real: Tensor, c: Tensor, *_: object) -> Tensor | None:
        """The distance at `real`; None where neither has grown to one of the resolutions."""
        at = self.resolutions or [*blocks(model.D)]
        pairs = features(model.D, self.source.D, at, real, c)
        return self.weight * feature_distance(pairs) if pairs else None
