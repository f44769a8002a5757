"""The portable form of a model: one safetensors file, networks by name, the rest as JSON.

`python -m stylegan_tl.convert` writes one from a run or from another project's file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.files import file_sha256, is_safetensors, missing_safetensors, write_atomic
from stylegan_tl.networks.adapters import fold, unfold

__all__ = [
    "NETWORKS", "IncompleteError", "SourceError", "SourceModel", "read_model", "write_portable",
]  # fmt: skip

NETWORKS = ("G_ema", "D")  # a transfer starts from what the user saw: G is a copy of G_ema
_FORMAT = "stylegan_tl.model/1"
_MOST_VALUES = 200_000  # in a description
_LARGEST = 1 << 20  # of the whole numbers that a network is built with


class SourceError(ValueError):
    """A source model cannot be read or does not fit."""


class IncompleteError(SourceError):
    """A file ends before what it announces, as a download does that was cut short."""


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
        extra = dict(self.extra)  # what a file says of itself does not replace what was found
        if report := extra.get("report"):
            left = dict(Counter(report["left"].values()))
            extra["report"] = {"taken": len(report["taken"]), "left": left}
        return {
            **extra,
            "name": self.dataset,
            "file": self.path.name,
            "sha256": self.sha256,
            "kimg": self.nimg / 1000,
            "model": self.model,
            "network": self.network,
            "lineage": self.lineage,
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
        raise SourceError(_missing(path))
    try:
        model = _reader_of(path)(path)
        _check(model)
        model.tensors = (fold if adapters else unfold)(model.tensors)
        return model
    except Exception as error:  # any damage a file can have ends in one clear line
        if isinstance(error, SourceError) and str(path) in str(error):
            raise
        why = (str(error).splitlines() or ["no detail"])[0][:400]
        why = "".join(c if c.isprintable() else "?" for c in why)
        if isinstance(error, IncompleteError):
            raise IncompleteError(
                f"{path} is incomplete, as after a download that was cut short ({why}): fetch or "
                "copy it again"
            ) from error
        kind = "" if isinstance(error, SourceError) else f"{type(error).__name__}: "
        raise SourceError(
            f"{path} is not a model of this project or one that it reads ({kind}{why})"
        ) from error


def write_portable(model: SourceModel, out: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write G_ema and D with their description; atomic. Integer tensors keep their type.

    Raises SourceError for numbers that `dtype` cannot hold.
    """
    from safetensors.torch import save

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
    for name, tensor in tensors.items():
        if not tensor.isfinite().all() and model.tensors[name].isfinite().all():
            raise SourceError(f"{name} has numbers too large for {str(dtype)[6:]}: use float32")
    write_atomic(out, save(tensors, {"format": _FORMAT, "stylegan_tl": json.dumps(meta)}))


def _missing(path: Path) -> str:
    """That a file is not there; of a run's checkpoint, which run folders lie below instead."""
    folder, depths = path.parent, ("*", "*/*", "*/*/*")  # runs/<study>/<overrides>/seed=0
    if path.name != "last.ckpt":
        return f"{path} does not exist"
    below = [p.parent for d in depths for p in sorted(folder.glob(f"{d}/last.ckpt"))]
    if not below:
        return f"{path} does not exist"
    many = f"one of the {len(below)} below it, such as" if len(below) > 1 else "the one below it:"
    return f"{folder} is no run folder (it has no last.ckpt); name {many} {below[0]}"


def _check(model: SourceModel) -> None:
    """SourceError unless a file's description is of the types, and the size, that it must be."""
    report = model.extra.get("report", {}) if isinstance(model.extra, dict) else None
    tables = [report.get(k, {}) for k in ("taken", "left")] if isinstance(report, dict) else [None]
    sound = {
        "model": isinstance(model.model, str),
        "network": _is_network(model),
        "nimg": type(model.nimg) is int and model.nimg >= 0,
        "dataset": _is_text(model.dataset),
        "lineage": isinstance(model.lineage, dict) and _is_plain(model.lineage),
        "extra": isinstance(model.extra, dict)
        and _is_plain(model.extra)
        and all(_is_text(model.extra.get(k, "")) for k in ("licence", "format")),
        "report": all(isinstance(t, dict) and all(map(_is_text, t.values())) for t in tables)
        and all(map(_is_text, (k for t in tables for k in t)))
        and model.tensors.keys() >= {*tables[0].values()},
    }
    if wrong := [key for key, is_sound in sound.items() if not is_sound]:
        raise SourceError(f"its description is damaged: {', '.join(wrong)}")


def _is_plain(root: Any) -> bool:
    """Whether a value can be written as JSON, and does not unfold to more than a file says."""
    todo = [root]
    for _ in range(_MOST_VALUES):
        if not todo:
            return True
        value = todo.pop()
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
        elif not isinstance(value, str | int | float | None):
            return False
    return False


def _is_text(value: Any) -> bool:
    """Whether a text can be shown on a terminal."""
    return isinstance(value, str) and value.isprintable() and len(value) <= 2000


def _is_network(model: SourceModel) -> bool:
    """Whether a network can be built with these arguments before its shapes are compared."""
    if not isinstance(model.network, dict) or not all(map(_is_text, model.network)):
        return False
    plain = (int, float, str, bool, type(None))
    small = all(
        isinstance(v, plain) and (not isinstance(v, int) or abs(v) <= _LARGEST)
        for v in model.network.values()
    )
    return small and model.network.get("num_mapping_layers", 0) <= len(model.tensors)


def _reader_of(path: Path) -> Callable[[Path], SourceModel]:
    """A portable file, by its first bytes, or one of the others."""
    return _read_portable if is_safetensors(path) else _read_other


def _read_other(path: Path) -> SourceModel:
    """A checkpoint of this project or a file of another one."""
    from stylegan_tl.source.foreign.formats import read_foreign

    return read_foreign(path)


def _read_portable(path: Path) -> SourceModel:
    from safetensors import safe_open

    if (missing := missing_safetensors(path)) > 0:
        raise IncompleteError(f"{missing:,} bytes are missing at its end")
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if header.get("format") != _FORMAT:
            raise SourceError(f"{path} has no {_FORMAT} header")
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    meta = json.loads(header["stylegan_tl"])
    return SourceModel(**meta, tensors=tensors, path=path, sha256=file_sha256(path))
