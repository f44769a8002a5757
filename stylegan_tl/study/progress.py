"""What a person sees of a running study: one view that renews itself, or plain lines in a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from stylegan_tl.study.job import Job, labels
from stylegan_tl.study.queue import Status

if TYPE_CHECKING:
    from stylegan_tl.study.pool import Pool, Running

__all__ = ["STATES", "Progress", "clock", "summary"]

STATES = ("complete", "failed", "interrupted", "running", "waiting", "missing")
_RENEW, _REMIND = 0.5, 60.0  # seconds between two pictures, and between two plain lines


class Progress:
    """The view of a `Pool` on `stream`: live on a terminal, a line per event elsewhere."""

    def __init__(self, jobs: Sequence[Job], stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.labels = labels(jobs)
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._began = self._shown = time.monotonic()
        self._height = 0
        self._done = 0  # trials that were completed here

    def event(self, kind: str, job: Job, text: str = "") -> None:
        """A line for the start and for the end of a trial; on a terminal only for what is wrong."""
        self._done += kind == "complete"
        if self.live and kind in ("started", "complete"):
            return
        self._clear()
        words = f"{kind:<12}{self.labels.get(job.folder, job.folder.name)}"
        self._write(words + (f"  {text}" if text else "") + "\n")

    def show(self, pool: Pool) -> None:
        """Renew the picture, if it is time."""
        due = self._shown + (_RENEW if self.live else _REMIND)
        if time.monotonic() < due and pool.running:
            return
        self._shown = time.monotonic()
        lines = [self._head(pool)]
        if self.live:
            lines += [self._row(running) for running in pool.running.values()]
        self._clear()
        self._write("".join(line + "\n" for line in lines))
        self._height = len(lines) if self.live else 0

    def _head(self, pool: Pool) -> str:
        count = Counter(found.state for found in pool.outcomes.values())
        count |= {"running": len(pool.running), "waiting": count["waiting"] + len(pool.waiting)}
        parts = [f"{count[state]} {state}" for state in STATES if count[state]]
        elapsed = time.monotonic() - self._began
        words = f"{len(pool.jobs)} trials: {', '.join(parts)}  {clock(elapsed)}"
        left = len(pool.running) + len(pool.waiting)
        if self._done and left:
            words += f"  about {clock(elapsed / self._done * left)} left"
        return self._cut("stopping, trials save  " + words if pool.stopped else words)

    def _row(self, running: Running) -> str:
        label = self.labels.get(running.job.folder, running.job.folder.name)
        return self._cut(f"  {running.slot.name:<7}{label}  {_doing(running.job)}")

    def _cut(self, line: str) -> str:
        width = shutil.get_terminal_size().columns if self.live else 0
        return line if not width or len(line) < width else line[: width - 2] + "…"

    def _clear(self) -> None:
        if self._height:
            self._write(f"\x1b[{self._height}F\x1b[J")
            self._height = 0

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def summary(jobs: Sequence[Job], outcomes: Mapping[Path, Status]) -> str:
    """Counts, and every trial that is not complete with the reason."""
    count = Counter(found.state for found in outcomes.values())
    open_ = len(jobs) - len(outcomes)
    parts = [f"{count[state]} {state}" for state in STATES if count[state]]
    lines = [f"{len(jobs)} trials: " + ", ".join(parts + [f"{open_} not started"] * bool(open_))]
    names = labels(jobs)
    for folder, found in outcomes.items():
        if found.state != "complete":
            lines.append(f"  {found.state:<12}{names[folder]}: {found.reason or 'no reason known'}")
            lines.append(f"  {'':<12}{folder}")
    if count["failed"]:
        lines.append("  retry_failed=true runs the failed ones again")
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _doing(job: Job) -> str:
    """The last row of a trial's metrics, or else the last line that it said."""
    row = _last_row(job.folder / "metrics.jsonl")
    if row is None:
        return _tail(job.folder / "output.log").strip()
    budget = job.values.get("kimg")
    parts = [f"{row['kimg']:g}" + (f"/{budget}" if budget else "") + " kimg"]
    if row.get("s_per_kimg"):
        parts.append(f"{row['s_per_kimg']:.3g} s/kimg  ETA {clock(row['eta_seconds'])}")
    parts += [f"{r['metric']} {r['value']:.4g}" for r in row.get("evaluations", []) if r["value"]]
    return "  ".join(parts)


def _last_row(path: Path) -> dict | None:
    for line in reversed(_tail(path, 2).splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "kimg" in row:
            return row
    return None


def _tail(path: Path, lines: int = 1) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 16384, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.replace("\r", "\n").rstrip().splitlines()[-lines:])
