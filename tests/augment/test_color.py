"""Colour matrices against colorsys and against the formulas they stand for."""

import colorsys
import math

import numpy as np
import pytest
import torch

from cuda_ops.warp_ref import apply_color
from stylegan_tl.augment import color


def _images(seed: int = 0) -> torch.Tensor:
    return torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _apply(matrix: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return apply_color(images, matrix)


_AMOUNT = torch.tensor([-1.3, 0.0, 0.4, 2.0])


def test_brightness_adds_and_contrast_multiplies():
    images, amount = _images(), _AMOUNT[:, None, None, None]
    torch.testing.assert_close(_apply(color.brightness(_AMOUNT), images), images + amount)
    torch.testing.assert_close(_apply(color.contrast(_AMOUNT), images), images * amount)


@pytest.mark.parametrize("turns", [1, 2])
def test_hue_by_a_third_is_colorsys_hue_by_a_third(turns: int):
    """At thirds of the circle the HSV hue and the rotation about grey agree: channels cycle."""
    images = _images()
    angle = torch.full((4,), 2 * math.pi / 3 * turns)
    turned = (_apply(color.hue(angle), images) + 1) / 2
    pixels = ((images + 1) / 2).permute(0, 2, 3, 1).reshape(-1, 3)
    for before, after in zip(pixels, turned.permute(0, 2, 3, 1).reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before.tolist())
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb((h + turns / 3) % 1, s, v), atol=1e-6)


def test_hue_keeps_luma_and_chroma():
    images = _images()
    turned = _apply(color.hue(_AMOUNT), images)
    torch.testing.assert_close(turned.mean(1), images.mean(1))
    chroma, before = (x - x.mean(1, keepdim=True) for x in (turned, images))
    torch.testing.assert_close(chroma.norm(dim=1), before.norm(dim=1))
    cosine = (chroma * before).sum(1) / before.square().sum(1)
    torch.testing.assert_close(cosine, _AMOUNT.cos()[:, None, None].expand(4, 5, 5))


def test_luma_flip_negates_luma_keeps_chroma_and_undoes_itself():
    images, flip = _images(), torch.tensor([1.0, 0.0, 1.0, 0.0])
    matrix = color.luma_flip(flip)
    sign = (1 - 2 * flip)[:, None, None, None]
    luma = images.mean(1, keepdim=True)
    torch.testing.assert_close(_apply(matrix, images), images - luma + sign * luma)
    torch.testing.assert_close(matrix @ matrix, torch.eye(4).expand(4, 4, 4))


def test_saturation_scales_what_is_not_luma():
    images = _images()
    luma = images.mean(1, keepdim=True)
    expected = luma + (images - luma) * _AMOUNT[:, None, None, None]
    torch.testing.assert_close(_apply(color.saturation(_AMOUNT), images), expected)
