"""Aggregates, intervals and rank agreement against SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stylegan_tl.study.statistics import (
    bootstrap_interval,
    difference_interval,
    improvement_interval,
    iqm,
    kendall,
    mean_interval,
    probability_of_improvement,
    ranks,
    resample,
    spearman,
    strata_interval,
    student_quantile,
    top_regret,
)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 30])
def test_iqm_is_scipys_trimmed_mean(generator, count):
    x = generator.normal(size=(6, count))
    assert np.allclose(iqm(x), stats.trim_mean(x, 0.25, axis=-1), rtol=1e-14)


def test_iqm_ignores_outliers_and_needs_values():
    assert iqm([1.0, 2.0, 3.0, 1e9]) == 2.5
    assert np.isnan(iqm([]))


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 2.7, 5, 30, 1000, 1e6])
@pytest.mark.parametrize("p", [0.0005, 0.025, 0.5, 0.8, 0.975, 0.9995])
def test_students_quantile_is_scipys(freedom, p):
    assert np.isclose(student_quantile(p, freedom), stats.t.ppf(p, freedom), rtol=1e-6, atol=1e-8)


def test_students_quantile_of_one_degree_is_a_tangent():
    assert np.isclose(student_quantile(0.9, 1), np.tan(np.pi * 0.4), rtol=1e-10)
    with pytest.raises(ValueError, match="freedom=0"):
        student_quantile(0.9, 0)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_means_interval_is_scipys(generator, count):
    x = generator.normal(size=count)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert np.allclose(mean_interval(x, 0.9), theirs)


def test_the_differences_interval_is_welchs(generator):
    x, y = generator.normal(1, 2, 4), generator.normal(0, 0.5, 7)
    theirs = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert np.allclose(difference_interval(x, y), theirs)


@pytest.mark.parametrize("few", [[], [1.0], [1.0, np.nan], [1.0, np.inf]])
def test_no_interval_from_less_than_two_numbers(few):
    assert np.isnan(mean_interval(few)).all()
    assert np.isnan(difference_interval(few, [1.0, 2.0])).all()
    assert np.isnan(strata_interval([[1.0, 2.0], few])).all()
    assert np.isnan(strata_interval([])).all()


def test_equal_runs_have_an_interval_of_no_width():
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0)
    assert difference_interval([2.0, 2.0], [1.0, 1.0]) == (1.0, 1.0)
    assert strata_interval([[2.0, 2.0], [1.0, 1.0]]) == (1.5, 1.5)


def test_one_stratum_is_students_and_two_are_welchs(generator):
    x, y = generator.normal(1, 2, 4), generator.normal(0, 0.5, 7)
    assert np.allclose(strata_interval([x]), mean_interval(x))
    theirs = stats.ttest_ind(x, -y, equal_var=False).confidence_interval(0.95)
    assert np.allclose(strata_interval([x, y]), (theirs.low / 2, theirs.high / 2))


def test_improvement_is_mann_and_whitneys_u(generator):
    x, y = generator.integers(0, 5, (4, 6)).astype(float), generator.integers(0, 5, (4, 3))
    theirs = np.mean([stats.mannwhitneyu(a, b).statistic / 18 for a, b in zip(x, y, strict=True)])
    assert np.isclose(probability_of_improvement(x, y, "max"), theirs)
    assert np.isclose(probability_of_improvement(x, y, "min"), 1 - theirs)


def test_improvement_counts_only_tasks_that_both_ran():
    assert probability_of_improvement([[1.0], []], [[2.0], [0.0]]) == 1
    assert np.isnan(probability_of_improvement([[]], [[1.0]]))
    assert probability_of_improvement([[np.inf, 1.0]], [[np.inf]]) == 0.75  # never reached: a tie
    with pytest.raises(ValueError, match="better='up'"):
        probability_of_improvement([[1.0]], [[2.0]], "up")


def test_the_interval_of_improvement_holds_its_value(generator):
    x, y = generator.normal(0.5, 1, (3, 5)), generator.normal(0, 1, (3, 5))
    low, high = improvement_interval(x, y, "max", generator=generator)
    assert 0 <= low < probability_of_improvement(x, y, "max") < high <= 1
    assert improvement_interval([[3.0]], [[1.0]], "max", generator=generator) == pytest.approx(
        (np.nan, np.nan), nan_ok=True
    )


def test_one_stratum_is_scipys_bootstrap(generator):
    x = generator.normal(size=25)
    ours = bootstrap_interval([x], lambda d: iqm(d[0]), generator=generator, rounds=20_000)
    theirs = stats.bootstrap(
        (x,), iqm, axis=-1, n_resamples=20_000, method="percentile", rng=generator
    ).confidence_interval
    assert np.allclose(ours, theirs, atol=0.02)


def test_counts_and_draws_are_the_same_bootstrap(generator):
    """Drawing how often each run comes, and drawing the runs, give one distribution."""
    x, y = generator.normal(0.5, 1, (1, 6)), generator.normal(0, 1, (1, 5))

    def share(drawn):
        return (drawn[0][:, :, None] > drawn[1][:, None, :]).mean((1, 2))

    theirs = bootstrap_interval([*x, *y], share, generator=generator, rounds=20_000)
    ours = improvement_interval(x, y, "max", generator=generator, rounds=20_000)
    assert np.allclose(ours, theirs, atol=0.034)  # one pair of runs


def _pooled_mean(drawn):
    return np.concatenate(drawn, -1).mean(-1)


def test_strata_stay_apart(generator):
    """Var of the mean of two strata = Σ (n−1)/n · s²/n / 4; one pool of both has far more."""
    tasks = generator.normal(0, 1, 12), generator.normal(100, 1, 12)
    within = sum(t.var(ddof=0) / 12 for t in tasks) / 4
    low, high = bootstrap_interval(
        tasks, _pooled_mean, generator=generator, rounds=40_000, level=0.6827
    )
    assert np.isclose((high - low) / 2, np.sqrt(within), rtol=0.03)


def test_one_run_a_task_has_no_bootstrap(generator):
    assert np.isnan(bootstrap_interval([[1.0], [2.0]], _pooled_mean, generator=generator)).all()
    assert resample([], 5, generator).shape == (5, 0)


def _interval(tasks, seed):
    return bootstrap_interval(tasks, _pooled_mean, generator=np.random.default_rng(seed))


def test_the_same_generator_gives_the_same_interval():
    tasks = np.random.default_rng(3).normal(size=(2, 9))
    ours = [_interval(tasks, s) for s in (0, 0, 1)]
    assert ours[0] == ours[1] != ours[2]


def test_ranks_and_rank_correlations_are_scipys(generator):
    x, y = generator.integers(0, 6, (9, 8)), generator.integers(0, 6, (9, 8))
    assert (ranks(x) == stats.rankdata(x, axis=-1)).all()
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        assert np.isclose(spearman(x, y)[i], stats.spearmanr(a, b).statistic)
        assert np.isclose(kendall(x, y)[i], stats.kendalltau(a, b, variant="b").statistic)


def test_rank_correlation_of_a_constant_is_unknown_and_infinities_rank():
    assert np.isnan(spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert np.isnan(kendall([1.0], [2.0]))
    assert kendall([1.0, np.inf, 3.0], [1.0, 3.0, 2.0]) == 1 == spearman([1, np.inf, 3], [1, 3, 2])


def test_regret_is_what_the_best_choice_would_have_saved():
    fid = [30.0, 10.0, 20.0]
    assert top_regret([1, 5, 9], fid, predicted_better="min", better="min") == 20
    assert top_regret([1, 9, 5], fid, predicted_better="max", better="min") == 0
    assert top_regret([9, 1, 9], fid, predicted_better="max", better="min") == 15  # a tie: its mean
    assert top_regret([9, 1, 5], fid, predicted_better="max", better="max") == 0
