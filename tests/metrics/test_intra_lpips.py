"""Intra-cluster distance against SciPy's distances of all pairs, and what it is for."""

import numpy as np
import pytest
import scipy.spatial.distance as distance
import scipy.stats
import torch

from stylegan_tl.data.procedural import render
from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.metrics.intra_lpips import balance, intra_cluster, mean_pair_distance


def _embed(images):
    """A small nonlinear row per image."""
    x = images.double().flatten(1)
    x = x / 255 if images.dtype == torch.uint8 else (x + 1) / 2
    return torch.cat([x, torch.sin(5 * x)], 1).float()


def _noise(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)


def _around(anchors, counts, spread, seed=0):
    """`counts[k]` images around anchor k, in mixed order."""
    rng = np.random.default_rng(seed)
    images = np.repeat(anchors, counts, axis=0).astype(int)
    images = np.clip(images + rng.integers(-spread, spread + 1, images.shape), 0, 255)
    return images[rng.permutation(len(images))].astype(np.uint8)


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def _measure(images, anchors, **options):
    given = {"generator": _seeded(), **options}
    return intra_cluster(torch.from_numpy(images), torch.from_numpy(anchors), _embed, **given)


def _rows(images):
    return _embed(torch.from_numpy(images)).double().numpy()


def _reference(images, anchors):
    """All pairs of every cluster, nothing drawn."""
    rows = _rows(images)
    nearest = distance.cdist(rows, _rows(anchors), "sqeuclidean").argmin(1)
    return [
        distance.pdist(rows[nearest == k], "sqeuclidean").mean()
        if (nearest == k).sum() > 1
        else None
        for k in range(len(anchors))
    ], np.bincount(nearest, minlength=len(anchors))


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_it_agrees_with_scipy_where_all_are_used(batch):
    anchors = _noise(4, 1)
    images = _around(anchors, [30, 12, 1, 0], spread=40)
    found = _measure(images, anchors, batch=batch)
    wanted, sizes = _reference(images, anchors)
    assert sizes.tolist() == [30, 12, 1, 0]
    assert [c["images"] for c in found["clusters"]] == sizes.tolist()
    assert [c["anchor"] for c in found["clusters"]] == [0, 1, 2, 3]
    for cluster, value in zip(found["clusters"], wanted, strict=True):
        assert cluster["distance"] == (None if value is None else pytest.approx(value, rel=1e-5))
    assert found["value"] == pytest.approx(np.mean(wanted[:2]), rel=1e-5)
    assert found["std"] == pytest.approx(np.std(wanted[:2]), rel=1e-4)
    assert found["stderr"] == pytest.approx(scipy.stats.sem(wanted[:2]), rel=1e-4)
    assert found["nonempty"] == 3
    assert found["balance"] == pytest.approx(scipy.stats.entropy(sizes) / np.log(4))


def test_large_clusters_are_drawn_from():
    anchors = _noise(2, 1)
    images = _around(anchors, [200, 60], spread=60)
    wanted, _ = _reference(images, anchors)
    draws = [_measure(images, anchors, per_cluster=20, generator=_seeded(s)) for s in range(12)]
    assert [c["used"] for c in draws[0]["clusters"]] == [20, 20]
    assert draws[0] == _measure(images, anchors, per_cluster=20)
    values = [d["value"] for d in draws]
    assert len(set(values)) > 1
    assert np.mean(values) == pytest.approx(np.mean(wanted), rel=0.02)  # unbiased


def test_order_of_the_fakes_does_not_matter():
    anchors = _noise(3, 1)
    images = _around(anchors, [9, 9, 9], spread=30)
    assert _measure(images[::-1].copy(), anchors)["value"] == pytest.approx(
        _measure(images, anchors)["value"], rel=1e-6
    )


def test_copies_of_the_training_images_score_nothing():
    anchors = _noise(3, 1)
    found = _measure(np.repeat(anchors, [5, 5, 1], axis=0), anchors)
    assert found["value"] == found["std"] == 0
    assert found["stderr"] == 0
    same = _measure(np.repeat(anchors[:1], 8, axis=0), anchors)
    assert (same["value"], same["balance"], same["nonempty"]) == (0, 0, 1)
    assert same["stderr"] is None
    assert [c["distance"] for c in same["clusters"]] == [0, None, None]


@pytest.mark.parametrize("sizes", [[5, 5, 5], [9, 1, 0], [7], [4, 0]])
def test_balance_is_scipys_entropy_over_its_maximum(sizes):
    wanted = scipy.stats.entropy(sizes) / np.log(len(sizes)) if len(sizes) > 1 else 1.0
    assert balance(sizes) == pytest.approx(wanted)


def test_nearly_equal_images_keep_their_digits():
    image = np.full((40, 3, 16, 16), 200, np.uint8)
    image[np.arange(40), 0, 0, np.arange(40) % 16] += 1
    found = mean_pair_distance(torch.from_numpy(image), _embed, batch=8)
    assert found == pytest.approx(distance.pdist(_rows(image), "sqeuclidean").mean(), rel=1e-5)


def test_no_more_than_a_batch_is_embedded_and_large_images_are_averaged_down():
    seen = []

    def embed(images):
        seen.append(tuple(images.shape))
        return images.float().mean((2, 3))

    images = torch.zeros(20, 3, 512, 512, dtype=torch.uint8)
    intra_cluster(images, images[:2], embed, generator=_seeded(), per_cluster=5, batch=4)
    assert max(n for n, *_ in seen) == 4
    assert {shape[1:] for shape in seen} == {(3, 256, 256)}


def test_a_generator_of_few_pictures_scores_below_one_of_many():
    embed = load_extractor("small").embed
    anchors, many = (
        torch.from_numpy(np.stack([render("rooms/bedroom", i, 64) for i in range(*span)]))
        for span in ((0, 4), (100, 140))
    )
    few = many[torch.arange(40) % 8]
    found = [
        intra_cluster(images, anchors, embed, generator=_seeded())["value"]
        for images in (few, many)
    ]
    assert 0 < found[0] < found[1]


def test_bad_input_is_said():
    anchors = _noise(3, 1)
    with pytest.raises(ValueError, match="no cluster has two of the 3 fakes"):
        _measure(anchors, anchors)
    with pytest.raises(ValueError, match="per_cluster=1; a pair takes 2"):
        _measure(anchors, anchors, per_cluster=1)
    with pytest.raises(ValueError, match="anchors are uint8"):
        _measure(anchors, anchors[:0])
    with pytest.raises(ValueError, match="give both at one resolution"):
        _measure(anchors, anchors[:, :, :2])
    images = torch.from_numpy(anchors)
    with pytest.raises(ValueError, match="not finite"):
        intra_cluster(images, images, lambda x: _embed(x) * float("nan"), generator=_seeded())
