"""`open_dataset`: settings in, data set out, packed once."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

from stylegan_tl.data.errors import DataError
from stylegan_tl.data.open import open_dataset


def _open(tmp_path, spec: dict, resolution: int = 16):
    return open_dataset(spec, resolution=resolution, cache=tmp_path / "cache")


def test_folder_with_classes(make_folder, tmp_path, capsys) -> None:
    folder = make_folder(3, "cats")
    make_folder(2, "dogs", start=3)
    data = _open(tmp_path, {"kind": "folder", "name": "pets", "path": str(folder), "crop": None})
    assert (data.name, data.num_images, data.label_dim) == ("pets", 5, 2)
    np.testing.assert_array_equal(data.labels(range(5)).argmax(1), [0, 0, 0, 1, 1])
    assert data.meta["classes"] == ["cats", "dogs"]
    captured = capsys.readouterr()
    assert "packed pets: 5 images" in captured.out
    assert "packing pets at 16 px" in captured.err
    unlabelled = _open(tmp_path, {"kind": "folder", "path": str(folder), "labels": "none"})
    assert unlabelled.label_dim == 0


def test_opening_again_packs_nothing(make_folder, tmp_path, capsys) -> None:
    spec = {"kind": "folder", "path": str(make_folder(3))}
    first = _open(tmp_path, spec)
    capsys.readouterr()
    assert _open(tmp_path, spec).path == first.path
    assert capsys.readouterr() == ("", "")


def test_whatever_changes_the_pixels_packs_again(make_folder, tmp_path) -> None:
    folder = make_folder(3)
    spec = {"kind": "folder", "path": str(folder)}
    paths = {_open(tmp_path, spec).path, _open(tmp_path, spec, 32).path}
    paths.add(_open(tmp_path, spec | {"filter": "box"}).path)
    paths.add(_open(tmp_path, spec | {"crop": "center-wide"}).path)
    os.utime(folder / "000.png", ns=(1, 1))
    paths.add(_open(tmp_path, spec).path)
    make_folder(1, start=5)
    paths.add(_open(tmp_path, spec).path)
    assert len(paths) == 6


def test_zip_and_folder_of_the_same_images_are_equal(make_folder, tmp_path) -> None:
    folder = make_folder(3, "sub")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    spec = {"kind": "zip", "path": str(tmp_path / "images.zip"), "subfolder": "sub"}
    zipped = _open(tmp_path, spec)
    plain = _open(tmp_path, {"kind": "folder", "path": str(folder)})
    assert zipped.content_hash == plain.content_hash
    assert zipped.name == "images/sub"


def test_relative_and_home_paths(make_folder, tmp_path, monkeypatch) -> None:
    folder = make_folder(2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ("images", "~/images", str(folder))
    assert len({_open(tmp_path, {"kind": "folder", "path": p}).path for p in paths}) == 1


def test_packed_folder_is_opened_as_it_is(make_folder, tmp_path) -> None:
    data = _open(tmp_path, {"kind": "folder", "path": str(make_folder(2))})
    spec = {"kind": "packed", "name": "mine", "path": str(data.path)}
    assert _open(tmp_path, spec).content_hash == data.content_hash
    with pytest.raises(DataError, match="holds 16 px, resolution=32 was asked"):
        _open(tmp_path, spec, 32)
    with pytest.raises(DataError, match="crop: fixed when packed data is prepared"):
        _open(tmp_path, spec | {"crop": "center"})


def test_procedural_images_are_the_rendered_ones(tmp_path) -> None:
    procedural = pytest.importorskip("stylegan_tl.data.procedural")
    domain = procedural.DOMAINS[0]
    spec = {"kind": "procedural", "domain": domain, "size": 3, "distance": 0.5}
    data = _open(tmp_path, spec)
    assert (data.name, data.num_images) == (domain, 3)
    for index in range(3):
        expected = procedural.render(domain, index, 16, distance=0.5)
        np.testing.assert_array_equal(data.images([index])[0], expected)
    assert _open(tmp_path, spec | {"distance": 1.0}).path != data.path
    with pytest.raises(DataError, match="domain='rooms/cellar': expected one of"):
        _open(tmp_path, spec | {"domain": "rooms/cellar"})
    with pytest.raises(DataError, match="size=0"):
        _open(tmp_path, spec | {"size": 0})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "kind=None: expected one of procedural, folder"),
        ({"kind": "tar"}, "kind='tar'"),
        ({"kind": "folder"}, "path is missing"),
        ({"kind": "folder", "path": "x", "domain": "y"}, "domain: unknown for kind=folder"),
        ({"kind": "folder", "path": "/nowhere/at/all"}, "no such folder"),
        ({"kind": "zip", "path": "/nowhere.zip"}, "no such file"),
        ({"kind": "packed", "path": "/nowhere"}, "no packed data set here"),
        ({"kind": "folder", "path": "x", "labels": "some"}, "labels='some'"),
        ({"kind": "folder", "path": "x", "crop": "left"}, "crop='left'"),
    ],
)
def test_wrong_settings_name_the_key_and_the_fix(tmp_path, spec: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _open(tmp_path, spec)


def test_a_script_without_main_guard_is_told_so(make_folder, tmp_path, monkeypatch) -> None:
    process = __import__("multiprocessing").current_process()
    monkeypatch.setattr(process, "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match='if __name__ == "__main__"'):
        _open(tmp_path, {"kind": "folder", "path": str(make_folder(1))})


def test_a_missing_file_of_an_option_names_the_variable_that_says_where_it_lies(tmp_path):
    spec = {"kind": "zip", "name": "houses/kitchen", "path": str(tmp_path / "houses-128.zip")}
    with pytest.raises(DataError, match="houses-128.zip: no such file; set STYLEGAN_TL_HOUSES"):
        open_dataset(spec, resolution=32, cache=tmp_path)
    with pytest.raises(DataError, match=r"mine\.zip: no such file$"):
        open_dataset({**spec, "path": str(tmp_path / "mine.zip")}, resolution=32, cache=tmp_path)


def test_the_first_index_of_a_procedural_domain_can_be_chosen(tmp_path):
    spec = {"kind": "procedural", "name": "k", "domain": "rooms/kitchen", "size": 6}
    whole = open_dataset(spec, resolution=16, cache=tmp_path)
    tail = open_dataset({**spec, "size": 2, "first": 4}, resolution=16, cache=tmp_path)
    assert (tail.images(np.arange(2)) == whole.images(np.arange(4, 6))).all()
    with pytest.raises(DataError, match="first=-1: expected a whole number from 0"):
        open_dataset({**spec, "first": -1}, resolution=16, cache=tmp_path)


def test_a_folder_without_images_leaves_nothing_in_the_cache(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image found in .*empty"):
        _open(tmp_path, {"kind": "folder", "path": str(tmp_path / "empty")})
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
