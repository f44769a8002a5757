"""Add a category: a conditional model goes on with its classes and gets new ones.

What: the target holds the source's classes and more. Old classes keep their rows of every class
table, matched by name; a new one starts as the mean of the old, as one of them, or as drawn
(`init`). With `keep_rest` only the rows of new classes train: what the model makes of the old ones
stays as it was, to the bit. Otherwise everything trains on.
Why: GANGogh's users grew it genre by genre (hisnameislong 2019); a class near the new one is a
better start than noise, and the rest of the network already paints. New rows on a frozen generator
are the cBatchNorm-only transfer of Noguchi & Harada 2019 (arXiv:1904.01774) for one class.
When: a new category near the old ones. `init`: the nearest old class; mean where none is near.
Values: keep_rest for a few dozen images, else all. Costs: the old classes' images are read too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from stylegan_tl.freeze.selectors import NotApplicable
from stylegan_tl.freeze.strategy import Strategy
from stylegan_tl.networks.classes import class_axis

__all__ = ["NewRows", "add_category", "check_classes", "keep_old_rows"]


def add_category(init: str | int = "mean", keep_rest: bool = False) -> Strategy:
    """New classes start from `init`: mean, fresh, or a class of the source by name or number."""
    record = {"init_classes": init}
    if not keep_rest:
        return Strategy(new_classes=init, adds_classes=True, record=record)
    return Strategy(
        train=("G.embed?", "D.embed?"),  # a model without classes is told so by itself
        freeze=("G:mapping.embed.bias?", "D:mapping.embed.bias?"),  # of all classes
        new_classes=init,
        adds_classes=True,
        record=record,
        mask=NewRows(),
    )


class NewRows:
    """Takes gradients away from the rows of old classes."""

    def begin_batch(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Keep the average w still; which rows are new `model.new_classes` says."""
        if hasattr(model.G, "mapping"):
            model.G.mapping.eval()

    def before_step(self, model: nn.Module, network: str) -> None:
        """Of every class table."""
        keep_old_rows(model, network)


@torch.no_grad()
def keep_old_rows(model: nn.Module, network: str, names: Collection[str] | None = None) -> None:
    """Take gradients away from the rows of old classes, in the tensors `names`, or in all tables.

    Zero gradients leave a parameter where it is: Adam has no decay here.
    """
    for name, parameter in getattr(model, network).named_parameters():
        axis = class_axis(getattr(model, network), name)
        kept = names is None or f"{network}.{name}" in names
        if axis is None or parameter.grad is None or not kept:
            continue
        new = torch.zeros(parameter.shape[axis], device=parameter.device)
        new[list(model.new_classes)] = 1
        shape = [-1 if d == axis else 1 for d in range(parameter.ndim)]
        parameter.grad.mul_(new.view(shape))


def check_classes(model: nn.Module) -> None:
    """Raise NotApplicable for a model that has no classes to add to."""
    if not model.G.c_dim:
        raise NotApplicable(
            "freeze=add_category: this model's G has no classes; its source must have been trained "
            "on a dataset with one subfolder for each"
        )
