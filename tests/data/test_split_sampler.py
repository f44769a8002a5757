"""Splits by content and the index-addressed order."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from stylegan_tl.data.errors import DataError
from stylegan_tl.data.sampler import Order, flips, order
from stylegan_tl.data.split import n_shot, split


def _hashes(count: int, start: int = 0) -> np.ndarray:
    digests = [hashlib.sha256(str(i).encode()).digest() for i in range(start, start + count)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(count, 32)


def test_split_is_a_partition_of_about_the_fraction() -> None:
    train, held_out = split(_hashes(5000), 0.1)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(5000))
    assert abs(len(held_out) - 500) < 5 * np.sqrt(5000 * 0.1 * 0.9)


def test_split_is_the_hash_read_as_a_number() -> None:
    hashes = _hashes(50)
    expected = [i for i, h in enumerate(hashes) if int(h.tobytes().hex(), 16) < 2**256 * 0.25]
    np.testing.assert_array_equal(split(hashes, 0.25)[1], expected)


def test_split_follows_the_image_not_its_place() -> None:
    hashes, shuffle = _hashes(300), np.random.default_rng(0).permutation(300)
    held_out = {hashes[i].tobytes() for i in split(hashes)[1]}
    assert {hashes[shuffle][i].tobytes() for i in split(hashes[shuffle])[1]} == held_out
    more = np.concatenate([_hashes(100, 300), hashes])
    assert held_out < {more[i].tobytes() for i in split(more)[1]}


def test_split_of_nothing_holds_out_nothing() -> None:
    train, held_out = split(_hashes(10), 0.0)
    assert len(train) == 10
    assert not len(held_out)
    with pytest.raises(DataError, match="held_out=1: expected a fraction"):
        split(_hashes(10), 1)


def test_n_shot_is_nested_and_seeded() -> None:
    train = np.arange(5, 500, 3)
    ten, hundred = n_shot(train, 10, seed=1), n_shot(train, 100, seed=1)
    assert set(ten) < set(hundred) < set(train)
    assert len(ten) == 10
    assert set(ten) != set(n_shot(train, 10, seed=2))
    np.testing.assert_array_equal(n_shot(train, None, seed=1), train)


def test_too_few_images_names_both_numbers() -> None:
    with pytest.raises(DataError, match="num_images=100.*only 7 training images"):
        n_shot(np.arange(7), 100, seed=0)
    with pytest.raises(DataError, match="num_images=0"):
        n_shot(np.arange(7), 0, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_every_epoch_is_a_permutation_and_they_differ(seed: int) -> None:
    epochs = order(seed, 13, 0, 13 * 4).reshape(4, 13)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(13))
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("n", [1, 5, 64])
def test_access_at_any_position_equals_counting_up(n: int) -> None:
    whole = order(3, n, 0, 300)
    walker = Order(3, n)
    for start, count in [(0, 7), (7, 50), (250, 50), (3, 1), (299, 1), (64, 0), (0, 300)]:
        np.testing.assert_array_equal(walker(start, count), whole[start : start + count])
        np.testing.assert_array_equal(order(3, n, start, count), whole[start : start + count])


def test_flips_at_any_position_equal_counting_up() -> None:
    whole = flips(9, 0, 400)
    for start, count in [(0, 1), (1, 3), (4, 4), (7, 100), (399, 1)]:
        np.testing.assert_array_equal(flips(9, start, count), whole[start : start + count])
    assert whole.dtype == bool
    assert 150 < whole.sum() < 250
    assert (flips(10, 0, 400) != whole).any()


def test_large_and_small_seeds_are_different_streams() -> None:
    seeds = [0, 1, 2**53, 2**53 + 1, 2**64 - 1]
    assert len({tuple(order(s, 50, 0, 50)) for s in seeds}) == len(seeds)
    assert len({tuple(flips(s, 0, 64)) for s in seeds}) == len(seeds)
    with pytest.raises(DataError, match="seed=-1"):
        order(-1, 5, 0, 5)


def test_order_does_not_change_between_versions() -> None:
    """Recorded once: a run of an older version must resume with the same images."""
    assert order(7, 10, 8, 6).tolist() == [9, 0, 3, 9, 1, 6]
    assert (flips(7, 2, 6) + 0).tolist() == [1, 1, 1, 1, 0, 0]
