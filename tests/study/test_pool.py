"""The launcher with a stand-in for training: slots, failures, kills, two launchers, sources."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from stylegan_tl.files import file_sha256
from stylegan_tl.study.job import Job, job_of, labels
from stylegan_tl.study.pool import Pool
from stylegan_tl.study.progress import Progress, summary
from stylegan_tl.study.queue import claim_source, claim_trial, status
from stylegan_tl.study.slots import make_slots

pytestmark = pytest.mark.usefixtures("cpu_only")


def _overrides(runs: Path, *cells: str, seeds: int = 2) -> list[list[str]]:
    return [
        ["study.name=s", f"runs={runs}", *cell.split(), f"seed={seed}"]
        for seed in range(seeds)
        for cell in cells
    ]


@pytest.fixture
def jobs(tmp_path) -> Callable[..., list[Job]]:
    def make(*cells: str, seeds: int = 2) -> list[Job]:
        runs = tmp_path / "runs"
        return [job_of(o, runs, "s") for o in _overrides(runs, *cells, seeds=seeds)]

    return make


@pytest.fixture
def pool(stand_in):
    def make(jobs: list[Job], slots: int = 2, **options) -> tuple[Pool, str]:
        stream = io.StringIO()
        view = Progress(jobs, stream)
        made = Pool(jobs, make_slots([], processes=slots), view, program=stand_in, **options)
        made.run()
        return made, stream.getvalue()

    return make


def _wait_until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def _digests(jobs: list[Job]) -> dict[Path, tuple[str, int]]:
    done = [job.folder for job in jobs if status(job).state == "complete"]
    files = [folder / name for folder in done for name in ("last.ckpt", "trial.json")]
    return {f: (file_sha256(f), f.stat().st_mtime_ns) for f in files}


FOUR = ("source=a target=b", "source=b target=a", "source=a target=c", "source=scratch target=b")


def test_all_trials_run_once_and_each_source_is_trained_once(pool, jobs, tally) -> None:
    todo = jobs(*FOUR)
    made, text = pool(todo)
    assert [found.state for found in made.outcomes.values()] == ["complete"] * 8
    assert sorted(tally("started")) == sorted(str(job.folder) for job in todo)
    assert sorted(tally("sources")) == sorted({job.source for job in todo if job.source})
    assert len(tally("sources")) == 2
    assert tally("twice") == []
    assert text.count("complete    ") == 8
    again, _ = pool(todo)
    assert len(again.outcomes) == 8
    assert len(tally("started")) == 8  # nothing was started again


def test_who_waits_for_a_source_occupies_no_slot(pool, jobs, tally) -> None:
    """Three trials of one slow source and one from scratch, two slots: scratch is not kept out."""
    slow = "step=0.3"
    cells = [f"source=a target={t} {slow}" for t in "bcd"] + ["source=scratch target=b step=0.01"]
    pool(jobs(*cells, seeds=1))
    started = tally("started")
    assert "source=scratch" in started[1]
    assert len(tally("sources")) == 1


def test_a_failing_trial_stops_nobody_and_is_listed_with_its_reason(pool, jobs, tally) -> None:
    todo = jobs("source=a target=b", "source=a target=b bad=early", "source=a target=b bad=late")
    made, _ = pool(todo)
    found = {job.values.get("bad"): made.outcomes[job.folder] for job in todo}
    assert {k: f.state for k, f in found.items()} == {
        None: "complete",
        "early": "failed",
        "late": "failed",
    }
    early = "the configuration cannot run: bad=early: use something else"
    assert found["early"].reason == early
    assert found["late"].reason == "ValueError: bad=late"
    text = summary(todo, made.outcomes)
    assert "6 trials: 2 complete, 4 failed" in text
    assert text.count(early) == 2
    before = len(tally("started"))
    pool(todo)
    assert len(tally("started")) == before  # failed ones are left alone ...
    again, _ = pool(todo, retry_failed=True)
    assert len(tally("started")) == before + 4  # ... until somebody asks
    assert Counter(f.state for f in again.outcomes.values()) == {"complete": 2, "failed": 4}


def test_a_trial_that_something_kills_is_tried_again_so_often(pool, jobs, tally) -> None:
    todo = jobs("source=a target=b bad=killed", "source=a target=c", seeds=1)
    made, text = pool(todo, attempts=3)
    killed = made.outcomes[todo[0].folder]
    assert (killed.state, killed.reason) == ("interrupted", "SIGKILL (out of memory?)")
    assert made.outcomes[todo[1].folder].state == "complete"
    assert tally("started").count(str(todo[0].folder)) == 3
    assert text.count("again       ") == 2
    assert json.loads((todo[0].folder / "launch.json").read_text())["code"] == -9


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("x\nerror: a:\n  b\n  c\n(STYLEGAN_TL_TRACEBACK=1 shows where)\n", "a: b c"),
        ("Traceback:\n  File\nRuntimeError: no\n", "RuntimeError: no"),
        ("", "exit code 3, no word in"),
    ],
)
def test_the_reason_is_found_in_what_a_process_said(said: str, reason: str, tmp_path) -> None:
    from stylegan_tl.study.pool import _last_words

    (tmp_path / "log").write_text(said)
    assert _last_words(tmp_path / "log", 3).startswith(reason)


def test_chains_wait_for_the_trial_that_they_start_from(pool, jobs, tally) -> None:
    first = jobs("source=a target=b", seeds=1)[0]
    checkpoint = f"source.checkpoint='{first.folder}/last.ckpt'"
    cell = f"source=checkpoint {checkpoint} source.name='a->b' target=c"
    (second,) = jobs(cell, seeds=1)
    assert second.after == first.folder
    assert second.source is None
    made, _ = pool([second, first])
    assert tally("started") == [str(first.folder), str(second.folder)]
    assert {f.state for f in made.outcomes.values()} == {"complete"}


def test_a_chain_whose_first_step_failed_does_not_run(pool, jobs, tally) -> None:
    first = jobs("source=a target=b bad=early", seeds=1)[0]
    cell = f"source=checkpoint source.checkpoint='{first.folder}/last.ckpt' target=c"
    (second,) = jobs(cell, seeds=1)
    made, _ = pool([second, first])
    assert tally("started") == [str(first.folder)]
    assert made.outcomes[second.folder].state == "waiting"
    assert "which is failed" in made.outcomes[second.folder].reason


def test_sigkill_of_the_launcher_loses_nothing_and_trains_nothing_twice(
    launcher, jobs, tally, tmp_path
) -> None:
    cells = [f"source={s} target={t} step=0.1" for s, t in ("ab", "ba", "ac", "bc")]
    todo = jobs(*cells)
    command = launcher(_overrides(tmp_path / "runs", *cells), 2)
    process = subprocess.Popen(command, start_new_session=True)
    _wait_until(lambda: len(_digests(todo)) >= 6)
    process.kill()
    process.wait()
    finished = _digests(todo)
    assert 6 <= len(finished) < 16
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "8 trials: 8 complete" in done.stdout
    after = _digests(todo)
    assert {path: after[path] for path in finished} == finished  # byte for byte, never touched
    assert len(tally("sources")) == 2
    ticks = Counter(tally("ticks"))
    assert len(ticks) == 8 * 4  # every tick of every trial was reached,
    assert set(ticks.values()) == {1}  # and none that was saved was trained again
    assert tally("twice") == []


def test_sigkill_of_a_trial_resumes_it_in_the_same_launch(pool, jobs, launcher, tally, tmp_path):
    cells = ["source=a target=b step=0.15", "source=a target=c step=0.15"]
    command = launcher(_overrides(tmp_path / "runs", *cells, seeds=1), 2)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    victim = jobs(*cells, seeds=1)[0].folder
    _wait_until(lambda: f"{victim} 1" in tally("ticks"))
    mine = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _is(p, "stand_in.py", "target=b")]
    os.kill(int(mine[0].parent.name), signal.SIGKILL)
    text = process.communicate(timeout=30)[0]
    assert "2 trials: 2 complete" in text
    assert "again       " in text
    assert Counter(tally("ticks"))[f"{victim} 0"] == 1


def _is(cmdline: Path, *words: str) -> bool:
    try:
        text = cmdline.read_bytes().decode()
    except OSError:
        return False
    return all(word in text for word in words)


def test_two_launchers_share_a_study_and_run_nothing_twice(launcher, tally, tmp_path) -> None:
    cells = [f"source={s} target={t} step=0.02" for s, t in ("ab", "ba", "ac", "bc", "ca")]
    command = launcher(_overrides(tmp_path / "runs", *cells), 2)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [process.communicate(timeout=60)[0] for process in both]
    assert all("10 trials: 10 complete" in text for text in texts)
    assert len(tally("started")) == len(set(tally("started"))) == 10
    assert len(tally("sources")) == 3
    assert tally("twice") == []


def test_plain_lines_stay_few_while_another_launcher_works(jobs, pool) -> None:
    """A launcher that only waits for somebody else's trial says so once a minute, not each poll."""
    (job,) = jobs("source=a target=b", seeds=1)
    claim = claim_trial(job)
    threading.Timer(1.5, claim.release).start()
    _, text = pool([job])
    assert len(text.splitlines()) <= 3


def test_sigterm_stops_the_trials_and_the_same_command_goes_on(launcher, tally, tmp_path) -> None:
    cells = ["source=a target=b step=0.2", "source=b target=a step=0.2"]
    command = launcher(_overrides(tmp_path / "runs", *cells), 2)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    _wait_until(lambda: len(tally("ticks")) >= 2)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=20)[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "2 interrupted, 2 not started" in text
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "4 trials: 4 complete" in done.stdout


def test_a_trial_outlives_nobody_and_its_claim_ends_with_it(jobs) -> None:
    (job,) = jobs("source=a target=b", seeds=1)
    claim = claim_trial(job)
    assert claim is not None
    assert claim_trial(job) is None
    assert status(job, running=True).state == "running"
    claim.release()
    assert status(job, running=True).state == "missing"
    again = claim_trial(job)
    assert again is not None
    again.release()


def test_a_trial_that_runs_by_hand_is_not_started(jobs) -> None:
    """`python -m stylegan_tl.train` alone holds the trial's own lock, a FileLock."""
    from filelock import FileLock

    (job,) = jobs("source=a target=b", seeds=1)
    job.folder.mkdir(parents=True)
    with FileLock(job.folder / ".lock"):
        assert claim_trial(job) is None
        assert status(job, running=True).state == "running"
    claim = claim_trial(job)
    assert claim is not None
    claim.release()


def test_a_source_is_claimed_once_by_all_trials_that_need_it(jobs) -> None:
    one, two, other = jobs("source=a target=b", "source=a target=c", "source=b target=c", seeds=1)
    claim = claim_source(one)
    assert claim_source(two) is None
    free = claim_source(other)
    assert None not in (claim, free)
    claim.release()
    free.release()


def test_slots_divide_gpus_and_cores(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [s.threads for s in make_slots([])] == [1] * 8
    assert [s.threads for s in make_slots([], processes=2)] == [1, 1]
    assert len(make_slots([], threads=4)) == 2
    slots = make_slots([0, 3], per_gpu=2)
    assert [s.name for s in slots] == ["gpu0.0", "gpu3.0", "gpu0.1", "gpu3.1"]
    assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in slots] == ["0", "3", "0", "3"]
    assert make_slots([])[0].environment["CUDA_VISIBLE_DEVICES"] == ""
    assert slots[0].threads == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert [s.gpu for s in make_slots()] == ["1", "2"]
    with pytest.raises(ValueError, match="per_gpu=0"):
        make_slots(per_gpu=0)


def test_a_full_gpu_takes_no_further_trial(stand_in, jobs, monkeypatch, tally) -> None:
    """Two slots on one GPU without room for a second trial: one after the other."""
    import stylegan_tl.study.pool as module

    todo = jobs("source=a target=b", "source=b target=a", seeds=1)
    for job in todo:
        job.folder.mkdir(parents=True)
        (job.folder / "metrics.jsonl").touch()
    together = {"room": [], "full": []}
    for name, memory in (("full", (60.0, 20.0)), ("room", (20.0, 60.0))):
        monkeypatch.setattr(module, "gpu_memory", lambda gpu, memory=memory: memory)
        slots = make_slots([0], per_gpu=2)
        pool = Pool(todo, slots, Progress(todo, io.StringIO()), program=stand_in)
        monkeypatch.setattr(pool.view, "show", lambda p, n=name: together[n].append(len(p.running)))
        pool.run()
        for job in todo:
            for file in ("trial.json", "last.ckpt"):
                (job.folder / file).unlink()
    assert max(together["full"]) == 1
    assert max(together["room"]) == 2


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_view_shows_every_running_trial_and_clears_itself(
    stand_in, jobs, monkeypatch
) -> None:
    import stylegan_tl.study.progress as module

    monkeypatch.setattr(module, "_RENEW", 0.0)
    todo = jobs("source=a target=b step=0.1", "source=a target=c step=0.1", seeds=1)
    row = {"kimg": 1.5, "s_per_kimg": 2.0, "eta_seconds": 61, "evaluations": []}
    for job in todo:
        job.folder.mkdir(parents=True)
        (job.folder / "metrics.jsonl").write_text(json.dumps(row) + '\n{"kimg": 2, "s_p')
    screen = _Terminal()
    Pool(todo, make_slots([], processes=2), Progress(todo, screen), program=stand_in).run()
    text = screen.getvalue()
    assert "2 trials: 2 running" in text
    assert "  cpu0   b  1.5 kimg  2 s/kimg  ETA 0:01:01" in text
    assert "\x1b[3F\x1b[J" in text
    assert text.rstrip().splitlines()[-1].endswith("0:00:00") or "2 complete" in text


def test_labels_say_in_what_trials_differ(jobs) -> None:
    todo = jobs("source=a target=b kimg=2", "source=scratch target=b kimg=2", seeds=2)
    assert list(labels(todo).values()) == ["a  seed 0", "scratch  seed 0", "a  seed 1",
                                           "scratch  seed 1"]  # fmt: skip


def test_a_trial_on_more_gpus_than_a_slot_has_is_refused(monkeypatch):
    from stylegan_tl.study.slots import check_devices

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    slots = make_slots()
    check_devices(slots, 1)
    check_devices(slots, "[1]")
    for devices in ("2", [0, 1], "[0,1]"):
        with pytest.raises(ValueError, match="one GPU of 2.*hydra/launcher=basic"):
            check_devices(slots, devices)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_devices(make_slots(processes=1), 2)  # two processes on the CPU
