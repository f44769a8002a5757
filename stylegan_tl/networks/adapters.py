"""Frozen weights plus a small trainable change, for `torch.nn.utils.parametrize`.

Each class is the identity until it is trained, and its `merge` is the whole formula. The original
stays in the state dict bit for bit: `fold` merges the changes of a state dict into plain tensors,
`unfold` drops them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "FilterModulation",
    "KernelModulation",
    "LowRank",
    "MaskedFilters",
    "Offset",
    "SingularValues",
    "fold",
    "is_adapter",
    "plain_name",
    "unfold",
]

_NAME = re.compile(r"(?P<module>.*\.)?parametrizations\.(?P<tensor>\w+)\.(?P<own>original|0\.\w+)")


class LowRank(nn.Module):
    """W + up down, of rank `rank`, on W as a matrix [d0, rest] (LoRA: Hu et al. 2021, eq. 3)."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        if not 1 <= rank <= min(rows, columns):
            raise ValueError(f"freeze.rank={rank}: a {rows} x {columns} matrix takes 1 to its size")
        # of variance 1 / rank, so that a step changes W by about the learning rate at every rank
        self.down = _normal((rank, columns), weight, generator, rank**-0.5)
        self.up = _zeros((rows, rank), weight)

    @staticmethod
    def merge(weight: Tensor, *, up: Tensor, down: Tensor) -> Tensor:
        """W + up down."""
        return weight + (up @ down).view_as(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in use."""
        return self.merge(weight, up=self.up, down=self.down)


class KernelModulation(nn.Module):
    """W (1 + u v^T): each k x k kernel is scaled, by a matrix of rank one (AdAM, KML)."""

    def __init__(self, weight: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        ones = [1] * (weight.ndim - 2)
        self.u = _zeros((weight.shape[0], 1, *ones), weight)
        self.v = _normal((1, weight.shape[1], *ones), weight, generator)

    @staticmethod
    def merge(weight: Tensor, *, u: Tensor, v: Tensor) -> Tensor:
        """W (1 + u v^T)."""
        return weight * (1 + u * v)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in use."""
        return self.merge(weight, u=self.u, v=self.v)


class FilterModulation(nn.Module):
    """gamma W + beta per pair of filters or per filter (AdaFM: Zhao et al. 2020).

    gamma is stored less one. `filters` is the dimension of W that counts the filters, None for
    pairs of input and output.
    """

    def __init__(self, weight: Tensor, filters: int | None) -> None:
        super().__init__()
        shape = [1] * weight.ndim
        for dim in (0, 1) if filters is None else (filters,):
            shape[dim] = weight.shape[dim]
        self.gamma, self.beta = _zeros(shape, weight), _zeros(shape, weight)

    @staticmethod
    def merge(weight: Tensor, *, gamma: Tensor, beta: Tensor) -> Tensor:
        """(1 + gamma) W + beta."""
        return weight * (1 + gamma) + beta

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in use."""
        return self.merge(weight, gamma=self.gamma, beta=self.beta)


class Offset(nn.Module):
    """b + offset: on the bias of an affine layer, a direction in StyleSpace."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.offset = _zeros(bias.shape, bias)

    @staticmethod
    def merge(bias: Tensor, *, offset: Tensor) -> Tensor:
        """b + offset."""
        return bias + offset

    def forward(self, bias: Tensor) -> Tensor:
        """The bias in use."""
        return self.merge(bias, offset=self.offset)


class SingularValues(nn.Module):
    """U ((1 + delta) S) V^T, on W as a matrix [d0, rest]: singular values alone (FSGAN).

    `left` is U S and `right` is V^T, buffers; W stays beside them, so zero deltas give W itself.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        u, s, vt = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
        self.register_buffer("left", u * s)
        self.register_buffer("right", vt.contiguous())
        self.delta = _zeros(s.shape, weight)

    @staticmethod
    def merge(weight: Tensor, *, left: Tensor, right: Tensor, delta: Tensor) -> Tensor:
        """W + U (delta S) V^T."""
        return weight + ((left * delta) @ right).view_as(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in use."""
        return self.merge(weight, left=self.left, right=self.right, delta=self.delta)


class MaskedFilters(nn.Module):
    """keep (W (1 + u v^T) + delta): where `mask` is 1 a filter is modulated, else delta trains.

    `filters` is the dimension of W that counts the filters. `fisher`, `mask` and `keep` are one
    number per filter, buffers that somebody else sets (freeze/fisher.py); without `modulate`
    there are no u and v.
    """

    def __init__(
        self, weight: Tensor, filters: int, modulate: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        own, other = [1] * weight.ndim, [1] * weight.ndim
        own[filters], other[1 - filters] = weight.shape[filters], weight.shape[1 - filters]
        self.u = _zeros(own, weight) if modulate else None
        self.v = _normal(tuple(other), weight, generator) if modulate else None
        self.delta = _zeros(weight.shape, weight)
        ones = torch.ones(own, dtype=weight.dtype, device=weight.device)
        for name, buffer in (("fisher", 0 * ones), ("mask", ones), ("keep", ones.clone())):
            self.register_buffer(name, buffer)

    @staticmethod
    def merge(
        weight: Tensor,
        *,
        delta: Tensor,
        keep: Tensor,
        u: Tensor | None = None,
        v: Tensor | None = None,
        **_: Tensor,
    ) -> Tensor:
        """keep (W (1 + u v^T) + delta)."""
        modulated = weight if u is None else weight * (1 + u * v)
        return keep * (modulated + delta)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in use."""
        return self.merge(weight, delta=self.delta, keep=self.keep, u=self.u, v=self.v)


# what a state dict tells them by: the names of their tensors
_KINDS: tuple[tuple[frozenset[str], Any], ...] = (
    (frozenset({"up", "down"}), LowRank),
    (frozenset({"u", "v"}), KernelModulation),
    (frozenset({"gamma", "beta"}), FilterModulation),
    (frozenset({"offset"}), Offset),
    (frozenset({"left", "right", "delta"}), SingularValues),
    (frozenset({"delta", "keep", "mask", "fisher"}), MaskedFilters),
    (frozenset({"delta", "keep", "mask", "fisher", "u", "v"}), MaskedFilters),
)


def plain_name(name: str) -> str:
    """The name that a tensor, or the tensor that it adapts, has without any adapter."""
    match = _NAME.fullmatch(name)
    return f"{match['module'] or ''}{match['tensor']}" if match else name


def is_adapter(name: str) -> bool:
    """Whether the name is that of an adapter's tensor, and not of a network's own."""
    match = _NAME.fullmatch(name)
    return match is not None and match["own"] != "original"


def fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with every change merged into the tensor that it changes; plain names.

    Without adapters it is the same. Raises ValueError for an adapter that is not known.
    """
    changes: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if is_adapter(name):
            changes.setdefault(plain_name(name), {})[name.rpartition(".")[2]] = tensor
    return {k: _merged(k, v, changes.get(k)) for k, v in unfold(state).items()}


def unfold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as it was before it was adapted: the frozen tensors to the bit."""
    return {plain_name(k): v for k, v in state.items() if not is_adapter(k)}


def _merged(name: str, tensor: Tensor, change: dict[str, Tensor] | None) -> Tensor:
    if change is None:
        return tensor
    for names, kind in _KINDS:
        if names == change.keys():
            return kind.merge(tensor, **change)
    raise ValueError(f"{name}: no adapter has the tensors {', '.join(sorted(change))}")


def _zeros(shape: Any, like: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=like.dtype, device=like.device))


def _normal(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator, std: float = 1.0
) -> nn.Parameter:
    """Drawn on the CPU, so that every device starts from the same numbers."""
    return nn.Parameter((torch.randn(shape, generator=generator) * std).to(like))
