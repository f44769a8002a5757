"""The study as Hydra runs it: rounds for any launcher, names of launchers, mistakes for people."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext

from stylegan_tl.config import conf_dir
from stylegan_tl.dataset_options import register
from stylegan_tl.study.__main__ import VERBS, main, open_by_arguments
from stylegan_tl.study.job import job_of, readable
from stylegan_tl.study.launcher import LocalLauncher
from stylegan_tl.study.sweeper import StudySweeper

ROOT = Path(__file__).parents[2]
STUDIES = sorted(
    f.relative_to(ROOT / "conf/study").with_suffix("").as_posix()
    for f in (ROOT / "conf/study").rglob("*.yaml")
)
CHAIN = "+study.chains=[[rooms/bedroom,rooms/living_room,rooms/kitchen]]"

pytestmark = pytest.mark.usefixtures("cpu_only")


class Recorder:
    """A launcher of somebody else's: it finishes trials, or fails those that `fails` names."""

    def __init__(self, runs: Path, fails: Callable[[str], bool] = lambda text: False) -> None:
        self.runs, self.fails = runs, fails
        self.rounds: list[list[str]] = []

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        self.rounds.append([" ".join(o) for o in job_overrides])
        results = []
        for overrides in job_overrides:
            own = [o for o in overrides if not o.startswith("hydra.")]
            folder = job_of(own, self.runs, "demo").folder
            result = JobReturn(overrides=overrides)
            if self.fails(" ".join(own)):
                result.status, result.return_value = JobStatus.FAILED, ValueError("no such thing")
            else:
                folder.mkdir(parents=True, exist_ok=True)
                record = {"state": "complete", "kimg": 1, "reason": None}
                (folder / "trial.json").write_text(json.dumps(record))
                result.status, result.return_value = JobStatus.COMPLETED, None
            results.append(result)
        return results


@pytest.fixture
def sweep(tmp_path) -> Iterator[Callable[..., Recorder]]:
    """`sweep(*arguments)` runs study=demo with a Recorder in place of the launcher."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        loader = GlobalHydra.instance().config_loader()

        def make(*arguments: str, **options: Any) -> Recorder:
            own = ["study=demo", f"runs={tmp_path}", *arguments]
            config = hydra_compose("train", overrides=own, return_hydra_config=True)
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            sweeper = Plugins.instance().instantiate_sweeper(
                config=config, hydra_context=context, task_function=lambda cfg: None
            )
            assert isinstance(sweeper, StudySweeper)
            sweeper.launcher = recorder = Recorder(tmp_path, **options)
            try:
                sweeper.sweep([a for a in own if not a.startswith("hydra")])
            except SystemExit as ended:
                recorder.code = ended.code
            return recorder

        yield make


def test_other_launchers_get_rounds_in_which_nobody_waits(sweep) -> None:
    """Demo has 2 x 2 trials from each source and 2 x 2 x 2 controls; the chain adds 2 x 2 steps to
    its bridge and 2 x 2 from there."""
    rounds = sweep(CHAIN).rounds
    first, second, third = ([text.split()[1] for text in batch] for batch in rounds)
    assert Counter(first) == {
        "source=scratch": 8,
        "source=rooms/bedroom": 1,
        "source=rooms/kitchen": 1,
    }
    assert Counter(second) == {"source=rooms/bedroom": 3 + 4, "source=rooms/kitchen": 3}
    assert Counter(third) == {"source=checkpoint": 4}


def test_what_is_complete_is_not_launched_again(sweep) -> None:
    assert sum(map(len, sweep().rounds)) == 16
    assert sweep().rounds == []


def test_what_failed_is_listed_left_alone_and_retried_on_request(sweep, capsys) -> None:
    fails = lambda text: "freeze=freeze_d" in text and "seed=1" in text  # noqa: E731
    assert sweep(fails=fails).code == 1
    text = capsys.readouterr().out
    assert "16 trials: 14 complete, 2 failed" in text
    assert text.count("ValueError: no such thing") == 2
    assert sweep().rounds == []
    again = sweep("hydra.sweeper.retry_failed=true").rounds
    assert sum(map(len, again)) == 2
    assert all("freeze=freeze_d" in text and "seed=1" in text for batch in again for text in batch)


def test_a_chain_is_not_launched_from_a_failed_step(sweep, capsys) -> None:
    rounds = sweep(CHAIN, fails=lambda text: "target=rooms/living_room" in text).rounds
    assert not any("source=checkpoint" in text for batch in rounds for text in batch)
    assert "4 failed, 4 waiting" in capsys.readouterr().out


def test_a_launcher_that_breaks_does_not_end_the_study(sweep, monkeypatch, capsys) -> None:
    def broken(self: Recorder, job_overrides: list, initial_job_idx: int) -> list:
        self.rounds.append([])
        raise OSError("a worker is gone")

    monkeypatch.setattr(Recorder, "launch", broken)
    recorder = sweep()
    assert len(recorder.rounds) == 2
    assert recorder.code == 1
    assert "a worker is gone" in capsys.readouterr().out


def test_a_job_runs_where_the_train_command_would_run_it(sweep, monkeypatch) -> None:
    """Hydra's own answer, for -m and without, against ours."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    command = sweep().rounds[0][0].split()
    own = [o for o in command if not o.startswith("hydra.")]
    for extra in ([], [o for o in command if o.startswith("hydra.")]):
        config = hydra_compose("train", overrides=[*own, *extra], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        folder = job_of(own, "elsewhere", "s").folder
        assert Path(config.hydra.run.dir) == folder
        assert Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir == folder
        assert readable(own) == folder.parent.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["freeze=none,freeze_d"], "study.factors.freeze=[…]"),
        (["seed=3"], "study.seeds=[…]"),
        (["kimg=1,2"], "give one value"),
        (["study.metric=fid5k_train_inception"], "Add metric.names="),
        (["study.factors.freeze=[freze_d]"], "did you mean freeze_d"),
    ],
)
def test_mistakes_on_the_command_line_are_explained(arguments, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace(".", r"\.")):
        open_by_arguments(["study=demo", f"runs={tmp_path}", *arguments])


def test_a_study_needs_its_name(capsys) -> None:
    with pytest.raises(ValueError, match="study=<name>"):
        open_by_arguments([])
    with pytest.raises(SystemExit):
        main(["nonsense"])
    told = capsys.readouterr().err
    assert all(verb in told for verb in VERBS)


def test_without_multirun_a_study_is_refused(tmp_path) -> None:
    command = [sys.executable, "-m", "stylegan_tl.train", "study=demo", f"runs={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: study=demo is many trials: add -m" in done.stderr


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_opens_and_every_kind_of_cell_is_valid(name: str, monkeypatch) -> None:
    from stylegan_tl.config import validate

    monkeypatch.setattr("stylegan_tl.data.count.count_train", lambda *_: 1000)
    monkeypatch.setattr("stylegan_tl.config._datasets", lambda config: [])  # no files needed
    opened = open_by_arguments([f"study={name}"])
    assert len({t.job.folder for t in opened.trials}) == len(opened.trials)
    validate(dict(opened.config))


def test_our_launcher_takes_its_options_by_hydras_names() -> None:
    register()
    options = ["hydra/launcher=local", "hydra.launcher.processes=3", "hydra.launcher.threads=2"]
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        config = hydra_compose("train", overrides=options, return_hydra_config=True)
        launcher = Plugins.instance().instantiate_launcher(
            config=config,
            hydra_context=HydraContext(
                config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks()
            ),
            task_function=lambda cfg: None,
        )
    assert isinstance(launcher, LocalLauncher)
    assert [(s.name, s.threads) for s in launcher.slots] == [("cpu0", 2), ("cpu1", 2), ("cpu2", 2)]


@pytest.mark.parametrize(
    ("package", "launchers"),
    [
        ("hydra_submitit_launcher", ["submitit_local", "submitit_slurm"]),
        ("hydra_ray_launcher", ["ray"]),
    ],
)
def test_other_launchers_compose_with_a_study(package: str, launchers: list[str]) -> None:
    pytest.importorskip(f"hydra_plugins.{package}")
    register()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        for launcher in launchers:
            own = ["study=demo", f"hydra/launcher={launcher}"]
            config = hydra_compose("train", overrides=own, return_hydra_config=True)
            assert config.hydra.sweeper._target_.endswith(".StudySweeper")
            assert package in config.hydra.launcher._target_
