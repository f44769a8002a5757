"""Speed and area of curves whose answers are known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, interpolate

from stylegan_tl.study.curves import goal, kimg_to_reach, log_area, value_at

KIMG = [0.0, 1.0, 2.0, 8.0]
FID = [100.0, 60.0, 40.0, 20.0]


def test_between_evaluations_the_curve_is_straight_over_log_kimg():
    theirs = interpolate.interp1d(np.log(KIMG[1:]), FID[1:])
    for at in (1.0, 1.3, 2.0, 5.0, 8.0):
        assert np.isclose(value_at(KIMG, FID, at), theirs(np.log(at)))
    assert value_at(KIMG, FID, 4.0) == pytest.approx(30)  # half-way from 2 to 8 in the logarithm
    assert value_at(KIMG, FID, 0.25) == pytest.approx(90)  # from 0: straight over kimg
    assert value_at(KIMG, FID, 0.0) == 100
    assert math.isnan(value_at(KIMG, FID, 9.0))
    assert math.isnan(value_at(KIMG[1:], FID[1:], 0.5))


@pytest.mark.parametrize("x", [95.0, 60.0, 50.0, 33.0, 20.0])
def test_to_reach_is_the_inverse_of_the_value(x):
    assert value_at(KIMG, FID, kimg_to_reach(KIMG, FID, x)) == pytest.approx(x)


def test_reached_at_once_never_and_first():
    assert kimg_to_reach(KIMG, FID, 120.0) == 0
    assert kimg_to_reach(KIMG, FID, 19.0) == math.inf
    assert kimg_to_reach([1, 2, 4, 8], [50, 30, 60, 10], 40.0) == pytest.approx(math.sqrt(2))
    assert kimg_to_reach([1, 4], [0.2, 0.8], 0.5, "max") == pytest.approx(2)
    assert kimg_to_reach([], [], 1.0) == math.inf


def test_an_evaluation_without_a_number_is_not_a_crossing():
    values = [100.0, math.nan, 40.0, 20.0]
    assert kimg_to_reach(KIMG, values, 50.0) == 2.0  # known to be below there, not before
    assert math.isnan(value_at(KIMG, values, 1.5))
    assert math.isnan(log_area(KIMG, values, 1.0, 8.0))
    assert not math.isnan(log_area(KIMG, values, 2.0, 8.0))


def test_the_area_of_a_line_over_the_logarithm_is_its_middle():
    kimg = np.array([1.0, 2.0, 4.0, 16.0])
    assert log_area(kimg, 5 - np.log2(kimg), 1.0, 16.0) == pytest.approx(3)
    assert log_area(kimg, np.full(4, 7.0), 1.5, 3.0) == pytest.approx(7)


def test_the_area_is_what_quadrature_finds():
    def height(u):
        return value_at(KIMG, FID, math.exp(u))

    theirs, _ = integrate.quad(height, math.log(1.2), math.log(7.0), points=[math.log(2)])
    ours = log_area(KIMG, FID, 1.2, 7.0)
    assert ours == pytest.approx(theirs / math.log(7.0 / 1.2), rel=1e-8)


def test_areas_need_a_range_and_are_unknown_beyond_the_evaluations():
    with pytest.raises(ValueError, match="0 < start < end, got 0"):
        log_area(KIMG, FID, 0, 4)
    assert math.isnan(log_area(KIMG, FID, 1, 9))
    with pytest.raises(ValueError, match="must ascend"):
        log_area([2, 1], [1, 1], 1, 2)
    with pytest.raises(ValueError, match="equally long"):
        value_at([1, 2], [1], 1)


def test_the_goal_is_ten_percent_worse_than_the_best_whatever_its_sign():
    assert goal(20.0) == pytest.approx(22)
    assert goal(-0.1) == pytest.approx(-0.09)
    assert goal(0.5, "max") == pytest.approx(0.45)
