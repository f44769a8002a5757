"""What processes that train one model together tell each other. Alone, every function is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

__all__ = ["agree", "average_gradients", "from_first", "largest", "mean", "ranks"]


def ranks() -> tuple[int, int]:
    """How many processes work together, and which of them this is."""
    together = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_world_size(), distributed.get_rank()) if together else (1, 0)


def from_first(make: Callable[[], Any]) -> Any:
    """What `make` returns on the first rank, on all; a failure there fails everywhere."""
    together, rank = ranks()
    if together == 1:
        return make()
    answer: list[Any] = [None, None]
    if rank == 0:
        try:
            answer[0] = make()
        except Exception as error:  # the other ranks must not wait for ever
            answer[1] = error
    distributed.broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over all processes: what the whole batch gives.

    All processes must have gradients of the same parameters.
    """
    together, _ = ranks()
    if together == 1:
        return
    for some in _by_kind([p.grad for p in parameters if p.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in some])
        distributed.all_reduce(flat)
        _scatter(flat / together, some)


@torch.no_grad()
def agree(tensors: Iterable[Tensor]) -> None:
    """Replace floating-point tensors by their means over all processes.

    What is equal everywhere stays as it is to the bit: the mean is that of the differences.
    """
    together, _ = ranks()
    if together == 1:
        return
    for some in _by_kind([t for t in tensors if t.is_floating_point() and t.numel()]):
        flat = torch.cat([tensor.reshape(-1) for tensor in some])
        first = flat.clone()
        distributed.broadcast(first, 0)
        difference = flat - first
        distributed.all_reduce(difference)
        _scatter(first + difference / together, some)


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor of no gradient over all processes."""
    together, _ = ranks()
    if together == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / together


def largest(number: int) -> int:
    """The largest of the numbers of all processes; no device waits for it."""
    if ranks()[0] == 1:
        return number
    found = torch.tensor(number)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def _by_kind(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Tensors of one dtype and device together, in their order."""
    kinds: dict[tuple, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())


def _scatter(flat: Tensor, into: list[Tensor]) -> None:
    parts = flat.split([tensor.numel() for tensor in into])
    for tensor, part in zip(into, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
