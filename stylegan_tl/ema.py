"""Exponential moving average of the generator: half-life in kimg, ramp-up from the start."""

import torch
from torch import Tensor, nn

__all__ = ["half_life_decay", "update_ema"]


def half_life_decay(
    batch: int, half_life_kimg: float, nimg: int, rampup: float | None = None
) -> float:
    """The beta that one batch of images calls for: 0.5 ** (batch / half-life in images).

    `rampup` caps the half-life at that fraction of the images seen so far, so that the average
    forgets the untrained weights (Karras et al. 2020, ADA: 0.05). A half-life of zero, which is
    also what a ramp-up gives at `nimg` = 0, yields beta = 0: the average is the source itself.
    """
    half_life = half_life_kimg * 1000
    if rampup is not None:
        half_life = min(half_life, nimg * rampup)
    if half_life < 0:
        raise ValueError(
            f"half_life_decay: half_life_kimg={half_life_kimg}, nimg={nimg}, rampup={rampup} give "
            "a negative half-life; all three must be 0 or more"
        )
    return 0.5 ** (batch / half_life) if half_life else 0.0


@torch.no_grad()
def update_ema(target: nn.Module, source: nn.Module, beta: float) -> None:
    """In place: parameters of `target` become beta target + (1 - beta) source, buffers a copy.

    Parameters that are equal in both stay equal to the bit, so what is frozen stays frozen.
    """
    averaged, current = _matched("parameters", target, source)
    if averaged:
        torch._foreach_lerp_(averaged, current, 1 - beta)
    copies, buffers = _matched("buffers", target, source)
    for copy, buffer in zip(copies, buffers, strict=True):
        copy.copy_(buffer)


def _matched(kind: str, target: nn.Module, source: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of both modules in the same order; a difference in names is an error."""
    ours = dict(getattr(target, f"named_{kind}")())
    theirs = dict(getattr(source, f"named_{kind}")())
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"update_ema: the {kind} of the average and of its source differ in "
            f"{sorted(ours.keys() ^ theirs.keys())}; build the average as a copy of the source"
        )
    return list(ours.values()), [theirs[name] for name in ours]
