"""A file of any format that ends too early is said to be incomplete, wherever it ends."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from foreign_layouts import nvidia_pickle
from recorded import filled
from torch7_writer import Writer

from stylegan_tl.files import missing_safetensors
from stylegan_tl.source.portable import (
    IncompleteError,
    SourceError,
    read_model,
    write_portable,
)

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))


def _torch(path: Path, zipped: bool) -> Path:
    states = {k: filled(v) for k, v in RECORDED["rosinality"]["layout"].items()}
    torch.save(states, path, _use_new_zipfile_serialization=zipped)
    return path


def _safetensors(path: Path) -> Path:
    write_portable(read_model(_torch(path.with_name("whole.pt"), True)), path)
    return path


def _torch7(path: Path) -> Path:
    weight = filled({"main.0.weight": [8, 3, 4, 4]})["main.0.weight"].numpy()
    path.write_bytes(Writer().dump({"weights": weight, "name": "net", "count": 3}))
    return path


WRITE = {
    "pickle": nvidia_pickle,
    "zip": lambda path: _torch(path, True),
    "legacy": lambda path: _torch(path, False),
    "safetensors": _safetensors,
    "torch7": _torch7,
}


@pytest.mark.parametrize("form", WRITE)
@pytest.mark.parametrize("share", [0.03, 0.4, 0.97, 1])
def test_a_file_that_ends_too_early_is_incomplete(form: str, share: float, tmp_path) -> None:
    path = WRITE[form](tmp_path / "model.any")
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(len(whole) * share), len(whole) - 1)])
    with pytest.raises(IncompleteError, match="is incomplete, as after a download") as caught:
        read_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_half_of_a_pair_that_is_incomplete_is_named(tmp_path) -> None:
    for net, layout in RECORDED["pytorch_examples"]["layout"].items():
        torch.save(filled(layout), tmp_path / f"net{net}.pth")
    other = tmp_path / "netD.pth"
    other.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(IncompleteError, match=r"incomplete.*\(netD.pth beside it: "):
        read_model(tmp_path / "netG.pth")


def test_damage_within_a_whole_file_is_not_called_that(tmp_path) -> None:
    path = _safetensors(tmp_path / "a.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole + b"more")
    with pytest.raises(SourceError, match="is not a model of this project"):
        read_model(path)
    path.write_bytes(whole[:8] + b"{" + b"[" * 5000 + whole[5009:])
    with pytest.raises(SourceError, match="is not a model of this project"):
        read_model(path)


def test_the_missing_bytes_are_counted(tmp_path) -> None:
    entry = {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}
    header = json.dumps({"x": entry, "__metadata__": {"data_offsets": "no"}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(20)
    for gone in (0, 1, 20, 30):
        (tmp_path / "a").write_bytes(whole[: len(whole) - gone])
        # of a header that is cut nothing else is known
        assert missing_safetensors(tmp_path / "a") == (gone if gone <= 20 else gone - 20)
