"""Flags name the tick where something begins to go wrong, and healthy curves raise none."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from stylegan_tl.metrics.flags import (
    ARMED_KIMG,
    COLLAPSED,
    COLLAPSED_TICKS,
    OVERPOWERING_TICKS,
    diversity,
    flags,
)

CURVES = json.loads(Path(__file__).with_name("curves.json").read_text())


def _rows(**columns):
    count = len(next(iter(columns.values())))
    return [
        {"tick": i, "kimg": i / 2, **{k: v[i] for k, v in columns.items()}} for i in range(count)
    ]


def _images(count, seed=0, size=32):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), np.uint8)


# -- diversity


def _reference_all_pairs(images, classes, side):
    """Every pair of one class, one after the other."""
    n, _, size, _ = images.shape
    small = np.zeros((n, 3, side, side))
    step = size // side
    for y in range(side):
        for x in range(side):
            block = images[:, :, y * step : (y + 1) * step, x * step : (x + 1) * step]
            small[:, :, y, x] = block.mean((2, 3)) / 255
    pairs = [(i, j) for i, j in combinations(range(n), 2) if classes[i] == classes[j]]
    return np.mean([((small[i] - small[j]) ** 2).mean() for i, j in pairs]) ** 0.5


@pytest.mark.parametrize("size", [8, 16, 64])
def test_diversity_is_that_of_all_pairs(size):
    images = _images(10, size=size)
    wanted = _reference_all_pairs(images, [0] * 10, min(16, size))
    assert diversity(images) == pytest.approx(wanted, rel=1e-12)


def test_under_labels_only_images_of_one_class_are_compared():
    images, classes = _images(12), np.arange(12) % 3  # as many of each: pairs weigh the same
    wanted = _reference_all_pairs(images, classes, 16)
    assert diversity(images, classes) == pytest.approx(wanted, rel=1e-12)
    two = np.repeat(_images(2), 6, 0)  # collapsed to one image a class
    assert diversity(two, np.repeat([0, 1], 6)) < 1e-12
    assert diversity(two) > 0.05


def test_degenerate_sets():
    assert diversity(np.repeat(_images(1), 8, 0)) < 1e-12
    assert diversity(_images(7)) is None
    assert diversity(_images(8), np.arange(8)) is None
    assert diversity(np.zeros((8, 3, 16, 16), np.uint8)) == 0


# -- collapse


def test_a_collapse_is_raised_once_at_the_tick_that_completes_it():
    rows = _rows(diversity=[0.9, 0.8, 0.9, 0.1, 0.05, 0.0, 0.0])
    (flag,) = flags(rows)
    assert flag.keys() == {"flag", "tick", "kimg", "evidence"}
    assert (flag["flag"], flag["tick"], flag["kimg"]) == ("mode collapse", 4, 2.0)
    assert "0.05 times" in flag["evidence"]
    assert flags(rows[:4]) == []


def test_a_collapse_that_went_and_came_is_raised_again():
    rows = _rows(diversity=[0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1])
    assert [flag["tick"] for flag in flags(rows)] == [2, 5]


def test_one_poor_tick_is_no_collapse():
    assert flags(_rows(diversity=[0.9, 0.1, 0.9, 0.1, 0.9])) == []


def test_a_fresh_generator_has_time_until_it_has_not():
    """From scratch all images are grey at first; still so after many kimg is a collapse."""
    rows = _rows(diversity=[0.01] * round(2 * ARMED_KIMG + 3))
    (flag,) = flags(rows)
    assert flag["kimg"] == ARMED_KIMG
    rising = _rows(diversity=[0.01, 0.05, 0.15, 0.3, 0.6])
    assert flags(rising) == []


@pytest.mark.parametrize("missing", [None, "absent"])
def test_rows_without_the_numbers_are_passed_over(missing):
    rows = _rows(diversity=[0.9, 0.1, None, 0.1], loss_D=[None] * 4)
    if missing == "absent":
        rows = [{k: v for k, v in row.items() if v is not None} for row in rows]
    (flag,) = flags(rows)  # two ticks that are known, with one between them that is not
    assert (flag["flag"], flag["tick"]) == ("mode collapse", 3)
    assert flags(rows[:3]) == []
    assert flags([]) == []
    gaps = _rows(diversity=[0.9, 0.1, 0.1, None, 0.1, None, 0.1])  # it has not gone between
    assert [flag["tick"] for flag in flags(gaps)] == [2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_none(bad):
    (flag,) = flags(_rows(diversity=[0.9, bad, 0.1, bad, 0.1]))
    assert flag["tick"] == 4
    assert "it was 0.9 at most" in flag["evidence"]
    for name, values in OVERPOWERED.items():
        rows = _rows(**{**OVERPOWERED, name: [*values[:2], bad, *values[3:]]})
        assert [flag["tick"] for flag in flags(rows)] == [OVERPOWERING_TICKS + 1]


# -- D overpowering

OVERPOWERED = {
    "D_sign_real": [0.4, 0.97, 0.99, 1.0, 1.0, 1.0],
    "loss_D": [1.2, 0.05, 0.02, 0.01, 0.0, 0.0],
    "loss_G": [0.8, 5.0, 6.0, 8.0, 9.0, 12.0],
}


def test_an_overpowering_discriminator_is_named_with_its_numbers():
    (flag,) = flags(_rows(**OVERPOWERED))
    assert (flag["flag"], flag["tick"]) == ("D overpowering", OVERPOWERING_TICKS)
    assert "loss of 0.05 or less, and G had a loss of 5 or more" in flag["evidence"]


@pytest.mark.parametrize(
    "change",
    [
        {"D_sign_real": [0.4, 0.9, 0.9, 0.9, 0.9, 0.9]},  # unsure of some reals
        {"loss_D": [1.2, 0.5, 0.4, 0.3, 0.3, 0.3]},  # G still fools it
        {"loss_G": [0.8, 1.0, 1.2, 1.4, 1.6, 1.8]},  # G is not lost
        {"loss_D": [0.01, 0.01, 0.01, 1.0, 0.01, 0.01]},  # not for long
    ],
)
def test_each_part_of_the_evidence_is_needed(change):
    assert flags(_rows(**{**OVERPOWERED, **change})) == []


# -- recorded curves: small networks at 32 px, batches of 16, 175 kitchens or 10 of them, sources
# trained on bedrooms; the broken runs are those with the learning rate in their name


@pytest.mark.parametrize("name", [name for name in CURVES if name.startswith("healthy")])
def test_recorded_healthy_runs_raise_none(name):
    rows = CURVES[name]
    assert len(rows) > OVERPOWERING_TICKS + COLLAPSED_TICKS
    assert flags(rows) == []
    assert max(row["diversity"] for row in rows) > 2 * COLLAPSED  # it did begin to learn


@pytest.mark.parametrize("name", [name for name in CURVES if not name.startswith("healthy")])
def test_recorded_broken_runs_raise_theirs(name):
    assert name.split(",")[0] in {flag["flag"] for flag in flags(CURVES[name])}
