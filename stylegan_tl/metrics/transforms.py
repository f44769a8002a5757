"""Moving images without losing what they hold: shifts and rotations for band-limited pixels.

Karras et al. 2021 (arXiv:2106.12423), appendix E. Places are (x, y) in pixels, x to the right and y
down, about the centre of the image. Each function returns images and a mask [N, 1, H, W] of the
pixels that depend on no pixel outside.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_ops.upfirdn2d import upfirdn2d

__all__ = ["band_filter", "band_limited", "rotation", "shifted", "shifted_finely", "turned"]

REACH = 3  # of the Lanczos windows, in pixels
_FINE = 4  # samples per pixel that a rotation looks between
_QUADRATURE = 1024  # points along one side of the band


def shifted(images: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images `[N, C, H, W]` moved by whole pixels `x [N]` and `y [N]` (appendix E.1).

    Pixels that come from outside are zero, and the mask is zero there.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - y.to(images.device)[:, None]  # [N, H]
    columns = torch.arange(width, device=images.device) - x.to(images.device)[:, None]
    mask = _inside(rows, height)[:, None, :, None] & _inside(columns, width)[:, None, None, :]
    row = rows.clamp(0, height - 1)[:, None, :, None].expand(-1, images.shape[1], -1, width)
    column = columns.clamp(0, width - 1)[:, None, None, :].expand_as(row)
    mask = mask.to(images.dtype)
    return images.gather(2, row).gather(3, column) * mask, mask


def shifted_finely(images: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images moved by `x [N]` and `y [N]` pixels, by Lanczos filters (appendix E.2)."""
    whole = [by.floor() for by in (x, y)]
    n, c, height, width = images.shape
    pad = REACH  # a filter of 2 * REACH taps about the place between two pixels
    moved = F.pad(images, (pad, pad, pad, pad)).reshape(1, n * c, height + 2 * pad, -1)
    for by, floor, shape in ((x, whole[0], (1, -1)), (y, whole[1], (-1, 1))):
        taps = _lanczos(by - floor).to(images).repeat_interleave(c, 0)  # [N C, 2 REACH]
        moved = F.conv2d(moved, taps.unflatten(1, shape)[:, None], groups=n * c)
    moved = moved.reshape(n, c, height + 1, width + 1)[:, :, :height, :width]
    moved, _ = shifted(moved, *(by.long() for by in whole))
    place = [_reached(by.long(), size) for by, size in zip(whole, (width, height), strict=True)]
    mask = (place[1][:, None, :, None] & place[0][:, None, None, :]).to(images)
    return moved, mask


def turned(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Images whose pixel at p is the original's at `rotation(angle) p` (appendix E.3).

    Band-limited before and after by `band_filter`, looked up bilinearly between quarter pixels.
    """
    turn = rotation(angle)
    taps = band_filter(turn.T, _FINE).to(images)
    reach = taps.shape[0] // 2
    fine = upfirdn2d(
        images, taps, up=_FINE, padding=[reach, reach - _FINE + 1] * 2, gain=_FINE**2
    )  # sample 4 i stands on pixel i
    theta = F.pad(turn, (0, 1)).to(images).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    result = F.grid_sample(fine, grid, mode="bilinear", align_corners=True)
    edge = (images.shape[2] - 1) / 2
    room = (edge - (reach + 1) / _FINE) / edge
    mask = (grid.abs().amax(dim=3) <= room)[:, None].to(images)
    return result, mask


def band_limited(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Images without the frequencies that `turned` by the angle takes away: R* of appendix E.3.

    Of the turned grid's filter samples at whole pixels are taken, as in the published measurements:
    the corners of its band fold back, so an error of nothing reads as about 50 dB where half of
    the band is in use, not as infinity.
    """
    taps = band_filter(rotation(angle), 1).to(images)
    reach = taps.shape[0] // 2
    mask = torch.zeros_like(images[:, :1])
    mask[:, :, reach:-reach, reach:-reach] = 1
    return upfirdn2d(images, taps, padding=reach), mask


def rotation(angle: float) -> Tensor:
    """[[cos, -sin], [sin, cos]], float64, on the CPU."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def band_filter(turn: Tensor, fine: int) -> Tensor:
    """A filter for pixels that hold the band of two grids, turned against each other by `turn`.

    The convolution of both grids' ideal filters, a sinc in x and in y each, is the one whose band
    is what both squares of frequencies share; its window is the convolution of both Lanczos
    windows. [T, T] with `fine` taps per pixel, each of the `fine`^2 phases of sum 1 / fine^2.
    """
    count = 2 * REACH * fine  # of taps on either side, one too many
    at = torch.arange(1 - count, count, dtype=torch.float64) / fine
    y, x = torch.meshgrid(at, at, indexing="ij")
    band = _shared_band(x, y, turn) if fine > 1 else _turned_band(x, y, turn)
    taps = band * _window(turn, fine, len(at))
    total = torch.zeros(fine, fine, dtype=torch.float64)
    for i in range(fine):
        for j in range(fine):
            total[i, j] = taps[i::fine, j::fine].sum()
    repeats = -(-len(at) // fine)
    return (taps / total.repeat(repeats, repeats)[: len(at), : len(at)] / fine**2).float()


def _shared_band(x: Tensor, y: Tensor, turn: Tensor) -> Tensor:
    """The inverse Fourier transform of the overlap of two unit squares, one turned, at (x, y).

    Along one frequency u the other one runs over an interval: its integral is in closed form, that
    over u a midpoint rule.
    """
    u = (torch.arange(_QUADRATURE, dtype=torch.float64) + 0.5) / _QUADRATURE - 0.5
    low, high = torch.full_like(u, -0.5), torch.full_like(u, 0.5)
    for a, b in turn.tolist():  # |a u + b v| <= 1/2
        if abs(b) < 1e-12:
            continue
        ends = torch.stack([(side - a * u) / b for side in (-0.5, 0.5)])
        low, high = torch.maximum(low, ends.amin(0)), torch.minimum(high, ends.amax(0))
    length, middle = (high - low).clamp_min(0), (high + low) / 2
    result = torch.zeros_like(x)
    for row in range(len(x)):
        phase = x[row, :, None] * u + y[row, :, None] * middle
        inner = length * torch.sinc(length * y[row, :, None])
        result[row] = (inner * torch.cos(math.tau * phase)).mean(1)
    return result


def _turned_band(x: Tensor, y: Tensor, turn: Tensor) -> Tensor:
    """The turned grid's ideal filter alone: on its own samples the other one is the identity."""
    return torch.sinc(turn[0, 0] * x + turn[0, 1] * y) * torch.sinc(turn[1, 0] * x + turn[1, 1] * y)


def _window(turn: Tensor, fine: int, size: int) -> Tensor:
    """Both grids' Lanczos windows, convolved: [size, size] with `fine` samples per pixel."""
    reach = math.ceil(REACH * math.sqrt(2)) * fine
    at = torch.arange(-reach, reach + 1, dtype=torch.float64) / fine
    y, x = torch.meshgrid(at, at, indexing="ij")
    other = torch.stack([x, y], dim=2) @ turn.T
    first, second = (_bump(a) * _bump(b) for a, b in ((x, y), other.unbind(2)))
    whole = F.conv2d(first[None, None], second.flip(0, 1)[None, None], padding=2 * reach)[0, 0]
    cut = (len(whole) - size) // 2
    return whole[cut : cut + size, cut : cut + size]


def _bump(x: Tensor) -> Tensor:
    """The Lanczos window."""
    return torch.where(x.abs() < REACH, torch.sinc(x / REACH), 0.0)


def _lanczos(by: Tensor) -> Tensor:
    """Taps [N, 2 REACH] that move a signal forward by shares of a pixel `by [N]` in [0, 1).

    Tap k is that of the pixel k - REACH further on; of sum one.
    """
    at = torch.arange(-REACH, REACH, dtype=torch.float64) + by.double()[:, None]
    taps = torch.sinc(at) * torch.sinc(at / REACH)
    return taps / taps.sum(1, keepdim=True)


def _reached(by: Tensor, size: int) -> Tensor:
    """[N, size]: whether all 2 REACH pixels that a moved one looks at are in the image."""
    source = torch.arange(size) - by[:, None]
    return (source - REACH >= 0) & (source + REACH - 1 < size)


def _inside(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places < size)
