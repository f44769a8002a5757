"""Calling the CPU kernels: which tensors they take, pointers, registration with torch.library."""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from cuda_ops.compile import cpu_kernels

__all__ = ["channels_last", "library", "native", "pointer", "register"]

library = torch.library.Library("cuda_ops", "DEF")
"""The operators of this package, as `torch.ops.cuda_ops.*`."""


def native(*tensors: Tensor | None, channels: int = 0) -> bool:
    """Say whether the CPU kernels are there and take these tensors with so many channels."""
    plain = all(t is None or (t.device.type == "cpu" and t.dtype == torch.float32) for t in tensors)
    if not plain or channels % 8:
        return False
    kernels = cpu_kernels()
    return kernels is not None and channels % kernels.winograd_lanes() == 0


def channels_last(x: Tensor) -> Tensor:
    """Return `x [N, C, H, W]` laid out as `[N, H, W, C]`, whatever its strides of size-1 axes."""
    n, c, h, w = x.shape
    if x.stride() == (h * w * c, 1, w * c, c):
        return x
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """Return the address of the data, or null."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def register(
    schema: str, cpu: Callable, fake: Callable, backward: Callable | None, setup: Callable | None
) -> None:
    """Register an operator: CPU kernel, shape propagation and gradient."""
    name = schema.split("(")[0]
    library.define(schema)
    library.impl(name, cpu, "CPU")
    torch.library.register_fake(f"cuda_ops::{name}", fake, lib=library)
    if backward is not None:
        torch.library.register_autograd(
            f"cuda_ops::{name}", backward, setup_context=setup, lib=library
        )
