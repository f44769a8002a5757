"""Files that would run code, fill memory or never end: one clear line, and nothing happens."""

from __future__ import annotations

import builtins
import contextlib
import io
import operator
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_layouts import (
    numbers,
    nvidia_pickle,
    stylegan2_variables,
    tensorflow_pickle,
    tensorflow_values,
)

from stylegan_tl.source.foreign import formats
from stylegan_tl.source.foreign.containers import opened
from stylegan_tl.source.foreign.names import NAMES, array
from stylegan_tl.source.foreign.pickles import read_pickle
from stylegan_tl.source.foreign.values import Budget, Limits
from stylegan_tl.source.portable import SourceError, read_model

PROTO, STOP = b"\x80\x04", b"."
assert formats.FORMATS  # imported here, so that no test pays for it


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, what: Any, *args: Any) -> None:
        self.what, self.args = what, args

    def __reduce__(self) -> tuple:
        return self.what, self.args


def _refused(path: Path, said: str) -> None:
    """Refused in one line that names the file and says why."""
    with pytest.raises(SourceError, match=said) as caught:
        read_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def _torch_bytes(value: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def _hostile(folder: Path) -> dict[str, Calls]:
    """Pickles that would leave something in `folder`."""
    touch, code = f"touch {folder}/owned", f"open({str(folder / 'owned')!r}, 'w')"
    nested = _torch_bytes(Calls(os.system, touch))
    return {
        "system": Calls(os.system, touch),
        "eval": Calls(builtins.eval, code),
        "exec": Calls(builtins.exec, code),
        "method": Calls(operator.methodcaller, "system"),
        "import": Calls(builtins.__import__, "antigravity"),
        "popen": Calls(subprocess.Popen, ["touch", f"{folder}/owned"]),
        "mkdir": Calls(os.mkdir, f"{folder}/owned"),
        "nested torch.load": Calls(torch.storage._load_from_bytes, nested),
        "load": Calls(torch.load, f"{folder}/other.pt"),
        "unpickler": Calls(pickle.loads, pickle.dumps(Calls(os.system, touch))),
    }


@pytest.mark.parametrize("how", ["pickle", "torch", "legacy"])
@pytest.mark.parametrize("attack", sorted(_hostile(Path())))
def test_a_file_that_would_run_code_does_not(attack: str, how: str, tmp_path: Path) -> None:
    payload = {"G_ema": _hostile(tmp_path)[attack], "g_ema": {"w": torch.zeros(2)}}
    path = tmp_path / "weights.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=how == "torch")
    _refused(path, "it asks for|os system|which no model needs")
    assert not (tmp_path / "owned").exists()


def _chain(opening: bytes, count: int, closing: bytes = b"") -> bytes:
    return PROTO + opening * count + closing * count + STOP


LAUGHS = b"]\x940" + b"".join(b"h%ch%c\x86\x940" % (i, i) for i in range(200)) + b"h\xc8"
BOMBS = {
    # what is declared is not allocated: each would be gigabytes
    "declared bytes": (PROTO + b"\x8e" + struct.pack("<Q", 1 << 40) + b"x" + STOP, "expected"),
    "declared text": (PROTO + b"X" + struct.pack("<I", 0xFFFFFF00) + b"x" + STOP, "expected"),
    "memo index": (PROTO + b"Nr" + struct.pack("<I", 0xFFFFFFFF) + STOP, "holds a NoneType"),
    "huge number": (
        PROTO + b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + STOP,
        "bits",
    ),
    "digits": (PROTO + b"I" + b"9" * 100_000 + b"\n" + STOP, "limit|digits"),
    "deep": (PROTO + b"]" * 5_000 + b"a" * 4_999 + STOP, "nested deeper"),
    "deep tuples": (PROTO + b")" + b"\x85" * 5_000 + STOP, "nested deeper"),
    "billion laughs": (PROTO + LAUGHS + STOP, "nested deeper"),
    "laughs as a key": (PROTO + b"}" + LAUGHS + b"Ns" + STOP, "as a key"),
    "itself": (PROTO + b"]\x94h\x00a" + STOP, "holds itself"),
    "itself in a dictionary": (PROTO + b"}\x94\x8c\x01ah\x00s" + STOP, "holds itself"),
    "no end": (PROTO + b"N" * 100, "STOP|end"),
    "empty stack": (PROTO + b"a" + STOP, "not a model"),
    "a mark as a value": (PROTO + b"((\x85" + STOP, "mark"),
    "extension": (PROTO + b"\x82\x01" + STOP, "EXT1"),
    "out of band": (b"\x80\x05\x97" + STOP, "NEXT_BUFFER"),
    "storage from nowhere": (PROTO + b"\x8c\x01aQ" + STOP, "storage outside"),
    "attributes of a name": (PROTO + b"cnumpy\nndarray\n}b" + STOP, "has none"),
    "calls a number": (PROTO + b"K\x01)R" + STOP, "it calls a value"),
    "calls what is only named": (PROTO + b"cnumpy\nndarray\n)R" + STOP, "calls numpy.ndarray"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_does_not_go_off(name: str, tmp_path: Path) -> None:
    content, said = BOMBS[name]
    (tmp_path / "bomb.pkl").write_bytes(content)
    tracemalloc.start()
    try:
        _refused(tmp_path / "bomb.pkl", said)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_pickle_that_goes_on_and_on_is_stopped() -> None:
    """Also one that hides its length in pickles within it: they share one budget."""
    limits = Limits(operations=1000)
    short = PROTO + b"N0" * 490 + b"N" + STOP
    assert read_pickle(io.BytesIO(short), {}, Budget(0, limits)) is None
    with pytest.raises(SourceError, match="more than 1,000 pickle operations"):
        read_pickle(io.BytesIO(PROTO + b"N0" * 501 + STOP), {}, Budget(0, limits))
    inner = pickle.dumps([_torch_bytes(torch.zeros(1).untyped_storage())])[:-1]
    call = b"ctorch.storage\n_load_from_bytes\n"
    many = inner + b"0" + (call + b"h\x01\x85R0") * 60 + b"N" + STOP
    with pytest.raises(SourceError, match="operations|more than .* pickles"):
        read_pickle(io.BytesIO(many), NAMES, Budget(len(many), limits))


def test_a_file_in_a_file_that_is_read_again_and_again_is_stopped() -> None:
    """Few operations, and the same large text read each time."""
    inner = _torch_bytes(torch.zeros(1).untyped_storage())
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"0"
    inner = inner[:2] + text + inner[2:]
    call = b"ctorch.storage\n_load_from_bytes\n"
    many = pickle.dumps([inner])[:-1] + b"0" + (call + b"h\x01\x85R0") * 60 + b"N" + STOP
    with pytest.raises(SourceError, match="far more than its own size"):
        read_pickle(io.BytesIO(many), NAMES, Budget(len(many)))


def test_keys_whose_hashes_an_attacker_can_choose_are_refused(tmp_path: Path) -> None:
    """Tuples of numbers hash alike in every process: 250,000 with one hash take an hour."""
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({(1, 2): 3}))
    _refused(tmp_path / "a.pkl", "a tuple as a key")


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple) -> Calls:
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


@pytest.mark.parametrize(
    ("offset", "size", "stride", "said"),
    [
        (0, (1 << 20, 1 << 9), (0, 0), "in a storage of 4 numbers"),
        (0, (1 << 40,), (0,), "numbers; 1,073,741,824 are read"),
        (3, (2,), (1,), "in a storage of 4 numbers"),
        (0, (2,), (-1,), "not whole numbers from 0"),
        (0, (2.0,), (1,), "not whole numbers from 0"),
        (0, (1,) * 9, (1,) * 9, "9 dimensions"),
    ],
)
def test_a_tensor_lies_within_its_storage(
    offset: int, size: tuple, stride: tuple, said: str, tmp_path: Path
) -> None:
    storage = torch.zeros(4).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    torch.save({"g_ema": _tensor(typed, offset, size, stride)}, tmp_path / "a.pt")
    _refused(tmp_path / "a.pt", said)


def test_an_array_whose_shape_is_more_than_its_bytes_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps(np.zeros(3, np.float32), 2)
    broken = data.replace(b"K\x03\x85", b"M\xff\xff\x85")
    assert broken != data
    (tmp_path / "a.pkl").write_bytes(broken)
    with opened(tmp_path / "a.pkl") as found, pytest.raises(SourceError, match="does not fit"):
        array(found)


def _zip(path: Path, entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    entries = {"a/data.pkl": pickle.dumps({}), "a/data/0": b"\x00" * (20 << 20)}
    _refused(_zip(tmp_path / "a.pt", entries, zipfile.ZIP_DEFLATED), "compressed")


def test_a_zip_whose_entries_share_their_bytes_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.pt", {"a/data.pkl": pickle.dumps({}), "a/data/0": b"0" * 4096})
    whole = path.read_bytes()
    start, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entries, tail = whole[start:end], whole[end:]
    again = entries[entries.index(b"PK\x01\x02", 4) :].replace(b"data/0", b"data/1")
    tail = bytearray(tail)
    struct.pack_into("<HHI", tail, 8, 3, 3, len(entries) + len(again))
    path.write_bytes(whole[:start] + entries + again + bytes(tail))
    _refused(path, "overlap|Overlap")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty", b""),
        ("text", b"hello, these are my weights"),
        ("zip magic", b"PK\x03\x04" + b"\x00" * 60),
        ("pickle magic", b"\x80"),
        ("safetensors", b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b"\x00" * 63),
        ("numbers", pickle.dumps([1, 2, 3])),
        ("other keys", pickle.dumps({"weights": 1})),
        ("a list of networks", pickle.dumps((1, 2, 3))),
        ("legacy, cut", _torch_bytes({"a": torch.zeros(64)})[:-8]),
        ("half a G", pickle.dumps({"G_ema": None, "D": None})),
    ],
)
def test_what_is_no_model_is_said_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    _refused(tmp_path / "a.pkl", "a.pkl (is not a model of this project|is incomplete|has no)")


def test_tensors_come_back_as_torch_saved_them(tmp_path: Path) -> None:
    """Against torch's own reader: views, other types, both containers, shared storages."""
    base = torch.from_numpy(numbers("x", (6, 8)))
    saved = {
        "whole": base,
        "view": base.t()[2:5, ::2],
        "row": base[3],
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "count": torch.tensor(7),
        "flags": base > 0,
        "empty": torch.zeros(0, 4),
        "last": base.reshape(1, 2, 4, 6).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(base[:2]),
    }
    for new in (True, False):
        torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        expected = torch.load(tmp_path / "a.pt", weights_only=True)
        with opened(tmp_path / "a.pt") as found:
            for name, tensor in expected.items():
                read = found[name].read()
                assert read.is_contiguous()
                assert read.dtype == (torch.float32 if tensor.is_floating_point() else tensor.dtype)
                assert torch.equal(read, tensor.to(read.dtype)), name


def test_a_value_that_unfolds_without_end_is_never_spelled_out(tmp_path: Path) -> None:
    """2^40 brackets, where a message, a name or a comparison might want to show them."""
    laughs: list = []
    for _ in range(40):
        laughs = [laughs, laughs]
    path = tmp_path / "a.pkl"
    for G_more in ({"z_dim": laughs}, {"img_channels": laughs}, {"mapping_kwargs": laughs}):
        _refused(nvidia_pickle(path, G_more=G_more), "a list|no arguments")
    values = tensorflow_values(stylegan2_variables())
    _refused(tensorflow_pickle(path, values, version=laughs), "not a network of version")
    _refused(tensorflow_pickle(path, values, G_more={"architecture": laughs}), "=a list, here")
    path.write_bytes(pickle.dumps({"a": laughs, "b": (laughs, laughs)}))
    _refused(path, "it has the keys a, b")


def test_what_a_file_says_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    values = tensorflow_values(stylegan2_variables())
    values["synthesis"]["\x1b[2J\x1b]0;owned\x07"] = values["synthesis"]["noise0"]
    with pytest.raises(SourceError, match="cannot be printed"):
        read_model(tensorflow_pickle(tmp_path / "a.pkl", values))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"\x1b[2J": 1}))
    with pytest.raises(SourceError) as caught:
        read_model(tmp_path / "b.pkl")
    assert str(caught.value).isprintable()


def test_a_flipped_or_cut_file_ends_in_the_one_error(tmp_path: Path, monkeypatch) -> None:
    """Seeded damage all over a valid file: it is read, or it is a SourceError."""
    import foreign_layouts

    monkeypatch.setitem(foreign_layouts.SIZE, "most", 4)
    monkeypatch.setattr(foreign_layouts, "sizes", lambda: [4, 8])
    monkeypatch.setitem(foreign_layouts.SIZE, "resolution", 8)
    whole = nvidia_pickle(tmp_path / "a.pkl").read_bytes()
    read_model(tmp_path / "a.pkl")
    draw, refused = np.random.default_rng(0), 0
    for i in range(120):
        data = bytearray(whole)
        at = int(draw.integers(len(data)))
        if i % 3 == 0:
            data = data[:at]
        else:
            for place in draw.integers(len(data), size=i % 3):
                data[place] ^= 1 << int(draw.integers(8))
        (tmp_path / "b.pkl").write_bytes(bytes(data))
        with contextlib.suppress(SourceError):
            read_model(tmp_path / "b.pkl")
            continue
        refused += 1
    assert refused > 40  # every cut, and flips in the structure


def test_reading_imports_and_names_nothing_of_the_file(tmp_path: Path) -> None:
    before = set(sys.modules)
    read_model(nvidia_pickle(tmp_path / "a.pkl"))
    assert not {m for m in set(sys.modules) - before if "dnnlib" in m or "torch_utils" in m}
