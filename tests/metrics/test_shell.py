"""What all shells share: states, refusals, what reset keeps."""

import pytest
import torch

from stylegan_tl.metrics.shell import FeatureMetric, arranged


class _MeanGap(FeatureMetric):
    higher_is_better = False

    def compute(self):
        return {"value": self.rows(real=False).mean() - self.rows(real=True).mean()}


def _rows(n, value=0.0):
    return torch.full((n, 3), value)


def test_rows_of_both_sides_are_kept_apart():
    metric = _MeanGap()
    for n, value, real in ((2, 4.0, False), (3, 1.0, True), (0, 9.0, True), (2, 2.0, False)):
        metric.update(_rows(n, value), real=real)
    assert metric.rows(real=False).shape == (4, 3)
    assert metric.compute()["value"].item() == 2


def test_reset_keeps_nothing_unless_told():
    for keep in (False, True):
        metric = _MeanGap(keep_reals=keep)
        metric.update(_rows(2, 5.0), real=False)
        metric.update(_rows(2, 1.0), real=True)
        metric.reset()
        metric.update(_rows(2, 2.0), real=False)
        if keep:
            assert metric.compute()["value"].item() == 1
            assert metric.clone().compute()["value"].item() == 1
        else:
            with pytest.raises(ValueError, match="_MeanGap has no real images"):
                metric.compute()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(3), r"shape \[N, F\]"),
        (torch.zeros(3, 2, 2), r"shape \[N, F\]"),
        (torch.zeros(3, 2, dtype=torch.uint8), "must be floats"),
        (torch.tensor([[0.0, float("nan")]]), "NaN"),
        (torch.tensor([[float("inf"), 0.0]]), "NaN or infinity"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        _MeanGap().update(features, real=True)


def test_the_arrangement_depends_on_the_rows_alone():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    shuffled = x[torch.randperm(50, generator=torch.Generator().manual_seed(2))]
    assert torch.equal(arranged(x), arranged(shuffled))
    assert sorted(arranged(x)[:, 0].tolist()) == sorted(x[:, 0].tolist())
