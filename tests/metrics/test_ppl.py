"""Perceptual path length: closed forms of linear generators, NumPy's percentiles, the generators
that there are."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.ppl import NOISE_PAIRS, path_length, slerp, trimmed_mean
from stylegan_tl.networks import dcgan, stylegan2

Z_DIM, COUNT = 6, 150


def _latents(z_dim, dtype=torch.float64):
    """Latent number i is drawn from its own seed."""

    def draw(start, count):
        rows = [
            torch.randn(z_dim, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            for i in range(start, start + count)
        ]
        return torch.stack(rows).to(dtype)

    return draw


class _Linear(nn.Module):
    """w = W z / |z|, image = A w: everything has a closed form."""

    class _Mapping(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(1)
            self.W = torch.randn(5, Z_DIM, generator=generator, dtype=torch.float64)

        def forward(self, z, c=None):
            return (z / z.norm(dim=1, keepdim=True)) @ self.W.T

    class _Synthesis(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(2)
            self.A = torch.randn(3 * 4 * 4, 5, generator=generator, dtype=torch.float64)

        def forward(self, w):
            return (w @ self.A.T).view(-1, 3, 4, 4)

    def __init__(self):
        super().__init__()
        self.mapping, self.synthesis = self._Mapping(), self._Synthesis()


def _flat(images):
    return images.flatten(1)


def _ends(latents, count=COUNT):
    z = latents(0, 2 * count).numpy()
    return z[::2], z[1::2]


def _reference_trim(values):
    low = np.percentile(values, 1, method="lower")
    high = np.percentile(values, 99, method="higher")
    return values[(values >= low) & (values <= high)].mean()


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_a_linear_generator_has_the_length_of_its_segments_in_w(sampling):
    G, latents = _Linear(), _latents(Z_DIM)
    found = path_length(
        G, _flat, latents=latents, space="w", sampling=sampling, count=COUNT, seed=3
    )
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in _ends(latents))
    image = G.synthesis.A.numpy() @ G.mapping.W.numpy()
    wanted = np.square((b - a) @ image.T).sum(1)  # the same at every t
    assert found["value"] == pytest.approx(_reference_trim(wanted), rel=1e-6)
    assert found["stderr"] == pytest.approx(wanted.std() / COUNT**0.5, rel=0.15)


def test_a_linear_generator_has_the_speed_of_the_great_circle_in_z():
    G, latents = _Linear(), _latents(Z_DIM)
    found = path_length(G, _flat, latents=latents, space="z", sampling="end", count=COUNT)
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in _ends(latents))
    angle = np.arccos((a * b).sum(1, keepdims=True))
    tangent = (b - np.cos(angle) * a) / np.sin(angle)  # unit velocity at a
    image = G.synthesis.A.numpy() @ G.mapping.W.numpy()
    wanted = np.square(angle * tangent @ image.T).sum(1)
    assert found["value"] == pytest.approx(_reference_trim(wanted), rel=1e-3)


def test_a_round_generator_has_the_same_length_anywhere_in_z():
    # |d image| = angle wherever t lies, so full and end agree
    class Round(nn.Module):
        def forward(self, z, c=None):
            z = z / z.norm(dim=1, keepdim=True)
            return nn.functional.pad(z, (0, 48 - Z_DIM)).view(-1, 3, 4, 4)

    values = [
        path_length(
            Round(), _flat, latents=_latents(Z_DIM), space="z", sampling=sampling, count=COUNT
        )["value"]
        for sampling in ("full", "end")
    ]
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in _ends(_latents(Z_DIM)))
    wanted = _reference_trim(np.arccos((a * b).sum(1)) ** 2)
    assert values == pytest.approx([wanted] * 2, rel=1e-5)


class _Square(nn.Module):
    """Images of h², h the length of the way from (0, 1): straight, or on the unit circle."""

    class _Synthesis(nn.Module):
        def __init__(self, space):
            super().__init__()
            self.space = space

        def forward(self, w):
            height = w[:, 0] if self.space == "w" else torch.atan2(w[:, 0], w[:, 1])
            return height.square().view(-1, 1, 1, 1).expand(-1, 3, 4, 4) / 48**0.5

    def __init__(self, space):
        super().__init__()
        self.synthesis = self._Synthesis(space)

    def mapping(self, z, c=None):
        return z


@pytest.mark.parametrize(
    ("space", "end"), [("w", [1.0, 1.0]), ("z", [np.sin(1.0), np.cos(1.0)])], ids=["w", "z"]
)
def test_full_takes_every_place_of_the_path_and_end_the_first_alone(space, end):
    """On a way of length 1 the speed is 2 t: a trimmed mean of 4 t² over t, or 0 at t = 0."""
    ends = torch.tensor([[0.0, 1.0], end], dtype=torch.float64)
    full, first = (
        path_length(
            _Square(space), _flat, latents=lambda _, n: ends.repeat(n // 2, 1), space=space,
            sampling=sampling, count=2000,
        )
        for sampling in ("full", "end")
    )  # fmt: skip
    wanted = 4 * (0.99**3 - 0.01**3) / 3 / 0.98
    assert full["value"] == pytest.approx(wanted, abs=4 * full["stderr"])
    assert full["stderr"] == pytest.approx(4 * (4 / 45) ** 0.5 / 2000**0.5, rel=0.1)
    assert first["value"] < 1e-6


def test_the_step_does_not_matter_where_the_path_is_straight():
    values = [
        path_length(
            _Linear(), _flat, latents=_latents(Z_DIM), space="w", sampling="full", count=40,
            epsilon=epsilon,
        )["value"]
        for epsilon in (1e-2, 1e-4)
    ]  # fmt: skip
    assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("n", [2, 5, 99, 100, 101, 250])
def test_the_trim_is_numpys_percentiles(n):
    values = np.random.default_rng(n).exponential(size=n)
    found, _ = trimmed_mean(torch.from_numpy(values))
    assert found == pytest.approx(_reference_trim(values), rel=1e-12)


def test_outliers_are_left_out_and_the_error_is_that_of_a_trimmed_mean():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(400, 1000))
    found = [trimmed_mean(torch.from_numpy(row)) for row in values]
    spread = np.std([value for value, _ in found])
    assert np.mean([stderr for _, stderr in found]) == pytest.approx(spread, rel=0.1)
    wild = np.concatenate([values[0], [1e9] * 5])
    assert trimmed_mean(torch.from_numpy(wild))[0] < 1.2
    cut = scipy.stats.mstats.winsorize(values[0], (0.01, 0.01)).std(ddof=1)
    assert found[0][1] == pytest.approx(float(cut) / 0.98 / 1000**0.5, rel=0.05)


def test_slerp_starts_at_one_end_and_arrives_at_the_other():
    a, b = torch.randn(2, 4, 8, dtype=torch.float64)
    for t, wanted in ((0.0, a), (1.0, b)):
        torch.testing.assert_close(slerp(a, b, torch.full((4,), t, dtype=torch.float64)), wanted)
    same = slerp(a, a, torch.full((4,), 0.3, dtype=torch.float64))
    torch.testing.assert_close(same, a, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def stylegan():
    """A small StyleGAN2 whose noise is strong."""
    torch.manual_seed(0)
    G = stylegan2.Generator(
        resolution=16, z_dim=8, w_dim=8, num_mapping_layers=2, channel_base=64, channel_max=8
    )
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(1.0)
    return G.eval()


@pytest.fixture(scope="module")
def embed():
    return load_extractor("small").embed


def _lengths(G, embed, **options):
    given = dict(space="w", sampling="end", count=40, latents=_latents(8, torch.float32))
    return path_length(G, embed, **{**given, **options})


@pytest.mark.parametrize("space", ["w", "z"])
def test_it_does_not_depend_on_the_batch_or_on_the_moment(stylegan, embed, space):
    first = _lengths(stylegan, embed, space=space, sampling="full")
    for batch in (1, 7, 100):
        again = _lengths(stylegan, embed, space=space, sampling="full", batch=batch)
        # another batch, another order of float32 sums, over steps of 1e-4
        assert again["value"] == pytest.approx(first["value"], rel=0.01)
    assert _lengths(stylegan, embed, space=space, sampling="full") == first
    assert _lengths(stylegan, embed, space=space, sampling="full", seed=1) != first


def test_both_images_of_a_pair_have_the_same_noise_and_others_another(stylegan):
    seen = []

    def embed(images):
        seen.append(images)
        return images.flatten(1)

    value = _lengths(stylegan, embed)["value"]
    near, far = seen[0].chunk(2)
    assert (near - far).abs().max() < 0.02  # a step of 1e-4; other noise changes images by about 1
    assert value < 1e6
    constant = _lengths(
        stylegan, lambda x: seen.append(x) or x.flatten(1),
        latents=lambda start, count: torch.ones(count, 8),
    )  # fmt: skip
    assert constant["value"] == 0
    blocks = [x[0] for x in seen[-2:]]  # of 32 pairs and of 8
    assert NOISE_PAIRS == 32
    assert (blocks[0] - blocks[1]).abs().max() > 0.1


def test_the_generators_own_noise_and_precision_are_as_before(stylegan, embed):
    noise = {k: v.clone() for k, v in stylegan.named_buffers()}
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    exact = _lengths(stylegan, embed)
    stylegan.synthesis.bf16 = True
    try:
        assert _lengths(stylegan, embed) == exact
        assert stylegan.synthesis.bf16
    finally:
        stylegan.synthesis.bf16 = False
    assert all(torch.equal(v, noise[k]) for k, v in stylegan.named_buffers())
    assert flags == (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)


def test_labels_go_with_the_pair():
    torch.manual_seed(0)
    G = stylegan2.Generator(
        resolution=8, z_dim=8, w_dim=8, c_dim=2, num_mapping_layers=1, channel_base=64,
        channel_max=8,
    ).eval()  # fmt: skip
    one, other = (
        _lengths(G, _flat, labels=lambda _, n, k=k: torch.eye(2)[[k] * n])["value"] for k in (0, 1)
    )
    assert one != other
    mixed = _lengths(
        G, _flat, labels=lambda start, n: torch.eye(2)[torch.arange(start, start + n) % 2]
    )
    assert min(one, other) < mixed["value"] < max(one, other)


def test_dcgan_has_paths_in_z_alone(embed):
    torch.manual_seed(0)
    G = dcgan.Generator(resolution=32, z_dim=8, width=4).eval()
    for sampling in ("full", "end"):
        assert _lengths(G, embed, space="z", sampling=sampling)["value"] > 0
    with pytest.raises(ValueError, match="has no w .*use zfull/zend"):
        _lengths(G, embed)


def test_large_images_are_averaged_down_to_256_px():
    class Large(nn.Module):
        def forward(self, z, c=None):
            return z[:, :3, None, None].expand(-1, -1, 512, 512)

    sizes = set()

    def embed(images):
        sizes.add(tuple(images.shape[1:]))
        return images.mean((2, 3))

    path_length(
        Large(), embed, latents=_latents(4, torch.float32), space="z", sampling="end", count=3
    )
    assert sizes == {(3, 256, 256)}


def test_bad_settings_and_a_diverged_generator_are_said(stylegan, embed):
    for wrong in ({"space": "x"}, {"sampling": "middle"}):
        with pytest.raises(ValueError, match="space is w or z, sampling is full or end"):
            _lengths(stylegan, embed, **wrong)
    for wrong in ({"count": 1}, {"epsilon": 0.0}):
        with pytest.raises(ValueError, match="at least 2 pairs"):
            _lengths(stylegan, embed, **wrong)
    with pytest.raises(ValueError, match="40 of 40 path lengths are not finite"):
        _lengths(stylegan, lambda x: x.flatten(1) * float("nan"))
