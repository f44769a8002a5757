"""Putting a small trainable change on frozen tensors, in G, G_ema and D alike."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from stylegan_tl.freeze.groups import Part, parts_of
from stylegan_tl.freeze.selectors import select
from stylegan_tl.networks.adapters import is_adapter, plain_name

__all__ = ["Adapt", "adapted", "adapter_names", "register"]


@dataclass(frozen=True)
class Adapt:
    """The weights that the selector `on` means stay; `how(layer, generator)` trains instead.

    `how` builds the parametrisation for the layer's `tensor`. It trains from `from_kimg` on.
    """

    on: str
    how: Callable[[nn.Module, torch.Generator], nn.Module]
    tensor: str = "weight"
    from_kimg: float = 0.0


def adapted(parts: Sequence[Part], adapt: Adapt) -> list[Part]:
    """The tensors that `adapt` freezes, whether or not the model has its adapters already."""
    return [p for p in select(parts, [adapt.on]) if _is_meant(p, adapt)]


def register(model: nn.Module, adapts: Sequence[Adapt]) -> None:
    """Put the adapters on G, G_ema and D, unless they are there; D and G draw their own start."""
    for adapt in adapts:
        for part in adapted(parts_of(model), adapt):
            owner, tensor = plain_name(part.name).rsplit(".", 1)
            layer = model.get_submodule(owner)
            if parametrize.is_parametrized(layer, tensor):
                continue
            adapter = adapt.how(layer, _generator(model.seed, part.name))
            if part.network == "G":
                average = model.get_submodule(owner.replace("G.", "G_ema.", 1))
                _put(average, tensor, copy.deepcopy(adapter).requires_grad_(False))
            _put(layer, tensor, adapter)


def adapter_names(model: nn.Module, adapt: Adapt) -> list[str]:
    """The parameters that train in place of what `adapt` freezes; the model has its adapters."""
    meant = {plain_name(p.name) for p in adapted(parts_of(model), adapt)}
    names = (name for name, _ in model.named_parameters())
    return [name for name in names if is_adapter(name) and plain_name(name) in meant]


def _is_meant(part: Part, adapt: Adapt) -> bool:
    name = plain_name(part.name).rpartition(".")[2]
    return part.is_parameter and name == adapt.tensor and "adapter" not in part.groups


def _put(layer: nn.Module, tensor: str, adapter: nn.Module) -> None:
    parametrize.register_parametrization(layer, tensor, adapter.train(layer.training))


def _generator(seed: int, name: str) -> torch.Generator:
    """The same for every process, and for a tensor whatever else is adapted."""
    state = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) & (2**63 - 1))
