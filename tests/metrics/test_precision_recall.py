"""Precision and recall against a loop over scipy distances, and closed forms."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from stylegan_tl.metrics.precision_recall import PrecisionRecall, precision_recall


def _rows(n, f=8, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, f, generator=generator) * scale + shift


def _reference_scipy_precision_recall(fake, real, k):
    fake, real = fake.double().numpy(), real.double().numpy()
    return {"precision": _on_manifold(fake, real, k), "recall": _on_manifold(real, fake, k)}


def _on_manifold(rows, manifold, k):
    # As in NVIDIA's: the (k + 1)-th smallest of the distances to all rows, itself among them.
    radii = np.sort(cdist(manifold, manifold), axis=1)[:, k]
    distances = cdist(rows, manifold)
    inside = [any(d <= r for d, r in zip(line, radii, strict=True)) for line in distances]
    return float(np.mean(inside))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_agree_with_a_loop(k):
    fake, real = _rows(90, scale=0.8, shift=0.3), _rows(110, seed=1)
    found = precision_recall(fake, real, k)
    assert found == pytest.approx(_reference_scipy_precision_recall(fake, real, k), abs=1e-12)
    assert 0.1 < found["recall"] < found["precision"] < 1


def test_equal_sets_give_one_and_disjoint_sets_nothing():
    x = _rows(50)
    assert precision_recall(x, x) == {"precision": 1.0, "recall": 1.0}
    assert precision_recall(x, x + 1000) == {"precision": 0.0, "recall": 0.0}


def test_a_collapsed_generator_is_precise_and_recalls_nothing():
    real = _rows(60)
    copies = real[:1].expand(30, -1)
    assert precision_recall(copies, real) == {"precision": 1.0, "recall": pytest.approx(1 / 60)}


def test_a_fake_at_the_distance_of_the_kth_neighbour_counts():
    real = torch.tensor([[0.0], [1], [2], [3]])  # radii with k = 3: 3, 2, 2, 3
    fake = torch.tensor([[-3.0], [-3.001], [6], [6.001]])
    assert precision_recall(fake, real)["precision"] == 0.5


def test_duplicates_agree_with_a_loop():
    # A copied fake is nobody's business; a real with three copies has a ball of no radius.
    real = _rows(40, seed=1)
    real[:4] = real[0]
    fake = torch.cat([_rows(40), real[:2], real[20:25]])
    wanted = _reference_scipy_precision_recall(fake, real, 3)
    assert precision_recall(fake, real) == pytest.approx(wanted, abs=1e-12)


def test_order_and_chunks_change_nothing():
    fake, real = _rows(80, scale=0.9), _rows(70, seed=1)
    found = precision_recall(fake, real)
    assert precision_recall(fake.flip(0), real.roll(11, 0)) == found
    assert precision_recall(fake, real, chunk_bytes=2**14) == found


def test_bad_sets_are_refused():
    x = _rows(10)
    with pytest.raises(ValueError, match="k=3 needs at least 4 fake images, got 3"):
        precision_recall(x[:3], x)
    with pytest.raises(ValueError, match="k=3 needs at least 4 real images, got 1"):
        precision_recall(x, x[:1])
    with pytest.raises(ValueError, match="fake: features hold NaN"):
        precision_recall(x * float("nan"), x)
    with pytest.raises(ValueError, match="one extractor"):
        precision_recall(x[:, :3], x)


def test_shell_gives_what_the_function_gives():
    fake, real = _rows(50), _rows(60, seed=1)
    metric = PrecisionRecall(k=2)
    for part in fake.split(7):
        metric.update(part, real=False)
    for part in real.split(11):
        metric.update(part, real=True)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == precision_recall(fake, real, 2)
