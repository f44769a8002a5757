"""The warp as native operators: exact blits, one affine map between wavelet filters, colour.

A finite filter with reflected borders is a linear map of an axis, so it is kept as a matrix and
applied to rows and columns by matrix product: differentiable to any order. The kernels of warp.py
are held against this.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "REACH", "SYM6", "affine_warp", "along_axes", "apply_color", "blit", "fold", "reflect",
    "resample_matrices", "sym6_centre", "warp_ref", "where",
]  # fmt: skip

# Daubechies' least asymmetric wavelet with six vanishing moments: a scaling filter with sum
# sqrt(2), orthogonal to its own even shifts. By spectral factorisation, the usual choice of roots.
SYM6 = (
    0.0154041093270448243,
    0.00349071208422216252,
    -0.117990111148520025,
    -0.048311742585698055,
    0.491055941927973733,
    0.787641141028650996,
    0.337929421728165833,
    -0.0726375227863765835,
    -0.021060292512370848,
    0.0447249017707813847,
    0.00176771186425400774,
    -0.00780070832503238041,
)
REACH = len(SYM6) // 2 - 1  # pixels beyond either end that the fine samples show


def warp_ref(
    images: Tensor, place: Tensor | None, source: Tensor | None, colour: Tensor | None
) -> Tensor:
    """See `cuda_ops.warp.warp`; half precision is computed in float32."""
    out = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    if place is not None:
        flip, turns, shift = place[:, 0] != 0, place[:, 1], place[:, 2:].long()
        moved = flip | (turns % 4 != 0) | (shift != 0).any(1)
        out = where(moved, out, blit, flip, turns, shift)
    if source is not None:
        moved = (source != torch.eye(3, device=source.device)).any(2).any(1)
        out = where(moved, out, affine_warp, source)
    if colour is not None:
        out = apply_color(out, colour)
    return out.to(images.dtype)


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
    up, down = resample_matrices(images.shape[-1], images.dtype, images.device)
    grid = _reflected_grid(source.to(images), images.shape[-1], len(up), sym6_centre())
    return along_axes(_Lookup.apply(along_axes(images, up), grid), down)


def apply_color(images: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel of `images` [N, 3, H, W] through its image's affine `matrix` [N, 4, 4]."""
    m = matrix.to(images)
    return (m[:, :3, :3] @ images.flatten(2) + m[:, :3, 3:]).view_as(images)


def reflect(index: Tensor, size: int) -> Tensor:
    """Positions on an axis of `size` pixels reflected about its first and last pixel centre."""
    last = size - 1
    return last - (index.remainder(2 * last) - last).abs() if last else index * 0


def along_axes(images: Tensor, matrix: Tensor) -> Tensor:
    """M X M^T for every channel: `images` [N, C, H, H], `matrix` [K, H] or one per image."""
    per_image = matrix[:, None] if matrix.ndim == 3 else matrix
    return per_image @ images @ per_image.mT


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def resample_matrices(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(up [K, size], down [size, K]): twice as many samples of an axis, and back.

    Fine sample k lies at pixel (k - `sym6_centre()`) / 2. The wavelet is orthogonal, so down @ up
    is the identity; fine samples beyond the axis come from its reflection.
    """
    wide = torch.zeros(2 * size + 2 * REACH, size + 2 * REACH, dtype=torch.float64)
    column = torch.arange(size + 2 * REACH)
    for tap, weight in enumerate(SYM6):
        fine = 2 * (column - REACH) + tap
        inside = (fine >= 0) & (fine < len(wide))
        wide[fine[inside], column[inside]] = weight
    down = wide[:, REACH:-REACH].T / 2**0.5
    up = fold(wide, REACH) * 2**0.5
    return up.to(device, dtype), down.to(device, dtype).contiguous()


def sym6_centre() -> float:
    """The mean place of the filter's taps."""
    return sum(tap * weight for tap, weight in enumerate(SYM6)) / sum(SYM6)


def fold(wide: Tensor, reach: int) -> Tensor:
    """Add the columns that stand `reach` beyond either end to the pixels they reflect."""
    size = wide.shape[1] - 2 * reach
    column = reflect(torch.arange(-reach, size + reach), size)
    return wide.new_zeros(len(wide), size).index_add_(1, column, wide)


def where(
    mask: Tensor, images: Tensor, transform: Callable[..., Tensor], *parameters: Tensor
) -> Tensor:
    """`transform(images, *parameters)` where `mask` [N] holds, the images to the bit elsewhere.

    A mask on the host says which images to compute; one on the device is not waited for.
    """
    device = images.device
    if mask.device.type != "cpu":
        changed = transform(images, *(x.to(device) for x in parameters))
        return torch.where(mask.to(device)[:, None, None, None], changed, images)
    chosen = mask.nonzero().flatten()
    if not len(chosen):
        return images
    parameters = tuple(x[chosen].to(device) for x in parameters)
    if len(chosen) == len(images):
        return transform(images, *parameters)
    chosen = chosen.to(device)
    return images.index_copy(0, chosen, transform(images[chosen], *parameters))


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
    span = max(2 * (size - 1), 1) * unit  # a single pixel is everywhere the same
    folded = (grid - first).remainder_(2 * span).sub_(span).abs_().neg_().add_(span + first)
    return torch.where(grid.abs() > 1 + 1e-4, folded, grid).permute(0, 2, 3, 1).contiguous()


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
