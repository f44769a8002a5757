"""StyleGAN3 in training: what moves on which clock, and what D is shown."""

from __future__ import annotations

import pytest
import scipy.ndimage
import torch
from hydra.utils import instantiate

from stylegan_tl.models.stylegan3 import StyleGAN3


@pytest.fixture
def make(compose, tiny_overrides):
    def model(*more: str) -> StyleGAN3:
        config = compose(tiny_overrides("stylegan3_small", *more))
        return instantiate(config["model"], seed=0, _convert_="all")

    return model


def test_magnitudes_follow_a_half_life_in_a_step_of_g_alone(make) -> None:
    model = make("model.magnitude_kimg=0.004")  # so that four images are one half-life
    z, c = torch.randn(4, 8), torch.zeros(4, 0)
    seen: list[torch.Tensor] = []
    layer = model.G.synthesis.b16.L0
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.synthesise(z, c, model.generator("D"))
    assert layer.magnitude.ema == 1
    model.synthesise(z, c, model.generator("G"))
    wanted = 0.5 + 0.5 * seen[-1].square().mean()
    torch.testing.assert_close(layer.magnitude.ema, wanted)


def test_blur_fades_with_nimg_and_is_for_a_start_from_scratch(make) -> None:
    """Against SciPy's Gaussian: 2^-(x / sigma)^2 has the deviation sigma / sqrt(2 ln 2)."""
    model = make("model.blur_init_sigma=3", "model.blur_fade_kimg=0.01")
    images, generator = torch.randn(2, 3, 32, 32), model.generator("D")
    blurred = model._augmented(images, generator)
    wanted = scipy.ndimage.gaussian_filter(
        images.numpy(), (0, 0, 3 / 1.17741, 3 / 1.17741), mode="constant", radius=(0, 0, 9, 9)
    )
    torch.testing.assert_close(blurred, torch.from_numpy(wanted), atol=1e-4, rtol=0)
    model.nimg = 5000 // 1000
    assert model.blur_sigma == 1.5
    model.nimg = 9
    assert model._augmented(images, generator) is images  # 0.3 pixels: nothing is left to blur
    model.nimg, model.from_source = 0, ("G", "D")
    assert model.blur_sigma == 0
