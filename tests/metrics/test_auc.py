"""AUC against SciPy's Mann-Whitney U with ties, and its error against repetitions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from stylegan_tl.metrics.auc import auc


def _reference_scipy(positive, negative):
    found = mannwhitneyu(positive.numpy(), negative.numpy(), method="asymptotic")
    return found.statistic / (len(positive) * len(negative))


@pytest.mark.parametrize("levels", [None, 12, 3])
def test_it_is_the_mann_whitney_statistic_with_and_without_ties(levels) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(70, generator=generator) + 0.4
    b = torch.randn(41, generator=generator)
    if levels:
        a, b = ((x * levels / 4).round() for x in (a, b))
        assert len(torch.cat([a, b]).unique()) < 20
    assert auc(a, b)[0] == pytest.approx(_reference_scipy(a, b), abs=1e-12)
    assert auc(b, a)[0] == pytest.approx(1 - auc(a, b)[0], abs=1e-12)
    assert auc(b, a)[1] == pytest.approx(auc(a, b)[1], rel=1e-12)


def test_the_definition_by_hand() -> None:
    value, _ = auc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    pairs = [1, 0.5, 0, 0, 1, 1, 0.5, 0]
    assert value == sum(pairs) / 8


def test_its_error_predicts_the_spread_over_repetitions() -> None:
    found = []
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(60, generator=generator) + 0.7
        found.append(auc(a, torch.randn(40, generator=generator)))
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(0.5 * (1 + math.erf(0.7 / 2)), abs=0.01)  # Φ(δ/√2)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.1)


def test_sets_that_are_equal_or_apart() -> None:
    same = torch.full((5,), 2.0)
    assert auc(same, same[:3]) == (0.5, 0.0)
    assert auc(same + 1, same) == (1.0, 0.0)
    value, error = auc(torch.tensor([1.0]), same)
    assert value == 0.0
    assert math.isnan(error)


@pytest.mark.parametrize("bad", [torch.tensor([]), torch.tensor([float("nan")])])
def test_nothing_and_nan_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="negative score"):
        auc(torch.ones(3), bad)
