"""What a study says of its runs reaches the tracker of every trial."""

from __future__ import annotations

from types import SimpleNamespace

from stylegan_tl.record import new_trial, start_mirror
from stylegan_tl.study.__main__ import open_by_arguments


def test_a_studys_tags_and_factors_reach_the_tracker_of_a_trial(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("stylegan_tl.record.ranks", lambda: (4, 0))
    opened = open_by_arguments(["study=demo", f"cache={cache}", f"runs={tmp_path}"])
    job = opened.trials[0].job
    assert "study.tags" not in job.folder.as_posix()  # no other trial than without them
    config = opened.compose(job.overrides)
    choices = {"freeze": "none", "model": "stylegan2_small", "augment": "none"}
    choices |= {"source": config["source"]["name"], "target": config["target"]["name"]}
    trial = new_trial(config, tmp_path, choices, None, {})
    assert (trial.hardware["devices"], trial.config["study"]["tags"]) == (4, ["demo"])
    told = []
    mirror = SimpleNamespace(start=lambda folder, about, mode: told.append(about))
    start_mirror(mirror, config, trial, tmp_path)
    (about,) = told
    assert about.tags == ["none", "stylegan2_small", "none", "demo"]
    source, target = choices["source"], choices["target"]
    assert about.group == f"{source}->{target}"
    assert (about.config["source"], about.config["target"]) == (source, target)
