"""Inversion: the least-squares solution of a linear generator, and the networks of the project."""

import math

import pytest
import torch

from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.inversion import _ramp, invert
from stylegan_tl.networks import dcgan, stylegan2


class _Linear(torch.nn.Module):
    """Images that are a linear function of z."""

    z_dim, c_dim = 3, 0

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(12, 3, generator=generator) / 4)

    def forward(self, z):
        return (z @ self.weight.T).unflatten(1, (3, 2, 2))


def _flat(images):
    return images.flatten(1)


def _stylegan2():
    torch.manual_seed(0)
    small = {"z_dim": 8, "w_dim": 8, "num_mapping_layers": 2}
    return stylegan2.Generator(resolution=16, channel_base=128, channel_max=16, **small).eval()


def _dcgan():
    torch.manual_seed(0)
    G = dcgan.Generator(resolution=32, z_dim=8, width=4).eval()
    with torch.no_grad():  # a fresh one draws next to nothing, and nothing at all at z = 0
        for name, parameter in G.named_parameters():
            parameter.add_(torch.randn_like(parameter) / (2 if name.endswith("bias") else 5))
    return G


def _images(G, count=3, seed=5):
    z = torch.randn(count, G.z_dim, generator=torch.Generator().manual_seed(seed))
    how = {"noise": "none"} if hasattr(G, "mapping") else {}
    with torch.no_grad():
        return G(z, **how)


def test_of_a_linear_generator_it_is_the_least_squares_solution() -> None:
    G = _Linear()
    images = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    found = invert(G, images, _flat, steps=600)
    weight = G.weight.detach()
    solution = torch.linalg.lstsq(weight, images.flatten(1).T).solution
    torch.testing.assert_close(found.latents, solution.T, rtol=1e-3, atol=1e-3)
    left = (weight @ solution - images.flatten(1).T).square().sum(0)
    torch.testing.assert_close(found.perceptual, left, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pixel, left / 12, rtol=1e-4, atol=1e-6)
    start = images.flatten(1).square()  # G(0) = 0
    torch.testing.assert_close(found.start_perceptual, start.sum(1))
    torch.testing.assert_close(found.start_pixel, start.mean(1))


@pytest.mark.parametrize("pixel_weight", [1.0, 40.0])
def test_pixels_count_by_their_weight(pixel_weight) -> None:
    """The embedding sees the first channel alone; the rest is least squares of weighted rows."""
    G, images = _Linear(), torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    found = invert(
        G, images, lambda x: x[:, 0].flatten(1), steps=800, pixel_weight=pixel_weight
    ).latents
    weights = torch.full((12, 1), pixel_weight / 12)
    weights[:4] += 1
    rows, wanted = weights.sqrt() * G.weight.detach(), weights.sqrt() * images.flatten(1).T
    solution = torch.linalg.lstsq(rows, wanted).solution.T
    torch.testing.assert_close(found, solution, rtol=2e-3, atol=2e-3)


def test_the_embedding_is_shown_no_more_than_256_px() -> None:
    class Large(torch.nn.Module):
        z_dim = 3

        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(3))

        def forward(self, z):
            return (self.gain * z)[:, :, None, None].expand(-1, -1, 512, 512)

    seen = set()

    def embed(images):
        seen.add(tuple(images.shape[1:]))
        return images.mean((2, 3))

    found = invert(Large(), torch.zeros(1, 3, 512, 512), embed, steps=2)
    assert seen == {(3, 256, 256)}
    assert found.pixel.item() == 0


@pytest.mark.parametrize("build", [_stylegan2, _dcgan])
def test_an_image_of_the_generator_is_found_again(build) -> None:
    G, embed = build(), load_extractor("small").embed
    before = {k: v.clone() for k, v in G.state_dict().items()}
    found = invert(G, _images(G), embed, steps=80)
    assert found.perceptual.mean() < 0.5 * found.start_perceptual.mean()
    assert found.pixel.mean() < 0.3 * found.start_pixel.mean()
    assert (found.perceptual < 0.7 * found.start_perceptual).all()
    assert all(torch.equal(v, before[k]) for k, v in G.state_dict().items())
    assert all(p.grad is None for p in G.parameters())


@pytest.mark.parametrize("build", [_stylegan2, _dcgan])
def test_no_image_depends_on_its_batch_and_the_seed_decides(build) -> None:
    G, embed = build(), load_extractor("small").embed
    images = _images(G)
    together = invert(G, images, embed, steps=6)
    again = invert(G, images, embed, steps=6)
    apart = invert(G, images, embed, steps=6, batch_size=2)
    assert torch.equal(together.latents, again.latents)
    torch.testing.assert_close(together.latents, apart.latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(together.perceptual, apart.perceptual, rtol=1e-3, atol=1e-4)
    other = invert(G, images, embed, steps=6, seed=1).latents
    assert torch.equal(together.latents, other) == (build is _dcgan)  # z starts at 0


def test_the_start_is_the_mean_w_of_ten_thousand_latents() -> None:
    G = _stylegan2()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(1.0)  # no noise enters
    z = torch.randn(10_000, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        mean = G.mapping(z)[:, 0].mean(0)
        drawn = G.synthesis(mean.expand(1, G.num_ws, -1), noise="none").clamp(-1, 1)
    found = invert(G, drawn, _flat, steps=1, lr=0.0, seed=3)
    torch.testing.assert_close(found.latents[0], mean)
    assert found.start_pixel.item() < 1e-9
    assert found.start_pixel.item() == pytest.approx(found.pixel.item(), abs=1e-9)


def test_a_conditional_generator_starts_from_the_classes_that_are_named() -> None:
    torch.manual_seed(0)
    small = {"z_dim": 8, "w_dim": 8, "num_mapping_layers": 2, "c_dim": 2}
    G = stylegan2.Generator(resolution=16, channel_base=128, channel_max=16, **small).eval()
    images, labels = torch.zeros(1, 3, 16, 16), torch.eye(2)
    starts = [
        invert(G, images, _flat, steps=1, lr=0.0, labels=some).latents
        for some in (labels[:1], labels[1:], labels)
    ]
    assert not torch.equal(starts[0], starts[1])
    middle = (starts[0] + starts[1]) / 2
    torch.testing.assert_close(starts[2], middle, rtol=0.1, atol=0.05)
    D = dcgan.Generator(resolution=32, z_dim=8, width=4, c_dim=2).eval()
    assert invert(D, torch.zeros(1, 3, 32, 32), _flat, steps=2, labels=labels).pixel.isfinite()


def test_the_learning_rate_rises_for_a_twentieth_and_falls_for_a_quarter() -> None:
    """Karras et al. 2020, appendix D: 50 and 250 of 1000 iterations."""
    assert _ramp(0.025) == pytest.approx(0.5)
    assert _ramp(0.05) == _ramp(0.4) == _ramp(0.75) == pytest.approx(1)
    assert _ramp(0.875) == pytest.approx(0.5)
    assert _ramp(0.9375) == pytest.approx(0.5 - 0.5 * math.cos(math.pi / 4))


def test_steps_are_counted_over_all_batches() -> None:
    G, seen = _Linear(), []
    invert(G, torch.zeros(3, 3, 2, 2), _flat, steps=2, batch_size=2, tick=seen.append)
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("images", "steps", "message"),
    [
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), 1, "must be floats"),
        (torch.zeros(0, 3, 2, 2), 1, "must be floats"),
        (torch.zeros(1, 3, 2, 2), 0, "steps=0"),
    ],
)
def test_what_cannot_be_inverted_is_refused(images, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invert(_Linear(), images, _flat, steps=steps)
