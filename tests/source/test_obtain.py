"""A cached source model belongs to the images it was trained on, not to their folder's name."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stylegan_tl.config import pretrain_config
from stylegan_tl.source.obtain import source_key


def _folder(path, seeds) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{seed}.png")


def test_another_folder_of_the_same_name_is_another_source(compose, tmp_path) -> None:
    keys = []
    for parent, seeds in (("cats", range(4)), ("dogs", range(4, 8))):
        _folder(tmp_path / parent / "images", seeds)
        path = f"source.path={tmp_path / parent / 'images'}"
        keys.append(source_key(pretrain_config(compose(["source=folder", path, "source.name=x"]))))
    assert keys[0] != keys[1]


def test_a_folder_that_gained_images_is_another_source(compose, tmp_path) -> None:
    _folder(tmp_path, range(4))
    config = pretrain_config(compose(["source=folder", f"source.path={tmp_path}"]))
    before = source_key(config)
    assert source_key(config) == before
    _folder(tmp_path, [9])
    assert source_key(config) != before
