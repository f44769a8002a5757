"""Every format on disk, and every way it can be wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
import zipfile

import pytest

from stylegan_tl.data.errors import DataError, Unusable
from stylegan_tl.data.nvidia import NvidiaReader
from stylegan_tl.data.open import kind_of
from stylegan_tl.data.readers import (
    Entry,
    FolderReader,
    LmdbReader,
    Reader,
    class_labels,
    fingerprint_listing,
)
from stylegan_tl.data.zips import ZipReader


def _keys(reader: Reader) -> list[str]:
    return [entry.key for entry in reader.listing().entries]


def _contents(reader: Reader) -> list[bytes]:
    entries = reader.listing().entries
    with reader.opened() as read:
        return [read(entry) for entry in entries]


def _reasons(reader: Reader) -> dict[str, str]:
    return {skip.file: skip.reason for skip in reader.listing().skipped}


# --- folders


def test_folder_gives_images_sorted_and_names_the_rest(make_folder) -> None:
    folder = make_folder(3)
    make_folder(1, "deep/er", start=7)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    reader = FolderReader(folder)
    assert _keys(reader) == ["000.png", "001.png", "002.png", "deep/er/007.png"]
    assert _contents(reader)[3] == (folder / "deep/er/007.png").read_bytes()
    reasons = _reasons(reader)
    assert set(reasons) == {"notes.txt", ".hidden.png", "Thumbs.db", "gone.png", "pipe.png"}
    assert "cannot be opened" in reasons["gone.png"]
    assert reasons["pipe.png"] == "not a regular file"


def test_folder_follows_links_but_not_in_circles(make_folder) -> None:
    folder = make_folder(2, "a")
    (folder / "a" / "loop").symlink_to(folder)
    assert _keys(FolderReader(folder)) == ["a/000.png", "a/001.png"]


def test_missing_folder_and_subfolder(make_folder, tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        FolderReader(tmp_path / "nowhere").listing()
    folder = make_folder(1, "kitchen")
    with pytest.raises(DataError, match="subfolder=kichen: not in .*folders there: kitchen"):
        FolderReader(folder, "kichen").listing()


def test_class_folders_become_labels(make_folder) -> None:
    folder = make_folder(2, "cats")
    make_folder(1, "dogs/small", start=5)
    listing = class_labels(FolderReader(folder).listing())
    assert [e.label for e in listing.entries] == [0, 0, 1]
    assert listing.classes == ["cats", "dogs"]


def test_classes_are_found_below_a_shared_folder(make_folder) -> None:
    folder = make_folder(1, "all/train/cats")
    make_folder(1, "all/train/dogs", start=1)
    assert class_labels(FolderReader(folder).listing()).classes == ["cats", "dogs"]


@pytest.mark.parametrize("subs", [[""], ["cats"], ["", "cats"], ["00000", "00001"]])
def test_no_labels_without_two_classes(make_folder, subs: list[str]) -> None:
    for start, sub in enumerate(subs):
        folder = make_folder(1, sub, start=start)
    listing = class_labels(FolderReader(folder).listing())
    assert {e.label for e in listing.entries} == {None}
    assert listing.classes == []


def test_fingerprint_sees_new_changed_and_renamed_files(make_folder) -> None:
    folder = make_folder(2)
    seen = {fingerprint_listing(FolderReader(folder).listing())}
    assert fingerprint_listing(FolderReader(folder).listing()) in seen
    changes = (
        lambda: os.utime(folder / "001.png", ns=(1, 1)),
        lambda: (folder / "001.png").rename(folder / "002.png"),
        lambda: (folder / "000.png").write_bytes(b"new"),
        lambda: make_folder(1, start=9),
    )
    for change in changes:
        change()
        seen.add(fingerprint_listing(FolderReader(folder).listing()))
    assert len(seen) == 5


# --- zips


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_gives_what_zipfile_gives(make_zip, draw, encode, compression: int) -> None:
    members = {f"b/{i}.png": encode(draw(i)) for i in (2, 0, 1)} | {"a.jpg": b"first", "c/": b""}
    reader = ZipReader(make_zip(members, compression))
    assert _keys(reader) == ["a.jpg", "b/0.png", "b/1.png", "b/2.png"]
    with zipfile.ZipFile(reader.path) as archive:
        assert _contents(reader) == [archive.read(key) for key in _keys(reader)]
    assert _keys(ZipReader(reader.path, "b")) == ["0.png", "1.png", "2.png"]
    assert _contents(ZipReader(reader.path, "b"))[0] == members["b/0.png"]
    with pytest.raises(DataError, match="subfolder=x: not in .*folders there: b$"):
        ZipReader(reader.path, "x").listing()


def test_unsafe_members_are_left_out_with_their_reason(make_zip, tmp_path) -> None:
    assert "kind=nvidia" in _reasons(ZipReader(make_zip({"dataset.json": b"{}"})))["dataset.json"]
    names = ["../up.png", "/etc/root.png", "a/../../b.png", "c:\\d.png", "ok.png", "__MACOSX/x.png"]
    reader = ZipReader(make_zip(dict.fromkeys(names, b"x")))
    assert _keys(reader) == ["ok.png"]
    reasons = _reasons(reader)
    assert sum("leads out of the archive" in r for r in reasons.values()) == 4
    assert "not an image" in reasons["__MACOSX/x.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images.zip"]  # nothing was extracted


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's, while the test writes it
def test_duplicate_member_names_keep_the_first(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a.png", b"first")
        archive.writestr("a.png", b"second")
    reader = ZipReader(tmp_path / "twice.zip")
    assert _contents(reader) == [b"first"]
    assert "duplicate name" in _reasons(reader)["a.png"]


def test_encrypted_and_oddly_compressed_members(make_zip) -> None:
    path = make_zip({"locked.png": b"x" * 50})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose flag, APPNOTE 4.4.4
    path.write_bytes(data)
    assert _reasons(ZipReader(path)) == {"locked.png": "encrypted"}
    path = make_zip({"small.png": b"x" * 500}, zipfile.ZIP_LZMA)
    assert "compressed by method 14" in _reasons(ZipReader(path))["small.png"]


def test_members_that_lie_about_their_size(make_zip) -> None:
    path = make_zip({"bomb.png": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02") + 24  # uncompressed size, APPNOTE 4.3.12
    path.write_bytes(data[:at] + struct.pack("<I", 100) + data[at + 4 :])
    with pytest.raises(Unusable, match="size or checksum differ"):
        _contents(ZipReader(path))
    path.write_bytes(data[:at] + struct.pack("<I", 2**31) + data[at + 4 :])
    assert "the limit is" in _reasons(ZipReader(path))["bomb.png"]


def test_damaged_zips(make_zip, tmp_path) -> None:
    path = make_zip({"a.png": b"x" * 100})
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(Unusable, match="checksum"):
        _contents(ZipReader(path))
    path.write_bytes(data[:40])
    with pytest.raises(DataError, match="not a readable zip"):
        ZipReader(path).listing()
    with pytest.raises(DataError, match="no such file"):
        ZipReader(tmp_path / "nowhere.zip").listing()


def test_a_zipped_lsun_database_is_explained(make_zip) -> None:
    with pytest.raises(DataError, match="unzip it"):
        ZipReader(make_zip({"bedroom_train_lmdb/data.mdb": b""})).listing()


def test_two_processes_read_one_open_zip(make_zip, draw, encode) -> None:
    """A shared file position would mix them up; see Python's own ZipFile after a fork."""
    reader = ZipReader(make_zip({f"{i}.png": encode(draw(i)) for i in range(40)}))
    entries = reader.listing().entries
    expected = _contents(reader)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.map(_ReadAll(reader), [entries] * 4)
    assert parts == [expected] * 4


class _ReadAll:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, entries: list[Entry]) -> list[bytes]:
        with self.reader.opened() as read:
            return [read(entry) for entry in entries]


# --- NVIDIA


def _nvidia_folder(make_folder, labels) -> NvidiaReader:
    folder = make_folder(2, "00000")
    make_folder(1, "00001", start=2)
    (folder / "dataset.json").write_text(json.dumps(labels))
    return NvidiaReader(folder)


NAMES = ["00000/000.png", "00000/001.png", "00001/002.png"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([6, 0, 3], [6, 0, 3]), ([[0.5, 1], [2, 3], [4, 5]], [(0.5, 1.0), (2.0, 3.0), (4.0, 5.0)])],
)
def test_nvidia_labels(make_folder, labels: list, expected: list) -> None:
    pairs = [list(pair) for pair in zip(NAMES, labels, strict=True)]
    reader = _nvidia_folder(make_folder, {"labels": pairs[::-1]})
    listing = reader.listing()
    assert [e.key for e in listing.entries] == NAMES
    assert [e.label for e in listing.entries] == expected
    assert listing.skipped == []
    assert kind_of(reader.path) == "nvidia"


@pytest.mark.parametrize("content", [{"labels": None}, {}, {"labels": []}])
def test_nvidia_without_labels(make_folder, content: dict) -> None:
    assert {e.label for e in _nvidia_folder(make_folder, content).listing().entries} == {None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [[NAMES[0], 1]]}, "no label for 2 of 3 images, the first is 00000/001.png"),
        ({"labels": [[n, lab] for n, lab in zip(NAMES, [1, [2], 3], strict=True)]}, "must be all"),
        ({"labels": [[n, -1] for n in NAMES]}, "integers from 0"),
        ({"labels": [[NAMES[0], [1]], [NAMES[1], [1, 2]], [NAMES[2], [1]]]}, "of one length"),
        ({"labels": [["x"]]}, "must be"),
        ([1, 2], "must be"),
    ],
)
def test_wrong_dataset_json(make_folder, content, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _nvidia_folder(make_folder, content).listing()


def test_broken_json(make_folder) -> None:
    reader = _nvidia_folder(make_folder, {})
    (reader.path / "dataset.json").write_text('{"labels": [')
    with pytest.raises(DataError, match="must be"):
        reader.listing()


# --- LSUN


def test_lsun_database(tmp_path, draw, encode) -> None:
    lmdb = pytest.importorskip("lmdb")
    values = {f"{i:040x}".encode(): encode(draw(i), "webp", lossless=True) for i in (3, 1, 2)}
    with lmdb.open(str(tmp_path / "db"), map_size=2**20) as env, env.begin(write=True) as writer:
        for key, value in values.items():
            writer.put(key, value)
    reader = LmdbReader(tmp_path / "db")
    assert kind_of(reader.path) == "lmdb"
    assert [k.encode() for k in _keys(reader)] == sorted(values)
    assert _contents(reader) == [values[k] for k in sorted(values)]
    with pytest.raises(DataError, match="data.mdb is missing"):
        LmdbReader(tmp_path).listing()


def test_lsun_without_the_package_says_how_to_get_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(DataError, match=r"pip install 'stylegan_tl\[lmdb\]'"):
        LmdbReader(tmp_path).listing()


def test_kinds_are_told_by_what_is_there(make_folder, make_zip, tmp_path) -> None:
    assert kind_of(make_folder(1)) == "folder"
    assert kind_of(make_zip({"a.png": b""})) == "zip"
    assert kind_of(make_zip({"a.png": b"", "dataset.json": b"{}"})) == "nvidia"
    assert kind_of(tmp_path / "images.zip", "sub") == "zip"
    with pytest.raises(DataError, match="no such file or folder"):
        kind_of(tmp_path / "nowhere")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DataError, match="not a readable zip"):
        kind_of(tmp_path / "text.zip")
