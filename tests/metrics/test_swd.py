"""SWD against a naive numpy and scipy.ndimage version written from the paper."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from stylegan_tl.metrics.swd import laplacian_pyramid, sliced_wasserstein


def _images(n=6, size=32, seed=0, high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def _reference_pyramid(image, levels):
    taps = np.array([1, 4, 6, 4, 1]) / 16
    kernel = np.outer(taps, taps)
    found = []
    for _ in range(levels - 1):
        coarse = scipy.ndimage.convolve(image, kernel, mode="mirror")[::2, ::2]
        up = np.zeros_like(image)
        up[::2, ::2] = 4 * coarse
        found.append(image - scipy.ndimage.convolve(up, kernel, mode="mirror"))
        image = coarse
    return [*found, image]


def _reference_swd(real, fake, generator, patches, projections):
    """The same draws in the same order; everything else by loops."""
    levels = [real.shape[-1] >> i for i in range((real.shape[-1] // 16).bit_length())]
    sets = [_reference_patches(x, levels, patches, generator) for x in (real, fake)]
    values = []
    for a, b in zip(*sets, strict=True):
        directions = torch.randn(147, projections, generator=generator).numpy()
        directions /= np.linalg.norm(directions, axis=0)
        distances = [
            np.abs(np.sort(a @ d) - np.sort(b @ d)).mean() for d in directions.astype(np.float64).T
        ]
        values.append(1e3 * np.mean(distances))
    return values


def _reference_patches(images, levels, patches, generator):
    corners = [
        torch.randint(0, r - 6, (len(images), patches, 2), generator=generator) for r in levels
    ]
    found = [[] for _ in levels]
    for n, image in enumerate(images.double().numpy()):
        channels = [_reference_pyramid(c, len(levels)) for c in image]
        for i in range(len(levels)):
            for y, x in corners[i][n].tolist():
                found[i].append([c[i][y : y + 7, x : x + 7] for c in channels])
    return [_reference_normalise(np.array(level)) for level in found]


def _reference_normalise(level):
    level = level - level.mean((0, 2, 3), keepdims=True)
    return (level / level.std((0, 2, 3), keepdims=True)).reshape(len(level), -1)


def test_pyramid_agrees_with_scipy():
    images = _images(n=1, size=64).float()
    found = laplacian_pyramid(images, 3)
    wanted = _reference_pyramid(images[0, 1].double().numpy(), 3)
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine[0, 1].numpy(), theirs, atol=1e-4)


def test_distance_agrees_with_loops():
    real, fake = _images(), _images(seed=1, high=200)
    found = sliced_wasserstein(
        real, fake, generator=torch.Generator().manual_seed(5), patches=11, projections=13
    )
    wanted = _reference_swd(real, fake, torch.Generator().manual_seed(5), 11, 13)
    assert list(found) == ["32", "16", "mean"]
    assert list(found.values()) == pytest.approx([*wanted, np.mean(wanted)], rel=1e-4)


@pytest.mark.parametrize(("size", "levels"), [(16, 1), (32, 2), (64, 3), (128, 4)])
def test_levels_go_from_full_resolution_to_16(size, levels):
    images = _images(n=2, size=size)
    found = sliced_wasserstein(images, images, generator=torch.Generator(), projections=8)
    assert len(found) == levels + 1


def test_blur_grows_the_distance_and_most_at_the_finest_level():
    sets = [_images(n=64, seed=s).float() for s in (0, 1)]
    smooth = [torch.nn.functional.avg_pool2d(x, 3, 1, 1) for x in sets]  # both band-limited
    softer = torch.nn.functional.avg_pool2d(smooth[1], 3, 1, 1)
    near, far = (
        sliced_wasserstein(
            smooth[0].byte(), x.byte(), generator=torch.Generator().manual_seed(0), projections=64
        )
        for x in (smooth[1], softer)
    )
    assert far["32"] > 3 * near["32"]
    assert far["32"] > far["16"]


def _with_constant(kind):
    images = _images()
    if kind == "channel":
        images[:, 1] = 77
    elif kind == "level":  # every image of one colour: only the coarsest level varies
        images[:] = images[:, :, :1, :1]
    else:
        images[:] = 200
    return images


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("channel", "at 32 px are constant in channel 1$"),
        ("level", "at 32 px are constant in channel 0, 1, 2$"),
        ("all", "at 32 px are constant in channel 0, 1, 2$"),
    ],
)
@pytest.mark.parametrize("side", ["real", "fake"])
def test_what_is_constant_has_no_deviation_to_divide_by(kind, where, side):
    sets = {"real": _images(), "fake": _images(seed=1), side: _with_constant(kind)}
    for scale in (1, 0):  # black images too
        sets[side] = sets[side] * scale if kind == "all" else sets[side]
        with pytest.raises(ValueError, match=f"SWD is not defined: {side} images {where}"):
            sliced_wasserstein(**sets, generator=torch.Generator())


@pytest.mark.parametrize("level", [7, 200, 255])
def test_a_constant_far_from_zero_is_one_whatever_its_mean_rounds_to(level):
    """At 16 px there is only the low-pass level, far from zero."""
    images = _images(n=40, size=16)
    constant = images.clone()
    constant[:, 2] = level
    with pytest.raises(ValueError, match="fake images at 16 px are constant in channel 2$"):
        sliced_wasserstein(images, constant, generator=torch.Generator())
    constant[0, 2, 8, 8] -= 1  # this is one
    assert sliced_wasserstein(images, constant, generator=torch.Generator())["16"] > 0


def test_bad_images_are_refused():
    generator = torch.Generator()
    with pytest.raises(ValueError, match="uint8"):
        sliced_wasserstein(_images().float(), _images(), generator=generator)
    with pytest.raises(ValueError, match="as many real as fake"):
        sliced_wasserstein(_images(4), _images(5), generator=generator)
    with pytest.raises(ValueError, match="power of two"):
        sliced_wasserstein(_images(size=24), _images(size=24), generator=generator)
