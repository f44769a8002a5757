"""How far parameters are from where they began: ‖after − before‖ / ‖before‖ per group (L2).

What a transfer changed and what it left (Mo et al. 2020 and Li et al. 2020 compare layers so).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["relative_change"]


@torch.no_grad()
def relative_change(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    groups: Mapping[str, Sequence[str]],
) -> dict[str, float | None]:
    """‖after − before‖ / ‖before‖ of each group of tensors, sums in float64 where `after` lies.

    `groups` names the tensors, so buffers are left out by not naming them; groups may overlap, and
    a tensor is read once. None for a group of norm zero before: nothing is relative to it. A change
    that is not a number stays NaN. ValueError for a name or a shape that does not fit.
    """
    names = sorted({name for group in groups.values() for name in group})
    _check(before, after, names)
    squares = {name: _squares(before[name], after[name]) for name in names}
    sums = {
        group: torch.stack([squares[name] for name in dict.fromkeys(own)]).sum(0).tolist()
        for group, own in groups.items()
        if own
    }
    return {group: (moved / norm) ** 0.5 if norm else None for group, (moved, norm) in sums.items()}


def _squares(before: Tensor, after: Tensor) -> Tensor:
    """‖after − before‖² and ‖before‖²: float64 [2]."""
    before = before.to(after.device, torch.float64)
    return torch.stack([(after.double() - before).square().sum(), before.square().sum()])


def _check(before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: Sequence[str]) -> None:
    for name in names:
        if name not in before or name not in after:
            where = "before" if name not in before else "after"
            raise ValueError(f"{name} is in a group, but not among the tensors {where}")
        if before[name].shape != after[name].shape:
            shapes = f"{tuple(before[name].shape)} before, {tuple(after[name].shape)} after"
            raise ValueError(f"{name} has the shape {shapes}")
