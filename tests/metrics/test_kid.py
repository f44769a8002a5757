"""KID against a naive loop, torchmetrics, and what a standard error has to mean."""

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from stylegan_tl.metrics.kid import kernel_distance, polynomial_mmd


def _sets(n=40, m=30, f=8, shift=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, f, generator=generator)
    return x, torch.randn(m, f, generator=generator) + shift


def _reference_naive_mmd(x, y):
    x, y = np.float64(x), np.float64(y)
    kernel = lambda a, b: (a @ b / len(a) + 1) ** 3  # noqa: E731
    xx = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
    yy = [kernel(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j]
    xy = [kernel(a, b) for a in x for b in y]
    return np.mean(xx) + np.mean(yy) - 2 * np.mean(xy)


class _Passthrough(torch.nn.Module):
    num_features = 24

    def forward(self, images):
        return images.flatten(1)[:, : self.num_features].float() / 64


def test_all_pairs_agree_with_the_definition():
    x, y = _sets()
    assert polynomial_mmd(x, y)[0] == pytest.approx(_reference_naive_mmd(x, y), rel=1e-10)


def test_standard_error_is_the_jackknife_done_by_hand():
    x, y = _sets(n=9, m=7)
    wanted = 0.0
    for mine, other, flip in ((x, y, False), (y, x, True)):
        left_out = []
        for i in range(len(mine)):
            rest = torch.cat([mine[:i], mine[i + 1 :]])
            left_out.append(_reference_naive_mmd(*((other, rest) if flip else (rest, other))))
        n = len(left_out)
        wanted += (n - 1) / n * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)
    assert polynomial_mmd(x, y)[1] == pytest.approx(np.sqrt(wanted), rel=1e-8)


def test_standard_error_predicts_the_spread_over_repetitions():
    found = [polynomial_mmd(*_sets(n=100, m=100, shift=0.5, seed=s)) for s in range(60)]
    values, errors = np.array(found).T
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.35)


def test_standard_error_is_a_third_too_large_at_no_distance():
    found = [polynomial_mmd(*_sets(n=60, m=60, shift=0.0, seed=s)) for s in range(200)]
    values, errors = np.array(found).T
    assert 1.1 < errors.mean() / values.std(ddof=1) < 1.6


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save:UserWarning")
def test_kid_agrees_with_torchmetrics_on_the_whole_set():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (60, 3, 4, 4), generator=generator, dtype=torch.uint8)
    fake = torch.randint(0, 200, (60, 3, 4, 4), generator=generator, dtype=torch.uint8)
    network = _Passthrough()
    theirs = KernelInceptionDistance(feature=network, subsets=1, subset_size=60)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    wanted = theirs.compute()[0].item()
    assert kernel_distance(network(real), network(fake))[0] == pytest.approx(wanted, rel=1e-4)


def test_subsets_are_drawn_from_the_given_generator_alone():
    x, y = _sets(n=200, m=150)
    found = [
        kernel_distance(
            x, y, subset_size=50, num_subsets=20, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]
    assert found[0][0] == pytest.approx(polynomial_mmd(x, y)[0], abs=5 * found[0][1])


def test_bad_requests_are_refused():
    x, y = _sets()
    with pytest.raises(ValueError, match="explicit generator"):
        kernel_distance(x, y, subset_size=10)
    with pytest.raises(ValueError, match="allowed are 3 to 30"):
        kernel_distance(x, y, subset_size=31, generator=torch.Generator())
    with pytest.raises(ValueError, match="at least 3 images"):
        kernel_distance(x[:2], y)
    with pytest.raises(ValueError, match="one extractor"):
        kernel_distance(x, y[:, :4])
