"""What every metric's torchmetrics shell shares: rows of fakes and reals, gathered over ranks.

The score itself is a pure function beside each shell; a shell only decides what is kept, reduced
and forgotten. Each image goes to one rank: what several ranks are given counts several times. Call
`update` and `compute`; `forward` means nothing here, where a batch holds one side alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from stylegan_tl.metrics.statistics import check_features

__all__ = ["FeatureMetric", "TwoSidedMetric", "arranged", "scalars"]


class TwoSidedMetric(Metric):
    """A metric with the states `fakes` and `reals`; `keep_reals`: `reset` forgets fakes alone."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, *, keep_reals: bool = False) -> None:
        super().__init__(dist_sync_fn=_gather)
        self.keep_reals = keep_reals

    def reset(self) -> None:
        """Forget the fakes and, unless `keep_reals`, every other state."""
        states = self.metric_state.items() if self.keep_reals else ()
        kept = {name: state[:] for name, state in states if name != "fakes"}
        super().reset()
        for name, state in kept.items():
            setattr(self, name, state)


class FeatureMetric(TwoSidedMetric):
    """Keeps every row; a child's `compute` scores `rows(real=False)` against `rows(real=True)`.

    Under DDP the rows of all ranks follow each other, those of rank 0 first; a rank may have none.
    """

    def __init__(self, *, keep_reals: bool = False) -> None:
        super().__init__(keep_reals=keep_reals)
        self.add_state("fakes", [], dist_reduce_fx="cat")
        self.add_state("reals", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool) -> None:
        """Add `features` [N, F], finite floats, of reals or of fakes; ValueError for others."""
        self.check(features)
        if len(features):
            (self.reals if real else self.fakes).append(features.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return the score by name, float64 scalars, of everything seen on all ranks."""
        raise NotImplementedError

    def check(self, features: Tensor) -> None:
        """Refuse what is not finite floats [N, F]."""
        check_features(features)

    def rows(self, *, real: bool) -> Tensor:
        """All rows [N, …] of one side; ValueError where there are none."""
        found = self.reals if real else self.fakes
        if sum(len(part) for part in found) == 0:
            side = "real" if real else "fake"
            raise ValueError(f"{type(self).__name__} has no {side} images: update(…, real={real})")
        return dim_zero_cat(found)


def arranged(rows: Tensor) -> Tensor:
    """`rows` [N, …] sorted by a fixed random projection.

    The order depends on the rows alone and not on how they came (order, batches, ranks). So a
    score that draws rows from a seeded generator depends on the set and the seed alone.
    """
    size = rows[0].numel()
    direction = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = direction.to(rows.device)
    parts = rows.flatten(1).split(max(1, 2**22 // size))  # 32 MiB each
    return rows[torch.cat([(part.double() * direction).sum(1) for part in parts]).argsort()]


def scalars(found: Mapping[str, float]) -> dict[str, Tensor]:
    """A score's numbers as float64 tensors, as torchmetrics wants them."""
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}


def _gather(tensor: Tensor, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """All ranks' tensors; one that is empty gets the others' shape and dtype first.

    torchmetrics stands in a one-dimensional empty tensor for a rank without rows, which would not
    match the two dimensions of the others.
    """
    kinds: list[tuple[torch.dtype, torch.Size] | None] = [None] * dist.get_world_size(group)
    own = (tensor.dtype, tensor.shape[1:]) if tensor.numel() else None
    dist.all_gather_object(kinds, own, group=group)
    known = next((kind for kind in kinds if kind), None)
    if known and own is None:
        tensor = tensor.new_empty((0, *known[1]), dtype=known[0])
    return gather_all_tensors(tensor, group)
