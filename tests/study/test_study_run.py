"""A study with real, tiny training: run to the end in two slots, then by Hydra's own launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from stylegan_tl.study.trial import Trial

ROOT = Path(__file__).parents[2]


def test_a_study_runs_to_the_end_and_hydras_launcher_finds_it_done(
    tiny_overrides, tmp_path, cache
) -> None:
    """One source, two strategies, one control, one cell of a bad value: the source trains once."""
    given = (tiny_overrides("dcgan"), ("model=", "source=", "cache="))
    small = [o for o in given[0] if not o.startswith((*given[1], "pretrain.kimg"))]
    study = {
        "name": "tiny",
        "factors": {
            "source": ["rooms/bedroom"],
            "target": ["rooms/kitchen"],
            "freeze": ["none", "freeze_d"],
            "model": ["dcgan"],
            "held_out": [0.1, 2],
        },
        "exclude": [{"held_out": 2, "freeze": "freeze_d"}],
        "overrides": [*small, "source.size=24", "pretrain.seed=3"],
        "controls": [],
        "baseline": None,
        "sources": {"condition": "native", "kimg": 0.016},
    }
    conf = tmp_path / "conf"
    (conf / "study").mkdir(parents=True)
    text = {"defaults": [{"override /hydra/sweeper": "study"}], "study": study}
    (conf / "study/tiny.yaml").write_text("# @package _global_\n" + json.dumps(text))

    def go(*words: str) -> subprocess.CompletedProcess:
        own = [f"runs={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}"]
        folder = ["--config-dir", str(conf)]
        command = [sys.executable, "-m", *words[:2], *folder, *words[2:], *own]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    done = go("stylegan_tl.study", "run", "study=tiny", "processes=2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 trials: 2 complete, 1 failed" in done.stdout
    assert "held_out=2: use a share from 0 up to 1" in done.stdout
    records = sorted((tmp_path / "runs/tiny").glob("*/*/trial.json"))
    trials = [Trial.load(path) for path in records]
    assert [t.state for t in trials] == ["complete"] * 2
    assert {t.choices["freeze"] for t in trials} == {"none", "freeze_d"}
    assert len({t.source["sha256"] for t in trials}) == 1
    trained = list((tmp_path / "cache/sources").glob("*/trial.json"))
    assert len(trained) == 1
    assert Trial.load(trained[0]).is_complete
    before = [path.read_bytes() for path in records]
    again = go("stylegan_tl.train", "-m", "study=tiny")
    assert "3 trials: 2 complete, 1 failed" in again.stdout, again.stdout + again.stderr
    assert "Launching" not in again.stdout  # nothing was left for it
    assert [path.read_bytes() for path in records] == before
