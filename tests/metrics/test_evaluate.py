"""The whole evaluation with a stand-in extractor: records, the cache of reals, clear refusals."""

import json
import threading

import numpy as np
import pytest
import torch

from stylegan_tl.metrics.evaluate import evaluate
from stylegan_tl.metrics.fakes import Fakes, Rows, ahead, make_rows, spool_folder
from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.fid import frechet_distance
from stylegan_tl.metrics.kid import kernel_distance, polynomial_mmd
from stylegan_tl.metrics.measure import Bank, measure
from stylegan_tl.metrics.precision_recall import precision_recall
from stylegan_tl.metrics.protocol import Protocol, expand
from stylegan_tl.metrics.reference import cached_reference, spread
from stylegan_tl.metrics.statistics import FeatureStatistics
from stylegan_tl.study.comparable import check_record


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


def _fakes(count=64, size=16, identity=None):
    pixels = _Dataset(count, seed=9, size=size).pixels // 2
    calls = []

    def sample(start, number):
        calls.append((start, number))
        return torch.from_numpy(pixels[start : start + number])

    return Fakes(sample, identity=identity), pixels, calls


def _reals(dataset):
    return {"train": (dataset, np.arange(30)), "heldout": (dataset, np.arange(30, 40))}


def test_fakes_are_made_once_and_every_record_is_complete():
    dataset, (fakes, pixels, calls) = _Dataset(), _fakes()
    names = ["fid50_train_small", "fid20_heldout_small", "kid64_train_small", "swd32_train"]
    records = evaluate(
        names, fakes=fakes, reals=_reals(dataset), extractors={"small": _extractor()},
        batch_size=24,
    )  # fmt: skip
    assert calls == [(0, 24), (24, 24), (48, 16)]
    assert json.loads(json.dumps(records)) == records
    found = {r["metric"]: r for r in records}
    assert sorted(found) == sorted(names)
    features = _Network()(torch.from_numpy(pixels))
    real = _Network()(torch.from_numpy(dataset.pixels))
    wanted = frechet_distance(
        *(FeatureStatistics.from_features(x) for x in (features[:50], real[:30]))
    )
    assert found["fid50_train_small"]["value"] == pytest.approx(wanted, rel=1e-9)
    value, stderr = polynomial_mmd(features, real[:30])
    assert found["kid64_train_small"]["value"] == pytest.approx(value, rel=1e-9)
    assert found["kid64_train_small"]["stderr"] == pytest.approx(stderr, rel=1e-9)
    assert found["swd32_train"]["num_reals"] == 30
    assert found["fid20_heldout_small"]["num_reals"] == 10
    assert found["fid50_train_small"]["extractor_digest"] == "d1"
    for record in records:
        check_record(record)
        assert {"value", "seconds", "shared_seconds", "better"} <= set(record)


def test_kid_leads_and_fid_carries_a_note_where_reals_are_few():
    fakes, _, _ = _fakes()
    records = evaluate(
        ["fid20_train_small", "swd20_train", "kid20_train_small"],
        fakes=fakes, reals=_reals(_Dataset()), extractors={"small": _extractor()},
    )  # fmt: skip
    assert [r["metric"][:3] for r in records] == ["kid", "fid", "swd"]
    assert "30 reals and 20 fakes" in records[1]["note"]
    assert "note" not in records[0]


def test_with_many_reals_the_given_order_stays():
    fakes, _, _ = _fakes()
    dataset = _Dataset(5000, size=2)
    dataset.pixels = dataset.pixels[:, :, :2, :2]
    records = evaluate(
        ["fid20_train_small", "kid20_train_small"],
        fakes=fakes, reals={"train": (dataset, np.arange(5000))},
        extractors={"small": _extractor()}, batch_size=512,
    )  # fmt: skip
    assert [r["metric"][:3] for r in records] == ["fid", "kid"]
    assert "note" not in records[0]


def test_two_evaluations_give_the_same_numbers():
    values = []
    for batch_size in (64, 64):
        fakes, _, _ = _fakes()
        records = evaluate(
            ["kid20_train_small", "swd20_train"], fakes=fakes, reals=_reals(_Dataset()),
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
    path.write_bytes(
        {
            "truncate": whole[:middle],
            "flip": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            "empty": b"",
            "text": b"not a cache",
        }[damage]
    )
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
    fakes, _, _ = _fakes()
    dataset = _Dataset()
    reals = {"train": (dataset, np.arange(2))}
    names = ["swd20_heldout", "kid20_train_small", "ppl20_zend_small", "paired20_small"]
    names += ["intra20_train_small", "precision20_train_small"]
    with pytest.raises(ValueError, match="cannot be measured") as error:
        evaluate(names, fakes=fakes, reals=reals, extractors={})
    lines = str(error.value).splitlines()[1:]
    for name, reason in zip(
        [*names[:4], names[5]],
        ["no heldout images", "at least 3", "need a generator", "source model", "at least 4"],
        strict=True,
    ):
        assert any(name in line and reason in line for line in lines), (name, reason)
    with pytest.raises(ValueError, match="not loaded: small"):
        evaluate(["fid20_train_small"], fakes=fakes, reals=_reals(dataset), extractors={})
    with pytest.raises(ValueError, match="only 64 images"):
        evaluate(
            ["swd65_train"], fakes=Fakes(fakes.sample, "images", "x", 64),
            reals=_reals(dataset), extractors={},
        )  # fmt: skip
    with pytest.raises(ValueError, match="must give uint8"):
        evaluate(
            ["fid20_train_small"], fakes=Fakes(lambda s, n: torch.zeros(n, 3, 8, 8)),
            reals=_reals(dataset), extractors={"small": _extractor()},
        )  # fmt: skip


def test_evenly_spaced_positions():
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert spread(10, 4).tolist() == [0, 2, 5, 7]


NAMES = [
    "fid64_train_small", "kid64_heldout_small", "pr64_train_small", "dc64_train_small",
    "swd64_train", "nearer64_small", "fidgap64_small", "residue64_small", "fidinf64_train_small",
]  # fmt: skip


def _all(fakes, **options):
    dataset, source = _Dataset(160), _Dataset(80, seed=5)
    source.pixels //= 3  # a domain that can be told apart
    reals = {"train": (dataset, np.arange(80)), "heldout": (dataset, np.arange(80, 160))}
    reals["source"] = (source, np.arange(80))
    return evaluate(
        NAMES, fakes=fakes, reals=reals, extractors={"small": _extractor()}, **options
    )  # fmt: skip


def test_batch_size_changes_nothing():
    first, second = (
        {r["metric"]: r["value"] for r in _all(_fakes()[0], batch_size=size)} for size in (64, 7)
    )
    assert len(first) == 11
    assert first == pytest.approx(second, rel=1e-6)


def test_intervals_hold_the_values_and_say_how_they_were_made():
    records = _all(_fakes()[0], rounds=40)
    for record in records:
        low, high = record["interval"]
        assert low <= record["value"] <= high
    again = _all(_fakes()[0], rounds=40)
    assert [r["interval"] for r in records] == [r["interval"] for r in again]


class _Killed(BaseException):
    pass


def test_a_killed_pass_goes_on_where_it_was(tmp_path):
    fakes, pixels, calls = _fakes(2500, size=16, identity="model a")
    options = dict(reals=_reals(_Dataset()), extractors={"small": _extractor()}, cache=tmp_path)
    names = ["fid2500_train_small", "kid2500_train_small", "swd2500_train"]

    def dies(done, total):
        assert total == 2500
        if done >= 2048 + 128:
            raise _Killed

    with pytest.raises(_Killed):
        evaluate(names, fakes=fakes, say=dies, **options)
    made = sum(count for _, count in calls)
    calls.clear()
    resumed = evaluate(names, fakes=fakes, **options)
    assert sum(count for _, count in calls) == 2500 - 2048
    assert [r["metric"][:3] for r in resumed] == ["kid", "fid", "swd"]
    assert made >= 2048
    whole = evaluate(names, fakes=Fakes(fakes.sample), **options)
    assert [r["value"] for r in resumed] == [r["value"] for r in whole]
    assert not list((tmp_path / "passes").glob("*/*"))


def test_a_value_that_was_measured_before_a_kill_is_not_measured_again(tmp_path, monkeypatch):
    from stylegan_tl.metrics import evaluate as module

    fakes, _, calls = _fakes(64, identity="model b")
    options = dict(reals=_reals(_Dataset()), extractors={"small": _extractor()}, cache=tmp_path)
    names = ["fid64_train_small", "kid64_train_small"]
    measured, real = [], module.measure

    def dies(protocol, bank):
        if measured:
            raise _Killed
        measured.append(str(protocol))
        return real(protocol, bank)

    monkeypatch.setattr(module, "measure", dies)
    with pytest.raises(_Killed):
        evaluate(names, fakes=fakes, **options)
    monkeypatch.setattr(module, "measure", lambda p, b: (measured.append(str(p)), real(p, b))[1])
    evaluate(names, fakes=fakes, **options)
    assert measured == names
    assert len(calls) == 1


def test_the_work_of_one_model_or_extractor_is_not_taken_for_anothers(tmp_path):
    values = []
    for identity, digest in (("a", "d1"), ("b", "d1"), ("a", "d2")):
        fakes, _, calls = _fakes(1100, identity=identity)
        make_rows(
            expand(["fid1100_train_small"]), fakes, {"small": _extractor(digest)},
            spool=spool_folder(tmp_path, fakes, {"small": _extractor(digest)}),
        )  # fmt: skip
        values.append(len(calls))
    assert values[0] == values[1] == values[2] > 0


def test_the_interval_of_fid_holds_its_value_where_not_all_reals_are_kept(monkeypatch) -> None:
    from stylegan_tl.metrics import measure as module

    monkeypatch.setattr(module, "MAX_FEATURES", 60)
    generator = torch.Generator().manual_seed(0)
    rows = Rows(features={"small": torch.rand(400, 12, generator=generator)})
    reals = {"train": (_Dataset(1000), np.arange(1000))}
    bank = Bank(
        rows, Fakes(lambda s, n: None), reals, {"small": _extractor()}, None, 64, 0, 40
    )  # fmt: skip
    found = measure(Protocol.parse("fid400_train_small"), bank)
    assert found["num_reals"] == 1000
    assert found["interval"][0] <= found["value"] <= found["interval"][1]


def test_a_generator_of_one_grey_is_measured_and_said_so() -> None:
    grey = Fakes(lambda start, count: torch.full((count, 3, 16, 16), 128, dtype=torch.uint8))
    (record,) = evaluate(["swd20_train"], fakes=grey, reals=_reals(_Dataset()), extractors={})
    assert record["value"] is None
    assert "constant" in record["note"]


def test_one_pass_over_the_reals_serves_all_protocols() -> None:
    dataset, (fakes, _, _) = _Dataset(50), _fakes(64)
    reals = {"full": (dataset, np.arange(50))}
    names = ["fid64_full_small", "kid64_full_small", "pr64_full_small"]
    evaluate(names, fakes=fakes, reals=reals, extractors={"small": _extractor()})
    assert dataset.read == 50


def test_the_pair_of_a_distance_is_part_of_its_protocol() -> None:
    fakes, pixels, _ = _fakes(64)
    extractor = _extractor()
    extractor._network.embed = lambda x: x.float().flatten(1) / 255
    hashes = []
    for identity in ("a", "b"):
        paired = Fakes(
            fakes.sample, G=torch.nn.Identity(), source=fakes.sample, source_identity=identity
        )
        (record,) = evaluate(
            ["paired64_small"], fakes=paired, reals={}, extractors={"small": extractor}
        )
        assert record["value"] == 0
        hashes.append(record["reference_hash"])
    assert hashes[0] != hashes[1]


def test_ahead_makes_each_item_once_in_order():
    made = []
    found = list(ahead(lambda a, b: made.append(a) or a + b, [(1, 2), (3, 4)], "cpu"))
    assert found == [((1, 2), 3), ((3, 4), 7)]
    assert made == [1, 3]


def test_the_presets_measure_as_nvidia_defines_them():
    """KID's subsets and precision's reals, on a stand-in of 3 fakes a definition."""
    dataset = _Dataset(40)
    bank_of = dict(reals={"full": (dataset, np.arange(40))}, cache=None, batch_size=64, seed=0)
    features = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    rows = Rows(features={"inception": features, "vgg16": features})
    extractors = {name: _extractor() for name in ("inception", "vgg16")}
    bank = Bank(rows, Fakes(lambda s, n: None), extractors=extractors, **bank_of)
    real = _Network()(torch.from_numpy(dataset.pixels))
    found = measure(Protocol.parse("kid50k_full"), bank)
    generator = torch.Generator().manual_seed(0)
    wanted = kernel_distance(features, real, subset_size=40, num_subsets=100, generator=generator)
    assert found["value"] == pytest.approx(wanted[0])
    assert found["stderr"] == pytest.approx(kernel_distance(features, real)[1])
    assert "100 subsets" in found["estimator"]
    recall = measure(Protocol.parse("pr50k3_full_recall"), bank)
    assert recall["value"] == pytest.approx(precision_recall(features, real, k=3)["recall"])
