"""The bundled extractor: what it is, how it was trained, and how its FID orders known distances."""

import hashlib
import json
import struct
from functools import cache

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.stats import spearmanr

from stylegan_tl.data.procedural import content, render
from stylegan_tl.metrics import train_small
from stylegan_tl.metrics.degrade import KINDS, degrade
from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.fid import feature_distance
from stylegan_tl.metrics.kid import polynomial_mmd
from stylegan_tl.metrics.small import BUNDLED, SmallNetwork, load_small
from stylegan_tl.metrics.small_training import _finish
from stylegan_tl.metrics.statistics import FeatureStatistics

COUNT = 120


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("small")


def _rendered(domain, first, distance=1.0):
    indices = range(first, first + COUNT)
    return np.stack([_picture(content(domain, i, distance=distance), i) for i in indices])


@cache
def _picture(domain, index):
    return render(domain, index, 64)


@pytest.fixture(scope="module")
def bedrooms():
    return _rendered("rooms/bedroom", 0)


@pytest.fixture(scope="module")
def other_bedrooms(extractor):
    return extractor(torch.from_numpy(_rendered("rooms/bedroom", 1000)))


def _fid(extractor, images, reference):
    features = extractor(torch.from_numpy(images))
    return feature_distance(features, FeatureStatistics.from_features(reference))


def _metadata(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["training"])


def test_the_file_is_small_and_says_what_it_was_trained_on(extractor):
    assert BUNDLED.stat().st_size < 2_000_000
    assert extractor.digest == hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    said = _metadata(BUNDLED)
    assert "no photographs" in said["trained_on"]
    assert said["command"].startswith("python -m stylegan_tl.metrics.train_small images=")
    assert "64 px" in extractor.resize


def _reference_features(x, state):
    """The network as functions over its file."""
    x, means = x / 127.5 - 1, []
    for stage in ("stage32", "stage16", "stage8"):
        for i, stride in ((0, 2), (1, 1)):
            weight, bias = (state[f"{stage}.{i}.conv.{k}"].float() for k in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2).clamp(min=0)
        means.append(x.mean((2, 3)))
    z = (torch.cat(means, 1) - state["mean"]) / state["scale"]
    return z / torch.sqrt(1 + z**2 / 16)


def test_features_agree_with_a_second_implementation(extractor, bedrooms):
    images = torch.from_numpy(bedrooms[:4])
    found = extractor(images)
    assert found.shape == (4, 216)
    torch.testing.assert_close(
        found, _reference_features(images.float(), load_file(BUNDLED)), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("size", [16, 32, 128, 200])
def test_any_resolution_is_resized_as_pillow_does(extractor, size):
    # bilinear with antialias is Pillow's BILINEAR, up to its rounding to uint8
    from PIL import Image

    image = render("rooms/kitchen", 7, 256)
    image = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.BILINEAR)
    theirs = np.array(image.resize((64, 64), Image.BILINEAR)).transpose(2, 0, 1)
    mine = torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())[None]
    wanted = extractor(torch.from_numpy(theirs.copy())[None])
    torch.testing.assert_close(extractor(mine), wanted, atol=0.3, rtol=0)


def test_two_halves_of_a_domain_are_nearer_than_rooms_and_rooms_nearer_than_art(
    extractor, bedrooms, other_bedrooms
):
    split = _fid(extractor, bedrooms, other_bedrooms)
    rooms = [
        _fid(extractor, _rendered(f"rooms/{name}", 1000), other_bedrooms)
        for name in ("kitchen", "living_room")
    ]
    art = [
        _fid(extractor, _rendered(f"art/{name}", 0), other_bedrooms)
        for name in ("abstract", "portrait")
    ]
    assert split < min(rooms)
    assert max(rooms) < min(art)


def test_fid_and_kid_follow_the_knob_of_the_distance_between_domains(extractor):
    # the knob makes every integral probability metric proportional to d, so KID to d²
    knob, fid, kid = (0.0, 0.25, 0.5, 0.75, 1.0), [], []
    for d in knob:
        pair = [_rendered("rooms/bedroom", 0, d), _rendered("rooms/kitchen", 1000, d)]
        x, y = (extractor(torch.from_numpy(images)) for images in pair)
        fid.append(feature_distance(x, FeatureStatistics.from_features(y)))
        kid.append(polynomial_mmd(x, y)[0])
    assert fid == sorted(fid)
    assert np.array(kid) / kid[-1] == pytest.approx(np.square(knob), abs=0.12)


def _blurred(images, sigma):
    soft = scipy.ndimage.gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma))
    return soft.round().astype(np.uint8)


def _noisy(images, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("disturb", "strengths"),
    [(_blurred, (0, 0.5, 1, 2, 3)), (_noisy, (0, 6, 12, 25, 50, 100))],
)
def test_fid_grows_with_blur_and_noise(extractor, bedrooms, other_bedrooms, disturb, strengths):
    found = [_fid(extractor, disturb(bedrooms, s), other_bedrooms) for s in strengths]
    assert found == sorted(found)
    assert found[-1] > 5 * found[0]


def test_fid_grows_with_contamination(extractor, bedrooms, other_bedrooms):
    portraits = _rendered("art/portrait", 0)
    found = []
    for share in (0, 0.1, 0.25, 0.5, 1):
        cut = round(share * COUNT)
        mixed = np.concatenate([portraits[:cut], bedrooms[cut:]])
        found.append(_fid(extractor, mixed, other_bedrooms))
    assert found == sorted(found)


def test_folding_keeps_the_features():
    torch.manual_seed(0)
    network = SmallNetwork(norm=True)
    images = torch.rand(2, 20, 3, 64, 64) * 2 - 1
    for _ in range(3):
        network.features(images[0])  # moves the statistics of the normalisations
    finished = _finish(network, images)
    found, wanted = (n.eval().features(images[0]) for n in (finished, network))
    torch.testing.assert_close(found, wanted, rtol=5e-3, atol=5e-3)
    standard = (finished.features(images.flatten(0, 1)) - finished.mean) / finished.scale
    torch.testing.assert_close(standard.mean(0), torch.zeros(216), atol=1e-2, rtol=0)


def test_the_command_trains_the_same_network_twice(tmp_path, capsys):
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        small = [f"out={file}", "images=3", "steps=2", "batch=8"]
        assert train_small.main(small) == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    network, _ = load_small(files[0])
    assert network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 216)
    assert train_small.main(["stepz=3"]) == 2
    assert "steps" in capsys.readouterr().err
    assert train_small.main(["steps=many"]) == 2
    assert "takes int" in capsys.readouterr().err
    assert train_small.main(["--help"]) == 0


def test_blur_agrees_with_scipy():
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    strengths = torch.tensor([0.1, 0.4])
    kind = torch.full((2,), list(KINDS).index("blur"))
    found = degrade(images, kind, strengths, torch.Generator())
    for mine, image, strength in zip(found, images, strengths.tolist(), strict=True):
        sigma = 0.3 + 2.7 * strength
        wanted = scipy.ndimage.gaussian_filter(
            image.numpy(), (0, sigma, sigma), mode="mirror", radius=(0, 6, 6)
        )
        np.testing.assert_allclose(mine.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_every_degradation_grows_with_its_strength(name, bedrooms):
    images = torch.from_numpy(bedrooms[:8]).float() / 127.5 - 1
    kind, changes = torch.full((8,), list(KINDS).index(name)), []
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0)
    for strength in strengths:
        generator = torch.Generator().manual_seed(0)
        found = degrade(images, kind, torch.full((8,), strength), generator)
        assert found.shape == images.shape
        assert found.abs().max() <= 1
        changes.append((found - images).abs().mean().item())
    if name == "nothing":
        assert changes == [0] * 5
    else:
        assert spearmanr(strengths, changes).statistic > 0.89
