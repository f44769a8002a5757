"""The record of one trial: `trial.json`, `metrics.jsonl`, and what machine and code made them.

Both files are canonical and need no network: a tracker only mirrors them, and a study reads nothing
else. Standard library only.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, get_args, get_origin

from stylegan_tl.files import write_atomic
from stylegan_tl.study.comparable import FIELDS, check_record
from stylegan_tl.study.provenance import commit, hardware, versions

__all__ = [
    "SCHEMA_VERSION",
    "STATES",
    "MetricsLog",
    "Trial",
    "TrialMismatch",
    "check_same",
    "commit",
    "hardware",
    "identity",
    "now",
    "versions",
    "write_lines",
    "write_records",
]

SCHEMA_VERSION = 2
STATES = ("running", "complete", "failed", "interrupted")

# What a config may change without becoming another experiment. Keys are looked up at any depth.
_NOT_SCIENCE = frozenset(
    "hydra logger trainer launcher study experiment accelerator cache cache_dir device devices"
    " dry_run num_workers out output_dir run_dir runs runs_dir threads verbose workers".split()
)
_SINCE_2 = frozenset(("change", "evaluation_seconds", "flags"))  # absent in records of version 1
# What a config without these keys meant, section by section. A key that came later is listed with
# what was done before, so that runs made without it are still the same experiment.
_TRAINING = {
    "loss": "nonsaturating", "G_steps": 1, "D_steps": 1, "gp_weight": 10, "drift_weight": 0,
    "label_smoothing": 0, "label_noise": 0, "label_flipping": 0,
}  # fmt: skip
_MODEL = {"training": _TRAINING}
_UNSTATED = {
    "metric": {"rounds": 0, "precision": "fp32"},
    "model": _MODEL,
    "pretrain": {"model": _MODEL},
}
_PATHS = frozenset(("path", "checkpoint", "file"))  # compared by their last component: data moves


class TrialMismatch(ValueError):
    """The run directory holds a trial of another configuration."""


@dataclass
class Trial:
    """One cell (source, target, strategy, model) x one seed. Saved as `trial.json`.

    `metrics` is {protocol name: {best: {value, kimg}, final: {value, kimg}, at: [...], protocol,
    better}}, filled by `observe`. `change` holds {kimg, groups} per evaluation, `flags` what went
    wrong and at which tick. `evaluation_seconds` is beside `wall_seconds`, which is training alone.
    Non-finite numbers are stored as null. Times are ISO 8601 in UTC.
    """

    study: str
    name: str
    seed: int
    choices: dict[str, Any]
    config: dict[str, Any]
    state: str = "running"
    reason: str | None = None
    started: str = field(default_factory=lambda: now())
    updated: str | None = None
    finished: str | None = None
    wall_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    kimg: float = 0.0
    s_per_kimg: float | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    commit: dict[str, Any] | None = None
    command: list[str] = field(default_factory=list)
    source: dict[str, Any] = field(default_factory=dict)
    load_report: dict[str, Any] = field(default_factory=dict)
    freeze: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    change: list[dict[str, Any]] = field(default_factory=list)
    flags: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do: the same command again is skipped."""
        return self.state == "complete"

    def observe(self, record: Mapping[str, Any], *, kimg: float) -> None:
        """Add one evaluation: a protocol (every field of `comparable.FIELDS`) and what it gave.

        `better`, "min" unless the record says "max", decides which value is best. All else in the
        record (value, stderr, seconds, ...) is the measurement. ValueError for a record that lacks
        a field, and for a protocol that changes within the trial.
        """
        check_record(record)
        record = _plain(record)
        name, better = record.pop("metric"), record.pop("better", "min")
        if better not in ("min", "max"):
            raise ValueError(f"metric {name!r}: better={better!r}, expected 'min' or 'max'")
        protocol = {k: record.pop(k) for k in FIELDS if k in record}
        entry = self.metrics.setdefault(name, {"better": better, "protocol": protocol, "at": []})
        if entry["protocol"] != protocol:
            raise ValueError(
                f"metric {name!r} changed its protocol within one trial: "
                f"{_differences(entry['protocol'], protocol)}"
            )
        _replace(entry["at"], {"kimg": _plain(kimg), **record})
        _summarise(entry)

    def observe_change(self, groups: Mapping[str, float | None], *, kimg: float) -> None:
        """Add how far each group of parameters is from the source's: {group: relative change}."""
        _replace(self.change, {"kimg": _plain(kimg), "groups": _plain(groups)})

    def rewind(self, kimg: float) -> None:
        """Forget what came after `kimg`: it will be made again when the run resumes there."""
        for name, entry in list(self.metrics.items()):
            entry["at"] = [row for row in entry["at"] if row["kimg"] <= kimg]
            _summarise(entry)
            if not entry["at"]:
                del self.metrics[name]
        self.change = [row for row in self.change if row["kimg"] <= kimg]
        self.flags = [flag for flag in self.flags if flag["kimg"] <= kimg]
        self.kimg = min(self.kimg, kimg)

    def close(self, state: str, reason: str | None = None) -> None:
        """Set how the run ended (`state`) and when. Save afterwards."""
        self.state, self.reason = state, reason
        self.finished = now() if state != "running" else None
        self._validate("trial")

    def save(self, path: str | Path) -> None:
        """Write atomically: a reader sees the old record or the new one, never half of one."""
        self.updated = now()
        self._validate(str(path))
        record = _plain(dataclasses.asdict(self))
        write_atomic(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> "Trial":
        """Read a `trial.json`. ValueError, naming file and key, for anything that is not one."""
        path = Path(path)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not readable as JSON ({error})") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}: expected one JSON object, got {type(record).__name__}")
        _check_keys(cls, record, path)
        if record["schema_version"] == 1:
            _complete_protocols(record["metrics"])
        trial = cls(**{**record, "schema_version": SCHEMA_VERSION})
        trial._validate(str(path))
        return trial

    def _validate(self, where: str) -> None:
        wrong = [
            f"{f.name}: got {getattr(self, f.name)!r}, expected {_type_name(f.type)}"
            for f in dataclasses.fields(self)
            if not _has_type(getattr(self, f.name), f.type)
        ]
        if self.state not in STATES:
            wrong.append(f"state: got {self.state!r}, allowed: {', '.join(STATES)}")
        if wrong:
            raise ValueError(f"{where}: " + "; ".join(wrong))


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line, each with `nimg`, the images shown to D so far.

    A kill may tear the last line; it is ignored when read and removed before the next append.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._whole = False  # the last line is known to be whole

    def append(self, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Add one line in a single write; `sync` waits until the disk has it (do so at ticks)."""
        if isinstance(record.get("nimg"), bool) or not isinstance(record.get("nimg"), int):
            raise ValueError(
                f"{self.path.name}: a record needs an integer 'nimg' (images shown to D), "
                f"got {record.get('nimg')!r}"
            )
        self._repair()
        line = json.dumps(_plain(record), allow_nan=False) + "\n"
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode())
            if sync:
                os.fsync(file.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All whole records, in order. ValueError for damage anywhere but in the last line."""
        return [json.loads(line) for line in self._lines()]

    def rewind(self, nimg: int) -> int:
        """Drop, atomically, every record later than `nimg`; return how many were dropped."""
        lines = self._lines()
        kept = [line for line in lines if json.loads(line)["nimg"] <= nimg]
        if self.path.exists():
            write_atomic(self.path, b"".join(line + b"\n" for line in kept))
        self._whole = True
        return len(lines) - len(kept)

    def _repair(self) -> None:
        if not self._whole and self.path.exists():
            content = self.path.read_bytes()
            whole = b"".join(line + b"\n" for line in self._lines())
            if content != whole:
                write_atomic(self.path, whole)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._whole = True

    def _lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        lines = [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        for number, line in enumerate(lines, start=1):
            if not _is_object(line):
                if number < len(lines):
                    raise ValueError(f"{self.path}: line {number} is damaged: {line[:80]!r}")
                return lines[:-1]
        return lines


def identity(config: Mapping[str, Any]) -> str:
    """Sha256 of the scientific part of a config.

    Left out, at any depth: logger, trainer, launcher, devices, caches and output folders. A data or
    checkpoint path counts by its last component only, so data may move. In the section `metric`
    what says nothing is left out as well: null, empty, or the value that a config without the key
    stands for (rounds=0, precision=fp32). Elsewhere null is a value like any other.
    """
    return hashlib.sha256(json.dumps(_compared(config), sort_keys=True).encode()).hexdigest()


def check_same(run_dir: str | Path, config: Mapping[str, Any]) -> Trial | None:
    """The trial already in `run_dir`, or None if there is none.

    Raises TrialMismatch, with every differing key and both values, if it is of another config.
    """
    path = Path(run_dir) / "trial.json"
    if not path.exists():
        return None
    trial = Trial.load(path)
    if identity(trial.config) != identity(config):
        raise TrialMismatch(
            f"{run_dir} holds a trial of another configuration (there -> asked for):\n  "
            + _differences(_compared(trial.config), _compared(config), "\n  ")
            + "\nAsk for the same values to resume it, choose another folder, or delete this one."
        )
    return trial


def now() -> str:
    """The present moment, ISO 8601 in UTC to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_lines(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append `records` to a file of JSON lines in one write.

    A last line that a killed writer left without its end is ended first: it stays alone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(_plain(record), allow_nan=False) + "\n" for record in records)
    with open(path, "a+b", buffering=0) as file:
        torn = lines and file.seek(0, os.SEEK_END) > 0 and _last_byte(file) != b"\n"
        file.write(("\n" * bool(torn) + lines).encode())


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append evaluations in one write, as `write_lines` does.

    ValueError, and nothing is written, for a record without its whole protocol.
    """
    records = list(records)
    for record in records:
        check_record(record)
    write_lines(path, records)


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _replace(rows: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Add `row` in the order of kimg; an earlier one of the same kimg goes."""
    rows[:] = [other for other in rows if other["kimg"] != row["kimg"]] + [row]
    rows.sort(key=lambda r: r["kimg"])


def _summarise(entry: dict[str, Any]) -> None:
    """Best and final of a metric's evaluations; an evaluation without a finite value is no best."""
    rows = entry["at"]
    known = [row for row in rows if row["value"] is not None]
    sign = -1.0 if entry["better"] == "max" else 1.0
    best = min(known, key=lambda row: sign * row["value"], default=None)
    for name, row in (("best", best), ("final", rows[-1] if rows else None)):
        entry[name] = row and {k: v for k, v in row.items() if not k.endswith("seconds")}


def _plain(value: Any, key: str = "record") -> Any:
    """`value` as JSON can hold it: numbers of numpy or torch unwrapped, non-finite as None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, f"{key}[{i}]") for i, v in enumerate(value)]
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return _plain(value.tolist(), key)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{key}: cannot store a {type(value).__name__} in a record: {value!r}")


def _science(value: Any, key: str = "") -> Any:
    value = _plain(value, key or "config")
    if isinstance(value, dict):
        return {k: _science(v, k) for k, v in value.items() if k not in _NOT_SCIENCE}
    if isinstance(value, list):
        return [_science(v, key) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # kimg=1 and kimg=1.0 are the same
    if key in _PATHS and isinstance(value, str):
        return Path(value).name
    return value


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `identity` is a hash of."""
    science = _science(config)
    for section, default in _UNSTATED.items():
        if isinstance(given := science.get(section), dict):
            said = _said(given, default)
            science[section] = _stated(said) if section == "metric" else said
    return science


def _said(given: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """`given` without what it need not say."""
    within = {k: _said(v, default[k]) for k, v in given.items() if _both(v, default.get(k))}
    return {
        k: within.get(k, v)
        for k, v in given.items()
        if k in within or k not in default or v != default[k]
    }


def _both(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _stated(section: dict[str, Any]) -> dict[str, Any]:
    """Drop null and empty entries, and those that are empty after that."""
    found = {k: _stated(v) if isinstance(v, dict) else v for k, v in section.items()}
    return {k: v for k, v in found.items() if v is not None and v not in ({}, [], "")}


def _differences(old: Any, new: Any, separator: str = "; ") -> str:
    old, new = dict(_flatten(old)), dict(_flatten(new))
    absent = "(absent)"
    return separator.join(
        f"{key}: {old.get(key, absent)!r} -> {new.get(key, absent)!r}".replace(repr(absent), absent)
        for key in sorted(old.keys() | new.keys())
        if key not in old or key not in new or old[key] != new[key]
    )


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _check_keys(cls: type[Trial], record: Mapping[str, Any], path: Path) -> None:
    version = record.get("schema_version")
    if version not in (1, SCHEMA_VERSION):
        raise ValueError(
            f"{path}: schema_version is {version!r}, this version of stylegan_tl reads 1 and "
            f"{SCHEMA_VERSION}"
        )
    names = {f.name for f in dataclasses.fields(cls)}
    needed = names - _SINCE_2 if version == 1 else names
    problems = [f"missing key {name!r}" for name in sorted(needed - record.keys())]
    problems += [f"unknown key {name!r}" for name in sorted(record.keys() - names)]
    if problems:
        raise ValueError(f"{path}: " + ", ".join(problems))


def _complete_protocols(metrics: Any) -> None:
    """Fill in, in place, what version 1 did not say because there was only one way."""
    for entry in metrics.values() if isinstance(metrics, dict) else ():
        protocol = entry.get("protocol") if isinstance(entry, dict) else None
        if isinstance(protocol, dict):
            protocol.setdefault("of", "model")
            protocol.setdefault("precision", "fp32" if protocol.get("extractor") else None)


def _has_type(value: Any, annotation: Any) -> bool:
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    allowed = {get_origin(part) or part for part in parts}
    if float in allowed:
        allowed.add(int)
    return isinstance(value, tuple(allowed)) and not isinstance(value, bool)


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, UnionType):
        return " or ".join(_type_name(part) for part in get_args(annotation))
    return "null" if annotation is type(None) else (get_origin(annotation) or annotation).__name__


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
