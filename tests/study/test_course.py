"""The mean over all pairs at each kimg against NumPy's means and SciPy's Welch interval."""

from __future__ import annotations

import numpy as np
import pytest
from made import write_trial as write
from scipy import stats

from stylegan_tl.study.collect import collect
from stylegan_tl.study.course import courses, markdown
from stylegan_tl.study.table import table

METRIC = "fid1k_train_small"


@pytest.fixture
def runs():
    """Values [2 pairs, 3 seeds, 2 moments]."""
    return 50 + 10 * np.random.default_rng(2).normal(size=(2, 3, 2))


@pytest.fixture
def root(tmp_path, runs):
    root = tmp_path / "pairs"
    for seed in range(3):
        for source, own in zip(("bedroom", "hall"), runs, strict=True):
            start, end = own[seed]
            write(root, {0.0: start, 0.7: 1.0, 1.0: end}, source=source, seed=seed)
        write(root, {0.0: 90.0, 1.0: 80.0 + seed}, source="scratch", freeze="none", seed=seed)
    write(root, {0.0: 7.0, 2.0: 5.0}, source="bedroom", model="stylegan2")
    write(root, {0.0: 0.0}, source="bedroom", seed=9, state="failed", reason="no")
    return root


def test_it_is_the_mean_of_the_pairs_means_with_welchs_interval(root, runs):
    found = {(c.key["model"], c.key["freeze"]): c for c in courses(collect(root), METRIC)}
    assert set(found) == {("dcgan", "none"), ("dcgan", "scratch"), ("stylegan2", "none")}
    own = found["dcgan", "none"]
    assert (own.kimg, own.pairs) == ((0.0, 0.7, 1.0), 2)
    for at, moment in ((0, 0), (2, 1)):
        one, other = runs[:, :, moment]
        assert own.mean[at] == pytest.approx(runs[:, :, moment].mean())
        welch = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()
        assert (own.low[at], own.high[at]) == pytest.approx((welch.low / 2, welch.high / 2))
    assert (own.low[1], own.high[1]) == (1.0, 1.0)
    assert np.isnan(found["stylegan2", "none"].low).all()  # one seed


def test_only_moments_of_all_runs_count(root):
    write(root, {0.0: 1.0, 1.0: 3.0}, source="attic")
    own = next(c for c in courses(collect(root), METRIC) if c.key["freeze"] == "none")
    assert (own.kimg, own.pairs) == ((0.0, 1.0), 3)


def test_models_of_other_budgets_have_tables_of_their_own(root):
    tables = markdown(courses(collect(root), METRIC)).split("\n\n")
    assert len(tables) == 3
    assert tables[0].startswith("| freeze | model | pairs | 0 kimg | 0.7 kimg | 1 kimg |")
    assert "| scratch | dcgan | 1 | 90.0 | 81.0 [78.5, 83.5] |" in "\n".join(tables)
    assert "| none | stylegan2 | 1 | 7.00 | 5.00 |" in "\n".join(tables)
    assert tables[0] in table(root)
