"""Blits, the affine warp and the wavelets against NumPy, SciPy and Daubechies' definition."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from cuda_ops.diffaugment import cutout
from cuda_ops.warp_ref import SYM6, affine_warp, blit, resample_matrices
from stylegan_tl.augment.warp import rotation, scaling, translation
from stylegan_tl.augment.wavelets import SYM2, band_filters, band_matrices


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _smooth(size: int, sigma: float = 3) -> torch.Tensor:
    """[1, 2, size, size] float64 without high frequencies."""
    noise = _noise(2, size, size).double().numpy()
    blurred = ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="mirror")
    return torch.from_numpy(blurred / blurred.std())[None]


def _reference_numpy_blit(image: np.ndarray, flip: bool, turns: int, shift: tuple) -> np.ndarray:
    image = np.rot90(image[:, :, ::-1] if flip else image, turns, axes=(1, 2))
    padded = np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="reflect")
    return np.roll(padded, (shift[1], shift[0]), axis=(1, 2))[:, 5:-5, 5:-5]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_blit_copies_what_numpy_flips_turns_and_rolls(flip: bool, turns: int):
    images, shifts = _noise(3, 3, 16, 16), [(0, 0), (5, -2), (-1, 4)]
    moved = blit(images, torch.tensor([flip] * 3), torch.tensor([turns] * 3), torch.tensor(shifts))
    for image, shift, result in zip(images.numpy(), shifts, moved.numpy(), strict=True):
        np.testing.assert_array_equal(result, _reference_numpy_blit(image, flip, turns, shift))


def test_blit_turns_as_torch():
    images = _noise(2, 3, 8, 8)
    still = torch.zeros(2, 2, dtype=torch.long)
    turned = blit(images, torch.zeros(2).bool(), torch.tensor([1, 3]), still)
    assert torch.equal(turned[0], torch.rot90(images[0], 1, (1, 2)))
    assert torch.equal(turned[1], torch.rot90(images[1], 3, (1, 2)))


def _reference_scipy_affine(image: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Order-5 splines, mirrored borders; SciPy's rows come first, its origin is the corner."""
    matrix, shift = source[:2, :2][::-1, ::-1], source[:2, 2][::-1]
    middle = (np.array(image.shape) - 1) / 2
    offset = middle + shift - matrix @ middle
    return ndimage.affine_transform(image, matrix, offset, order=5, mode="mirror")


_ONE = torch.ones(1)
_WARPS = {
    "turned": rotation(0.4 * _ONE),
    "upside down": rotation(math.pi * _ONE),
    "larger": scaling(0.7 * _ONE, 0.7 * _ONE),
    "smaller": scaling(1.3 * _ONE, 1.3 * _ONE),
    "moved": translation(3.3 * _ONE, -7.6 * _ONE),
    "far away": translation(70.2 * _ONE, -55.1 * _ONE),
    "all": scaling(1.1 * _ONE, 0.9 * _ONE) @ rotation(-2 * _ONE) @ translation(5.5 * _ONE, _ONE),
}


@pytest.mark.parametrize("name", _WARPS)
def test_warp_of_smooth_images_is_scipys(name: str):
    images, source = _smooth(48), _WARPS[name]
    ours = affine_warp(images, source)[0].numpy()
    for channel, image in zip(ours, images[0].numpy(), strict=True):
        theirs = _reference_scipy_affine(image, source[0].double().numpy())
        assert np.abs(channel - theirs).max() < 0.05  # of a standard deviation
        assert np.abs(channel - theirs).mean() < 0.005


def test_warp_by_nothing_and_by_whole_pixels_is_a_copy():
    images = _noise(1, 3, 32, 32).double()
    torch.testing.assert_close(affine_warp(images, torch.eye(3)[None]), images)
    moved = affine_warp(images, translation(4 * _ONE, -2 * _ONE))
    torch.testing.assert_close(moved[..., 3:, :-7], images[..., 1:-2, 4:-3])


def test_warp_does_not_alias():
    """A stripe at 0.45 cycles per pixel, shrunk by 1.5, has no place below Nyquist: it fades."""
    stripe = torch.sin(2 * math.pi * 0.45 * torch.arange(64.0)).expand(1, 1, 64, 64).contiguous()
    source = scaling(1.5 * _ONE, 1.5 * _ONE)
    inner = affine_warp(stripe, source)[..., 16:48, 16:48]
    grid = torch.nn.functional.affine_grid(source[:, :2], [1, 1, 64, 64], align_corners=True)
    naive = torch.nn.functional.grid_sample(stripe, grid, align_corners=True)[..., 16:48, 16:48]
    assert inner.std() < 0.5 * naive.std()


def test_the_wavelets_are_daubechies():
    """Orthogonal to their even shifts, and the high-pass annihilates polynomials (2 and 6)."""
    for taps in (SYM2, np.array(SYM6)):
        shifts = [taps[2 * k :] @ taps[: len(taps) - 2 * k] for k in range(len(taps) // 2)]
        np.testing.assert_allclose(shifts, [1] + [0] * (len(taps) // 2 - 1), atol=1e-12)
        place = np.arange(len(taps)) - (len(taps) - 1) / 2
        high_pass = taps * (-1.0) ** np.arange(len(taps))
        moments = [(high_pass * place**k).sum() for k in range(len(taps) // 2)]
        np.testing.assert_allclose(moments, 0, atol=1e-9)


def test_up_and_down_again_is_the_identity_and_keeps_grey():
    up, down = resample_matrices(20, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(down @ up, torch.eye(20).double())
    torch.testing.assert_close(up.sum(1), torch.ones(len(up)).double())


def test_bands_split_the_axis_by_octaves_and_sum_to_the_identity():
    filters = band_filters()
    np.testing.assert_allclose(filters.sum(0), np.eye(43)[21], atol=1e-15)
    for band, (low, high) in zip(filters, [(0, 1), (1, 2), (2, 4), (4, 8)], strict=True):
        frequency, response = signal.freqz(band, worN=512)
        octave = (frequency >= low * math.pi / 8) & (frequency < high * math.pi / 8)
        power = np.abs(response) ** 2
        assert power[octave].sum() > 0.7 * power.sum()
    bands = band_matrices(16, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(bands.sum(0), torch.eye(16).double())


def test_band_matrix_filters_like_scipy_with_mirrored_borders():
    signal_in = _noise(50).double()
    bands = band_matrices(50, torch.float64, torch.device("cpu"))
    for matrix, taps in zip(bands, band_filters(), strict=True):
        expected = ndimage.correlate1d(signal_in.numpy(), taps, mode="mirror")
        np.testing.assert_allclose(matrix @ signal_in, expected, atol=1e-12)


def test_cutout_empties_one_box():
    images = torch.ones(3, 3, 8, 8)
    centre = torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])
    cut = cutout(images, centre, torch.tensor([0.25, 0.25, 0.0]))
    expected = torch.ones(3, 8, 8)
    expected[0, 2:6, 2:6] = 0
    expected[1, 6:, :2] = 0
    assert torch.equal(cut, expected[:, None].expand(3, 3, 8, 8))
