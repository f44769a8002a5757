"""The bundled network as a perceptual distance: against a direct formula, and what it orders."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from stylegan_tl.data.procedural import render
from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.pixels import perceptual_rows, within
from stylegan_tl.metrics.small import load_small


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("small")


def _images(domain, count, size, first=0):
    return np.stack([render(domain, first + i, size) for i in range(count)])


def _distance(extractor, a, b):
    rows = [extractor.embed(torch.from_numpy(np.ascontiguousarray(x))) for x in (a, b)]
    return (rows[0] - rows[1]).square().sum(1)


def _reference_distance(network, a, b):
    """LPIPS's sum over layers, positions and channels, written out in float64."""
    total = 0.0
    maps = [network.maps(x / 127.5 - 1) for x in (a, b)]
    for x, y in zip(*maps, strict=True):
        x, y = x.double().numpy(), y.double().numpy()
        for i, j in np.ndindex(x.shape[2:]):
            u, v = x[0, :, i, j], y[0, :, i, j]
            u, v = (w / np.sqrt(1e-8 + (w**2).sum()) for w in (u, v))
            total += ((u - v) ** 2).sum() / (x.shape[2] * x.shape[3])
    return total


@torch.no_grad()
def test_squared_distance_of_rows_is_the_formula(extractor):
    a, b = (torch.from_numpy(_images(d, 1, 64)) for d in ("rooms/bedroom", "art/portrait"))
    found = _distance(extractor, a.numpy(), b.numpy())
    wanted = _reference_distance(load_small()[0], a.float(), b.float())
    assert found.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("domain", ["rooms/bedroom", "art/portrait"])
def test_it_orders_a_small_shift_a_blur_and_another_image(extractor, domain, size):
    images = _images(domain, 8, size)
    shifted = np.roll(images, size // 64, axis=3)
    blurred = np.stack(
        [scipy.ndimage.gaussian_filter(x, (0, size / 32, size / 32)) for x in images]
    )
    others = _images(domain, 8, size, first=100)
    near, soft, far = (_distance(extractor, images, x) for x in (shifted, blurred, others))
    assert (near > 0).all()
    assert near.mean() < soft.mean() < far.mean()
    assert (near < far).all()
    assert _distance(extractor, images, images).abs().max() == 0


def test_blur_and_noise_move_further_with_their_strength(extractor):
    images = _images("rooms/kitchen", 4, 64).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=images.shape)
    blurs = [scipy.ndimage.gaussian_filter(images, (0, 0, s, s)) for s in (0.5, 1, 2, 4)]
    noises = [np.clip(images + s * noise, 0, 255) for s in (4, 10, 25, 60)]
    for kind in (blurs, noises):
        found = [
            _distance(extractor, images.astype(np.uint8), x.round().astype(np.uint8)).mean()
            for x in kind
        ]
        assert found == sorted(found)


def test_floats_of_the_generators_range_are_not_rounded_and_give_gradients(extractor):
    images = torch.from_numpy(_images("rooms/bedroom", 2, 64))
    floats = (images.float() / 127.5 - 1).requires_grad_(True)
    rows = extractor.embed(floats)
    torch.testing.assert_close(rows, extractor.embed(images), atol=1e-4, rtol=1e-4)
    (extractor.embed(floats * 0.999) - rows.detach()).square().sum().backward()
    assert floats.grad.abs().max() > 0
    assert torch.isfinite(floats.grad).all()
    assert not torch.equal(extractor.embed(floats + 1e-3), rows)


def test_constant_images_are_at_no_distance_from_themselves(extractor):
    black = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    rows = extractor.embed(black)
    assert torch.isfinite(rows).all()
    assert torch.equal(rows[0], rows[1])


def test_rows_are_weighted_by_channel():
    maps = torch.tensor([[3.0, 4.0], [4.0, 3.0]]).view(2, 2, 1, 1)
    rows = perceptual_rows([maps, maps], [torch.tensor([2.0, 0.5]), torch.tensor([0.0, 0.0])])
    # unit rows (.6, .8) and (.8, .6): 2 · .04 + .5 · .04
    assert (rows[0] - rows[1]).square().sum().item() == pytest.approx(0.1, rel=1e-4)


def test_large_images_are_averaged_over_whole_blocks():
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    assert within(images, 4) is images
    found = within(images, 2)
    wanted = torch.tensor([[2.5, 4.5], [10.5, 12.5]]) / 127.5 - 1
    torch.testing.assert_close(found, wanted.expand(1, 3, 2, 2))
    torch.testing.assert_close(within(images.float() / 127.5 - 1, 2), found)
