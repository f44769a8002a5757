"""Colour jitter, translation and cutout of whole images in one operation.

`y(p) = f(x)(p - shift)` inside the image and outside the hole, else 0, with
`f(x) = mean(x') + contrast (x' - mean(x'))`, `x'` saturated about its grey and brightened: the
transformations of DiffAugment (Zhao et al. 2020). Linear in x but for the brightness, so this and
its adjoint are each other's derivatives; the parameters have no gradient.
"""

from ctypes import c_int64

import torch
from torch import Tensor

from cuda_ops._native import launch, pointer, register, use_kernel
from cuda_ops.compile import cpu_kernels, emulating

__all__ = ["cutout", "diffaugment"]

_PART = 4096  # pixels of a partial sum, as in csrc/diffaugment.cuh


def diffaugment(
    images: Tensor,
    factors: Tensor | None = None,
    shift: Tensor | None = None,
    hole: Tensor | None = None,
    *,
    impl: str | None = None,
) -> Tensor:
    """Colour, move and cut `images [N, C, H, W]`, each by its own parameters; None: not at all.

    `factors` [N, 3] are brightness (added), saturation and contrast (multiplied); `shift` int
    [N, 2] goes down and right, zeros follow; `hole` [N, 3] is `cutout`'s centre x, y and half side.
    `impl` is None (the fastest there is), "ref", "cpu" (float32) or "cuda". Differentiable to any
    order in the images. Raises ValueError for parameters of other shapes.
    """
    _validate(images, factors, shift, hole)
    takes = "CUDA tensors, or float32 on the CPU"
    if not use_kernel(impl, images, cpu=True, cuda=True, takes=takes):
        return _diffaugment_ref(images, factors, shift, hole)
    device = images.device
    math = torch.float64 if images.dtype == torch.float64 else torch.float32
    factors = None if factors is None else factors.to(device, math)
    shift = None if shift is None else shift.to(device, torch.int32)
    hole = None if hole is None else hole.to(device, torch.float32)
    return torch.ops.cuda_ops.diffaugment(images, factors, shift, hole, False, False)


def cutout(images: Tensor, centre: Tensor, half: Tensor) -> Tensor:
    """Set the box within `half` [N] of `centre` [N, 2] to zero, mid-grey; unit: the image's side.

    `images` [N, C, H, W]; `centre` is (x, y) from the upper left corner. A pixel is in the box when
    its centre is; a `half` of zero cuts nothing.
    """
    inside = []
    for axis, length in enumerate((images.shape[3], images.shape[2])):
        at = (torch.arange(length, device=images.device) + 0.5) / length
        inside.append((at - centre[:, axis, None]).abs() < half[:, None])
    box = inside[1][:, :, None] & inside[0][:, None, :]
    return images.masked_fill(box[:, None], 0)


def _diffaugment_ref(
    images: Tensor, factors: Tensor | None, shift: Tensor | None, hole: Tensor | None
) -> Tensor:
    if factors is not None:
        images = _colour(images, factors.to(images))
    if shift is not None:
        images = _translate(images, shift.to(images.device).long())
    if hole is not None:
        hole = hole.to(images.device, torch.float32)
        images = cutout(images, hole[:, :2], hole[:, 2])
    return images


def _colour(images: Tensor, factors: Tensor) -> Tensor:
    brightness, saturation, contrast = factors.view(len(images), 3, 1, 1, 1).unbind(1)
    images = images + brightness
    images = images.mean(1, keepdim=True).lerp(images, saturation)
    return images.mean((1, 2, 3), keepdim=True).lerp(images, contrast)


def _translate(images: Tensor, shift: Tensor) -> Tensor:
    height, width = images.shape[2:]
    row = (torch.arange(height, device=images.device) - shift[:, :1])[:, :, None]
    column = (torch.arange(width, device=images.device) - shift[:, 1:])[:, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    source = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    flat = images.flatten(2)
    moved = flat.gather(2, source.flatten(1)[:, None].expand_as(flat)).view_as(images)
    return moved.masked_fill(~inside[:, None], 0)


def _validate(
    images: Tensor, factors: Tensor | None, shift: Tensor | None, hole: Tensor | None
) -> None:
    if images.ndim != 4:
        raise ValueError(f"images are [N, C, H, W]; got {[*images.shape]}")
    wanted = {"factors": (factors, 3), "shift": (shift, 2), "hole": (hole, 3)}
    for name, (given, count) in wanted.items():
        if given is not None and tuple(given.shape) != (len(images), count):
            raise ValueError(
                f"{name} has shape {[*given.shape]}; these images need {[len(images), count]}"
            )


def _diffaugment(
    x: Tensor,
    factors: Tensor | None,
    shift: Tensor | None,
    hole: Tensor | None,
    linear: bool,
    adjoint: bool,
) -> Tensor:
    """Run the kernel; `linear` leaves out the brightness, `adjoint` implies it."""
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    n, c, h, w = x.shape
    linear = linear or adjoint
    factors, shift, hole = (None if t is None else t.contiguous() for t in (factors, shift, hole))
    strides = (*x.stride(), *y.stride())
    if x.device.type == "cpu" and not emulating():
        cpu_kernels().diffaugment_cpu(
            *map(pointer, (x, factors, shift, hole, y)), (c_int64 * 8)(*strides),
            *map(c_int64, (n, c, h, w)), linear, adjoint, torch.get_num_threads(),
        )  # fmt: skip
        return y
    parts = -(-h * w // _PART)
    sums = None if factors is None else factors.new_empty(n, parts)
    strides = torch.tensor(strides)
    launch(
        "diffaugment", x, x, factors, shift, hole, sums, y, strides, n, c, h, w, parts, linear,
        adjoint,
    )  # fmt: skip
    return y


def _fake(x: Tensor, *rest) -> Tensor:
    return torch.empty_like(x)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[1:4])
    ctx.adjoint = inputs[5]


def _backward(ctx, g: Tensor) -> tuple:
    dx = torch.ops.cuda_ops.diffaugment(g, *ctx.saved_tensors, True, not ctx.adjoint)
    return dx, *[None] * 5


register(
    "diffaugment(Tensor x, Tensor? factors, Tensor? shift, Tensor? hole, bool linear, "
    "bool adjoint) -> Tensor",
    cpu=_diffaugment, cuda=_diffaugment, fake=_fake, backward=_backward, setup=_save,
)  # fmt: skip
