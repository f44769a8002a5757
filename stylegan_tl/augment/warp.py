"""Moving pixels: exact blits, one anti-aliased affine warp with reflected borders, cutout."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_tl.augment.wavelets import along_axes, reflect, resample_matrices

__all__ = ["affine_warp", "blit", "cutout", "rotation", "scaling", "translation"]


def blit(images: Tensor, flip: Tensor, quarter_turns: Tensor, shift: Tensor) -> Tensor:
    """Copy pixels unblended: x-flip, then turns by 90 degrees, then whole-pixel translation.

    `images` [N, C, H, H]; `flip` bool [N]; `quarter_turns` int [N], counter-clockwise;
    `shift` int [N, 2], (x, y) to the right and down. Uncovered pixels are reflections.
    """
    size = images.shape[-1]
    pixel = torch.arange(size, device=images.device)
    x, y = (reflect(pixel - shift[:, axis, None], size) for axis in (0, 1))
    turned = (quarter_turns % 2 == 1)[:, None]
    row_flip = (quarter_turns % 4 >= 2)[:, None]
    column_flip = (((quarter_turns + 1) % 4 >= 2) ^ flip)[:, None]
    row, column = torch.where(turned, x, y), torch.where(turned, y, x)
    row = torch.where(row_flip, size - 1 - row, row)
    column = torch.where(column_flip, size - 1 - column, column)
    upright = row[:, :, None] * size + column[:, None, :]
    lying = row[:, None, :] * size + column[:, :, None]
    source = torch.where(turned[..., None], lying, upright).flatten(1)
    flat = images.flatten(2)
    return flat.gather(2, source[:, None].expand_as(flat)).view_as(images)


def affine_warp(images: Tensor, source: Tensor) -> Tensor:
    """Output pixel at q shows the input at `source` (q, 1); beyond the borders it is reflected.

    `images` [N, C, H, H]; `source` [N, 3, 3] in pixels about the image centre, x before y. Between
    a two-fold wavelet upsampling and its adjoint the look-up is bilinear (ADA, appendix B).
    """
    up, down, centre = resample_matrices(images.shape[-1], images.dtype, images.device)
    grid = _reflected_grid(source.to(images), images.shape[-1], len(up), centre)
    return along_axes(_Lookup.apply(along_axes(images, up), grid), down)


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


def rotation(angle: Tensor) -> Tensor:
    """[N, 3, 3]: turn by `angle` radians, from x towards y."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _homogeneous(cos, -sin, zero, sin, cos, zero)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3]: stretch by `x` and `y`."""
    zero = torch.zeros_like(x)
    return _homogeneous(x, zero, zero, zero, y, zero)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3]: move by `x` and `y`."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _homogeneous(one, zero, x, zero, one, y)


@torch.no_grad()
def _reflected_grid(source: Tensor, size: int, fine: int, centre: float) -> Tensor:
    """[N, fine, fine, 2] places to look up among `fine` samples, the outermost at -1 and 1.

    Samples just beyond the axis exist and hold its reflection; what lies further is folded back,
    in place: this is most of the warp's arithmetic.
    """
    unit = 2 / (fine - 1)
    middle = (size - 1) / 2
    first = centre * unit - 1
    at = (torch.arange(fine, device=source.device, dtype=source.dtype) - centre) / 2 - middle
    along, across, shift = (source[:, :2, i, None, None] * (2 * unit) for i in range(3))
    grid = along * at + (across * at[:, None] + (shift + (2 * middle * unit + first)))
    span = 2 * (size - 1) * unit
    folded = (grid - first).remainder_(2 * span).sub_(span).abs_().neg_().add_(span + first)
    return torch.where(grid.abs() > 1 + 1e-4, folded, grid).permute(0, 2, 3, 1).contiguous()


def _homogeneous(*six: Tensor) -> Tensor:
    zero, one = torch.zeros_like(six[0]), torch.ones_like(six[0])
    return torch.stack([*six, zero, zero, one], dim=-1).view(-1, 3, 3)


class _Lookup(torch.autograd.Function):
    """Bilinear look-up as the linear map of its images that it is, for derivatives of any order."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, padding_mode="border", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _LookupAdjoint.apply(gradient, *ctx.saved_tensors, ctx.shape), None


class _LookupAdjoint(torch.autograd.Function):
    """Scatters values at the grid back to the images; its own adjoint is the look-up."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        bilinear, border, align_corners = 0, 1, True
        images, _ = torch.ops.aten.grid_sampler_2d_backward(
            values.contiguous(), values.new_empty(shape), grid,
            bilinear, border, align_corners, (True, False),
        )  # fmt: skip
        return images

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Lookup.apply(gradient, *ctx.saved_tensors), None, None
