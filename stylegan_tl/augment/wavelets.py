"""Octave bands of an image axis, as matrices made from an orthogonal wavelet."""

import functools

import numpy as np
import torch
from torch import Tensor

from cuda_ops.warp_ref import fold

__all__ = ["SYM2", "band_filters", "band_matrices"]

# Daubechies' least asymmetric wavelet with two vanishing moments: sum sqrt(2), orthogonal to its
# own even shifts.
SYM2 = (np.array([1, 3, 3, 1]) + np.sqrt(3) * np.array([1, 1, -1, -1])) / (4 * np.sqrt(2))


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def band_matrices(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[4, size, size]: the octave bands, lowest first, of an axis with reflected borders.

    The bands sum to the identity (Karras et al. 2020, ADA, appendix B: sym2, pi/8 and up).
    """
    filters = band_filters()
    reach = filters.shape[1] // 2
    wide = np.zeros((4, size, size + 2 * reach))
    for row in range(size):
        wide[:, row, row : row + 2 * reach + 1] = filters
    bands = torch.stack([fold(torch.from_numpy(band), reach) for band in wide])
    return bands.to(device=device, dtype=dtype)


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
