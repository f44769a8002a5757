"""Relative change of groups of tensors, against NumPy's norms of the joined vectors."""

import math

import numpy as np
import pytest
import torch

from stylegan_tl.metrics.change import relative_change


def _states(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (3, 4, 2), "a.bias": (3,), "b.weight": (5, 3), "b.mean": (2,)}
    before = {k: torch.randn(s, generator=generator).to(dtype) for k, s in shapes.items()}
    after = {k: v + torch.randn(v.shape, generator=generator).to(dtype) for k, v in before.items()}
    return before, after


GROUPS = {"a": ["a.weight", "a.bias"], "weights": ["a.weight", "b.weight"], "b": ["b.weight"]}


def _reference_numpy(before, after, names):
    x, y = (np.concatenate([s[n].double().numpy().ravel() for n in names]) for s in (before, after))
    return np.linalg.norm(y - x) / np.linalg.norm(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_overlapping_groups_agree_with_numpy(dtype):
    before, after = _states(dtype)
    found = relative_change(before, after, GROUPS)
    assert found.keys() == GROUPS.keys()
    for group, names in GROUPS.items():
        wanted = _reference_numpy(before, after, names)
        assert found[group] == pytest.approx(wanted, rel=1e-12)
    after["b.mean"] += 100  # a buffer: in no group
    assert relative_change(before, after, GROUPS) == found


def test_scaling_is_the_closed_form_and_standing_still_is_zero():
    before, _ = _states(torch.float64)
    after = {k: 1.5 * v for k, v in before.items()}
    assert relative_change(before, after, GROUPS) == pytest.approx(dict.fromkeys(GROUPS, 0.5))
    assert relative_change(before, before, GROUPS) == dict.fromkeys(GROUPS, 0.0)


def test_a_tensor_named_twice_counts_once():
    before, after = _states()
    twice = relative_change(before, after, {"x": ["a.weight", "a.bias", "a.weight"]})
    assert twice["x"] == relative_change(before, after, GROUPS)["a"]


def test_large_weights_do_not_overflow():
    before, after = {"w": torch.full((4,), 1e30)}, {"w": torch.full((4,), 3e30)}
    assert relative_change(before, after, {"g": ["w"]})["g"] == pytest.approx(2, rel=1e-6)


def test_degenerate_groups():
    before = {"zero": torch.zeros(3), "one": torch.ones(3)}
    after = {"zero": torch.ones(3), "one": torch.full((3,), math.nan)}
    found = relative_change(before, after, {"zero": ["zero"], "one": ["one"], "none": []})
    assert found["zero"] is None
    assert math.isnan(found["one"])
    assert "none" not in found


def test_what_does_not_fit_is_named():
    before, after = _states()
    with pytest.raises(ValueError, match="c is in a group, but not among the tensors before"):
        relative_change(before, after, {"g": ["c"]})
    with pytest.raises(ValueError, match="tensors after"):
        relative_change(before, {}, {"g": ["a.bias"]})
    with pytest.raises(ValueError, match=r"a.bias has the shape \(3,\) before, \(2,\) after"):
        relative_change(before, {**after, "a.bias": torch.ones(2)}, GROUPS)
