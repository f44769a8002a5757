"""The portable form of a model: one safetensors file, networks by name, the rest as JSON.

`python -m stylegan_tl.convert` writes one from a run or from another project's file.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.files import file_sha256
from stylegan_tl.networks.adapters import fold, unfold

__all__ = ["NETWORKS", "SourceError", "SourceModel", "read_model", "write_portable"]

NETWORKS = ("G_ema", "D")  # a transfer starts from what the user saw: G is a copy of G_ema
_FORMAT = "stylegan_tl.model/1"


class SourceError(ValueError):
    """A source model cannot be read or does not fit."""


@dataclass
class SourceModel:
    """Weights and what is known of them: class path, network arguments, clock, lineage."""

    model: str
    network: dict[str, Any]
    nimg: int
    dataset: str
    lineage: dict[str, Any]
    tensors: dict[str, Tensor]  # 'G_ema.…' and 'D.…'
    path: Path
    sha256: str
    extra: dict[str, Any] = field(default_factory=dict)

    def state(self, network: str) -> dict[str, Tensor]:
        """The state dict of 'G_ema' or 'D', names without the prefix."""
        prefix = network + "."
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}

    def record(self) -> dict[str, Any]:
        """What a child run stores about its parent; of a report the counts."""
        extra = dict(self.extra)
        if report := extra.get("report"):
            left = dict(Counter(report["left"].values()))
            extra["report"] = {"taken": len(report["taken"]), "left": left}
        return {
            "name": self.dataset,
            "file": self.path.name,
            "sha256": self.sha256,
            "kimg": self.nimg / 1000,
            "model": self.model,
            "network": self.network,
            "lineage": self.lineage,
            **extra,
        }


def read_model(path: Path, *, adapters: bool = True) -> SourceModel:
    """Read a run folder, a `.ckpt` or portable `.safetensors` of this project, or a foreign file.

    The format is recognised from the content, not from the name. What adapters trained is merged
    into plain tensors, or with `adapters=False` left out: what they stood beside comes back to the
    bit. Nothing in the file is executed.
    Raises SourceError naming the file and what is wrong.
    """
    path = Path(path).expanduser()
    path = path / "last.ckpt" if path.is_dir() else path
    if not path.is_file():
        raise SourceError(f"{path} does not exist")
    try:
        model = _reader_of(path)(path)
        model.tensors = (fold if adapters else unfold)(model.tensors)
        return model
    except Exception as error:  # any damage a file can have ends in one clear line
        if isinstance(error, SourceError) and str(path) in str(error):
            raise
        why = (str(error).splitlines() or ["no detail"])[0][:400]
        why = "".join(c if c.isprintable() else "?" for c in why)
        kind = "" if isinstance(error, SourceError) else f"{type(error).__name__}: "
        raise SourceError(
            f"{path} is not a model of this project or one that it reads ({kind}{why})"
        ) from error


def write_portable(model: SourceModel, out: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write G_ema and D with their description; atomic. Integer tensors keep their type."""
    from safetensors.torch import save_file

    meta = {
        "model": model.model,
        "network": model.network,
        "nimg": model.nimg,
        "dataset": model.dataset,
        "lineage": model.lineage,
        "extra": model.extra,
    }
    tensors = {
        k: (v.to(dtype) if v.is_floating_point() else v).contiguous()
        for k, v in model.tensors.items()
    }
    partial = out.with_name(out.name + ".part")
    save_file(tensors, partial, metadata={"format": _FORMAT, "stylegan_tl": json.dumps(meta)})
    os.replace(partial, out)


def _reader_of(path: Path) -> Callable[[Path], SourceModel]:
    """Which of the three kinds of file it is, from its first bytes and its description."""
    with open(path, "rb") as file:
        head = file.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _read_portable
    if head[:4] == b"PK\x03\x04" and _describes_itself(path):
        return _read_checkpoint
    return _read_foreign


def _describes_itself(path: Path) -> bool:
    """Whether a zip of PyTorch has the entry that every checkpoint of this project has."""
    with zipfile.ZipFile(path) as archive:
        plain = [e for e in archive.infolist() if e.compress_type == zipfile.ZIP_STORED]
        texts = [e for e in plain if e.filename.endswith("/data.pkl")]
        words = (b"stylegan_tl", b"hyper_parameters")
        return bool(texts) and all(word in archive.read(texts[0]) for word in words)


def _read_foreign(path: Path) -> SourceModel:
    from stylegan_tl.source.foreign.formats import read_foreign

    return read_foreign(path)


def _read_portable(path: Path) -> SourceModel:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if header.get("format") != _FORMAT:
            raise SourceError(f"{path} has no {_FORMAT} header")
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    meta = json.loads(header["stylegan_tl"])
    return SourceModel(**meta, tensors=tensors, path=path, sha256=file_sha256(path))


def _read_checkpoint(path: Path) -> SourceModel:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    own = checkpoint.get("stylegan_tl")
    if own is None:
        raise SourceError(
            f"{path} was not written by this project; it has the keys "
            f"{', '.join(sorted(map(str, checkpoint))[:8])}"
        )
    state = checkpoint["state_dict"]
    return SourceModel(
        model=own["model"],
        network=checkpoint["hyper_parameters"]["network"],
        nimg=own["nimg"],
        dataset=own["lineage"].get("dataset", "unknown"),
        lineage=own["lineage"],
        tensors={k: v for k, v in state.items() if k.split(".")[0] in NETWORKS},
        path=path,
        sha256=file_sha256(path),
    )
