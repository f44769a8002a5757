"""What a mistake on a command line is answered with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stylegan_tl import run_folder
from stylegan_tl.composing import compose, group_options

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["kimgg=1"], "kimgg= is no key here; did you mean kimg?"),
        (["++model.trainin.batch_size=3", "tarket=zip"], "tarket= is no key here; did you mean ta"),
        (["model.trainin.batch_size=3"], "did you mean model.training.batch_size?"),
        (["model=dcgan", "model.network.widht=3"], "did you mean model.network.width?"),
        (["freeze/scedule=x"], "freeze/scedule= is no key here; did you mean freeze/schedule?"),
        (["xyzzy=1"], "xyzzy= is no key here; --cfg job shows all keys"),
        (
            ["target=houses/kitchn"],
            "target=houses/kitchn is no option; did you mean houses/kitch",
        ),
        (["freeze=freez_d"], "freeze=freez_d is no option; did you mean freeze_d"),
        (["freeze/anchor=[cdc,l2]"], "freeze/anchor=l2 is no option; there are cdc, ewc"),
        (["model@pretrain.model=dcgn"], "model@pretrain.model=dcgn is no option; did you mean dc"),
        (["seed=1,2"], "seed=1,2: add -m for a trial of each, or write a list as 'seed=[1,2]'"),
        (["+kimg=3"], "+kimg=: there is kimg already, leave out the +"),
        (["model=dcgan", "hydra.run.dirr=x"], "did you mean hydra.run.dir?"),
        (["kimg"], "kimg: this cannot be read; write key=value"),
        (["seed=[1"], "seed=[1: this cannot be read"),
    ],
    ids=lambda given: given[-1] if isinstance(given, list) else "",
)
def test_a_mistake_is_told_with_what_was_meant(overrides, words) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        compose("train", overrides)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_options_of_a_folder_of_ones_own_count(tmp_path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "freeze").mkdir()
    (tmp_path / "freeze" / "mine.yaml").write_text("name: mine")
    assert "mine" in group_options("freeze", [str(tmp_path)])
    assert "mine" not in group_options("freeze")
    with pytest.raises(ValueError, match="freeze=min is no option; did you mean mine"):
        compose("train", ["freeze=min"], [str(tmp_path)])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("/freeze: freez_d", "Could not find 'freeze/freez_d'; did you mean freeze_d"),
        ("/nosuch: x", "In 'experiment/mine': Could not override 'nosuch'"),
    ],
)
def test_a_mistake_in_a_file_is_not_blamed_on_the_command_line(tmp_path, override, words) -> None:
    (tmp_path / "experiment").mkdir()
    text = f"# @package _global_\ndefaults: [{{override {override}}}]\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        compose("train", ["experiment=mine"], [str(tmp_path)])
    assert words in str(refusal.value)


@pytest.mark.parametrize("more", [[], ["-m"], ["--config-dir", "."]])
def test_every_way_to_train_answers_the_same(tmp_path, more) -> None:
    done = _train(tmp_path, "seeed=3", *more)
    assert done.returncode == 2
    assert done.stderr.startswith("error: seeed= is no key here; did you mean seed?\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["kimg=-1"], 2),
        (["target=zip"], 2),
        (["dry_run=true", "source.size=24", "target.size=24", "resolution=32", "cache=cache"], 0),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_a_trial_that_did_not_begin_leaves_no_folder(tmp_path, words, code) -> None:
    done = _train(tmp_path, *words)
    assert done.returncode == code, done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_what_was_there_before_a_refusal_stays(tmp_path) -> None:
    (tmp_path / "empty" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "empty" / "real")
    for folder in (".", "empty", "link"):
        done = _train(tmp_path, "kimg=-1", f"hydra.run.dir={folder}")
        assert (done.returncode, done.stderr.startswith("error: ")) == (2, True)
        assert (tmp_path / folder / ".hydra").is_dir()
    assert _train(tmp_path, "kimg=-1", "hydra.run.dir=empty/a/b").returncode == 2
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {".hydra", "real", "train.log"}


@pytest.mark.parametrize(
    ("name", "younger"),
    [("trial.json", False), (".hydra/mine.yaml", False), (".hydra/config.yaml", True)],
)
def test_what_somebody_else_has_written_stays(tmp_path, monkeypatch, name, younger) -> None:
    folder = tmp_path / "new"
    (folder / ".hydra").mkdir(parents=True)
    for own in (".hydra/config.yaml", "train.log"):
        (folder / own).touch()
    monkeypatch.setattr(run_folder, "_new", [folder])
    with run_folder.tidied(dry_run=True):
        (folder / name).touch()
        at = time.time() + (10 if younger else -10)
        os.utime(folder / name, (at, at))
    assert (folder / name).exists()
    assert (folder / "train.log").exists()
    (folder / name).unlink()
    with run_folder.tidied(dry_run=False):  # a trial that was trained
        pass
    assert folder.exists()
    with run_folder.tidied(dry_run=True):
        pass
    assert not folder.exists()


def _train(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "stylegan_tl.train", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
