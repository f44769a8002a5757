"""A stand-in for the train command, which trains nothing and leaves the same files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = '''
"""Argument 1 is a folder for the tallies; the others are overrides. step= seconds, bad= fails."""
import fcntl, json, os, signal, sys, time
from pathlib import Path
from stylegan_tl.study.job import job_of

tally, job = Path(sys.argv[1]), job_of(sys.argv[2:], "runs", "s")
step, folder = float(job.values.get("step", 0.05)), job.folder

def count(name, text):
    with open(tally / name, "ab", buffering=0) as file:
        file.write((text + "\\n").encode())

def record(state, kimg, reason=None):
    text = json.dumps({"state": state, "kimg": kimg, "reason": reason})
    (folder / ".part").write_text(text)
    os.replace(folder / ".part", folder / "trial.json")

folder.mkdir(parents=True, exist_ok=True)
lock = open(folder / ".lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    count("twice", str(folder))
    sys.exit("error: another process is running the trial")
count("started", str(folder))
if job.values.get("bad") == "early":
    print("error: the configuration cannot run:\\n  bad=early: use something else")
    sys.exit(2)
if job.source and not (tally / job.source).exists():
    count("sources", job.source)
    time.sleep(step)
    (tally / job.source).touch()
if job.after:
    before = json.loads((job.after / "trial.json").read_text())
    assert before["state"] == "complete"
ticks = tally / "ticks"
done = ticks.read_text().count(f"{folder} ") if ticks.exists() else 0
for tick in range(done, 4):
    record("running", tick)
    if job.values.get("bad") == "late" and tick == 2:
        record("failed", tick, "ValueError: bad=late")
        sys.exit(1)
    if job.values.get("bad") == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(step)
    count("ticks", f"{folder} {tick}")
if not (folder / "last.ckpt").exists():
    (folder / ".part").write_bytes(os.urandom(64))
    os.replace(folder / ".part", folder / "last.ckpt")
record("complete", 4)
'''


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> list[str]:
    """The command that stands for `python -m stylegan_tl.train`; its tallies lie in `tally/`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "stand_in.py"
    script.write_text(PROGRAM)
    (tmp_path / "tally").mkdir()
    return [sys.executable, str(script), str(tmp_path / "tally")]


@pytest.fixture
def tally(tmp_path) -> Callable[[str], list[str]]:
    """Lines of a tally of the stand-in: started, sources, ticks, twice."""

    def read(name: str) -> list[str]:
        path = tmp_path / "tally" / name
        return path.read_text().splitlines() if path.exists() else []

    return read


@pytest.fixture
def launcher(tmp_path, stand_in) -> Callable[..., list[str]]:
    """The command of a launcher in a process of its own: `launcher(jobs, slots, **options)`."""

    def make(overrides: list[list[str]], slots: int, **options: object) -> list[str]:
        file = tmp_path / f"jobs{len(list(tmp_path.glob('jobs*')))}.json"
        given = {"overrides": overrides, "runs": str(tmp_path / "runs"), "slots": slots}
        file.write_text(json.dumps({**given, "program": stand_in, "options": options}))
        return [sys.executable, str(Path(__file__).with_name("launch.py")), str(file)]

    return make


@pytest.fixture
def cpu_only(monkeypatch) -> None:
    """No GPU is seen, whatever the machine has."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
