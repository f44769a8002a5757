"""Packing: what comes out is what went in, once, in order, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_tl.data import pack as pack_module
from stylegan_tl.data.decode import Rule
from stylegan_tl.data.errors import DataError
from stylegan_tl.data.open import open_dataset, read_report, source_of
from stylegan_tl.data.pack import locked, pack, replacing
from stylegan_tl.data.packed import PackedDataset, is_packed
from stylegan_tl.data.readers import FolderReader, Listing, PackedReader
from stylegan_tl.data.sources import Files


def _files(folder: Path, size: int = 16, **rule) -> Files:
    reader = FolderReader(folder)
    return Files(reader, reader.listing(), Rule(size, **rule))


def _expected(folder: Path, size: int = 16) -> np.ndarray:
    """Pillow alone, file by file."""
    images = [
        Image.open(f).resize((size, size), Image.Resampling.LANCZOS)
        for f in sorted(folder.rglob("*.png"))
    ]
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


def test_round_trip(make_folder, tmp_path) -> None:
    folder, done = make_folder(40), []
    data = pack(_files(folder), tmp_path / "out", {"name": "x"}, workers=1, tick=done.append)
    np.testing.assert_array_equal(data.images(range(40)), _expected(folder))
    np.testing.assert_array_equal(data.images([7, 3, 7]), _expected(folder)[[7, 3, 7]])
    assert (data.name, data.resolution, data.num_images, data.label_dim) == ("x", 16, 40, 0)
    assert data.labels([1, 2]).shape == (2, 0)
    assert done == sorted(done)
    assert done[-1] == 40
    assert is_packed(data.path)
    data.verify()


def test_the_files_are_plain_numpy_and_the_hashes_plain_sha256(make_folder, tmp_path) -> None:
    data = pack(_files(make_folder(3)), tmp_path / "out", {"name": "x"})
    images = np.load(tmp_path / "out" / "images.npy")
    assert images.dtype == np.uint8
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    assert [row.tobytes() for row in data.image_hashes] == digests
    assert data.content_hash == hashlib.sha256(b"".join(digests)).hexdigest()


def test_many_processes_write_the_same_bytes(make_folder, tmp_path, monkeypatch) -> None:
    folder = make_folder(70)
    (folder / "033.png").write_bytes(b"broken")
    alone = pack(_files(folder), tmp_path / "alone", {"name": "x"}, workers=1)
    monkeypatch.setattr(pack_module, "_ALONE_SECONDS", 0)
    both = pack(_files(folder), tmp_path / "both", {"name": "x"}, workers=2)
    for name in ("images.npy", "hashes.npy", "meta.json", "report.json"):
        assert (both.path / name).read_bytes() == (alone.path / name).read_bytes()


def test_skipped_and_equal_files_leave_no_gap_and_are_reported(make_folder, tmp_path) -> None:
    folder = make_folder(30)
    expected = np.delete(_expected(folder), [0, 5, 17, 29], axis=0)
    (folder / "000.png").write_bytes(b"")
    (folder / "005.png").write_bytes(b"no image")
    (folder / "017.png").write_bytes((folder / "002.png").read_bytes())
    (folder / "029.png").write_bytes((folder / "028.png").read_bytes()[:90])
    (folder / "readme.txt").write_text("hello")
    data = pack(_files(folder), tmp_path / "out", {"name": "x"})
    np.testing.assert_array_equal(data.images(range(26)), expected)
    data.verify()
    report = json.loads((data.path / "report.json").read_text())
    assert report["found"], report["kept"] == (30, 26)
    assert report["duplicates"] == [{"file": "017.png", "same_as": "002.png"}]
    reasons = {s["file"]: s["reason"] for s in report["skipped"]}
    assert set(reasons) == {"000.png", "005.png", "029.png", "readme.txt"}
    assert "empty" in reasons["000.png"]
    assert "corrupt" in reasons["029.png"]
    assert read_report(data).as_json() == report
    assert "26 images; 1 dropped as duplicates; 4 skipped" in read_report(data).summary()


def test_enlarged_images_are_counted(make_folder, tmp_path) -> None:
    make_folder(3, size=8)
    data = pack(_files(make_folder(2, start=5)), tmp_path / "out", {"name": "x"})
    assert read_report(data).enlarged == 3


@pytest.mark.parametrize("content", [[], [b"x"], [b"", b"x"]])
def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path, content: list[bytes]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, data in enumerate(content):
        (folder / f"{i}.png").write_bytes(data)
    with pytest.raises(DataError, match="no image found|none of . files is usable\n  0.png: "):
        pack(_files(folder), tmp_path / "out", {"name": "x"})
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("workers", [1, 2])
def test_non_square_without_a_rule_names_the_file(
    make_folder, tmp_path, draw, encode, monkeypatch, workers: int
) -> None:
    folder = make_folder(3)
    (folder / "wide.png").write_bytes(encode(draw(0, 30, 20)))
    monkeypatch.setattr(pack_module, "_ALONE_SECONDS", 0)
    with pytest.raises(DataError, match="wide.png: the image is 30×20, not square"):
        pack(_files(folder, crop="none"), tmp_path / "out", {"name": "x"}, workers=workers)
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


def test_a_disk_that_is_too_small_is_said_at_once(make_folder, tmp_path, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(pack_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="2 images at 16 px need"):
        pack(_files(make_folder(2)), tmp_path / "out", {"name": "x"})


@pytest.mark.parametrize("labels", [[2, 0, 1, 2], [(0.5, 1.0), (2.0, 3.0), (4.0, 5.0), (0.0, 1.0)]])
def test_labels_follow_their_images(make_folder, tmp_path, labels: list) -> None:
    folder = make_folder(4)
    (folder / "001.png").write_bytes(b"broken")
    source = _files(folder)
    source.labels = labels
    data = pack(source, tmp_path / "out", {"name": "x"})
    kept = [labels[0], labels[2], labels[3]]
    expected = np.eye(3)[kept] if isinstance(labels[0], int) else np.array(kept)
    np.testing.assert_array_equal(data.labels(range(3)), expected)
    assert data.labels([0]).dtype == np.float32
    again = PackedReader(data.path).listing()
    assert [e.label for e in again.entries] == kept


def test_packed_data_is_a_source_itself(make_folder, tmp_path) -> None:
    data = pack(_files(make_folder(5), 32), tmp_path / "big", {"name": "x"})
    reader = PackedReader(data.path)
    small = pack(Files(reader, reader.listing(), Rule(8)), tmp_path / "small", {"name": "x"})
    for index, image in enumerate(data.images(range(5))):
        whole = Image.fromarray(image.transpose(1, 2, 0).copy())
        expected = np.asarray(whole.resize((8, 8), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(small.images([index])[0].transpose(1, 2, 0), expected)


def test_pickling_sends_the_path_not_the_pixels(make_folder, tmp_path) -> None:
    data = pack(_files(make_folder(20)), tmp_path / "out", {"name": "x"})
    sent = pickle.dumps(data)
    assert len(sent) < 300
    np.testing.assert_array_equal(pickle.loads(sent).images([3]), data.images([3]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "meta.json").unlink(), "meta.json is missing"),
        (lambda p: (p / "meta.json").write_text("{"), "meta.json cannot be read"),
        (lambda p: (p / "meta.json").write_text("{}"), "format None, expected"),
        (lambda p: (p / "hashes.npy").unlink(), "hashes.npy cannot be read"),
        (lambda p: np.save(p / "images.npy", np.zeros((3, 1, 16, 16), np.uint8)), "expected uint8"),
        (lambda p: os.truncate(p / "images.npy", 500), "images.npy cannot be read"),
        (lambda p: _add_label_dim(p), "labels.npy cannot be read"),
    ],
)
def test_damaged_folders_say_what_is_wrong(make_folder, tmp_path, spoil, message: str) -> None:
    pack(_files(make_folder(3)), tmp_path / "out", {"name": "x"})
    spoil(tmp_path / "out")
    with pytest.raises(DataError, match=message):
        PackedDataset(tmp_path / "out")


def _add_label_dim(path: Path) -> None:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | {"label_dim": 3}))


def test_verify_finds_one_wrong_byte(make_folder, tmp_path) -> None:
    pack(_files(make_folder(3)), tmp_path / "out", {"name": "x"})
    with open(tmp_path / "out" / "images.npy", "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x00\xff\x00")
    with pytest.raises(DataError, match="image 2 is damaged"):
        PackedDataset(tmp_path / "out").verify()


def test_replacing_keeps_the_old_file_after_an_error(tmp_path) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(file) as partial:
        partial.write_text("half, then \ud800", encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with replacing(file) as partial:
        partial.write_text("new")
    assert file.read_text() == "new"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), locked(tmp_path / "file" / "out"):
        pass


def test_a_write_that_fails_is_an_error(make_folder, tmp_path, monkeypatch) -> None:
    def full(*_) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack_module.os, "pwrite", full)
    with pytest.raises(DataError, match="No space left on device"):
        pack(_files(make_folder(2)), tmp_path / "out", {"name": "x"})
    assert not (tmp_path / "out").exists()


def test_a_lock_is_released_after_an_error(tmp_path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "out"):
        raise RuntimeError
    with locked(tmp_path / "out", keep=False):
        (tmp_path / "out").mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


OPEN = """
import sys, time
from pathlib import Path
from stylegan_tl.data import open as open_module, pack

class Progress:  # says when packing is under way, and makes it last
    def __init__(self, what, total):
        pass
    def __call__(self, done):
        Path(sys.argv[3]).touch()
        time.sleep(float(sys.argv[4]))

if __name__ == "__main__":
    open_module.Progress, pack._ALONE_SECONDS = Progress, 0
    spec = {"kind": "folder", "path": sys.argv[1]}
    data = open_module.open_dataset(spec, resolution=16, cache=sys.argv[2], workers=2)
    print(data.path, data.content_hash)
"""


def _start(tmp_path: Path, folder: Path, seconds: float) -> subprocess.Popen:
    script = tmp_path / "open_it.py"
    script.write_text(OPEN)
    words = [folder, tmp_path / "cache", tmp_path / "under_way", seconds]
    return subprocess.Popen(
        [sys.executable, script, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def test_two_processes_pack_once(make_folder, tmp_path) -> None:
    folder = make_folder(40)
    both = [_start(tmp_path, folder, 0.5) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count("packed images: 40 images") == 1
    assert "".join(said).count("waiting for another process") <= 1
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1]


def test_killed_packing_leaves_no_data_set_and_no_process(make_folder, tmp_path) -> None:
    folder = make_folder(40)
    process, packed = _start(tmp_path, folder, 60), tmp_path / "cache" / "packed"
    _wait(lambda: (tmp_path / "under_way").exists())
    assert len(_group(process.pid)) > 2
    assert list(packed.glob(".*.partial"))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert [p for p in packed.iterdir() if not p.name.startswith(".")] == []
    _wait(lambda: not _group(process.pid))
    data = open_dataset({"kind": "folder", "path": folder}, resolution=16, cache=packed.parent)
    assert data.num_images == 40
    assert not list(packed.glob(".*.partial"))


def _wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _group(leader: int) -> list[str]:
    """Living processes of the process group that `leader` began, from proc(5)."""
    fields = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields.append(stat.read_text().rpartition(")")[2].split())
        except OSError:  # it ended just now
            continue
    return [f[0] for f in fields if int(f[2]) == leader and f[0] not in "ZX"]


def test_one_chunk_knows_only_its_own_files(make_folder) -> None:
    files = _files(make_folder(40))
    sizes = [len(pickle.dumps(files.chunk(i, i + 1))) for i in (0, 39)]
    assert max(sizes) < 600


def test_max_images_takes_the_first(make_folder) -> None:
    source, _ = source_of({"kind": "folder", "path": make_folder(9)}, 16, max_images=4)
    assert source.keys == ["000.png", "001.png", "002.png", "003.png"]


def test_an_empty_listing_is_an_error(tmp_path) -> None:
    source = Files(FolderReader(tmp_path), Listing([]), Rule(16))
    with pytest.raises(DataError, match="no image found in x"):
        pack(source, tmp_path / "out", {"name": "x"})
