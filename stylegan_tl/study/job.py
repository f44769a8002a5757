"""One trial as a command: its overrides, its folder, the source model and the trial it waits for.

All of it is read from the overrides alone, without composing a configuration, so that a study of
ten thousand trials is planned in seconds. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

__all__ = ["Job", "job_of", "labels", "last_wins", "override", "readable"]

_NOT_IN_NAMES = ("seed", "study", "trainer", "logger", "runs", "cache", "dry_run", "hydra")
_TELLING = ("source", "target", "freeze", "model", "augment")  # stand first in a name that is cut
_NO_DATASET = ("scratch", "checkpoint")  # options of source= that no source model is trained for
_BARE = re.compile(r"(?!null$|true$|false$)[A-Za-z][A-Za-z0-9_./+-]*", re.IGNORECASE)


def readable(overrides: Sequence[str]) -> str:
    """A folder name from command-line overrides: sorted, without what is not science.

    >>> readable(["target=rooms/kitchen", "seed=3", "freeze=freeze_d"])
    'freeze=freeze_d,target=rooms-kitchen'
    """
    kept: dict[str, str] = {}
    for override in sorted(overrides):
        key, _, value = override.lstrip("+~").partition("=")
        if key.split(".")[0].split("/")[0] not in _NOT_IN_NAMES:
            tail = (
                value.rstrip("/").split("/")[-2:]
                if key.endswith(("path", "checkpoint"))
                else [value]
            )
            key = key.replace("/", ".")  # a subgroup's: one folder, not two
            kept[key] = f"{key}={re.sub(r'[^A-Za-z0-9._+-]+', '-', '-'.join(tail))}"
    name = ",".join(kept.values()) or "default"
    if len(name) <= 150:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]  # a folder name has its limits
    tell = sorted(kept, key=lambda k: (_TELLING.index(k) if k in _TELLING else 9, "." in k))
    return f"{','.join(kept[key] for key in tell)[:140]}-{digest}"


@dataclass(frozen=True)
class Job:
    """The trial of `python -m stylegan_tl.train *overrides`, which runs in `folder`."""

    overrides: tuple[str, ...]
    folder: Path

    @cached_property
    def values(self) -> dict[str, str]:
        """The overrides as {key: text after the equals sign}, the last of a key winning."""
        return {_key(o): o.partition("=")[2] for o in self.overrides}

    @property
    def seed(self) -> str:
        """The seed as written; the default of train.yaml if it is not among the overrides."""
        return self.values.get("seed", "0")

    @cached_property
    def source(self) -> str | None:
        """A name for the source model that it needs, or None if none is to be trained.

        Jobs of one name need one source model. It may happen that two names lead to one model
        (an override that changes nothing); the cache of source models then has the last word.
        """
        if self.values.get("source") in _NO_DATASET:
            return None
        chosen = sorted(o for o in self.values.items() if _of_source(o[0]))
        return sha256(repr(chosen).encode()).hexdigest()[:16]

    @cached_property
    def after(self) -> Path | None:
        """The folder of the trial whose checkpoint it starts from (a chain), or None."""
        checkpoint = Path(self.values.get("source.checkpoint", "").strip("'\""))
        return checkpoint.parent if checkpoint.name == "last.ckpt" else None


def job_of(overrides: Iterable[str], runs: str | Path, study: str, seed: int = 0) -> Job:
    """The job of `overrides`, in the folder that the train command would choose for them."""
    job = Job(tuple(overrides), Path())
    name = f"seed={job.values.get('seed', seed)}"
    root = Path(job.values.get("runs", str(runs)).strip("'\"")) / job.values.get(
        "study.name", study
    )
    return Job(job.overrides, root / readable(job.overrides) / name)


def override(key: str, value: Any) -> str:
    """`key=value` as Hydra's command line reads it back.

    >>> override("source.checkpoint", "runs/a=b,c/last.ckpt"), override("x", [1, None])
    ("source.checkpoint='runs/a=b,c/last.ckpt'", 'x=[1,null]')
    """
    return f"{key}={_text(value)}"


def last_wins(overrides: Iterable[str]) -> list[str]:
    """Without those that a later one of the same key replaces; the order is the first one's."""
    return list({_key(o): o for o in overrides}.values())


def labels(jobs: Sequence[Job]) -> dict[Path, str]:
    """A short name for each job's folder: the values in which they differ, source and target first.

    >>> labels([Job(("a=1", "b=2", "seed=0"), Path("x")), Job(("a=1", "b=3", "seed=0"), Path("y"))])
    {PosixPath('x'): '2', PosixPath('y'): '3'}
    """
    given: dict[str, set[str | None]] = {}
    for key in dict.fromkeys(k for job in jobs for k in job.values):
        given[key] = {job.values.get(key) for job in jobs}
    hidden = ("source.", "pretrain")
    keys = [k for k, found in given.items() if len(found) > 1 and not k.startswith(hidden)]
    rank = {"source": 0, "target": 1, "seed": 3}
    keys.sort(key=lambda key: rank.get(key, 2))
    return {job.folder: _label(job, keys) for job in jobs}


def _label(job: Job, keys: Sequence[str]) -> str:
    values = dict(job.values)
    if "source.name" in values:
        values["source"] = values.pop("source.name").strip("'")
    parts = []
    for key in keys:
        if key in values:
            parts.append(f"seed {values[key]}" if key == "seed" else values[key])
    return "  ".join(parts) or job.folder.name


def _key(text: str) -> str:
    return text.lstrip("+~").partition("=")[0]


def _of_source(key: str) -> bool:
    """Whether an override can change the source model."""
    return (
        key in ("source", "model", "resolution", "experiment")
        or key.startswith(("source.", "model.network.", "pretrain."))
        or "@pretrain" in key
    )


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return value if _BARE.fullmatch(value) else f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_text(v) for v in value) + "]"
    return repr(value)
