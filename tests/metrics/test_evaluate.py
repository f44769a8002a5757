"""The whole evaluation with a stand-in extractor: records, the cache of reals, clear refusals."""

import json
import threading

import numpy as np
import pytest
import torch

from stylegan_tl.metrics.evaluate import evaluate
from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.fid import frechet_distance
from stylegan_tl.metrics.kid import polynomial_mmd
from stylegan_tl.metrics.reference import cached_reference, spread
from stylegan_tl.metrics.statistics import FeatureStatistics


class _Network(torch.nn.Module):
    def forward(self, images):
        return images[:, :, :2, :2].flatten(1).float() / 255


class _Dataset:
    def __init__(self, n=40, seed=0, size=16):
        self.pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), np.uint8)
        self.content_hash = f"hash{seed}"
        self.read = 0

    def images(self, indices):
        self.read += len(indices)
        return self.pixels[indices]


def _extractor(digest="d1"):
    return Extractor("small", _Network(), digest=digest, num_features=12, resize="none")


def _fakes(count=64, size=16):
    pixels = _Dataset(count, seed=9, size=size).pixels // 2
    calls = []

    def sample(start, number):
        calls.append((start, number))
        return torch.from_numpy(pixels[start : start + number])

    return sample, pixels, calls


def _reals(dataset):
    return {"train": (dataset, np.arange(30)), "heldout": (dataset, np.arange(30, 40))}


def test_fakes_are_made_once_and_every_record_is_complete():
    dataset, (sample, pixels, calls) = _Dataset(), _fakes()
    names = ["fid50_train_small", "fid20_heldout_small", "kid64_train_small", "swd32_train"]
    records = evaluate(
        names, sample=sample, reals=_reals(dataset), extractors={"small": _extractor()},
        batch_size=24,
    )  # fmt: skip
    assert calls == [(0, 24), (24, 24), (48, 16)]
    assert json.loads(json.dumps(records)) == records
    found = {r["metric"]: r for r in records}
    assert sorted(found) == sorted(names)
    features = _Network()(torch.from_numpy(pixels))
    real = _Network()(torch.from_numpy(dataset.pixels))
    wanted = frechet_distance(*(
        FeatureStatistics.from_features(x) for x in (features[:50], real[:30])
    ))
    assert found["fid50_train_small"]["value"] == pytest.approx(wanted, rel=1e-9)
    value, stderr = polynomial_mmd(features, real[:30])
    assert found["kid64_train_small"]["value"] == pytest.approx(value, rel=1e-9)
    assert found["kid64_train_small"]["stderr"] == pytest.approx(stderr, rel=1e-9)
    assert found["swd32_train"]["num_reals"] == 30
    assert found["fid20_heldout_small"]["num_reals"] == 10
    assert found["fid50_train_small"]["extractor_digest"] == "d1"
    fields = {"value", "num_fakes", "num_reals", "split", "extractor", "extractor_digest", "resize"}
    assert all(fields | {"reference_hash", "seconds"} <= set(r) for r in records)


def test_kid_leads_and_fid_carries_a_note_where_reals_are_few():
    sample, _, _ = _fakes()
    records = evaluate(
        ["fid20_train_small", "swd20_train", "kid20_train_small"],
        sample=sample, reals=_reals(_Dataset()), extractors={"small": _extractor()},
    )  # fmt: skip
    assert [r["metric"][:3] for r in records] == ["kid", "fid", "swd"]
    assert "read KID first" in records[1]["note"]
    assert "note" not in records[0]


def test_with_many_reals_the_given_order_stays():
    sample, _, _ = _fakes()
    dataset = _Dataset(5000, size=2)
    dataset.pixels = dataset.pixels[:, :, :2, :2]
    records = evaluate(
        ["fid20_train_small", "kid20_train_small"],
        sample=sample, reals={"train": (dataset, np.arange(5000))},
        extractors={"small": _extractor()}, batch_size=512,
    )  # fmt: skip
    assert [r["metric"][:3] for r in records] == ["fid", "kid"]
    assert "note" not in records[0]


def test_two_evaluations_give_the_same_numbers():
    values = []
    for batch_size in (64, 64):
        sample, _, _ = _fakes()
        records = evaluate(
            ["kid20_train_small", "swd20_train"], sample=sample, reals=_reals(_Dataset()),
            extractors={"small": _extractor()}, batch_size=batch_size,
        )  # fmt: skip
        values.append([r["value"] for r in records])
    assert values[0] == values[1]


def test_reals_are_featurised_once_per_content_and_extractor(tmp_path):
    dataset, indices = _Dataset(), np.arange(30)
    first = cached_reference(_extractor(), dataset, indices, cache=tmp_path)
    again = cached_reference(_extractor(), dataset, indices, cache=tmp_path)
    assert dataset.read == 30
    assert torch.equal(first.statistics.scatter, again.statistics.scatter)
    assert torch.equal(first.features, again.features)
    cached_reference(_extractor("d2"), dataset, indices, cache=tmp_path)
    cached_reference(_extractor(), dataset, indices[1:], cache=tmp_path)
    cached_reference(_extractor(), _Dataset(seed=1), indices, cache=tmp_path)
    assert dataset.read == 30 + 30 + 29
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "text"])
def test_a_damaged_cache_is_computed_again(tmp_path, damage, caplog):
    dataset, indices = _Dataset(), np.arange(30)
    first = cached_reference(_extractor(), dataset, indices, cache=tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes({
        "truncate": whole[:middle],
        "flip": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "empty": b"",
        "text": b"not a cache",
    }[damage])
    again = cached_reference(_extractor(), dataset, indices, cache=tmp_path)
    assert dataset.read == 60
    assert torch.equal(first.statistics.mean, again.statistics.mean)
    assert "computed again" in caplog.text
    assert path.read_bytes() == whole


def test_parallel_trials_compute_the_reals_once(tmp_path):
    dataset, indices = _Dataset(), np.arange(30)
    work = lambda: cached_reference(_extractor(), dataset, indices, cache=tmp_path)  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dataset.read == 30


def test_refusals_name_the_protocol_and_the_reason():
    sample, _, _ = _fakes()
    dataset = _Dataset()
    reals = {"train": (dataset, np.arange(2))}
    with pytest.raises(ValueError, match="heldout images.*at least 3.*not loaded") as error:
        evaluate(
            ["swd20_heldout", "kid20_train_small"], sample=sample, reals=reals, extractors={}
        )
    assert "swd20_heldout" in str(error.value)
    with pytest.raises(ValueError, match="must give uint8"):
        evaluate(
            ["fid20_train_small"], sample=lambda s, n: torch.zeros(n, 3, 8, 8),
            reals=_reals(dataset), extractors={"small": _extractor()},
        )  # fmt: skip


def test_evenly_spaced_positions():
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
