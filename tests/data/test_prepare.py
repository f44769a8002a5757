"""The command `python -m stylegan_tl.prepare`."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_tl.data.open import open_dataset
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.prepare import main, parse

ROOT = Path(__file__).parents[2]


def _run(*words: object) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        main([str(word) for word in words])
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_folder_to_packed(make_folder, tmp_path, capsys) -> None:
    folder, out = make_folder(5, "cats"), tmp_path / "out"
    make_folder(2, "dogs", start=5)
    (folder / "cats" / "broken.png").write_bytes(b"?")
    _run(f"in={folder}", f"out={out}", "resolution=16", "crop=center", "filter=box")
    data = PackedDataset(out)
    data.verify()
    assert (data.num_images, data.label_dim, data.name) == (7, 2, "images")
    said = capsys.readouterr()
    assert "8 images (folder)" in said.out
    assert "skipped cats/broken.png: not an image" in said.out
    assert data.content_hash in said.out
    assert "7/8" not in said.err
    assert "8/8 images" in said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "out"]


def _nvidia(path: Path) -> tuple[list[np.ndarray], list | None]:
    """Read as NVIDIA's documentation says: sorted images, labels by name from dataset.json."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        assert all(i.compress_type == zipfile.ZIP_STORED for i in infos)
        names = sorted(i.filename for i in infos if i.filename.endswith(".png"))
        images = [np.asarray(Image.open(io.BytesIO(archive.read(n)))) for n in names]
        labels = json.loads(archive.read("dataset.json"))["labels"]
    return images, labels and [dict(labels)[name] for name in names]


@pytest.mark.parametrize("labelled", [True, False])
def test_nvidia_zip_round_trip(make_folder, tmp_path, labelled: bool) -> None:
    folder = make_folder(3, "cats")
    make_folder(2, "dogs", start=3)
    (folder / "dogs" / "bad.png").write_bytes(b"")
    labels = [] if labelled else ["labels=none"]
    _run(f"in={folder}", f"out={tmp_path}/n.zip", "format=nvidia", "resolution=16", *labels)
    _run(f"in={folder}", f"out={tmp_path}/direct", "resolution=16", *labels)
    _run(f"in={tmp_path}/n.zip", f"out={tmp_path}/back", "resolution=16")
    direct, back = PackedDataset(tmp_path / "direct"), PackedDataset(tmp_path / "back")
    assert back.content_hash == direct.content_hash
    images, found = _nvidia(tmp_path / "n.zip")
    np.testing.assert_array_equal(np.stack(images).transpose(0, 3, 1, 2), direct.images(range(5)))
    assert found == ([0, 0, 0, 1, 1] if labelled else None)
    report = json.loads((tmp_path / "n.report.json").read_text())
    assert report["skipped"][0]["file"] == "dogs/bad.png"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_vectors_survive_the_nvidia_zip(make_folder, tmp_path) -> None:
    folder = make_folder(2)
    pairs = [["000.png", [0.5, 2]], ["001.png", [1, -1]]]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    _run(f"in={folder}", f"out={tmp_path}/n.zip", "resolution=16")
    assert _nvidia(tmp_path / "n.zip")[1] == [[0.5, 2.0], [1.0, -1.0]]


def test_lsun_database_to_packed(tmp_path, draw, encode) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "db"), map_size=2**20) as env, env.begin(write=True) as writer:
        for i in range(6):
            writer.put(f"{i:040x}".encode(), encode(draw(i, 16, 16), "webp", lossless=True))
    _run(f"in={tmp_path}/db", f"out={tmp_path}/out", "resolution=16", "max_images=4")
    expected = np.stack([draw(i, 16, 16).transpose(2, 0, 1) for i in range(4)])
    np.testing.assert_array_equal(PackedDataset(tmp_path / "out").images(range(4)), expected)


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_twice_is_once_and_different_is_refused(make_folder, tmp_path, capsys, name: str) -> None:
    words = [f"in={make_folder(3)}", f"out={tmp_path / name}"]
    _run(*words, "resolution=16")
    before = (tmp_path / name).stat().st_mtime_ns
    capsys.readouterr()
    _run(*words, "resolution=16")
    assert "already prepared" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        _run(*words, "resolution=32")
    assert stop.value.code == 2
    assert "with other settings" in capsys.readouterr().err
    assert (tmp_path / name).stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_not_touched(make_folder, tmp_path, capsys) -> None:
    folder = make_folder(2)
    with pytest.raises(SystemExit):
        _run(f"in={folder}", f"out={folder}", "resolution=16")
    assert "is no prepared data set" in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resolution=16"], "in=… is missing; out=… is missing"),
        (["in=a", "out=b", "resolution=big"], "resolution=big: resolution must be a whole number"),
        (["--in=a"], "--in=a: expected key=value; did you mean in"),
        (["in=a", "out=b", "resolutoin=4"], "did you mean resolution"),
    ],
)
def test_wrong_words_are_all_named(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in=nowhere", "out=b", "resolution=16"], "no such file or folder"),
        (["in=.", "out=b", "resolution=20"], "a power of two"),
        (["in=.", "out=b", "resolution=16", "format=tar"], "expected packed or nvidia"),
        (["in=.", "out=b", "resolution=16", "format=nvidia"], "ending in .zip"),
        (["in=.", "out=b", "resolution=16"], "no image found"),
        (["in=.", "out=b", "resolution=16", "subfolder=c"], "folders there: none"),
    ],
)
def test_wrong_requests_exit_with_2(tmp_path, monkeypatch, capsys, words, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        _run(*words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; from stylegan_tl.prepare import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'PIL'} & set(sys.modules); assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "in=PATH" in result.stdout


def test_preparing_needs_no_torch(make_folder, tmp_path) -> None:
    code = (
        "import sys; from stylegan_tl.prepare import main; main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules"
    )
    words = [f"in={make_folder(2)}", f"out={tmp_path}/out", "resolution=16"]
    subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True, capture_output=True)


PREPARE = """
import sys, time
from pathlib import Path
from stylegan_tl.data import progress
from stylegan_tl.prepare import main

def wait(self, done):
    Path(sys.argv[1]).touch()
    time.sleep(60)

progress.Progress.__call__ = wait
main(sys.argv[2:])
"""


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_terminated_run_leaves_nothing(make_folder, tmp_path, name: str) -> None:
    out, under_way = tmp_path / "made" / name, tmp_path / "under_way"
    words = [f"in={make_folder(4)}", f"out={out}", "resolution=16", "workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE, under_way, *words], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while not under_way.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert list(out.parent.rglob("images.npy"))
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert [p for p in out.parent.iterdir() if not p.name.endswith(".lock")] == []


HOUSES = ROOT.parent / "shared" / "data" / "houses-128.zip"


@pytest.mark.skipif(not HOUSES.is_file(), reason="no Houses photographs beside the project")
def test_real_photographs(tmp_path) -> None:
    spec = {"kind": "zip", "path": str(HOUSES), "subfolder": "bedroom"}
    data = open_dataset(spec, resolution=16, cache=tmp_path)
    assert data.num_images == 534  # of 535, one is there twice
    with zipfile.ZipFile(HOUSES) as archive:
        image = Image.open(io.BytesIO(archive.read("bedroom/0001.jpg")))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.images([0])[0], expected)
