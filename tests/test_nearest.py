"""The images nearest to training images are found and shown beside them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stylegan_tl.assembly import Target
from stylegan_tl.data.open import open_dataset
from stylegan_tl.metrics.features import load_extractor
from stylegan_tl.nearest import command, nearest_images, write_nearest
from stylegan_tl.runner import run_trial


@pytest.fixture
def target(cache) -> Target:
    spec = {"kind": "procedural", "name": "k", "domain": "rooms/kitchen", "size": 24}
    data = open_dataset(spec, resolution=32, cache=cache)
    return Target(data, np.arange(2, 24), np.arange(2))


def test_copies_come_first_and_name_their_training_image(target, cache, tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    images[[5, 9]] = target.dataset.images(np.array([20, 7]))
    rows = nearest_images(images, target, load_extractor("small"), cache)
    assert len(rows) == 8
    assert {(r["sample"], r["image"]) for r in rows[:2]} == {(5, 20), (9, 7)}
    assert rows[0]["distance"] == rows[0]["ratio"] == pytest.approx(0, abs=1e-3)
    assert rows[2]["ratio"] > 1  # noise is farther than one kitchen is from the next
    distances = [r["distance"] for r in rows]
    assert distances == sorted(distances)
    assert write_nearest(tmp_path, images, target, load_extractor("small"), cache) == "nearest.png"
    shown = np.asarray(Image.open(tmp_path / "nearest.png"))
    left, low = shown.shape[1] - 131 * 8, shown.shape[0] - 131
    for column in (0, 1):  # 3 px between tiles of 128: the copy stands above its original
        x = left + 131 * column
        above, below = (shown[y : y + 128, x : x + 128] for y in (low - 131, low))
        assert (above == below).all()
        assert above.std() > 10
    ink = shown.min(2) < 128  # above each column stands its distance, left of each row what it is
    assert all(ink[: low - 134, left + 131 * i :][:, :128].any() for i in range(8))
    assert all(ink[y : y + 128, : left - 3].any() for y in (low - 131, low))
    assert json.loads((tmp_path / "nearest.json").read_text())["rows"] == rows


def test_one_training_image_has_no_neighbours(target, cache, tmp_path):
    alone = Target(target.dataset, target.train[:1], target.held_out)
    images = target.dataset.images(np.arange(3))
    assert write_nearest(tmp_path, images, alone, load_extractor("small"), cache) is None


def test_a_trial_ends_with_it_and_the_verb_makes_the_same_again(compose, tiny_overrides, tmp_path):
    more = ["metric=small", "metric.names=[kid20_train_small]", "metric.best=kid20_train_small"]
    config = compose(tiny_overrides("dcgan", *more, f"runs={tmp_path}"))
    choices = {"source": "rooms/bedroom", "target": "rooms/kitchen", "freeze": "none"}
    assert run_trial(config, tmp_path / "run", choices=choices) == 0
    record = json.loads((tmp_path / "run/trial.json").read_text())
    assert record["files"]["nearest"] == "nearest.png"
    first = (tmp_path / "run/nearest.png").read_bytes()
    (tmp_path / "run/nearest.png").unlink()
    trial = SimpleNamespace(job=SimpleNamespace(folder=tmp_path / "run"))
    assert command(SimpleNamespace(trials=[trial]), {}) == 0
    assert (tmp_path / "run/nearest.png").read_bytes() == first
