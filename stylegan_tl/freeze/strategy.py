"""What a strategy is, as data: selectors, where the weights come from, and how the rest behaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylegan_tl.freeze.adapt import Adapt
    from stylegan_tl.freeze.add_category import NewRows
    from stylegan_tl.freeze.bsa import Plan
    from stylegan_tl.freeze.fisher import FisherMask

__all__ = ["ORIGINS", "Policy", "Strategy", "selectors"]

ORIGINS = ("source", "scratch")
BATCH_NORM = ("eval", "train", "adapt")


@dataclass(frozen=True)
class Strategy:
    """What stays: `freeze` names it, or `train` names what does not stay of the networks it names.

    `init` says where G and D start: "source" or "scratch". `record` goes into the trial's record.
    `adapt` puts small trainable changes beside tensors that it freezes; they always train.
    `mask` decides while training which filters stay.
    `network` is what the networks are built with besides the source's arguments (a miner).
    `objective` plans what replaces the adversarial losses; D rests.
    `new_classes` says how classes start that the source does not have (see `source/classes.py`);
    `adds_classes` that there must be some, beside all of the source's.
    """

    freeze: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    init: Mapping[str, str] = field(default_factory=lambda: {"G": "source", "D": "source"})
    record: Mapping[str, Any] = field(default_factory=dict)
    adapt: tuple[Adapt, ...] = ()
    mask: FisherMask | NewRows | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    objective: Plan | None = None
    new_classes: str | int = "mean"
    adds_classes: bool = False


@dataclass(frozen=True)
class Policy:
    """How the model behaves under a strategy; part of its record.

    frozen_bn: batch normalisation whose scale and shift are frozen normalises by the source's
    running statistics and keeps them ("eval"), normalises by the batch and keeps them ("train"),
    or normalises by the batch and lets them follow the target ("adapt": AdaBN, Li et al. 2016).
    lr: selector -> factor on the learning rate of what it selects. path_length: False turns the
    path length regularisation of a StyleGAN2 off (FreezeG), None leaves the model's own setting.
    """

    frozen_bn: str = "eval"
    lr: Mapping[str, float] = field(default_factory=dict)
    path_length: bool | None = None

    def __post_init__(self) -> None:
        if self.frozen_bn not in BATCH_NORM:
            raise ValueError(
                f"freeze.policy.frozen_bn={self.frozen_bn}: use one of {', '.join(BATCH_NORM)}"
            )
        for selector, factor in self.lr.items():
            if not isinstance(factor, int | float) or not factor > 0:
                raise ValueError(
                    f"freeze.policy.lr.{selector}={factor}: use a factor above 0, or freeze it"
                )


def selectors(freeze: Sequence[str] = (), train: Sequence[str] = ()) -> Strategy:
    """A strategy of the user's own, in YAML alone: a list of selectors (`freeze/selectors.py`).

    `freeze` names what stays. Or `train` names what moves; the rest of the networks that it names
    stays. Raises ValueError if neither or both are given.
    """
    if bool(freeze) == bool(train):
        raise ValueError("freeze=selectors: give either freeze.freeze=[…] or freeze.train=[…]")
    return Strategy(freeze=tuple(freeze), train=tuple(train))
