"""Nearest neighbours at equal numbers: against every choice of m images, one after the other."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from stylegan_tl.metrics.proximity import expected_nearest, nearest_ratio


def _features(count, seed=0, width=5, shift=0.0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def _reference_every_choice(x, y, m, same=False):
    distances = cdist(x.double().numpy(), y.double().numpy())
    found = []
    for i, row in enumerate(distances):
        row = np.delete(row, i) if same else row
        found.append(np.mean([min(choice) for choice in combinations(row, m)]))
    return np.array(found)


@pytest.mark.parametrize("m", [1, 3, 7, 8])
def test_it_is_the_mean_over_all_choices(m: int) -> None:
    x, y = _features(6), _features(8, seed=1)
    expected = _reference_every_choice(x, y, m)
    np.testing.assert_allclose(expected_nearest(x, y, m), expected, rtol=1e-6)


@pytest.mark.parametrize("m", [1, 4, 7])
def test_no_image_is_its_own_neighbour(m: int) -> None:
    x = _features(8)
    expected = _reference_every_choice(x, x, m, same=True)
    for chunk_bytes in (1, 8 * 8 * 3, 2**28):  # a row, three rows, all at a time
        found = expected_nearest(x, x, m, same=True, chunk_bytes=chunk_bytes)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_far_from_the_origin_no_digits_are_lost() -> None:
    x, y = _features(6), _features(8, seed=1)
    near, far = expected_nearest(x, y, 3), expected_nearest(x.double() + 1e5, y.double() + 1e5, 3)
    np.testing.assert_allclose(near, far, rtol=1e-8)


def test_weights_of_thousands_are_probabilities() -> None:
    ones = expected_nearest(torch.zeros(1, 1), torch.ones(9000, 1), 4500)
    assert ones.item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("sizes", [(300, 300), (300, 90), (90, 300)])
def test_the_ratio_is_one_for_one_distribution_whatever_the_sizes(sizes) -> None:
    target, source = _features(sizes[0], seed=2), _features(sizes[1], seed=3)
    found = nearest_ratio(target, source)
    assert found["m"] == min(sizes[1], sizes[0] - 1)
    assert found["mean"] == pytest.approx(1, abs=0.06)
    assert found["median"] == pytest.approx(1, abs=0.08)


def test_the_ratio_knows_no_scale_and_no_order_and_grows_with_the_shift() -> None:
    target, source = _features(50), _features(40, seed=1, shift=1.0)
    found = nearest_ratio(target, source)
    turned = nearest_ratio(7 * target.flip(0), 7 * source.flip(0))
    assert turned["mean"] == pytest.approx(found["mean"], rel=1e-6)
    assert turned["median"] == pytest.approx(found["median"], rel=1e-6)
    farther = nearest_ratio(target, source + 1)
    assert 1 < found["mean"] < farther["mean"]


def test_the_median_is_that_of_numpy() -> None:
    """Skewed distances, even numbers: the lower median and the mean are both far from it."""
    target = torch.tensor([[0.0], [1.0], [3.0], [7.0], [40.0], [100.0]])
    source = torch.tensor([[0.5], [5.0], [19.0], [60.0], [200.0]])
    found = nearest_ratio(target, source)
    across = _reference_every_choice(target, source, 5)
    own = _reference_every_choice(target, target, 5, same=True)
    assert found["median"] == pytest.approx(np.median(across) / np.median(own), rel=1e-9)
    assert found["mean"] == pytest.approx(across.mean() / own.mean(), rel=1e-9)


def test_equal_rows_are_at_no_distance_however_many() -> None:
    x = 100 * _features(60, width=50)
    assert expected_nearest(x, x, 60).max() < expected_nearest(x, x, 59, same=True).min() / 1e12
    twice = x.repeat(2, 1)
    assert torch.equal(expected_nearest(x, twice, 119), torch.zeros(60, dtype=torch.float64))


def test_the_same_images_on_both_sides_are_at_no_distance() -> None:
    x = _features(20)
    assert nearest_ratio(x, x[:19])["mean"] < 0.06  # one of 20 has its copy missing


@pytest.mark.parametrize(
    ("target", "source", "message"),
    [
        (torch.ones(4, 3), torch.zeros(4, 3), "no scale"),
        (torch.full((60, 64), 0.1), torch.zeros(60, 64), "features of another one.*no scale"),
        (_features(60).repeat(2, 1), torch.zeros(200, 5), "features of another one.*no scale"),
        (torch.ones(1, 3), torch.zeros(4, 3), "at least 2"),
        (torch.ones(4, 3), torch.zeros(4, 2), "one extractor"),
        (torch.tensor([[0.0], [float("nan")]]), torch.zeros(4, 1), "NaN"),
        (torch.ones(4, 3), torch.zeros(0, 3), "0 images"),
    ],
)
def test_what_has_no_distance_is_refused(target, source, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_ratio(target, source)
