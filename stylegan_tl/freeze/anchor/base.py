"""Anchors share one frozen copy of the source's G and D, and look into both with the same eyes.

The copy is taken when the strategy is applied, before a checkpoint of the run is loaded. It is in
no state dict and in no optimizer: a run that resumes reads its source model again, and refuses one
of another sha256, so the copy is the same to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_tl.freeze.selectors import NotApplicable

__all__ = [
    "Anchor",
    "Source",
    "blocks",
    "features",
    "features_of",
    "needs_styles",
    "weighted",
]


@dataclass(frozen=True)
class Source:
    """The source's G and D, frozen."""

    G: nn.Module
    D: nn.Module

    @classmethod
    def of(cls, model: nn.Module) -> Source:
        """Copies of G and D as they are now."""
        frozen = (copy.deepcopy(x).requires_grad_(False) for x in (model.G, model.D))
        return cls(*frozen)

    def to(self, device: torch.device) -> None:
        """Move both, in place."""
        self.G.to(device)
        self.D.to(device)


class Anchor:
    """A penalty of `AdversarialModel.penalties` that compares with the source.

    `weight` is lambda in each anchor's equation. Subclasses give the losses; one that estimates
    something before training (EWC) keeps it in `state`, which the checkpoint carries.
    """

    name: str
    source: Source | None = None

    @property
    def networks(self) -> str:
        """Those that are compared: 'G', 'D' or 'GD'."""
        raise NotImplementedError

    def check(self, model: nn.Module) -> None:
        """Raise NotApplicable, saying why, if the anchor means nothing for this model."""

    def prepare(self, model: nn.Module) -> None:
        """Called once before training starts, on the model's device."""

    @property
    def state(self) -> dict[str, Any]:
        """What the checkpoint carries; tensors, numbers, dictionaries."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take `state` back from a checkpoint, before `prepare`."""

    def of_G(
        self, model: nn.Module, z: Tensor, c: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The weighted loss of G, scalar, or None."""
        return None

    def of_D(
        self, model: nn.Module, real: Tensor, c: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The weighted loss of D, scalar, or None."""
        return None


def weighted(anchor: str, **weights: float) -> None:
    """Raise ValueError unless every weight is a number from 0 and one is above."""
    for key, value in weights.items():
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"freeze.anchor.{anchor}.{key}={value}: use a number from 0")
    if not any(weights.values()):
        keys = " and ".join(f"freeze.anchor.{anchor}.{key}" for key in weights)
        raise ValueError(f"{keys}=0 anchors nothing; leave freeze/anchor={anchor} out instead")


def needs_styles(anchor: str, model: nn.Module, why: str) -> None:
    """Raise NotApplicable for a G without a synthesis network."""
    if not hasattr(model.G, "synthesis"):
        raise NotApplicable(
            f"freeze/anchor={anchor}: {why}, and this model's G has none; "
            "cdc, l2_sp and ewc serve every model"
        )


def blocks(network: nn.Module) -> dict[int, nn.Module]:
    """The modules at each resolution that give features, in the order they run.

    All blocks of a StyleGAN2's G, all but the last (an image) of a DCGAN's; of a D all but b4.
    """
    base = getattr(network, "synthesis", network)
    found = {r: getattr(base, f"b{r}") for r in base.resolutions}
    if hasattr(network, "z_dim") and base is network:
        del found[network.resolution]
    return found


def features(
    target: nn.Module, source: nn.Module, at: Sequence[int], *args: Any, **how: Any
) -> list[tuple[Any, Any]]:
    """What the blocks `at` these resolutions give in both networks for the same input.

    Of a synthesis block its features, or features and RGB. Of two networks that have not grown to
    the same resolution only what both have. Random noise is drawn alike in both. Batch
    normalisation is by the same rule in both, and moves no running statistics. Gradients reach the
    target alone.
    """
    generator = how.pop("generator", None)
    modes = {name: module.training for name, module in target.named_modules()}
    for name, module in source.named_modules():
        module.training = modes[name]
    both: list[dict[int, Any]] = []
    for network, gradient in ((target, nullcontext()), (source, torch.no_grad())):
        draw = {} if generator is None else {"generator": generator.clone_state()}
        with gradient, _statistics_kept(network), _watched(network, at) as seen:
            network(*args, **how, **draw)
        both.append(seen)
    return [(y, both[1][r]) for r, y in both[0].items() if r in both[1]]


def features_of(output: Any) -> Tensor:
    """The features in what a block gives."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _watched(network: nn.Module, at: Sequence[int]) -> Iterator[dict[int, Any]]:
    """The outputs of the blocks `at` these resolutions, as far as they run."""
    seen: dict[int, Any] = {}

    def keep(resolution: int) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: seen.update({resolution: output})

    chosen = [(r, block) for r, block in blocks(network).items() if r in at]
    handles = [block.register_forward_hook(keep(r)) for r, block in chosen]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch normalisation normalises as its mode says and leaves its running statistics."""
    norms = [
        m
        for m in network.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
