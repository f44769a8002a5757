"""`stylegan_tl.weights` against a local server that cuts, delays, lies and resumes."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stylegan_tl import weights
from stylegan_tl.metrics import catalogue, features
from stylegan_tl.metrics.inception import Inception
from stylegan_tl.source.catalogue import PRETRAINED

CONTENT = bytes(range(256)) * 12_000  # 3 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = "f" * 64


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ways, self.ranges = [], []  # ways: what each coming answer does; the last stays

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):  # noqa: N802
        server = self.server
        way = server.ways.pop(0) if len(server.ways) > 1 else server.ways[0]
        server.ranges.append(self.headers.get("Range"))
        if way == "missing":
            return self.send_error(404)
        if way == "silent":
            return time.sleep(1.5)
        start = self._start() if way != "no ranges" else 0
        if start is None or start >= len(CONTENT):
            return self.send_error(416)
        body = b"<html>sign in</html>" if way == "another page" else CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if way == "slow":
            time.sleep(0.3)
        self.wfile.write(body[: len(body) // 2] if way == "cut" else body)

    def _start(self):
        given = self.headers.get("Range")
        return int(given.removeprefix("bytes=").removesuffix("-")) if given else 0


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with _Server() as server:
        server.ways = ["well"]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cache's folder; the catalogue publishes eight digits of CONTENT's digest for vgg16.

    CONTENT is taken for a network: half a gigabyte would be one.
    """
    monkeypatch.setattr(features, "check_weights", lambda name, path: None)
    monkeypatch.setenv("STYLEGAN_TL_CACHE", str(tmp_path / "cache"))
    entries = [
        catalogue.Entry(**{**vars(e), "sha256": SHA256[:8]}) if e.name == "vgg16" else e
        for e in catalogue.CATALOGUE
    ]
    monkeypatch.setattr(catalogue, "CATALOGUE", tuple(entries))
    return tmp_path / "cache" / "weights"


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def _refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        weights.main(words)
    assert end.value.code == 2


def test_a_fetched_file_is_whole_and_fetched_once(server, tmp_path):
    out = tmp_path / "new" / "weights.pth"
    for _ in range(2):
        assert weights.fetch(server.url, out, sha256=SHA256[:12].upper()) == out
    assert out.read_bytes() == CONTENT
    assert _names(out.parent) == ["weights.pth"]
    assert server.ranges == [None]


def test_other_content_leaves_nothing_and_both_digests_are_said(server, tmp_path):
    out = tmp_path / "weights.pth"
    server.ways = ["another page"]
    page = hashlib.sha256(b"<html>sign in</html>").hexdigest()
    with pytest.raises(ValueError, match=f"sha256 is {page}, not {SHA256}; nothing was kept"):
        weights.fetch(server.url, out, sha256=SHA256)
    assert _names(tmp_path) == []


def test_a_wrong_file_that_was_there_is_replaced_only_by_a_right_one(server, tmp_path):
    out = tmp_path / "weights.pth"
    out.write_bytes(b"old")
    with pytest.raises(ValueError, match="not the file that was asked for"):
        weights.fetch(server.url, out, sha256=OTHER)
    assert out.read_bytes() == b"old"
    weights.fetch(server.url, out, sha256=SHA256)
    assert out.read_bytes() == CONTENT


def test_a_truncated_answer_is_never_used_and_goes_on_where_it_ended(server, tmp_path):
    out = tmp_path / "weights.pth"
    server.ways = ["cut", "cut", "well"]
    half, quarter = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    with pytest.raises(OSError, match=f"ended after {half} of {len(CONTENT)} bytes; run it again"):
        weights.fetch(server.url, out, sha256=SHA256)
    assert not out.exists()
    with pytest.raises(OSError, match=f"ended after {quarter} of {len(CONTENT)} bytes"):
        weights.fetch(server.url, out, sha256=SHA256)
    weights.fetch(server.url, out, sha256=SHA256)
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={half}-", f"bytes={quarter}-"]
    assert _names(tmp_path) == ["weights.pth"]


@pytest.mark.parametrize("beginning", [CONTENT[:1000], CONTENT + b"more"])
def test_without_ranges_it_starts_over(server, tmp_path, beginning):
    out = tmp_path / "weights.pth"
    (tmp_path / "weights.pth.part").write_bytes(beginning)
    server.ways = ["no ranges"]
    weights.fetch(server.url, out, sha256=SHA256)
    assert out.read_bytes() == CONTENT


def test_a_beginning_that_is_the_whole_file_is_used_as_it_is(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    out = weights.fetch(server.url, tmp_path / "weights.pth", sha256=SHA256[:8].upper())
    assert out.read_bytes() == CONTENT
    assert server.ranges == []
    assert _names(tmp_path) == ["weights.pth"]


def test_a_beginning_that_is_too_long_is_dropped(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT + b"more")
    out = weights.fetch(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert out.read_bytes() == CONTENT


def test_a_beginning_of_another_file_is_found_out_and_dropped(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(b"another file")
    with pytest.raises(ValueError, match="not the file that was asked for"):
        weights.fetch(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert _names(tmp_path) == []
    weights.fetch(server.url, tmp_path / "weights.pth", sha256=SHA256)


@pytest.mark.parametrize(
    ("way", "said"), [("missing", "answers 404 Not Found"), ("silent", "timed out|closed")]
)
def test_no_answer_is_a_clear_error(server, tmp_path, way, said):
    server.ways = [way]
    with pytest.raises(OSError, match=said):
        weights.fetch(server.url, tmp_path / "weights.pth", sha256=SHA256, timeout=0.3)
    assert _names(tmp_path) == []


def test_a_closed_port_is_a_clear_error(server, tmp_path):
    with pytest.raises(OSError, match="127.0.0.1:1/x"):
        weights.fetch("http://127.0.0.1:1/x", tmp_path / "x", sha256=SHA256, timeout=1)


def test_addresses_of_files_and_paths_are_taken(tmp_path):
    source = tmp_path / "a stick" / "weights.pth"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    for number, url in enumerate((source.as_uri(), str(source))):
        out = weights.fetch(url, tmp_path / f"{number}.pth", sha256=SHA256)
        assert out.read_bytes() == CONTENT
    for wrong in ("ftp://127.0.0.1/x", str(tmp_path / "nowhere.pth")):
        with pytest.raises(ValueError, match="neither a file nor an http"):
            weights.fetch(wrong, tmp_path / "x", sha256=SHA256)


CHILD = """
import sys
from stylegan_tl import weights
weights.fetch(sys.argv[1], sys.argv[2], sha256=sys.argv[3])
"""


def test_two_processes_at_once_fetch_one_whole_file(server, tmp_path):
    server.ways = ["cut", "slow"]
    out = tmp_path / "weights.pth"
    with pytest.raises(OSError, match="ended after"):
        weights.fetch(server.url, out, sha256=SHA256)
    command = [sys.executable, "-c", CHILD, server.url, str(out), SHA256]
    children = [
        subprocess.Popen(command, cwd=Path(__file__).parent.parent, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for child in children:
        assert child.wait(60) == 0, child.stderr.read()
        child.stderr.close()
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]  # the others waited for the first
    assert _names(tmp_path) == ["weights.pth"]


def test_the_command_fetches_verifies_and_lists(server, folder, capsys):
    assert weights.main(["verify", "vgg16"]) == 1
    assert weights.main(["fetch", "lpips", "--url", server.url]) == 0  # lpips reads vgg16's file
    out = capsys.readouterr()
    assert f"sha256={SHA256}" in out.out
    assert "3.1 of 3.1 MB" in out.err
    file = folder / catalogue.entry("vgg16").file
    assert json.loads((folder / f"{file.name}.json").read_text())["sha256"] == SHA256
    assert weights.main(["verify"]) == 0
    assert weights.main(["list"]) == 0
    said = capsys.readouterr().out
    assert "vgg16 (there)" in said
    assert "inception (not there)" in said
    assert catalogue.entry("inception").url in said
    file.write_bytes(CONTENT[:-1])
    assert weights.main(["verify"]) == 1
    assert "damaged or another version" in capsys.readouterr().out


def test_the_digest_of_the_first_use_binds_a_later_fetch(server, folder, capsys):
    file = folder / catalogue.entry("vgg16").file
    assert weights.main(["fetch", "vgg16", "--url", server.url]) == 0
    file.unlink()
    record = folder / f"{file.name}.json"
    record.write_text(json.dumps({"sha256": SHA256[:8] + "0" * 56}))
    _refused(["fetch", "vgg16", "--url", server.url])
    assert f"not {SHA256[:8]}0000" in capsys.readouterr().err
    assert not file.exists()
    _refused(["fetch", "vgg16", "--url", server.url, "--sha256", SHA256])
    assert "not the file that was used here first" in capsys.readouterr().err


def test_another_digest_needs_another_place(server, folder, tmp_path, capsys):
    command = ["fetch", "inception", "--url", server.url, "--sha256", SHA256]
    _refused(command)
    assert "a place of its own with --out" in capsys.readouterr().err
    assert weights.main([*command, "--out", str(tmp_path / "mine.pth")]) == 0
    assert (tmp_path / "mine.pth").read_bytes() == CONTENT
    assert f"sha256={SHA256}" in capsys.readouterr().out
    _refused([*command[:-1], "abc"])
    assert "8 to 64" in capsys.readouterr().err


class _Hostile:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "owned"),)


@pytest.mark.parametrize("what", ["runs code", "is cut short", "is another network", "is noise"])
@pytest.mark.parametrize("name", ["inception", "vgg16"])
def test_weights_that_cannot_be_read_are_not_kept(what, name, tmp_path, capsys):
    source, out = tmp_path / "came.pth", tmp_path / "mine" / "weights.pth"
    torch.save(_Hostile(tmp_path) if what == "runs code" else {"w": torch.zeros(999)}, source)
    if what == "is cut short":
        source.write_bytes(source.read_bytes()[:1000])
    if what == "is noise":
        source.write_bytes(CONTENT)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    given = ["--url", str(source), "--out", str(out), "--sha256", digest]
    _refused(["fetch", name, *given])
    said = capsys.readouterr().err.splitlines()[-2]
    assert said.startswith(f"error: {source} is not ")
    assert said.endswith("; nothing was kept")
    assert _names(out.parent) == []
    assert not (tmp_path / "owned").exists()


def test_weights_are_told_by_content_while_they_come(tmp_path):
    state = {k: v.clone() for k, v in Inception().state_dict().items()}
    came, out = tmp_path / "came", tmp_path / "i.safetensors"
    save_file(state, came)
    given = ["--url", str(came), "--sha256", hashlib.sha256(came.read_bytes()).hexdigest()]
    assert weights.main(["fetch", "inception", *given, "--out", str(out)]) == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fetch inceptoin", "inceptoin; did you mean inception?"),
        ("verify lpip", "did you mean lpips?"),
        ("fetch pretrained/lsun_bedrom_256", "did you mean lsun_bedroom_256?"),
        ("fetch lsun_bedroom_256 --url nope.pkl", "'nope.pkl' is neither a file nor"),
        ("lst", "error: lst: no such command; did you mean list?"),
        ("get inception", "there are list, verify, fetch"),
    ],
)
def test_a_word_that_is_none_is_answered_with_what_was_meant(words, said, folder, capsys):
    _refused(words.split())
    assert said in capsys.readouterr().err


def test_of_a_name_like_no_other_all_that_are_fetched_are_said(capsys):
    _refused(["fetch", "resnet"])
    said = capsys.readouterr().err.splitlines()[0].partition("there are ")[2].split(", ")
    models = [one.name for one in PRETRAINED]
    assert said == ["inception", "vgg16", "lpips", *models]


def test_file_names_state_the_digests():
    for one in catalogue.CATALOGUE:
        assert one.sha256 in one.file
        assert one.url.endswith("/" + one.file)


def test_help_and_list_import_nothing_heavy():
    code = (
        "import sys; from stylegan_tl.weights import main; main(['list']); "
        "print(sorted({'torch', 'numpy', 'urllib.request'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
