"""`python -m stylegan_tl.study`: its words, its mistakes, and the study that the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_tl.study.__main__ import VERBS, main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pln", "study=demo"], "pln is no verb of study; did you mean plan?"),
        (["run", "study=demo", "proceses=2"], "proceses= is no key here; did you mean processes?"),
        (["table", "study=demo", "outt=3"], "outt= is no key here; did you mean out?"),
        (["plan", "study=demo", "kimg=-2"], "kimg=-2: use a number above 0"),
        (["plan", "study=demo", "resolution=50"], "resolution=50: use a power of two"),
        (["plan", "study=demo", "--config-dir", "nope"], "--config-dir nope: no such folder"),
        (["plan", "study=demoo"], "study=demoo is no option; did you mean demo?"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_a_mistake_is_one_message_before_any_work(tmp_path, capsys, words, said) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, f"runs={tmp_path}", f"cache={tmp_path}"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert said in message
    assert not list(tmp_path.iterdir())


def test_a_copied_file_needs_a_name_of_its_own(tmp_path, capsys) -> None:
    (tmp_path / "study").mkdir()
    copied = (ROOT / "conf" / "study" / "demo.yaml").read_text()
    (tmp_path / "study" / "copy.yaml").write_text(copied)
    own = ["plan", "--config-dir", str(tmp_path), "study=copy", f"runs={tmp_path}"]
    with pytest.raises(SystemExit):
        main([*own, f"cache={tmp_path}"])
    assert "study=copy: its file says name: demo" in capsys.readouterr().err
    assert main([*own, f"cache={tmp_path}", "study.name=copy"]) == 0


def test_a_file_that_is_no_yaml_is_named(tmp_path, capsys) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "bad.yaml").write_text("study:\n  name: bad\n   question: x\n")
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--config-dir", str(tmp_path), "study=bad"])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert f'"{tmp_path}/study/bad.yaml", line 3' in message
    assert "Traceback" not in message


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_the_keys_of_a_verb(capsys, verb) -> None:
    assert main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{key}=" in said for key in VERBS[verb].keys)


def test_the_study_of_the_readme_can_be_planned(tmp_path, capsys, monkeypatch) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(# @package _global_\n.*?)```", readme, re.DOTALL)
    for folder in ("study", "dataset"):
        (tmp_path / "conf" / folder).mkdir(parents=True)
    (tmp_path / "conf" / "study" / "animals.yaml").write_text(text)
    random = np.random.default_rng(0)
    for name in ("dogs", "horses", "cats"):
        photos = tmp_path / name
        photos.mkdir()
        for i in range(12):
            pixels = random.integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(photos / f"{i}.png")
        option = f"name: {name}\nkind: folder\npath: {photos}\n"
        (tmp_path / "conf" / "dataset" / f"{name}.yaml").write_text(option)
    own = [f"runs={tmp_path / 'runs'}", f"cache={tmp_path / 'cache'}", "study=animals"]
    words = ["plan", "--config-dir", str(tmp_path / "conf"), *own]
    monkeypatch.setattr("sys.argv", ["study", *words])  # where options of datasets are looked for
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "36 trials (12 cells x 3 seeds): 36 missing" in said
    assert "each 50 kimg on" in said
