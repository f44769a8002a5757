"""Density and coverage against a loop over scipy distances, and the paper's expectations."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from stylegan_tl.metrics.density_coverage import DensityCoverage, density_coverage


def _rows(n, f=8, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, f, generator=generator) * scale + shift


def _reference_scipy_density_coverage(fake, real, k):
    fake, real = fake.double().numpy(), real.double().numpy()
    others = cdist(real, real)
    np.fill_diagonal(others, np.inf)
    radii = np.sort(others, axis=1)[:, k - 1]
    distances, count, covered = cdist(fake, real), 0, set()
    for j in range(len(fake)):
        for i in range(len(real)):
            if distances[j, i] < radii[i]:
                count += 1
                covered.add(i)
    return {"density": count / (k * len(fake)), "coverage": len(covered) / len(real)}


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_agree_with_a_loop(k):
    fake, real = _rows(90, scale=0.7, shift=0.2), _rows(110, seed=1)
    found = density_coverage(fake, real, k)
    assert found == pytest.approx(_reference_scipy_density_coverage(fake, real, k), rel=1e-12)
    assert found["density"] > 1 > found["coverage"] > 0.2


def test_equal_sets_give_one_and_disjoint_sets_nothing():
    # Open balls: each holds its own row and k − 1 neighbours, the k-th lies on the edge.
    x = _rows(50, f=300)
    assert density_coverage(x, x) == {"density": pytest.approx(1), "coverage": 1.0}
    assert density_coverage(x, x + 1000) == {"density": 0.0, "coverage": 0.0}


def test_expectations_for_fakes_of_the_reals_distribution():
    n, m, k = 30, 40, 5
    found = [
        density_coverage(_rows(n, f=3, seed=2 * s), _rows(m, f=3, seed=2 * s + 1), k)
        for s in range(200)
    ]
    missed = math.perm(m - 1, k) / math.perm(m + n - 1, k)
    for name, wanted in (("density", 1.0), ("coverage", 1 - missed)):
        values = np.array([each[name] for each in found])
        assert abs(values.mean() - wanted) < 4 * values.std(ddof=1) / len(values) ** 0.5


def test_an_outlier_among_the_reals_does_not_raise_density():
    # Kynkäänniemi's precision would call every fake in the outlier's ball good.
    real = torch.cat([_rows(50), torch.full((1, 8), 20.0)])
    fake = _rows(50, seed=2, shift=12.0)
    assert density_coverage(fake, real)["density"] <= 1 / 5


def test_a_collapsed_generator_covers_little():
    real = _rows(60)
    found = density_coverage(real[:1].expand(300, -1), real)
    assert found["coverage"] < 0.4
    assert found == pytest.approx(
        _reference_scipy_density_coverage(real[:1].expand(300, -1), real, 5), abs=1e-12
    )


def test_constant_reals_are_not_covered():
    real = torch.ones(10, 4)
    assert density_coverage(real, real) == {"density": 0.0, "coverage": 0.0}


def test_order_and_chunks_change_nothing():
    fake, real = _rows(80, scale=0.9), _rows(70, seed=1)
    found = density_coverage(fake, real)
    assert density_coverage(fake.flip(0), real.roll(11, 0)) == found
    assert density_coverage(fake, real, chunk_bytes=2**14) == found


def test_bad_sets_are_refused():
    x = _rows(10)
    with pytest.raises(ValueError, match="k=5 needs at least 6 real images, got 5"):
        density_coverage(x, x[:5])
    with pytest.raises(ValueError, match="real: features hold NaN"):
        density_coverage(x, x * float("nan"))
    assert density_coverage(x[:1], x)["coverage"] <= 1  # one fake is enough


def test_shell_gives_what_the_function_gives():
    fake, real = _rows(50), _rows(60, seed=1)
    metric = DensityCoverage()
    for part in fake.split(7):
        metric.update(part, real=False)
    for part in real.split(11):
        metric.update(part, real=True)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == density_coverage(fake, real)
