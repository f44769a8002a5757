"""The bundled extractor saw no photograph; its FID must order known distances of photographs."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.fid import feature_distance
from stylegan_tl.metrics.kid import polynomial_mmd
from stylegan_tl.metrics.statistics import FeatureStatistics

HALF = 267


def _photographs(name, counts):
    """Class → uint8 [N, 3, 64, 64] in a fixed shuffled order; skips where the zip is not there."""
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("STYLEGAN_TL_PHOTOS", beside)) / name
    if not path.is_file():
        pytest.skip(f"{name} is not in $STYLEGAN_TL_PHOTOS or ../shared/data")
    with zipfile.ZipFile(path) as file:
        return {kind: _class(file, kind, count) for kind, count in counts.items()}


def _class(file, kind, count):
    entries = sorted(n for n in file.namelist() if n.startswith(kind) and not n.endswith("/"))
    np.random.default_rng(0).shuffle(entries)
    images = [Image.open(file.open(entry)).convert("RGB") for entry in entries[:count]]
    images = [np.array(image.resize((64, 64), Image.LANCZOS)) for image in images]
    return np.stack(images).transpose(0, 3, 1, 2).copy()


@pytest.fixture(scope="module")
def houses():
    counts = {"bedroom": 2 * HALF, "kitchen": HALF, "bathroom": HALF, "frontal": HALF}
    return _photographs("houses-128.zip", counts)


@pytest.fixture(scope="module")
def extract():
    extractor = load_extractor("small")
    return lambda images: extractor(torch.from_numpy(images))


@pytest.fixture(scope="module")
def bedrooms(houses, extract):
    return FeatureStatistics.from_features(extract(houses["bedroom"][HALF : 2 * HALF]))


def test_bedrooms_are_nearer_to_bedrooms_than_to_other_rooms_and_those_than_to_house_fronts(
    houses, extract, bedrooms
):
    found = {k: feature_distance(extract(v[:HALF]), bedrooms) for k, v in houses.items()}
    rooms = found["kitchen"], found["bathroom"]
    assert 2 * found["bedroom"] < min(rooms)
    assert max(rooms) < found["frontal"]


def test_kid_orders_them_too_by_more_than_its_errors(houses, extract):
    real = extract(houses["bedroom"][HALF : 2 * HALF])
    found = {k: polynomial_mmd(extract(v[:HALF]), real) for k, v in houses.items()}
    (same, e), (front, f) = found["bedroom"], found["frontal"]
    assert abs(same) < 3 * e
    for room in ("kitchen", "bathroom"):
        value, error = found[room]
        assert value > same + 3 * error
        assert value < front - 3 * f


def _each(images, change):
    changed = [change(Image.fromarray(x.transpose(1, 2, 0))) for x in images]
    return np.stack([np.array(x) for x in changed]).transpose(0, 3, 1, 2).copy()


def _blurred(images, radius):
    return _each(images, lambda x: x.filter(ImageFilter.GaussianBlur(radius)))


def _noisy(images, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


def _compressed(images, loss):
    def change(image):
        file = io.BytesIO()
        image.save(file, "jpeg", quality=100 - loss)
        return Image.open(file)

    return _each(images, change)


def _swapped(images, count):
    images, random = images.copy(), np.random.default_rng(0)
    for image in images:
        for y, x, v, u in random.integers(0, 8, (count, 4)) * 8:
            patch = image[:, y : y + 8, x : x + 8].copy()
            image[:, y : y + 8, x : x + 8] = image[:, v : v + 8, u : u + 8]
            image[:, v : v + 8, u : u + 8] = patch
    return images


@pytest.mark.parametrize(
    ("disturb", "strengths"),
    [
        (_blurred, (0, 0.5, 1, 2, 3)),
        (_noisy, (0, 6, 12, 25, 50, 100)),
        (_compressed, (5, 20, 40, 60, 80, 95)),
        (_swapped, (0, 2, 4, 8, 16, 64)),
    ],
)
def test_fid_grows_with_every_disturbance(houses, extract, bedrooms, disturb, strengths):
    images = houses["bedroom"][:HALF]
    found = [feature_distance(extract(disturb(images, s)), bedrooms) for s in strengths]
    assert found == sorted(found)
    assert found[-1] > 3 * found[0]


@pytest.mark.parametrize("other", ["kitchen", "frontal"])
def test_fid_grows_with_contamination(houses, extract, bedrooms, other):
    found = []
    for share in (0, 0.1, 0.25, 0.5, 0.75, 1):
        cut = round(share * HALF)
        mixed = np.concatenate([houses[other][:cut], houses["bedroom"][cut:HALF]])
        found.append(feature_distance(extract(mixed), bedrooms))
    assert found == sorted(found)


def test_a_few_images_of_another_dataset_suffice_to_tell_rooms_from_buildings(extract):
    rooms, buildings = ("bedroom", "kitchen", "living_room"), ("bridge", "church_outdoor", "tower")
    lsun = _photographs("lsun-sample-64.zip", dict.fromkeys(rooms + buildings, 50))
    indoors, outdoors = (extract(np.concatenate([lsun[k] for k in x])) for x in (rooms, buildings))
    indoors = indoors[torch.randperm(len(indoors), generator=torch.Generator().manual_seed(0))]
    some, others = indoors.chunk(2)
    same, error = polynomial_mmd(some, others)
    apart, spread = polynomial_mmd(some, outdoors)
    assert abs(same) < 3 * error
    assert apart > 3 * spread
    assert apart > same + 3 * error
