"""Diversity of one set against scipy distances and the Vendi score's definition."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

from stylegan_tl.metrics.diversity import Diversity, mean_distance, neighbour_radius, vendi_score


def _rows(n, f=10, seed=0, shift=0.0):
    return torch.randn(n, f, generator=torch.Generator().manual_seed(seed)) + shift


def _reference_numpy_vendi(x):
    """From the N × N kernel, by singular values; the functions take the smaller matrix."""
    x = np.float64(x.numpy())
    kernel = 1 - cdist(x, x, "cosine")
    weights = np.linalg.svd(kernel / len(x), compute_uv=False)
    weights = weights[weights > 1e-14]
    return np.exp(-(weights * np.log(weights)).sum())


@pytest.mark.parametrize("n", [7, 10, 60])
def test_vendi_score_agrees_with_the_definition(n):
    x = _rows(n, shift=0.5)
    assert vendi_score(x) == pytest.approx(_reference_numpy_vendi(x), rel=1e-9)


def test_vendi_score_counts_what_is_distinct():
    assert vendi_score(torch.eye(12) * 3) == pytest.approx(12)
    assert vendi_score(torch.eye(3, 20).repeat(50, 1)) == pytest.approx(3)
    assert vendi_score(torch.ones(9, 4) * torch.arange(1.0, 10)[:, None]) == pytest.approx(1)
    assert vendi_score(_rows(1)) == pytest.approx(1)
    weights = np.array([30, 10]) / 40  # two kinds of images, three to one
    x = torch.eye(2, 5)[[0] * 30 + [1] * 10]
    assert vendi_score(x) == pytest.approx(np.exp(-(weights * np.log(weights)).sum()))


def test_mean_distance_agrees_with_scipy():
    x = _rows(50, shift=20.0)
    wanted = pdist(x.double().numpy()).mean()
    assert mean_distance(x) == pytest.approx(wanted, rel=1e-12)
    assert mean_distance(x, chunk_bytes=2**12) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_neighbour_radius_agrees_with_scipy(k):
    x = _rows(50)
    wanted = np.sort(cdist(x.double().numpy(), x.double().numpy()), axis=1)[:, k].mean()
    assert neighbour_radius(x, k) == pytest.approx(wanted, rel=1e-12)


def test_a_set_half_as_wide_is_half_as_diverse():
    x = _rows(80)
    assert mean_distance(x / 2) == pytest.approx(mean_distance(x) / 2)
    assert neighbour_radius(x / 2) == pytest.approx(neighbour_radius(x) / 2)


def test_constant_features_have_no_diversity():
    x = torch.full((20, 6), 0.3)
    assert (mean_distance(x), neighbour_radius(x)) == (0, 0)
    assert vendi_score(x) == pytest.approx(1)


def test_order_changes_nothing():
    x = _rows(60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    for measure in (mean_distance, neighbour_radius, vendi_score):
        assert measure(x[order]) == pytest.approx(measure(x), rel=1e-12)


def test_bad_sets_are_refused():
    x = _rows(5)
    with pytest.raises(ValueError, match="k=5 needs at least 6 images, got 5"):
        neighbour_radius(x)
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        mean_distance(x[:1])
    with pytest.raises(ValueError, match="2 of 5 rows are all zeros"):
        vendi_score(x * torch.tensor([1.0, 0, 1, 0, 1])[:, None])
    for measure in (mean_distance, neighbour_radius, vendi_score):
        with pytest.raises(ValueError, match="NaN"):
            measure(x * float("nan"))


def test_shell_gives_what_the_functions_give():
    fake, real = _rows(30), _rows(40, seed=1)
    metric = Diversity(k=2)
    metric.update(fake[:11], real=False)
    metric.update(fake[11:], real=False)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == {
        "neighbour_radius": neighbour_radius(fake, 2),
        "mean_distance": mean_distance(fake),
        "vendi": vendi_score(fake),
    }
    metric.update(real, real=True)
    assert metric.compute()["real_vendi"].item() == vendi_score(real)
