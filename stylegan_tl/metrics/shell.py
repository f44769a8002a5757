"""The torchmetrics shell that the feature metrics share: it gathers features over ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

__all__ = ["FeatureMetric", "scalars"]


class FeatureMetric(Metric):
    """Keeps every row; a child's `compute` scores `rows(real=False)` against `rows(real=True)`."""

    full_state_update = False

    def __init__(self, *, keep_reals: bool = False) -> None:
        super().__init__()
        self.keep_reals = keep_reals
        self.add_state("fakes", [], dist_reduce_fx="cat")
        self.add_state("reals", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool) -> None:
        """Add `features` [N, F] of reals or of fakes."""
        (self.reals if real else self.fakes).append(features.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return the score by name, float64 scalars, of everything seen on all ranks."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the fakes and, unless `keep_reals`, the reals."""
        kept = self.reals[:] if self.keep_reals else None
        super().reset()
        if kept is not None:
            self.reals = kept

    def rows(self, *, real: bool) -> Tensor:
        """All rows [N, F] of one side; ValueError where there are none."""
        return dim_zero_cat(self.reals if real else self.fakes)


def scalars(found: Mapping[str, float]) -> dict[str, Tensor]:
    """A score's numbers as float64 tensors, as torchmetrics wants them."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}
