"""DiffAugment against its description, transformation by transformation."""

import pytest
import torch
from scipy import stats
from torch.autograd import gradgradcheck

from stylegan_tl.augment.diffaugment import DiffAugment


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(n: int = 4, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=_generator()) * 2 - 1


def test_translation_moves_up_to_an_eighth_and_pads_with_zeros():
    images = _images(300) + 3  # no pixel is zero by itself
    moved = DiffAugment(policy="translation")(images, _generator(1))
    seen = set()
    for image, result in zip(images, moved, strict=True):
        rows, columns = (result[0] != 0).any(1), (result[0] != 0).any(0)
        matches = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(result, _reference_padded_crop(image, dy, dx))
        ]
        assert len(matches) == 1
        assert rows.sum() == 16 - abs(matches[0][0])
        assert columns.sum() == 16 - abs(matches[0][1])
        seen.update(matches)
    assert len(seen) == 25


def _reference_padded_crop(image: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    return padded[:, 2 - dy : 18 - dy, 2 - dx : 18 - dx]


def test_cutout_is_a_zero_square_of_half_the_side():
    cut = DiffAugment(policy="cutout")(torch.ones(500, 3, 16, 16), _generator())
    hole = cut[:, 0] == 0
    assert torch.equal(hole, hole.any(1)[:, None] & hole.any(2)[:, :, None])
    assert hole.any(1).sum(1).max() == hole.any(2).sum(1).max() == 8
    assert hole.any(1).sum(1).min() >= 4


def test_color_is_brightness_saturation_contrast_in_their_ranges():
    """Recover the three draws from the result and hold their distribution against uniform."""
    images = _images(1, 8).expand(2000, 3, 8, 8).double()
    out = DiffAugment(policy="color")(images, _generator())
    contrast = (out - out.mean((1, 2, 3), keepdim=True)).mean(1).flatten(1)
    grey = (images - images.mean((1, 2, 3), keepdim=True)).mean(1).flatten(1)
    c = (contrast * grey).sum(1) / grey.square().sum(1)
    chroma, before = ((x - x.mean(1, keepdim=True)).flatten(1) for x in (out, images))
    s = (chroma * before).sum(1) / before.square().sum(1) / c
    b = (out - images).mean((1, 2, 3))
    assert stats.kstest(c, stats.uniform(0.5, 1).cdf).pvalue > 1e-3
    assert stats.kstest(s, stats.uniform(0, 2).cdf).pvalue > 1e-3
    assert stats.kstest(b, stats.uniform(-0.5, 1).cdf).pvalue > 1e-3


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "color,translation,cutout"])
def test_seeded_independent_of_neighbours_and_in_the_same_dtype(policy: str):
    augment, images = DiffAugment(policy=policy), _images(8)
    first = augment(images, _generator(1))
    assert torch.equal(first, augment(images, _generator(1)))
    assert not torch.equal(first, augment(images, _generator(2)))
    others = images.flip(0).clone()
    others[5] = images[5]
    torch.testing.assert_close(augment(others, _generator(1))[5], first[5])
    assert augment(images.bfloat16(), _generator(1)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "policy", ["color,translation,cutout", "translation,cutout", "cutout,color,translation"]
)
@pytest.mark.parametrize("size", [8, 21])
def test_fused_is_unfused_from_the_same_generator(policy: str, size: int):
    images, runs = _images(6, size), []
    for impl in (None, "ref"):
        leaf, generator = images.clone().requires_grad_(), _generator(1)
        out = DiffAugment(policy=policy, impl=impl)(leaf, generator)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
        runs.append((out.detach(), gradient, generator.get_state()))
    torch.testing.assert_close(*(run[0] for run in runs))
    torch.testing.assert_close(*(run[1] for run in runs))
    assert torch.equal(runs[0][2], runs[1][2])


def test_order_of_the_policy_matters():
    """Cut first, the hole is brightened like the rest; cut last, it is zero."""
    images = torch.ones(20, 3, 8, 8)
    first = DiffAugment(policy="cutout,color")(images, _generator())
    last = DiffAugment(policy="color,cutout")(images, _generator())
    assert (last == 0).flatten(1).any(1).all()
    assert not (first == 0).any()


def test_second_derivatives():
    augment, images = DiffAugment(), _images(2, 6).double().requires_grad_()
    assert gradgradcheck(lambda x: augment(x, _generator()).pow(3), (images,), fast_mode=True)


def test_it_has_no_state_and_listens_to_nobody():
    augment = DiffAugment()
    augment.observe(torch.ones(4, 1))
    augment.adapt(4)
    assert not augment.state_dict()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("color,zoom", "'zoom' is unknown; join some of color, translation, cutout"),
        ("", "'' is unknown"),
        ("color,color", "a name comes twice"),
    ],
)
def test_a_wrong_policy_is_named(policy: str, message: str):
    with pytest.raises(ValueError, match=message):
        DiffAugment(policy=policy)
