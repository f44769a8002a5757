"""Kernel inception distance (Bińkowski et al. 2018): unbiased MMD² with a cubic polynomial kernel.

`k(x, y) = (x·y / F + 1)³`. The estimate has no sample-size bias, so it leads where reals are few;
it may be negative near zero. Values are raw MMD² (papers often print them × 10³).
"""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_tl.metrics.shell import FeatureMetric, arranged, scalars
from stylegan_tl.metrics.statistics import check_features, draw

__all__ = ["KernelInceptionDistance", "kernel_distance", "polynomial_mmd"]


def kernel_distance(
    x: Tensor,
    y: Tensor,
    *,
    subset_size: int | None = None,
    num_subsets: int = 100,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """KID of features `x` [N, F], `y` [M, F] and its standard error.

    By default every pair is used (the minimum-variance unbiased estimate) and the error is the
    two-sample delete-one jackknife. With `subset_size`, the classic mean over `num_subsets` random
    subsets drawn from `generator`; its error is their deviation / √num_subsets, which sees the
    draw of the subsets alone: it falls to 0 with their number, and says nothing of what other
    images would give.
    """
    _check(x, y)
    if subset_size is None:
        return polynomial_mmd(x, y)
    if not 2 < subset_size <= min(len(x), len(y)):
        raise ValueError(f"subset_size={subset_size}: allowed are 3 to {min(len(x), len(y))} here")
    if generator is None:
        raise ValueError("random subsets need an explicit generator=torch.Generator()")
    if num_subsets < 1:
        raise ValueError(f"num_subsets={num_subsets}: at least 1")
    values = torch.tensor(
        [
            polynomial_mmd(draw(x, subset_size, generator), draw(y, subset_size, generator))[0]
            for _ in range(num_subsets)
        ],
        dtype=torch.float64,
    )
    spread = values.std().item() / num_subsets**0.5 if num_subsets > 1 else float("nan")
    return values.mean().item(), spread


def polynomial_mmd(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Unbiased MMD² of all pairs (Gretton et al. 2012, eq. 3) and its jackknife standard error.

    Near a distance of 0, where the error falls like 1/N, the jackknife is conservative: about 1.3
    times the spread over fresh images.
    """
    _check(x, y)
    x, y = x.double(), y.double()
    xx, _ = _kernel_sums(x, x)
    yy, _ = _kernel_sums(y, y)
    xy, yx = _kernel_sums(x, y)
    xx, yy = xx - _kernel_diagonal(x), yy - _kernel_diagonal(y)
    n, m = len(x), len(y)
    within_x, within_y = xx.sum() / (n * (n - 1)), yy.sum() / (m * (m - 1))
    value = within_x + within_y - 2 * xy.sum() / (n * m)
    without_x = within_y + _leave_one_out(xx, xy, n, m)
    without_y = within_x + _leave_one_out(yy, yx, m, n)
    return value.item(), (_jackknife(without_x) + _jackknife(without_y)).sqrt().item()


class KernelInceptionDistance(FeatureMetric):
    """`kernel_distance` of the features of both sides: {"value", "stderr"}.

    All pairs by default; with `subset_size`, the mean over `num_subsets` subsets drawn from `seed`.
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        subset_size: int | None = None,
        num_subsets: int = 100,
        seed: int = 0,
        keep_reals: bool = False,
    ) -> None:
        super().__init__(keep_reals=keep_reals)
        self.subset_size, self.num_subsets, self.seed = subset_size, num_subsets, seed

    def compute(self) -> dict[str, Tensor]:
        """Return the distance of everything seen on all ranks."""
        value, stderr = kernel_distance(
            arranged(self.rows(real=False)),
            arranged(self.rows(real=True)),
            subset_size=self.subset_size,
            num_subsets=self.num_subsets,
            generator=torch.Generator().manual_seed(self.seed),
        )
        return scalars({"value": value, "stderr": stderr})


def _kernel(products: Tensor, num_features: int) -> Tensor:
    return (products / num_features + 1) ** 3


def _kernel_diagonal(x: Tensor) -> Tensor:
    return _kernel(x.square().sum(1), x.shape[1])


def _kernel_sums(x: Tensor, y: Tensor, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Row sums [N] and column sums [M] of k(x, y), never holding more than `chunk` rows."""
    rows, columns = [], torch.zeros_like(y[:, 0])
    for part in x.split(chunk):
        kernel = _kernel(part @ y.T, x.shape[1])
        rows.append(kernel.sum(1))
        columns += kernel.sum(0)
    return torch.cat(rows), columns


def _leave_one_out(within: Tensor, across: Tensor, n: int, m: int) -> Tensor:
    """The estimate's terms that hold set x (n rows), with each row left out in turn: [n]."""
    kept = (within.sum() - 2 * within) / ((n - 1) * (n - 2))
    return kept - 2 * (across.sum() - across) / ((n - 1) * m)


def _jackknife(values: Tensor) -> Tensor:
    n = len(values)
    return (values - values.mean()).square().sum() * (n - 1) / n


def _check(x: Tensor, y: Tensor) -> None:
    check_features(x)
    check_features(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} features against {y.shape[1]}: use one extractor for both")
    if min(len(x), len(y)) < 3:
        raise ValueError(f"KID needs at least 3 images on each side, got {len(x)} and {len(y)}")
