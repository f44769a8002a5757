"""Moving and colouring whole images: blit, affine warp and colour matrix in one operation.

`y = M (D L U B x) + t`: B copies pixels to other places, U and D are two-fold wavelet resampling, L
looks up an affine map bilinearly, and M, t mix the colours of each pixel (Karras et al. 2020,
"Training GANs with limited data", appendix B). Linear in x, so this and its adjoint are each
other's derivatives; the parameters have no gradient.
"""

import functools
from ctypes import c_int64

import torch
from torch import Tensor

from cuda_ops._native import launch, pointer, register, use_kernel
from cuda_ops.compile import cpu_kernels, emulating
from cuda_ops.warp_ref import REACH, SYM6, sym6_centre, warp_ref

__all__ = ["beside", "warp"]

_WORKSPACE = 2**25  # bytes of fine samples at once: they stay in the GPU's cache


def warp(
    images: Tensor,
    place: Tensor | None = None,
    source: Tensor | None = None,
    colour: Tensor | None = None,
    *,
    impl: str | None = None,
) -> Tensor:
    """Blit, warp and colour `images [N, C, H, H]`, each by its own parameters; None: not at all.

    `place` int [N, 4] is flipped (0 or 1), quarter turns counter-clockwise, shift right, shift
    down, in this order of application (`warp_ref.blit`); `source` [N, 3, 3] maps output to input
    pixels about the image centre (`warp_ref.affine_warp`); `colour` [N, 4, 4] acts on (r, g, b, 1)
    and asks for C = 3. An image whose parameters do nothing stays as it is to the bit; parameters
    may live on the host. `impl` is None (the fastest there is), "ref", "cpu" (float32, with
    `source`) or "cuda". Differentiable to any order in the images.
    Raises ValueError for images that are not square and for parameters of other shapes.
    """
    _validate(images, place, source, colour)
    takes = "CUDA tensors, or float32 and `source` on the CPU"
    # On the CPU copies and colours alone are not faster than the reference.
    if not use_kernel(impl, images, cpu=source is not None, cuda=True, takes=takes):
        return warp_ref(images, place, source, colour)
    place = beside(images, place, torch.int32)
    source, colour = (beside(images, t, torch.float64) for t in (source, colour))
    return torch.ops.cuda_ops.warp(images, place, source, colour, False)


def beside(images: Tensor, parameter: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Bring a parameter to the device of the images; the host does not wait for a GPU."""
    if parameter is None:
        return None
    return parameter.to(images.device, dtype, non_blocking=images.is_cuda)


def _validate(
    images: Tensor, place: Tensor | None, source: Tensor | None, colour: Tensor | None
) -> None:
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"warp turns images, so they must be square; got {[*images.shape]}")
    if colour is not None and images.shape[1] != 3:
        raise ValueError(f"colour mixes 3 channels; the images have {images.shape[1]}")
    wanted = {"place": (place, (4,)), "source": (source, (3, 3)), "colour": (colour, (4, 4))}
    for name, (given, shape) in wanted.items():
        if given is not None and tuple(given.shape) != (len(images), *shape):
            raise ValueError(
                f"{name} has shape {[*given.shape]}; these images need {[len(images), *shape]}"
            )


def _run(
    name: str,
    x: Tensor,
    place: Tensor | None,
    source: Tensor | None,
    colour: Tensor | None,
    linear: tuple[bool, ...],
) -> Tensor:
    y = torch.empty_like(x)
    n, c, size, _ = x.shape
    parameters = [None if t is None else t.contiguous() for t in (place, source, colour)]
    strides = [(c_int64 * 4)(*t.stride()) for t in (x, y)]
    if x.numel() == 0:
        return y
    if x.device.type == "cpu" and not emulating():
        getattr(cpu_kernels(), name + "_cpu")(
            *map(pointer, (x, *parameters, y, _taps())), *strides, *map(c_int64, (n, c, size)),
            *linear, torch.get_num_threads(),
        )  # fmt: skip
        return y
    math = torch.float64 if x.dtype == torch.float64 else torch.float32
    chunks, fine, wide = -(-c // 4), 2 * size + 2 * REACH, size + 2 * REACH
    area = 4 * chunks * fine * fine
    group = _WORKSPACE // (area * math.itemsize) if source is not None else n
    group = max(1, min(n, group, 65535))
    buffers = [area] if name == "warp" else [area, 4 * chunks * wide * wide]
    space = [x.new_empty(group * b if source is not None else 0, dtype=math) for b in buffers]
    space = [s if source is not None else None for s in space]
    shapes = [torch.tensor(t.stride()) for t in (x, y)]
    launch(name, x, x, *parameters, *space, y, _taps(), *shapes, n, c, size, group, *linear)
    return y


@functools.cache
def _taps() -> Tensor:
    """Return the filter and its centre, on the host."""
    return torch.tensor([*SYM6, sym6_centre()], dtype=torch.float64)


def _warp(
    x: Tensor, place: Tensor | None, source: Tensor | None, colour: Tensor | None, linear: bool
) -> Tensor:
    return _run("warp", x, place, source, colour, (linear,))


def _adjoint(
    g: Tensor, place: Tensor | None, source: Tensor | None, colour: Tensor | None
) -> Tensor:
    return _run("warp_adjoint", g, place, source, colour, ())


def _fake(x: Tensor, *rest) -> Tensor:
    return torch.empty_like(x)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[1:4])


def _backward(ctx, g: Tensor) -> tuple:
    return torch.ops.cuda_ops.warp_adjoint(g, *ctx.saved_tensors), None, None, None, None


def _adjoint_backward(ctx, g: Tensor) -> tuple:
    return torch.ops.cuda_ops.warp(g, *ctx.saved_tensors, True), None, None, None


register(
    "warp(Tensor x, Tensor? place, Tensor? source, Tensor? colour, bool linear) -> Tensor",
    cpu=_warp, cuda=_warp, fake=_fake, backward=_backward, setup=_save,
)  # fmt: skip
register(
    "warp_adjoint(Tensor g, Tensor? place, Tensor? source, Tensor? colour) -> Tensor",
    cpu=_adjoint, cuda=_adjoint, fake=_fake, backward=_adjoint_backward, setup=_save,
)  # fmt: skip
