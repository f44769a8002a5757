"""Equivariance: operators against images known in closed form, generators made to move or not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn

from stylegan_tl.metrics.equivariance import MOTIONS, equivariance, psnr
from stylegan_tl.metrics.evaluate import check, evaluate
from stylegan_tl.metrics.fakes import Fakes
from stylegan_tl.metrics.transforms import (
    band_filter,
    band_limited,
    rotation,
    shifted,
    shifted_finely,
    turned,
)
from stylegan_tl.networks import stylegan2
from stylegan_tl.networks.alias_free import Design
from stylegan_tl.networks.stylegan3 import Generator

SIDE = 48


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _latents(start: int, count: int) -> Tensor:
    return torch.stack([_draw(8, seed=i) for i in range(start, start + count)])


def _waves(at: Tensor, highest: float = 0.1) -> Tensor:
    """Images [N, 2, H, W] of waves of up to `highest` cycles a pixel at places [N, H, W, 2]."""
    rates, phases = _draw(2, 12, 2, seed=1).clamp(-2, 2) * highest / 2, _draw(2, 12, seed=2)
    angle = torch.einsum("nhwd,cfd->nchwf", at, rates.to(at)) + phases[:, None, None]
    return (angle * math.tau).cos().mean(-1)


def _pixels(side: int = SIDE, dtype: torch.dtype = torch.float64) -> Tensor:
    """Centres [1, H, W, 2] of the pixels, (x, y) from the middle of the image."""
    at = torch.arange(side, dtype=dtype) - (side - 1) / 2
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)[None]


class _Moving(nn.Module):
    """A generator of waves; with `follows` they move with the transform of the input."""

    def __init__(self, follows: bool) -> None:
        super().__init__()
        self.synthesis, self.takes_transform, self.follows = self, True, follows

    @staticmethod
    def mapping(z: Tensor, c: Tensor | None = None) -> Tensor:
        return z

    def forward(self, ws: Tensor, *, noise: str, transform: Tensor | None = None) -> Tensor:
        at = _pixels().float().expand(len(ws), -1, -1, -1)
        if transform is not None and self.follows:
            linear, offset = transform[:, :2, :2], transform[:, :2, 2] * SIDE
            at = torch.einsum("nij,nhwj->nhwi", linear, at) + offset[:, None, None]
        return _waves(at) * (1 + 0.1 * ws[:, :1, None, None])


def test_shifts_of_whole_pixels_are_numpys_roll() -> None:
    images = _draw(3, 2, 16, 16)
    found, mask = shifted(images, torch.tensor([2, -3, 0]), torch.tensor([-1, 0, 20]))
    for i, (x, y) in enumerate([(2, -1), (-3, 0)]):
        wanted = np.roll(images[i].numpy(), (y, x), axis=(1, 2))
        inside = np.roll(np.ones((16, 16)), 0)
        inside[: max(y, 0)] = inside[16 + min(y, 0) :] = 0
        inside[:, : max(x, 0)] = inside[:, 16 + min(x, 0) :] = 0
        np.testing.assert_array_equal(found[i], wanted * inside)
        np.testing.assert_array_equal(mask[i, 0], inside)
    assert not found[2].any()
    assert not mask[2].any()


def test_fine_shifts_and_turns_against_waves_in_closed_form() -> None:
    """And turns better than linear interpolation does."""
    at, x, y = _pixels(), 2.37, -4.81
    still = _waves(at)
    found, mask = shifted_finely(still.float(), torch.tensor([x]), torch.tensor([y]))
    wanted = _waves(at - torch.tensor([x, y]))
    assert ((found - wanted) * mask).abs().max() < 6e-3
    assert mask.sum() == (SIDE - 5) * (SIDE - 7)  # from pixel 5 on in x, up to pixel 41 in y
    angle = 0.7
    found, mask = turned(still.float(), angle)
    wanted = _waves(at @ rotation(angle).T)
    ours = ((found - wanted) * mask).abs().max()
    linear = scipy.ndimage.affine_transform(
        still[0, 0].numpy(),
        rotation(angle).numpy()[::-1, ::-1],
        offset=(SIDE - 1) / 2 * (1 - rotation(angle).numpy()[::-1, ::-1].sum(1)),
        order=1,
    )
    assert mask.mean() > 0.35
    assert ours < 4e-3
    assert ours < abs((linear - wanted[0, 0].numpy()) * mask[0, 0].numpy()).max() / 3


def test_band_filters_keep_slow_waves_and_constants() -> None:
    fine = band_filter(rotation(0.3), 4)
    for i in range(4):
        assert fine[i::4, i::4].sum().item() == pytest.approx(1 / 16, abs=1e-6)
    still = _waves(_pixels()).float()
    kept, mask = band_limited(still, 0.3)
    assert ((kept - still) * mask).abs().max() < 4e-3


def test_the_band_is_what_both_grids_hold() -> None:
    """The filter's spectrum: one within both squares of frequencies, nothing outside of either."""
    angle, n = 0.5, 256
    taps = torch.zeros(n, n, dtype=torch.float64)
    taps[:47, :47] = band_filter(rotation(angle), 4).double() * 16
    gain = torch.fft.fft2(taps).abs() / 16
    u = torch.fft.fftfreq(n, 1 / 4, dtype=torch.float64)
    both = torch.stack(torch.meshgrid(u, u, indexing="xy"), -1)
    most = torch.maximum(both.abs().amax(-1), (both @ rotation(angle).T).abs().amax(-1))
    assert (gain[most < 0.25] - 1).abs().max() < 0.03
    assert gain[most > 0.8].max() < 0.03


@pytest.mark.parametrize(("motion", "least"), [("int", 90), ("frac", 60), ("rotation", 55)])
def test_a_generator_that_moves_and_one_that_does_not(motion: str, least: float) -> None:
    moving = equivariance(_Moving(True), motion, latents=_latents, count=6)
    fixed = equivariance(_Moving(False), motion, latents=_latents, count=6)
    assert moving["value"] > least
    assert fixed["value"] < 25
    again = equivariance(_Moving(False), motion, latents=_latents, count=6, batch=4)
    assert again["value"] == pytest.approx(fixed["value"], abs=1e-4)


def test_psnr_is_one_ratio_over_all_pixels() -> None:
    sums = torch.tensor([[4.0, 0.0, 2.0], [1.0, 1.0, 4.0]], dtype=torch.float64)
    assert psnr(sums)["value"] == pytest.approx(10 * math.log10(4))
    many = torch.rand(2, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = torch.randint(0, 400, (2000, 400), generator=torch.Generator().manual_seed(1))
    bootstrap = torch.tensor([psnr(many[:, rows])["value"] for rows in drawn])
    assert psnr(many)["stderr"] == pytest.approx(bootstrap.std().item(), rel=0.1)


def test_rotation_is_what_radial_filters_and_1x1_convolutions_buy() -> None:
    found = {}
    for kind in "TR":
        R = kind == "R"
        torch.manual_seed(0)
        design = Design(num_layers=5, num_critical=1, kernel=1 if R else 3, radial=R)
        sizes = dict(resolution=32, z_dim=8, w_dim=8, channel_base=512, channel_max=16)
        G = Generator(**sizes, design=design).eval()
        for motion in MOTIONS:
            found[kind, motion] = equivariance(G, motion, latents=_latents, count=6)["value"]
    assert min(found[kind, motion] for kind in "TR" for motion in ("int", "frac")) > 45
    assert found["R", "rotation"] > 45
    assert found["R", "rotation"] > found["T", "rotation"] + 15


def test_records_and_what_is_refused() -> None:
    G = _Moving(True)
    fakes = Fakes(lambda start, count: None, G=G, latents=_latents)
    (record,) = evaluate(["eqt5_frac"], fakes=fakes, reals={}, extractors={})
    assert (record["better"], record["num_fakes"], record["split"]) == ("max", 5, None)
    assert record["value"] > 60
    assert "parts of pixels" in record["estimator"]
    with pytest.raises(ValueError, match="eqr5: the input of this generator cannot be moved"):
        check(["eqr5"], {}, moves=False)
    other = stylegan2.Generator(resolution=8, z_dim=8, w_dim=8, channel_base=64, channel_max=8)
    with pytest.raises(ValueError, match="cannot be moved"):
        equivariance(other, "int", latents=_latents, count=3)
    with pytest.raises(ValueError, match="use one of int, frac, rotation"):
        equivariance(G, "shear", latents=_latents, count=3)
