"""The queue of a study lies in its run folders: who runs a trial, how it ended, and why.

    <run>/trial.json     the trial's own record
    <run>/launch.json    how its process ended, if it did not end well: {state, reason, code, at}
    <run>/output.log     what its process said
    <run>/.claim         locked while somebody runs the trial
    <study>/.sources/    one lock per source model that is being trained

A lock is the kernel's (flock): it is free the moment its holder is dead, however it died. A trial's
process inherits the lock, so it outlives a launcher that was killed as long as the trial runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_tl.files import write_atomic
from stylegan_tl.study.job import Job
from stylegan_tl.study.trial import now

__all__ = ["Claim", "Status", "claim_source", "claim_trial", "note", "status"]


@dataclass(frozen=True)
class Status:
    """How a trial stands: missing, waiting, running, interrupted, failed or complete.

    `kimg` it reached, `record` its trial.json, `at` when the file that tells was written, in ns.
    """

    state: str
    reason: str | None = None
    kimg: float = 0.0
    record: Mapping[str, Any] | None = None
    at: int = 0


class Claim:
    """A lock that this process holds, and passes on to the trial's process by `fd`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self.fd = path, fd

    def release(self) -> None:
        """Let others have it, even where another process still has the file open."""
        import fcntl

        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            os.close(self.fd)
            self.fd = -1


def claim_trial(job: Job) -> Claim | None:
    """The right to run `job`, or None while somebody else runs it (through a launcher or not)."""
    claim = _claim(job.folder / ".claim")
    if claim is not None and _locked_by_hand(job.folder / ".lock"):
        claim.release()
        return None
    return claim


def claim_source(job: Job) -> Claim | None:
    """The right to train the source model of `job`, or None while somebody else does."""
    return _claim(job.folder.parent.parent / ".sources" / f"{job.source}.lock")


def status(job: Job, *, running: bool = False) -> Status:
    """How `job` stands by its files; with `running`, also whether somebody runs it just now."""
    record, written = _read(job.folder / "trial.json")
    kimg = (record or {}).get("kimg", 0.0)
    if record is not None and record["state"] == "complete":
        return Status("complete", None, kimg, record, written)
    if running and _is_running(job.folder):
        return Status("running", None, kimg, record, written)
    launch, launched = _read(job.folder / "launch.json")
    if launch is not None and launched >= written:
        return Status(launch["state"], launch["reason"], kimg, record, launched)
    if record is None:
        return Status("missing")
    state = "failed" if record["state"] == "failed" else "interrupted"
    return Status(state, record["reason"], kimg, record, written)


def note(job: Job, state: str, reason: str | None, code: int | None = None) -> None:
    """Remember how the process of `job` ended: failed or interrupted, and why."""
    record = {"state": state, "reason": reason, "code": code, "at": now()}
    write_atomic(job.folder / "launch.json", (json.dumps(record, indent=2) + "\n").encode())


def _claim(path: Path) -> Claim | None:
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return Claim(path, fd)


def _is_running(folder: Path) -> bool:
    if not (folder / ".claim").exists():
        return _locked_by_hand(folder / ".lock")
    claim = _claim(folder / ".claim")
    if claim is None:
        return True
    claim.release()
    return _locked_by_hand(folder / ".lock")


def _locked_by_hand(path: Path) -> bool:
    """Whether a trial that nobody launched from here (by hand, on a cluster) holds its own lock."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _read(path: Path) -> tuple[dict[str, Any] | None, int]:
    """A JSON object and when it was written, in ns; (None, 0) if it is not there or not whole."""
    try:
        written = path.stat().st_mtime_ns
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None, 0
    return (record, written) if isinstance(record, dict) and "state" in record else (None, 0)
