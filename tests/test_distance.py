"""`distance` end to end at tiny size: whole records, an order that makes sense, clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_tl.config import ConfigError, pretrain_config
from stylegan_tl.data.open import open_dataset
from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.fid import frechet_distance
from stylegan_tl.metrics.statistics import FeatureStatistics
from stylegan_tl.networks import dcgan, stylegan2
from stylegan_tl.pair.measure import measure
from stylegan_tl.pair.model import scores
from stylegan_tl.pair.pair import _training
from stylegan_tl.pair.records import KINDS, MEASURES, table
from stylegan_tl.source.obtain import source_key
from stylegan_tl.source.portable import read_model
from stylegan_tl.study.trial import identity

FIELDS = {
    "metric", "value", "better", "of", "name", "sha256", "num_fakes", "num_reals", "split",
    "extractor", "extractor_digest", "precision", "resize", "estimator", "reference_hash",
    "source", "target", "resolution", "seed",
}  # fmt: skip
SMALL = {
    "stylegan2_small": ["network.channel_base=256", "network.channel_max=16", "network.z_dim=8"]
    + ["network.w_dim=8", "training.batch_size=4"],
    "dcgan": ["network.width=4", "network.z_dim=8", "training.batch_size=4"],
}


@pytest.fixture
def pair(compose, cache, tmp_path):
    """`pair(*overrides)`: the configuration of a tiny pair whose records go to tmp_path."""

    def make(*overrides: str, model: str = "stylegan2_small") -> dict:
        own = [f"model={model}", *(f"model.{x}" for x in SMALL[model])]
        own += [f"pretrain.model.{x}" for x in SMALL[model] if x.startswith("training")]
        own += ["pretrain.kimg=0.016", "resolution=32", f"cache={cache}", "device=cpu"]
        own += [f"out={tmp_path / 'out.jsonl'}", "inversion.images=3", "inversion.steps=4"]
        sizes = [f"{role}.size=40" for role in ("source", "target")]
        named = {x.split("=")[0] for x in overrides if x.endswith("=folder")}
        sizes = [x for x in sizes if x.split(".")[0] not in named]
        return compose([*own, *sizes, *overrides], "distance")

    return make


@pytest.fixture(scope="module")
def folder(cache, tmp_path_factory):
    """`folder(domain, start, stop)`: some images of a procedural domain as a folder of files."""

    def make(domain: str, start: int, stop: int, classes: int = 1) -> Path:
        spec = {"kind": "procedural", "name": domain, "domain": domain, "size": stop}
        data = open_dataset(spec, resolution=32, cache=cache)
        path = tmp_path_factory.mktemp(domain.replace("/", "-"))
        for i, image in enumerate(data.images(np.arange(start, stop))):
            place = path / f"class{i % classes}" if classes > 1 else path
            place.mkdir(exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{i}.png")
        return path

    return make


def _values(records: list[dict], **wanted: object) -> dict[str, float]:
    return {r["kind"]: r["value"] for r in records if all(r[k] == v for k, v in wanted.items())}


@pytest.mark.parametrize("model", ["stylegan2_small", "dcgan"])
def test_every_record_is_whole_and_every_row_is_there(pair, model: str) -> None:
    config = pair("train_source=true", model=model)
    records = measure(config)
    rows = [json.loads(line) for line in Path(config["out"]).read_text().splitlines()]
    assert rows == records
    for row in rows:
        assert set(row) >= FIELDS
        assert row["metric"].startswith(row["kind"])
        assert np.isfinite(row["value"])
    assert set(_values(rows)) == set(KINDS)
    assert set(_values(rows, of="images", part="images")) == set(MEASURES)
    assert set(_values(rows, of="model", split="train")) == set(MEASURES)
    assert set(_values(rows, of="model", split="source")) == {"fid", "kid"}
    assert {r["reference_hash"] for r in rows if r["part"] == "images"} != {None}
    sample = next(r for r in rows if r["part"] == "model")
    assert sample["sha256"] == read_model(Path(sample["name"])).sha256
    text = table(config, records)
    assert all(r["metric"] in text for r in records)
    assert "missing" not in text


def test_its_fid_is_that_of_the_images_features(pair, cache) -> None:
    from stylegan_tl.assembly import open_target
    from stylegan_tl.metrics.features import load_extractor

    config = pair()
    features = []
    for role in ("source", "target"):
        side = open_target({**config, "target": config[role], "num_images": None})
        images = torch.from_numpy(side.dataset.images(side.train))
        features.append(FeatureStatistics.from_features(load_extractor("small")(images)))
    found = _values(measure(config), part="images")["fid"]
    assert found == pytest.approx(frechet_distance(*features), rel=1e-4)


def test_other_bedrooms_are_nearer_than_portraits(pair, folder, tmp_path) -> None:
    measured = {}
    for domain, start in (("rooms/bedroom", 80), ("art/portrait", 80)):
        path = folder(domain, start, start + 80)
        target = [f"target.path={path}", "num_images=60", "source.size=80"]
        config = pair("source=rooms/bedroom", "target=folder", *target)
        measured[domain] = {
            **_values(measure(config), part="images"),
            **_values(measure(config), part="neighbours", split="train"),
        }
    near, far = measured.values()
    for kind in (*MEASURES, "nearest", "nearestmedian"):
        lower, upper = (near, far) if KINDS[kind][0] == "min" else (far, near)
        assert lower[kind] < upper[kind], kind
    assert near["nearest"] == pytest.approx(1, abs=0.1)
    assert abs(near["kid"]) < 0.1 * far["kid"]


def test_a_repetition_measures_nothing_and_a_killed_run_goes_on(pair, monkeypatch) -> None:
    config = pair("train_source=true")
    first = measure(config)
    out = Path(config["out"])
    text = out.read_text()

    def refuse(*_: object) -> None:
        raise AssertionError("an image was measured again")

    with monkeypatch.context() as patched:
        patched.setattr(Extractor, "__call__", refuse)
        patched.setattr(Extractor, "embed", refuse)
        assert measure(config) == first
        assert out.read_text() == text
        # one part is gone with half of a line: only it is made again, reals come from the cache
        lines = text.splitlines()
        kept = [x for x in lines if json.loads(x)["part"] != "images"]
        out.write_text("\n".join([*kept, lines[0][: len(lines[0]) // 2]]))
        again = measure(config)
    assert [_plain(r) for r in again] == [_plain(r) for r in first]
    whole = out.read_text().splitlines()
    assert len(whole) == len(text.splitlines()) + 1  # and the half line


def _plain(record: dict) -> dict:
    return {k: v for k, v in record.items() if not k.endswith("seconds")}


def test_other_images_or_settings_are_measured_anew(pair) -> None:
    config = pair("num_images=30")
    measure(config)
    before = len(Path(config["out"]).read_text().splitlines())
    measure({**config, "seed": 1})  # another choice of 30
    assert len(Path(config["out"]).read_text().splitlines()) == 2 * before


def test_intervals_are_given_where_they_are_asked_for(pair) -> None:
    config = pair("pretrain.seed=77", "metric.rounds=40")
    records = measure(config)
    rows = [r for r in records if r["part"] == "images"]
    assert all(low <= high for low, high in (r["interval"] for r in rows))
    low, high = next(r["interval"] for r in rows if r["kind"] == "kid")
    assert low < next(r["value"] for r in rows if r["kind"] == "kid") < high
    assert f"[{low:.3g}, {high:.3g}]" in table(config, records)


def test_without_a_source_model_its_rows_say_so(pair) -> None:
    config = pair("pretrain.seed=77")
    records = measure(config)
    empty = [r for r in records if r["value"] is None]
    assert {r["kind"] for r in empty} >= {*MEASURES, "dauc", "inversion"}
    assert all("train_source=true" in r["missing"] for r in empty)
    assert all(set(r) >= FIELDS - {"estimator"} for r in empty)
    assert "train_source=true" in table(config, records)


def test_a_conditional_source_is_sampled_and_inverted_with_its_labels(pair, folder) -> None:
    path = folder("rooms/kitchen", 0, 40, classes=2)
    config = pair("source=folder", f"source.path={path}", "train_source=true")
    records = measure(config)
    of_D = [r for r in records if r["kind"] in ("dlogit", "dauc")]
    assert of_D
    assert all("labels" in r["missing"] for r in of_D)
    values = _values([r for r in records if r not in of_D])
    assert np.isfinite(list(values.values())).all()


def test_a_source_without_held_out_images_has_no_ratio(pair) -> None:
    records = measure(pair("train_source=true", "pretrain.held_out=0"))
    missing = {(r["kind"], r["split"]) for r in records if r["value"] is None}
    names = ("dlogit", "dauc", "inversionratio", "inversionpixelratio")
    assert missing == {(name, "sourceheldout") for name in names}


def test_the_source_model_meant_is_the_one_that_train_means(compose, pair) -> None:
    overrides = ["resolution=32", "pretrain.kimg=0.5", "model=dcgan", "model.network.width=4"]
    theirs = pretrain_config(compose([*overrides, "target=art/portrait", "kimg=1"]))
    ours = pretrain_config(_training(compose([*overrides, "target=art/abstract"], "distance")))
    assert source_key(ours) == source_key(theirs)
    assert identity(ours) == identity(theirs)


def test_all_mistakes_are_told_at_once_before_any_work(pair, monkeypatch) -> None:
    from stylegan_tl.pair import measure as module

    monkeypatch.setattr(module, "open_pair", lambda config: pytest.fail("work was begun"))
    wrong = ["resolution=60", "num_images=3", "held_out=1", "seed=-1", "inversion.steps=0"]
    wrong += ["extractor=huge", "inversion.extractor=inception", "metric.rounds=9"]
    wrong += ["device=tpu", "target=folder", "target.path=/no/where"]
    wrong += ["source.checkpoint=/no/model.ckpt"]
    with pytest.raises(ConfigError) as caught:
        measure(pair(*wrong))
    for told in (*wrong[:9], "target.path=/no/where", "/no/model.ckpt does not exist"):
        assert told in str(caught.value)


@pytest.mark.parametrize("source", ["scratch", "checkpoint"])
def test_a_source_without_images_is_refused(pair, source: str) -> None:
    config = pair()
    config["source"] = {"kind": source, "name": source, "checkpoint": None}
    with pytest.raises(ConfigError, match="has no images: name the dataset"):
        measure(config)


def test_too_few_images_are_refused_on_both_sides(pair) -> None:
    with pytest.raises(ConfigError) as caught:
        measure(pair("source.size=4", "target.size=5"))
    for role in ("source: rooms/bedroom", "target: rooms/kitchen"):
        assert role in str(caught.value)
    assert "at least 6" in str(caught.value)
    with pytest.raises(ConfigError, match="at least 12 are needed"):
        measure(pair("num_images=11", "metric.rounds=40"))


def test_a_checkpoint_of_another_resolution_is_refused(pair) -> None:
    from stylegan_tl.source.obtain import BUNDLED

    file = next(BUNDLED.glob("*.safetensors"))
    with pytest.raises(ConfigError, match="trained at 64 px.*use resolution=64"):
        measure(pair(f"source.checkpoint={file}"))


def test_inversion_and_discriminator_can_be_asked_of_a_named_file(pair) -> None:
    from stylegan_tl.source.obtain import BUNDLED

    file = next(BUNDLED.glob("*.safetensors"))
    records = measure(
        pair(f"source.checkpoint={file}", "resolution=64", "num_images=20", "inversion.images=0")
    )
    logits = _values(records, kind="dlogit", split="sourceheldout") | {
        "fakes": _values(records, kind="dlogit", split="fakes")["dlogit"]
    }
    assert logits["dlogit"] > logits["fakes"]  # a trained D tells them apart
    assert not _values(records, part="inversion")


@pytest.mark.parametrize("family", [stylegan2, dcgan])
def test_scores_are_those_of_full_minibatch_groups(family) -> None:
    torch.manual_seed(0)
    D = (
        stylegan2.Discriminator(resolution=32, channel_base=256, channel_max=16)
        if family is stylegan2
        else dcgan.Discriminator(resolution=32, width=4)
    ).eval()
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (70, 3, 32, 32), generator=generator, dtype=torch.uint8)
    floats = images.float() / 127.5 - 1
    tail = torch.cat([floats[64:], floats[64:66]])  # six are filled up to eight
    with torch.no_grad():
        expected = torch.cat([D(floats[:64]), D(tail)[:6]])[:, 0]
    torch.testing.assert_close(scores(D, images), expected, rtol=1e-4, atol=1e-5)


def test_the_command_prints_a_table_and_one_line_for_a_mistake(cache, tmp_path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "stylegan_tl.distance", *arguments]
        root = Path(__file__).parent.parent
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    sizes = ["source.size=40", "target.size=40", "resolution=32", "pretrain.seed=77"]
    done = run(*sizes, f"cache={cache}", f"out={tmp_path / 'out.jsonl'}")
    assert done.returncode == 0, done.stderr
    assert "rooms/bedroom → rooms/kitchen, 32 px" in done.stdout
    assert "kid" in done.stdout
    wrong = run("resolution=30")
    assert wrong.returncode == 2
    assert "error: " in wrong.stderr
    assert "Traceback" not in wrong.stderr
