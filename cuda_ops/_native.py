"""Calling the kernels: which tensors they take, pointers, launches, torch.library.

An operator has up to three implementations: the CPU kernel, the CUDA kernel, and the reference that
runs where neither takes the tensors. With `STYLEGAN_TL_KERNELS=emulate` the CUDA kernels serve CPU
tensors, compiled for the CPU (csrc/emulator.h).
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from cuda_ops.compile import cpu_kernels, cuda_kernels, emulated_kernels, emulating

__all__ = ["DTYPES", "channels_last", "launch", "library", "pointer", "register", "use_kernel"]

library = torch.library.Library("cuda_ops", "DEF")
"""The operators of this package, as `torch.ops.cuda_ops.*`."""

DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
"""The codes of element types, as in csrc/device.cuh."""


def use_kernel(
    impl: str | None,
    *tensors: Tensor | None,
    cpu: Callable[[int], bool] | bool,
    cuda: bool,
    takes: str,
) -> bool:
    """Say whether an operator runs its kernel on these tensors; if not, its reference does.

    `cpu`, or `cpu(lanes)` with the floats of a vector register, says whether the CPU kernel takes
    them (only float32 CPU tensors are asked about), `cuda` whether the CUDA kernel does; `impl` is
    None (the fastest there is), "ref", "cpu" or "cuda". Raises ValueError for another `impl`, and
    if the kernel asked for does not take the tensors or is not there: `takes` says what it takes.
    """
    if impl not in (None, "ref", "cpu", "cuda"):
        raise ValueError(f"impl={impl!r} is unknown; allowed: None, 'ref', 'cpu', 'cuda'")
    if impl == "ref":
        return False
    given = [t for t in tensors if t is not None]
    kind = _kind(given)
    if kind in ("cuda", "emulated"):
        able = cuda and all(t.dtype in DTYPES for t in given)
        able = able and _there(kind, given[0].get_device())
    else:
        able = kind == "cpu" and all(t.dtype == torch.float32 for t in given) and _there("cpu", -1)
        able = able and (cpu if isinstance(cpu, bool) else cpu(_lanes()))
    asked = {"emulated": "cuda"}.get(kind, kind)
    if impl is not None and not (able and impl == asked):
        raise ValueError(f"impl={impl!r} takes {takes}; or its kernels are not available")
    return able


def _kind(tensors: list[Tensor]) -> str:
    """Return which kernels serve tensors of these devices: cpu, cuda, emulated or none."""
    devices = {t.device for t in tensors}
    if len(devices) > 1:
        return "none"  # torch's own operators say what is where
    (device,) = devices
    if device.type == "cpu":
        return "emulated" if emulating() else "cpu"
    return "cuda" if device.type == "cuda" else "none"


@torch.compiler.assume_constant_result
def _there(kind: str, index: int) -> bool:
    """Say whether there are kernels; on GPU `index` they are tried when first asked for."""
    kernels = {"cpu": cpu_kernels, "cuda": cuda_kernels, "emulated": emulated_kernels}[kind]
    if kind == "cuda" and not cuda_kernels.cache_info().currsize:
        with torch.cuda.device(index):
            return kernels() is not None
    return kernels() is not None


@torch.compiler.assume_constant_result
def _lanes() -> int:
    return cpu_kernels().winograd_lanes()


def channels_last(x: Tensor) -> Tensor:
    """Return `x [N, C, H, W]` laid out as `[N, H, W, C]`, whatever its strides of size-1 axes."""
    n, c, h, w = x.shape
    if x.stride() == (h * w * c, 1, w * c, c):
        return x
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def pointer(x: Tensor | None) -> ctypes.c_void_p:
    """Return the address of the data, or null."""
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def launch(name: str, like: Tensor, *arguments: object) -> None:
    """Launch the CUDA kernel `name` on the device and current stream of `like`, in its dtype.

    `arguments` are tensors (or None), ints (int64) and floats (double); the C function takes them
    in this order, then the code of the dtype, then the stream, and returns a cudaError_t. Raises
    RuntimeError if the launch failed.
    """
    places = {t.device for t in arguments if isinstance(t, Tensor)} - {torch.device("cpu")}
    if not places <= {like.device} or (like.device.type == "cpu" and not emulating()):
        raise RuntimeError(f"{name} takes tensors on {like.device}, but some are on {places}")
    values = [_c_value(a) for a in arguments]
    dtype = ctypes.c_int(DTYPES[like.dtype])
    if like.device.type == "cpu":
        kernels = emulated_kernels()
        code = getattr(kernels, name)(*values, dtype, None)
    else:
        kernels = cuda_kernels()
        with torch.cuda.device(like.device):
            stream = torch.cuda.current_stream(like.device).cuda_stream
            code = getattr(kernels, name)(*values, dtype, ctypes.c_void_p(stream))
    if code:
        reason = kernels.cuda_ops_error(code).decode()
        raise RuntimeError(f"{name} on {tuple(like.shape)} {like.dtype} failed: {reason}")


def _c_value(value: object) -> object:
    if value is None or isinstance(value, Tensor):
        return pointer(value)
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value)


def register(
    schema: str,
    *,
    fake: Callable,
    cpu: Callable | None = None,
    cuda: Callable | None = None,
    backward: Callable | None = None,
    setup: Callable | None = None,
) -> None:
    """Register an operator: its kernels, its shape propagation and its gradient.

    In `backward`, `ctx.needs_input_grad` is True only for the gradients that this very call of
    `torch.autograd` asks for: with `grad(y, x)` the weights cost nothing (see `_asked`).
    """
    name = schema.split("(")[0]
    library.define(schema)
    library.impl(name, lambda *args: (cuda if emulating() else cpu)(*args), "CPU")
    if cuda is not None:
        library.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"cuda_ops::{name}", fake, lib=library)
    if backward is not None:
        save, backward = _only_asked(setup, backward)
        torch.library.register_autograd(
            f"cuda_ops::{name}", backward, setup_context=save, lib=library
        )


def _only_asked(setup: Callable, backward: Callable) -> tuple[Callable, Callable]:
    """Let `backward` see in `ctx.needs_input_grad` what is asked for now, not what could be."""

    def save(ctx, inputs, output) -> None:
        ctx.tensors = [i for i, value in enumerate(inputs) if isinstance(value, Tensor)]
        setup(ctx, inputs, output)

    def run(ctx, *grads):
        possible = ctx.needs_input_grad
        try:
            ctx.needs_input_grad = _asked(ctx)
            return backward(ctx, *grads)
        finally:
            ctx.needs_input_grad = possible  # another backward may ask for more

    return save, run


def _asked(ctx) -> tuple[bool, ...]:
    """Return which inputs' gradients the running backward uses.

    R1 and path length take `grad(y, x)`. Nodes in C++ ask the engine's plan which of their outputs
    lead to x and leave out the others; Python's nodes are only told what requires grad, so that
    the gradients of all weights would be computed and dropped. So we ask the same plan.
    """
    asked = list(ctx.needs_input_grad)
    edges = getattr(ctx, "next_functions", ())  # one for each tensor among the inputs
    if len(edges) == len(ctx.tensors):
        for i, (node, _) in zip(ctx.tensors, edges, strict=True):
            asked[i] = asked[i] and _runs(node)
    return tuple(asked)


def _runs(node: torch.autograd.graph.Node | None) -> bool:
    """Say whether the running backward goes on to `node`; True where that is not known."""
    try:
        return torch._C._will_engine_execute_node(node)
    except (AttributeError, RuntimeError, TypeError):
        return True  # a leaf that `grad` was asked for raises RuntimeError
