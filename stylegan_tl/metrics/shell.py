"""The torchmetrics shell that the feature metrics share: it gathers features over ranks."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import Metric

__all__ = ["FeatureMetric"]


class FeatureMetric(Metric):
    """Keeps the features of `fakes` and `reals` [N, F]; a subclass computes from them."""

    full_state_update = False
    fakes: list[Tensor]
    reals: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("fakes", [], dist_reduce_fx="cat")
        self.add_state("reals", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool) -> None:
        """Add `features` [N, F] to the reals or to the fakes."""
        (self.reals if real else self.fakes).append(features)

    def compute(self) -> dict[str, Tensor]:
        """Return named scalars."""
        raise NotImplementedError
