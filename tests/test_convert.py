"""Weights of other projects through the commands: converted, trained on, drawn, measured."""

from __future__ import annotations

import json
import os
import resource
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from stylegan_tl.convert import _convert
from stylegan_tl.evaluate import _evaluate
from stylegan_tl.freeze.__main__ import table as freeze_table
from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.generate import _generate
from stylegan_tl.runner import run_trial
from stylegan_tl.source.portable import SourceError, read_model, write_portable

sys.path.append(str(Path(__file__).parent / "source"))
import foreign_layouts as layouts


def _stylegan(path: Path) -> Path:
    values = layouts.tensorflow_values(layouts.stylegan_variables())
    return layouts.tensorflow_pickle(path, values, version=3)


FILES = {
    "stylegan2_small": lambda path: layouts.nvidia_pickle(path, clamp=256.0),
    "stylegan_small": _stylegan,
}


@pytest.fixture
def convert(compose, tmp_path):
    def make(*overrides: str) -> list[str]:
        paths = [f"in={tmp_path / 'a.pkl'}", f"out={tmp_path / 'out' / 'a.safetensors'}"]
        return _convert(compose([*paths, *overrides], "convert"))

    return make


def test_the_portable_form_holds_every_bit_and_who_owns_it(convert, tmp_path: Path) -> None:
    layouts.nvidia_pickle(tmp_path / "a.pkl", clamp=256.0)
    lines = convert("name=ffhq", "licence='CC0 1.0'", "kimg=25000")
    before, after = (read_model(tmp_path / name) for name in ("a.pkl", "out/a.safetensors"))
    assert before.tensors.keys() == after.tensors.keys()
    assert all(torch.equal(v, after.tensors[k]) for k, v in before.tensors.items())
    assert after.network == before.network
    assert (after.dataset, after.nimg) == ("ffhq", 25_000_000)
    assert after.extra["licence"] == "CC0 1.0"
    assert after.lineage["converted_from"]["sha256"] == before.sha256
    told = "\n".join(lines)
    for theirs, ours in after.extra["report"]["taken"].items():
        assert any(line.split()[:2] == [theirs, ours] for line in lines)
    for theirs, why in after.extra["report"]["left"].items():
        assert any(line.split()[0] == theirs and line.endswith(why) for line in lines)
    assert "StyleGAN2: resolution=32, z_dim=16, w_dim=24" in told
    assert "clamp=256.0" in told


def test_what_converts_half_is_half_as_large_and_close(convert, tmp_path: Path) -> None:
    layouts.nvidia_pickle(tmp_path / "a.pkl")
    convert("dtype=float16")
    whole = sum(v.numel() for v in read_model(tmp_path / "a.pkl").tensors.values())
    out = tmp_path / "out" / "a.safetensors"
    assert 2 * whole < out.stat().st_size < 2.5 * whole
    one = read_model(tmp_path / "a.pkl").tensors["D.b8.conv0.weight"]
    torch.testing.assert_close(read_model(out).tensors["D.b8.conv0.weight"], one.half().float())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dtype=int8"], "dtype=int8: use float32"),
        (["kimg=inf"], "kimg=inf: give thousands of images"),
        (["kimg=-1"], "kimg=-1: give thousands of images"),
        (["kimg=many"], "kimg=many: give thousands of images"),
        (["out=a.pt"], r"end it in \.safetensors"),
        (["in=nowhere.pkl"], "nowhere.pkl does not exist"),
    ],
)
def test_mistakes_name_the_key(convert, overrides: list[str], said: str, tmp_path: Path) -> None:
    layouts.nvidia_pickle(tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=said):
        convert(*overrides)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(convert, tmp_path: Path) -> None:
    layouts.nvidia_pickle(tmp_path / "a.pkl")
    convert()
    with pytest.raises(ValueError, match="exists: remove it"):
        convert()


FORMS = {"safetensors": ".safetensors", "nvidia": ".pt", "onnx": ".onnx"}
needs_exporter = pytest.mark.skipif(find_spec("onnxscript") is None, reason="no exporter")


@pytest.mark.parametrize("where", ["a file/x", "locked/x", "locked/new/x", "locked/new/er/x"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(
    convert, where: str, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "locked").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, m: Path(p).name != "locked" and access(p, m))
    with pytest.raises(ValueError, match="out=.* cannot be written .*(no folder|no permission)"):
        convert(f"out={tmp_path}/{where}.safetensors", "in=nowhere.pkl")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a file", "locked"]


@pytest.mark.parametrize("form", [*FORMS][:2] + [pytest.param("onnx", marks=needs_exporter)])
def test_a_disk_that_is_full_ends_in_one_line_and_nothing_is_left(
    convert, form: str, tmp_path: Path
) -> None:
    """As large as the system lets a file be, which is what a full disk is to a writer."""
    layouts.nvidia_pickle(tmp_path / "a.pkl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ValueError, match="cannot be written .File too large.*no file was left"):
            convert(f"format={form}", f"out={tmp_path / 'out' / f'a{FORMS[form]}'}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("model", FILES)
def test_a_foreign_file_is_a_source_model(model: str, compose, cache, tmp_path: Path) -> None:
    """It trains on at once, what is frozen stays as the file has it, and the licence travels."""
    file = FILES[model](tmp_path / "source.pkl")
    size = ["resolution=32", "kimg=0.016", "kimg_per_tick=0.016", "target.size=24", "metric=none"]
    size += ["logger=none", "grid.columns=2", "grid.rows=1", "model.training.batch_size=4"]
    given = ["source=checkpoint", f"source.checkpoint={file}", f"model={model}", "freeze=freeze_d"]
    config = compose([*given, *size, f"cache={cache}"])
    assert run_trial(config, tmp_path / "child", choices={"model": model}) == 0
    parent, child = read_model(file), read_model(tmp_path / "child")
    same = [k for k, v in parent.tensors.items() if torch.equal(v, child.tensors[k])]
    trial = json.loads((tmp_path / "child" / "trial.json").read_text(encoding="utf-8"))
    assert "D.b32.conv0.weight" in same
    assert "G_ema.synthesis.b8.conv1.weight" not in same
    assert child.network == parent.network
    assert trial["source"]["licence"] == parent.extra["licence"]
    assert trial["source"]["report"]["taken"] == len(parent.tensors)
    write_portable(child, tmp_path / "child.safetensors")
    grown = read_model(tmp_path / "child.safetensors")
    assert grown.lineage["source"]["licence"] == parent.extra["licence"]
    assert grown.lineage["source"]["sha256"] == parent.sha256


def test_every_command_takes_a_foreign_file(compose, cache, tmp_path: Path) -> None:
    from stylegan_tl.assembly import blank_model, named_source

    file = layouts.nvidia_pickle(tmp_path / "a.pkl")
    pictures = _generate(
        compose([f"checkpoint={file}", "seeds=0-1", f"out={tmp_path}", "noise=const"], "generate")
    )
    assert Path(pictures[0]).stat().st_size > 1000
    measured = [f"checkpoint={file}", "target=rooms/kitchen", "target.size=24", f"cache={cache}"]
    measured += ["metric.names=[kid16_train_small]", f"out={tmp_path / 'e.jsonl'}", "logger=none"]
    assert _evaluate(compose(measured, "evaluate"))[0]["value"] > 0
    overrides = ["source=checkpoint", f"source.checkpoint={file}", "resolution=32"]
    config = compose([*overrides, "freeze=freeze_d"], "freeze")
    freeze = freeze_of(config["freeze"])
    lines = freeze_table(blank_model(config, freeze.strategy, named_source(config)), freeze)
    assert any(line.startswith("D.b32.fromrgb.weight") and "frozen" in line for line in lines)


def test_a_file_without_d_says_how_to_begin(compose, cache, tmp_path: Path) -> None:
    file = layouts.nvidia_pickle(tmp_path / "a.pkl", D=False)
    given = ["source=checkpoint", f"source.checkpoint={file}", "model=stylegan2_small"]
    given += ["resolution=32", "kimg=0.008", "kimg_per_tick=0.008", "target.size=24"]
    given += ["metric=none", "logger=none", f"cache={cache}", "model.training.batch_size=4"]
    with pytest.raises(SourceError, match=r"has no D: .* freeze=init_g"):
        run_trial(compose(given), tmp_path / "a", choices={})
    assert run_trial(compose([*given, "freeze=init_g"]), tmp_path / "b", choices={}) == 0
