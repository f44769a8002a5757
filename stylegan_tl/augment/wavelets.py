"""Orthogonal wavelets as matrices: resampling by two and octave bands along one image axis.

A finite filter with reflected borders is a linear map of the axis, so it is kept as a matrix and
applied to rows and columns by matrix product: differentiable to any order, and below about 512 px
faster than a convolution of three channels.
"""

import functools

import numpy as np
import torch
from torch import Tensor

__all__ = ["SYM2", "SYM6", "along_axes", "band_matrices", "reflect", "resample_matrices"]

# Daubechies' least asymmetric wavelets: scaling filters with sum sqrt(2), orthogonal to their own
# even shifts. SYM6 by spectral factorisation, with the usual choice of roots.
SYM6 = np.array(
    [
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
    ]
)
SYM2 = (np.array([1, 3, 3, 1]) + np.sqrt(3) * np.array([1, 1, -1, -1])) / (4 * np.sqrt(2))


def reflect(index: Tensor, size: int) -> Tensor:
    """Positions on an axis of `size` pixels reflected about its first and last pixel centre."""
    last = size - 1
    return last - (index.remainder(2 * last) - last).abs() if last else index * 0


def along_axes(images: Tensor, matrix: Tensor) -> Tensor:
    """M X M^T for every channel: `images` [N, C, H, H], `matrix` [K, H] or one per image."""
    per_image = matrix[:, None] if matrix.ndim == 3 else matrix
    return per_image @ images @ per_image.mT


def resample_matrices(
    size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, float]:
    """(up [K, size], down [size, K], centre): twice as many samples of an axis, and back.

    Fine sample k lies at pixel (k - centre) / 2. The wavelet is orthogonal, so down @ up is the
    identity; fine samples beyond the axis come from its reflection.
    """
    return _resample_matrices(size, dtype, device)


def band_matrices(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[4, size, size]: the octave bands, lowest first, of an axis with reflected borders.

    The bands sum to the identity (Karras et al. 2020, ADA, appendix B: sym2, pi/8 and up).
    """
    return _band_matrices(size, dtype, device)


def band_filters() -> np.ndarray:
    """[4, 43] symmetric filters of the bands [0, pi/8], [pi/8, pi/4], [pi/4, pi/2], [pi/2, pi].

    low(z) = H(z) H(1/z) / 2 and high(z) = low(-z) sum to one, and so does each split of the
    remaining low band by the same pair at z^2 and z^4.
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = low * (-1.0) ** (np.arange(7) - 3)
    rest, bands = np.ones(1), []
    for spread in (1, 2, 4):
        bands.insert(0, np.convolve(rest, _spread(high, spread)))
        rest = np.convolve(rest, _spread(low, spread))
    bands.insert(0, rest)
    return np.stack([np.pad(b, (len(rest) - len(b)) // 2) for b in bands])


def _spread(taps: np.ndarray, step: int) -> np.ndarray:
    """The filter at z^step."""
    spread = np.zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _resample_matrices(
    size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, float]:
    reach = len(SYM6) // 2 - 1
    wide = np.zeros((2 * size + 2 * reach, size + 2 * reach))
    for tap, weight in enumerate(SYM6):
        pixel = np.arange(-reach, size + reach)
        fine = 2 * pixel + tap
        inside = (fine >= 0) & (fine < len(wide))
        wide[fine[inside], np.flatnonzero(inside)] = weight
    down = wide[:, reach:-reach].T / np.sqrt(2)
    up = _fold(wide, reach) * np.sqrt(2)
    centre = float((SYM6 * np.arange(len(SYM6))).sum() / SYM6.sum())
    return _tensor(up, dtype, device), _tensor(down, dtype, device), centre


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _band_matrices(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    filters = band_filters()
    reach = filters.shape[1] // 2
    wide = np.zeros((4, size, size + 2 * reach))
    for row in range(size):
        wide[:, row, row : row + 2 * reach + 1] = filters
    return _tensor(np.stack([_fold(band, reach) for band in wide]), dtype, device)


def _fold(wide: np.ndarray, reach: int) -> np.ndarray:
    """Add the columns that stand `reach` beyond either end to the pixels they reflect."""
    size = wide.shape[1] - 2 * reach
    column = reflect(torch.arange(-reach, size + reach), size).numpy()
    folded = np.zeros((len(wide), size))
    np.add.at(folded.T, column, wide.T)
    return folded


def _tensor(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device=device, dtype=dtype)
