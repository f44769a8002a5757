"""The ADA pipeline as a whole, its distributions, its derivatives and its controller."""

import math

import pytest
import torch
from scipy import stats
from torch.autograd import gradcheck, gradgradcheck

from stylegan_tl.augment import ada, color
from stylegan_tl.augment.ada import PRESETS, AdaAugment


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(n: int = 4, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=_generator(seed)) * 2 - 1


def _draws(n: int, p: float) -> ada._Draws:
    return ada._Draws(n, p, _generator())


@pytest.mark.parametrize("preset", PRESETS)
def test_same_seed_same_result_other_seed_another(preset: str):
    images, augment = _images(), AdaAugment(preset=preset, p=1.0)
    first = augment(images, _generator(1))
    assert first.shape == images.shape
    assert first.isfinite().all()
    assert torch.equal(first, augment(images, _generator(1)))
    assert not torch.equal(first, augment(images, _generator(2)))


@pytest.mark.parametrize("preset", PRESETS)
def test_an_image_does_not_depend_on_its_neighbours(preset: str):
    augment, images = AdaAugment(preset=preset, p=0.6), _images(8)
    others = _images(8, seed=1)
    others[3] = images[3]
    ours, theirs = augment(images, _generator(1)), augment(others, _generator(1))
    torch.testing.assert_close(ours[3], theirs[3])


@pytest.mark.parametrize("preset", PRESETS)
def test_fused_is_unfused_from_the_same_generator(preset: str):
    images, weight = _images(12, 17), _images(12, 17, seed=1)
    runs = []
    for impl in (None, "ref"):
        leaf, generator = images.clone().requires_grad_(), _generator(1)
        out = AdaAugment(preset=preset, p=0.6, impl=impl)(leaf, generator)
        (gradient,) = torch.autograd.grad(out, leaf, weight)
        runs.append((out.detach(), gradient, generator.get_state()))
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-4, atol=5e-5)
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=1e-4, atol=5e-5)
    assert torch.equal(runs[0][2], runs[1][2])


@pytest.mark.parametrize("preset", ["blit", "geom", "bgc", "bgcfnc"])
def test_fused_on_cuda_is_unfused_from_the_same_generator(
    preset: str, monkeypatch: pytest.MonkeyPatch
):
    """In float64, so that the difference is rounding alone; CUDA's kernel, emulated."""
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "emulate")
    images = _images(6, 11).double()
    fused, plain = (
        AdaAugment(preset=preset, p=0.6, impl=impl)(images, _generator(1))
        for impl in ("cuda", "ref")
    )
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-9)


def test_images_that_are_left_alone_stay_to_the_bit():
    images = _images(64, 9)
    out = AdaAugment(preset="bgc", p=0.05)(images, _generator())
    same = (out == images).flatten(1).all(1)
    assert 0.4 * 64 < same.sum() < 64  # of ten gates each open with 0.05


def test_nothing_happens_at_p_zero():
    images, generator = _images().requires_grad_(), _generator()
    before = generator.get_state()
    assert AdaAugment(preset="bgcfnc")(images, generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("preset", ["geom", "color", "filter", "noise", "cutout", "blit"])
def test_grey_stays_flat_under_every_stage_that_moves_or_filters(preset: str):
    """Reflection padding and unit gain: no border shows in a constant image."""
    grey = torch.full((16, 3, 16, 16), 0.25)
    out = AdaAugment(preset=preset, p=1.0)(grey, _generator())
    if preset in ("geom", "blit"):
        torch.testing.assert_close(out, grey)
    elif preset in ("filter", "color"):
        torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))
    else:
        assert not torch.equal(out, grey)


@pytest.mark.parametrize("preset", ["noise", "cutout"])
def test_p_is_the_share_of_changed_images(preset: str):
    images = torch.ones(2000, 3, 4, 4)
    out = AdaAugment(preset=preset, p=0.3)(images, _generator())
    changed = (out != images).flatten(1).any(1).sum().item()
    assert stats.binomtest(changed, 2000, 0.3).pvalue > 1e-3


def test_an_image_is_turned_with_probability_p_though_it_can_be_turned_twice():
    source = ada._geometry(_draws(5000, 0.3), 64)
    turned = (source[:, 0, 1] != 0).sum().item()
    assert stats.binomtest(turned, 5000, 0.3).pvalue > 1e-3


def test_blits_have_their_probabilities():
    """Flips: p / 2. Quarter turns: the four equally likely given p. Counted by a marked corner."""
    corner = torch.zeros(4000, 3, 2, 2)
    corner[:, :, 0, 0], corner[:, :, 0, 1] = 1, 2
    out = AdaAugment(preset="blit", p=0.4)(corner, _generator())
    there = out[:, 0].flatten(1).argmax(1)
    none, one = 1 - 0.4, 0.4
    turned = [none + one / 4] + [one / 4] * 3  # by 0, 90, 180, 270 degrees
    flipped = [1 - one / 2, one / 2]
    # Unflipped, the 2 goes from upper right to upper left, lower left, lower right; flipped it
    # starts at upper left and goes to lower left, lower right, upper right.
    expected = [0.0] * 4
    for turn in range(4):
        expected[[1, 0, 2, 3][turn]] += flipped[0] * turned[turn]
        expected[[0, 2, 3, 1][turn]] += flipped[1] * turned[turn]
    counts = torch.bincount(there, minlength=4).numpy()
    assert stats.chisquare(counts, [4000 * e for e in expected]).pvalue > 1e-3


def test_scales_are_log_normal_and_angles_uniform():
    log_scale = _draws(4000, 1.0).octaves(0.2).log()
    assert stats.kstest(log_scale, stats.norm(0, 0.2 * math.log(2)).cdf).pvalue > 1e-3
    angle = _draws(4000, 1.0).uniform(-math.pi, math.pi)
    assert stats.kstest(angle, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3


def test_area_of_the_geometry_is_log_normal_in_the_isotropic_scale():
    """Rotations, the anisotropic scale and translations keep the area, so det = 1 / s^2."""
    source = ada._geometry(_draws(4000, 1.0), 64)
    log_scale = -0.5 * torch.linalg.det(source).log()
    assert stats.kstest(log_scale, stats.norm(0, 0.2 * math.log(2)).cdf).pvalue > 1e-3


def test_color_composes_in_the_order_of_the_paper(monkeypatch: pytest.MonkeyPatch):
    """Brightness first: contrast then scales the offset too."""
    for name in ("luma_flip", "hue", "saturation"):
        monkeypatch.setattr(color, name, lambda x: torch.eye(4).repeat(len(x), 1, 1))
    monkeypatch.setattr(color, "brightness", lambda x, f=color.brightness: f(x * 0 + 0.5))
    monkeypatch.setattr(color, "contrast", lambda x, f=color.contrast: f(x * 0 + 2))
    images = _images()
    out = AdaAugment(preset="color", p=1.0)(images, _generator())
    torch.testing.assert_close(out, (images + 0.5) * 2)


def test_band_gains_keep_the_expected_power():
    """sum(power g^2) = 1 where one band was chosen: one of the upper three stands out alone."""
    gains = ada._band_gains(_draws(50, 0.1))
    assert (gains == 1).all(1).any()
    power = torch.tensor([10.0, 1.0, 1.0, 1.0]) / 13
    single = ((gains[:, 1:] / gains[:, :1] - 1).abs() > 1e-5).sum(1) == 1
    torch.testing.assert_close(
        (gains[single].square() * power).sum(1), torch.ones(int(single.sum()))
    )


@pytest.mark.parametrize("preset", ["bgc", "bgcfnc"])
def test_first_and_second_derivatives(preset: str):
    augment = AdaAugment(preset=preset, p=1.0)
    images = _images(2, 6).double().requires_grad_()

    def curved(x: torch.Tensor) -> torch.Tensor:
        return augment(x, _generator(3)).pow(3)

    assert gradcheck(curved, (images,), fast_mode=True)
    assert gradgradcheck(curved, (images,), fast_mode=True)


def test_r1_of_a_linear_critic_of_augmented_images_reaches_the_critic():
    """With A the (linear part of the) augmentation, |A^T w|^2 has the gradient 2 A A^T w."""
    augment = AdaAugment(preset="bg", p=1.0)
    images = _images(1, 8).double().requires_grad_()
    weight = torch.randn(192, generator=_generator(), dtype=torch.float64, requires_grad=True)
    logits = augment(images, _generator(1)).flatten(1) @ weight
    (back,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    (gradient,) = torch.autograd.grad(back.square().sum(), weight)
    forth = augment(back.detach(), _generator(1)).flatten()
    torch.testing.assert_close(gradient, 2 * forth)


@pytest.mark.parametrize("preset", ["bgc", "bgcfnc"])
def test_low_precision_in_low_precision_out_computed_in_float32(preset: str):
    images = _images().bfloat16()
    augment = AdaAugment(preset=preset, p=1.0)
    out = augment(images, _generator())
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, augment(images.float(), _generator()).bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(out, augment(images, _generator()))


def test_inference_first_does_not_poison_training():
    augment = AdaAugment(preset="bgcfnc", p=1.0)
    with torch.inference_mode():
        augment(_images(2, 14), _generator())
    images = _images(2, 14).requires_grad_()
    augment(images, _generator()).sum().backward()
    assert images.grad.isfinite().all()


def test_p_goes_from_zero_to_one_in_kimg_thousand_images():
    augment = AdaAugment(kimg=0.5, interval=4, target=0.6)
    shown = 0
    while augment.p < 1:
        augment.observe(torch.ones(25, 1))
        augment.adapt(25)
        shown += 25
    assert shown == 500


def test_p_moves_only_every_interval_by_all_images_of_it():
    augment = AdaAugment(kimg=1, interval=3)
    seen = []
    for batch in (10, 20, 30, 5, 5, 5):
        augment.observe(torch.ones(batch, 1))
        augment.adapt(batch)
        seen.append(round(augment.p.item(), 6))
    assert seen == [0, 0, 0.06, 0.06, 0.06, 0.075]


@pytest.mark.parametrize(("share", "after"), [(0.75, 0.4), (0.8, 0.5), (0.85, 0.6)])
def test_p_moves_by_the_sign_of_mean_minus_target(share: float, after: float):
    """A share q of positive logits has the mean sign 2 q - 1; the target 0.6 is q = 0.8."""
    augment = AdaAugment(kimg=1, interval=1, p=0.5)
    logits = torch.full((100, 1), -2.0)
    logits[: round(100 * share)] = 7.0
    augment.observe(logits)
    augment.adapt(100)
    assert augment.p.item() == pytest.approx(after)


def test_p_stays_a_probability_and_stays_without_observations():
    augment = AdaAugment(kimg=0.01, interval=1, p=0.5)
    augment.adapt(100)
    assert augment.p.item() == 0.5
    for sign, bound in ((-1.0, 0), (1.0, 1)):
        augment.observe(torch.full((4, 1), sign))
        augment.adapt(100)
        assert augment.p.item() == bound


def test_fixed_p_stays():
    augment = AdaAugment(p=0.2, fixed=True, interval=1)
    augment.observe(torch.ones(100, 1))
    augment.adapt(100)
    assert augment.p.item() == pytest.approx(0.2)
    assert augment.sign_count == 0


def test_a_restored_controller_goes_on_where_it_was():
    signs = torch.randn(40, 8, 1, generator=_generator()) + 1

    def play(augment: AdaAugment, batches: torch.Tensor) -> AdaAugment:
        for logits in batches:
            augment.observe(logits)
            augment.adapt(8)
        return augment

    whole = play(AdaAugment(kimg=0.5, interval=3), signs)
    half = play(AdaAugment(kimg=0.5, interval=3), signs[:19])
    restored = AdaAugment(kimg=0.5, interval=3)
    restored(_images(), _generator())
    restored.load_state_dict(half.state_dict())
    play(restored, signs[19:])
    assert whole.p > 0
    for name, value in whole.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name


def test_writing_p_takes_effect_at_once():
    images, augment = _images(), AdaAugment(preset="noise")
    assert augment(images, _generator()) is images
    augment.p.fill_(1.0)
    assert not torch.equal(augment(images, _generator()), images)


def test_signs_are_summed_over_processes(monkeypatch: pytest.MonkeyPatch):
    """Here all logits are negative, on the other (pretended) process many are positive."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda sums: sums.add_(torch.tensor([900.0, 900.0]))
    )
    augment = AdaAugment(kimg=1, interval=1)
    augment.observe(-torch.ones(10, 1))
    augment.adapt(100)
    assert augment.p.item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "bgcx"}, "augment.preset='bgcx' is not one of blit, geom"),
        ({"target": 1.5}, "augment.target=1.5"),
        ({"kimg": 0}, "augment.kimg=0"),
        ({"interval": 0}, "augment.interval=0"),
        ({"p": 1.1}, "augment.p=1.1"),
    ],
)
def test_errors_name_the_key(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        AdaAugment(**wrong)


def test_images_must_be_square():
    with pytest.raises(ValueError, match=r"must be square; got \[1, 3, 4, 8\]"):
        AdaAugment(p=1.0)(torch.zeros(1, 3, 4, 8), _generator())
