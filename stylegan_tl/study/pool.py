"""Runs jobs, one fresh process each, as many at once as there are slots, until none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stylegan_tl.study.job import Job
from stylegan_tl.study.queue import Claim, Status, claim_source, claim_trial, note, status
from stylegan_tl.study.slots import Slot, gpu_memory

__all__ = ["PROGRAM", "Pool", "Running", "View", "complete_sources"]

PROGRAM = (sys.executable, "-m", "stylegan_tl.train")
_LOOK = 0.5  # seconds until those that wait are looked at again while nothing else happens
_ELSEWHERE = 1.0  # seconds until a trial that somebody else runs is looked at again
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class Running:
    """A trial's process."""

    job: Job
    slot: Slot
    process: subprocess.Popen
    claim: Claim
    lead: Claim | None  # held until the source model is there
    began: int = field(default_factory=time.time_ns)


class View(Protocol):
    """What shows a pool to a person."""

    def event(self, kind: str, job: Job, text: str = "") -> None:
        """Something happened to a trial: started, complete, failed, interrupted, again."""

    def show(self, pool: Pool) -> None:
        """The present state, asked for many times a second."""


class Pool:
    """The trials of `jobs` in `slots`; `outcomes` says, by folder, how each that is over ended.

    `program` + a job's overrides is the command of its process. A trial that a signal ends is
    started again, `attempts` times in all; one that fails is left until `retry_failed`.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        slots: Sequence[Slot],
        view: View,
        *,
        program: Sequence[str] = PROGRAM,
        retry_failed: bool = False,
        attempts: int = 3,
        memory: float | None = None,
        poll: float = 0.02,
    ) -> None:
        self.jobs = list({job.folder: job for job in jobs}.values())
        self.slots, self.view, self.program = list(slots), view, list(program)
        self.retry_failed, self.attempts, self.memory, self.poll = (
            retry_failed,
            attempts,
            memory,
            poll,
        )
        self.waiting: dict[Path, Job] = {}
        self.running: dict[str, Running] = {}  # by the name of the slot
        self.outcomes: dict[Path, Status] = {}
        self.stopped: int | None = None  # the signal that asked to stop
        self._known = {job.folder for job in self.jobs}
        self._began = time.time_ns()
        self._starts: dict[Path, int] = {}
        self._not_before: dict[Path, float] = {}
        self._sources: set[str] = set()  # source models that are there
        self._look = 0.0
        self._asked: dict[str, float] = {}

    def run(self) -> dict[Path, Status]:
        """Run everything; returns `outcomes`. A signal stops the trials, which can be resumed."""
        self._survey()
        with self._signals():
            while self.running or (self.waiting and self.stopped is None):
                moved = self._reap()
                if self.stopped is None and (moved or time.monotonic() >= self._look):
                    moved |= self._start()
                    self._look = 0.0 if moved else time.monotonic() + _LOOK
                self.view.show(self)
                if not moved:
                    time.sleep(self.poll)
        return self.outcomes

    def _survey(self) -> None:
        """Sort the jobs into those that are over and those that wait."""
        for job in self.jobs:
            found = status(job)
            if self._is_over(found):
                self.outcomes[job.folder] = found
            else:
                self.waiting[job.folder] = job
        self._sources = complete_sources(self.jobs)

    def _is_over(self, found: Status) -> bool:
        """Complete, or failed: unless it failed before this launcher began and is to be retried."""
        retry = self.retry_failed and found.at < self._began
        return found.state == "complete" or (found.state == "failed" and not retry)

    def _start(self) -> bool:
        free = (s for s in self.slots if s.name not in self.running and self._room(s))
        moved = False
        while self.waiting and (slot := next(free, None)) is not None:
            filled = self._fill(slot)
            moved |= filled
            if slot.name not in self.running:
                break  # nothing can start now, wherever
        return moved

    def _fill(self, slot: Slot) -> bool:
        """Start the first job that can start; whether anything changed."""
        before = len(self.outcomes)
        for job in list(self.waiting.values()):
            if self._may_start(job) and self._launch(job, slot):
                return True
        return len(self.outcomes) > before

    def _may_start(self, job: Job) -> bool:
        if self._not_before.get(job.folder, 0.0) > time.monotonic():
            return False
        if job.after is not None and job.after in self._known:
            before = self.outcomes.get(job.after)
            if before is None:
                return False
            if before.state != "complete":
                reason = f"starts from {job.after}, which is {before.state}"
                self._end(job, Status("waiting", reason))
                self.view.event("waiting", job, reason)
                return False
        leading = {r.job.source for r in self.running.values() if r.lead is not None}
        return job.source is None or job.source not in leading

    def _launch(self, job: Job, slot: Slot) -> bool:
        """Claim and start `job`; False if somebody else has it, or it turns out to be over."""
        lead = None
        if job.source is not None and job.source not in self._sources:
            lead = claim_source(job)
            if lead is None:  # another launcher trains the source model
                return self._later(job)
        claim = claim_trial(job)
        if claim is None:
            if lead is not None:
                lead.release()
            return self._later(job)
        found = status(job)
        if self._is_over(found):
            for held in filter(None, (claim, lead)):
                held.release()
            self._end(job, found)
            self.view.event(found.state, job, "by another launcher")
            return False
        self._begin(job, slot, claim, lead)
        return True

    def _later(self, job: Job) -> bool:
        self._not_before[job.folder] = time.monotonic() + _ELSEWHERE
        return False

    def _begin(self, job: Job, slot: Slot, claim: Claim, lead: Claim | None) -> None:
        held = [c.fd for c in (claim, lead) if c is not None]
        (job.folder / "launch.json").unlink(missing_ok=True)
        with open(job.folder / "output.log", "ab") as log:
            process = subprocess.Popen(
                [*self.program, *job.overrides],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **slot.environment},
                pass_fds=held,
                start_new_session=True,  # Ctrl-C is for the launcher, which then asks politely
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        self._starts[job.folder] = self._starts.get(job.folder, 0) + 1
        del self.waiting[job.folder]
        self.running[slot.name] = Running(job, slot, process, claim, lead)
        self.view.event("started", job, slot.name)

    def _reap(self) -> bool:
        """Look after the processes: ended ones, and source models that are there now."""
        moved = False
        for name, running in list(self.running.items()):
            code = running.process.poll()
            if running.lead is not None and (running.job.folder / "trial.json").exists():
                self._sources.add(str(running.job.source))  # the record begins after its source
                running.lead.release()
                running.lead, moved = None, True
            if code is not None:
                del self.running[name]
                self._ended(running, code)
                moved = True
        return moved

    def _ended(self, running: Running, code: int) -> None:
        job = running.job
        found = _outcome(job, code, running.began)
        if found.state != "complete":
            note(job, found.state, found.reason, code)
        for held in filter(None, (running.claim, running.lead)):
            held.release()
        again = found.state == "interrupted" and self._starts[job.folder] < self.attempts
        if again and self.stopped is None:
            self.waiting[job.folder] = job
            self.view.event("again", job, found.reason or "")
        else:
            self._end(job, found)
            self.view.event(found.state, job, found.reason or "")

    def _end(self, job: Job, found: Status) -> None:
        self.waiting.pop(job.folder, None)
        self.outcomes[job.folder] = found

    def _room(self, slot: Slot) -> bool:
        """Whether a further trial fits on the slot's GPU beside those that run there.

        They must have come so far that they hold the memory that they need (first tick).
        """
        beside = [r for r in self.running.values() if slot.gpu and r.slot.gpu == slot.gpu]
        if not beside:
            return True
        if not all((r.job.folder / "metrics.jsonl").exists() for r in beside):
            return False
        if self._asked.get(slot.name, 0.0) > time.monotonic():
            return False
        memory = gpu_memory(str(slot.gpu))
        if memory is None:
            return True
        used, free = memory
        fits = free >= (used / len(beside) if self.memory is None else self.memory)
        self._asked[slot.name] = time.monotonic() + (0.0 if fits else 5.0)
        return fits

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM, SIGHUP ask the trials to save and stop; a second one kills them."""

        def receive(number: int, frame: object) -> None:
            kind = signal.SIGTERM if self.stopped is None else signal.SIGKILL
            self.stopped = number
            for running in self.running.values():
                running.process.send_signal(kind)

        heard = [n for n in _STOPS if signal.getsignal(n) != signal.SIG_IGN]  # nohup ignores one
        before: dict[int, Any] = {n: signal.signal(n, receive) for n in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def complete_sources(jobs: Sequence[Job]) -> set[str]:
    """Source models that are there: a trial begins its record after it has its source model."""
    names = {job.source for job in jobs if job.source and (job.folder / "trial.json").exists()}
    return {str(name) for name in names}


def _outcome(job: Job, code: int, began: int) -> Status:
    """How a trial ended, from its record and the exit code of its process."""
    found = status(job)
    if found.state == "complete":
        return found
    if code == 0 and job.values.get("dry_run", "").lower() == "true":
        return Status("complete", "dry run")
    number = -code if code < 0 else code - 128
    if code < 0 or number in _STOPS:
        return Status("interrupted", _signal_name(number), found.kimg)
    own = found.reason if found.state == "failed" and found.at >= began else None
    return Status("failed", own or _last_words(job.folder / "output.log", code), found.kimg)


def _signal_name(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return name + (" (out of memory?)" if number == signal.SIGKILL else "")


def _last_words(log: Path, code: int) -> str:
    """The error in what a process said: its last `error: …` with what follows, or its last line."""
    with open(log, "rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - 8192, 0))
        lines = [x.strip() for x in file.read().decode(errors="replace").splitlines()]
    said = [x for x in lines if x and not x.startswith("(STYLEGAN_TL_TRACEBACK")]
    errors = [i for i, line in enumerate(said) if line.startswith("error: ")]
    last = said[errors[-1] if errors else -1 :]
    return " ".join(last).removeprefix("error: ")[:500] or f"exit code {code}, no word in {log}"


def _die_with_parent() -> None:
    """Linux: a trial gets SIGTERM, saves and stops, when its launcher dies and cannot ask it to."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
