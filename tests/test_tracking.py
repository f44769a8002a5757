"""The W&B mirror, read back with W&B's own reader, and everything that may go wrong with it."""

import json
import subprocess
import sys
import time
import types
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stylegan_tl import tracking
from stylegan_tl.tracking import About, WandbMirror, resolve_mode, run_id

ABOUT = About(
    project="stylegan_tl",
    group="bedroom->kitchen",
    job_type="transfer",
    tags=["freeze_d", "stylegan2"],
    name="seed=0",
    id="abc123def456",
    config={"freeze": {"k": 2}, "resolution": 64},
)


LOWER = {"fid1k_train_small": "min"}


@pytest.fixture
def clean_env(tmp_path, monkeypatch):
    """No key, no settings file, no network: W&B's variables gone and home somewhere empty."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.delenv("WANDB_CONFIG_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture
def real_wandb(clean_env):
    """The installed W&B; the warnings of its own import are not ours to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wandb = pytest.importorskip("wandb")
    yield wandb
    wandb.teardown()


def _reference_wandb_reader(path: Path) -> list[dict]:
    """Records as printed by `wandb leet inspect --json`, the reader W&B supports."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "wandb",
        "leet",
        "inspect",
        "--json",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _history(records):
    return [r["history"]["item"] for r in records if r["type"] == "history"]


def test_offline_run_read_back(tmp_path, real_wandb, capfd):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "grid.png")
    with WandbMirror() as mirror:
        mirror.start(tmp_path / "run", ABOUT, mode="offline")
        for kimg, fid in ((0, 90.0), (1, 40.0), (2, 55.0)):
            mirror.log({"kimg": kimg, "fid1k_train_small": fid, "loss/G": 0.5}, LOWER)
        mirror.image(tmp_path / "grid.png", kimg=2, caption="freeze_d")
        mirror.summary({"state": "complete"})
        path, url = mirror.path, mirror.url
    assert url is None
    assert path.parent == tmp_path / "run" / "wandb"
    assert capfd.readouterr() == ("", "")  # not a word in the run's own output

    records = _reference_wandb_reader(next(path.glob("*.wandb")))
    run = next(r["run"] for r in records if r["type"] == "run")
    assert run["run_id"] == ABOUT.id
    assert run["run_group"] == "bedroom->kitchen"
    assert run["job_type"] == "transfer"
    assert run["display_name"] == "seed=0"
    assert run["tags"] == ["freeze_d", "stylegan2"]
    assert run["config"]["update"].items() >= ABOUT.config.items()
    rows = [(r["kimg"], r["fid1k_train_small"], r["loss/G"]) for r in _history(records)[:3]]
    assert rows == [(0, 90.0, 0.5), (1, 40.0, 0.5), (2, 55.0, 0.5)]
    picture = _history(records)[3]
    assert picture["kimg"] == 2
    assert picture["grid.caption"] == "2 kimg - freeze_d"
    assert (path / "files" / picture["grid.path"]).is_file()
    _check_axes_and_summary(records)


def _check_axes_and_summary(records):
    axes = [r["metric"] for r in records if r["type"] == "metric"]
    assert {m.get("step_metric") for m in axes} == {"kimg"}
    assert "*" in {m.get("glob_name") for m in axes}
    summary = {}
    for record in records:
        if record["type"] == "summary":
            summary |= record["summary"]["update"]
    assert summary["fid1k_train_small"] == {"min": 40, "last": 55}
    assert summary["state"] == "complete"
    assert records[-1]["exit"]["exit_code"] == 0


FLAG = {"flag": "mode collapse", "tick": 4, "kimg": 2.0, "evidence": "the grid is one image"}
TICK = {
    "kimg": 2.0,
    "loss_G": 0.5,
    "eta_seconds": None,
    "recall1k_train_small": 0.3,
    "evaluations": [{"metric": "recall1k_train_small", "better": "max", "stderr": 0.1}],
    "change": {"G.conv": 0.25, "G.noise": None},
    "change_note": "G.noise: all zero in the source, no ratio",
    "flags": [FLAG],
}


def test_the_row_of_a_tick_read_back(tmp_path, real_wandb):
    with WandbMirror() as mirror:
        mirror.start(tmp_path, ABOUT, mode="offline")
        mirror.row(TICK)
        mirror.row({**TICK, "kimg": 3.0, "recall1k_train_small": 0.2, "flags": []})
        path = mirror.path
    records = _reference_wandb_reader(next(path.glob("*.wandb")))
    first, second = ({k: v for k, v in row.items() if k[0] != "_"} for row in _history(records))
    assert first == {
        "kimg": 2,
        "loss_G": 0.5,
        "recall1k_train_small": 0.3,
        "recall1k_train_small_stderr": 0.1,
        "change/G.conv": 0.25,
        "flag/mode collapse": 1,
    }
    assert "flag/mode collapse" not in second
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["recall1k_train_small"] == {"max": 0.3, "last": 0.2}
    assert not [r for r in records if r["type"] == "alert"]  # nobody to alert offline


def test_the_records_of_an_evaluation_read_back(tmp_path, real_wandb):
    recall = {"metric": "recall1k_train_small", "better": "max", "stderr": 0.1, "extractor": "s"}
    others = [
        {"metric": "fid1k_train_small", "better": "min", "value": 40.0, "stderr": None},
        {"metric": "swd500_train", "value": 3.0},
        {"metric": "is1k_inception", "better": "max", "value": None, "stderr": None},
    ]
    with WandbMirror() as mirror:
        mirror.start(tmp_path, ABOUT, mode="offline")
        mirror.records(iter([{**recall, "value": 0.3}, *others]), kimg=2.5)
        mirror.records([{**recall, "value": 0.2}], kimg=3)
        path = mirror.path
    records = _reference_wandb_reader(next(path.glob("*.wandb")))
    first, second = ({k: v for k, v in row.items() if k[0] != "_"} for row in _history(records))
    assert first == {
        "kimg": 2.5,
        "recall1k_train_small": 0.3,
        "recall1k_train_small_stderr": 0.1,
        "fid1k_train_small": 40,
        "swd500_train": 3,
    }
    assert second["kimg"] == 3
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["recall1k_train_small"] == {"max": 0.3, "last": 0.2}
    assert summary["fid1k_train_small"] == {"min": 40, "last": 40}
    assert summary["swd500_train"] == {"min": 3, "last": 3}
    assert "is1k_inception" not in {r["metric"].get("name") for r in records if "metric" in r}


def test_a_flag_is_an_alert_where_online():
    alerts, rows = [], []
    mirror = WandbMirror()
    mirror.mode = "online"
    mirror._run = types.SimpleNamespace(
        define_metric=lambda *a, **k: None,
        log=rows.append,
        alert=lambda **fields: alerts.append(fields),
    )
    mirror.row(TICK)
    mirror.row({"kimg": 3.0})
    assert [row["kimg"] for row in rows] == [2, 3]
    assert alerts == [{"title": "mode collapse at tick 4, 2 kimg", "text": "the grid is one image"}]


def test_two_runs_in_one_process_do_not_mix(tmp_path, real_wandb):
    first, second = WandbMirror(), WandbMirror()
    first.start(tmp_path / "a", replace(ABOUT, id="run-a"), mode="offline")
    second.start(tmp_path / "b", replace(ABOUT, id="run-b"), mode="offline")
    first.log({"kimg": 1})
    second.log({"kimg": 2})
    paths = first.path, second.path
    second.finish(3)
    first.finish()
    seen = [_reference_wandb_reader(next(path.glob("*.wandb"))) for path in paths]
    assert [[row["kimg"] for row in _history(records)] for records in seen] == [[1], [2]]
    assert [records[-1]["exit"].get("exit_code") for records in seen] == [0, 3]


def test_resume_offline_keeps_the_id(tmp_path, real_wandb):
    for kimg in (1, 2):
        with WandbMirror() as mirror:
            mirror.start(tmp_path, ABOUT, mode="offline")
            mirror.log({"kimg": kimg})
    runs = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    records = [_reference_wandb_reader(path) for path in runs]
    assert [[row["kimg"] for row in _history(r)] for r in records] == [[1], [2]]
    ids = {r["run"]["run_id"] for rs in records for r in rs if r["type"] == "run"}
    assert ids == {ABOUT.id}


def test_without_key_or_network_training_goes_on(tmp_path, real_wandb):
    said = []
    mode = resolve_mode(None)
    started = time.monotonic()
    with WandbMirror(say=said.append) as mirror:
        mirror.start(tmp_path, ABOUT, mode="online")  # even when asked for by name
        assert time.monotonic() - started < 5
        assert mirror.mode == "offline"
        mirror.log({"kimg": 1})
    assert mode == "offline"
    assert len(said) == 1
    assert "no W&B API key" in said[0]


def test_disabled_imports_nothing_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    mirror = WandbMirror(say=pytest.fail)
    mirror.start(tmp_path / "run", ABOUT, mode="disabled")
    mirror.log({"kimg": 1})
    mirror.finish()
    assert mirror.path is None
    assert not (tmp_path / "run").exists()


def test_without_wandb_one_line_is_printed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # `import wandb` raises ImportError
    said = []
    with WandbMirror(say=said.append) as mirror:
        mirror.start(tmp_path, ABOUT, mode="offline")
        mirror.log({"kimg": 1})
        mirror.image(tmp_path / "x.png", kimg=1)
    assert len(said) == 1
    assert said[0].startswith("W&B could not start offline")


class _BrokenRun:
    dir = "/nowhere/files"

    def __getattr__(self, name):
        raise RuntimeError(f"{name} is broken")


@pytest.mark.parametrize("broken", ["init", "run"])
def test_a_broken_wandb_never_raises(tmp_path, monkeypatch, clean_env, broken):
    def init(**_):
        if broken == "init":
            raise RuntimeError("init is broken\nwith a long story")
        return types.SimpleNamespace(define_metric=lambda *a, **k: None, **_methods_that_raise())

    def _methods_that_raise():
        def fail(*_, **__):
            raise OSError("disk full")

        return {"log": fail, "finish": fail, "summary": _BrokenRun(), "dir": "/nowhere/files"}

    settings = type("Settings", (types.SimpleNamespace,), {"model_fields": {}})
    fake = types.SimpleNamespace(init=init, Settings=settings, teardown=lambda: None, Image=None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    said = []
    mirror = WandbMirror(say=said.append)
    mirror.start(tmp_path, ABOUT, mode="offline")
    mirror.log({"kimg": 1})
    mirror.log({"loss": 1})
    mirror.image(tmp_path / "missing.png", kimg=1)
    mirror.summary({"a": 1})
    mirror.finish(1)
    mirror.finish(1)
    assert len(said) == 1
    assert "\n" not in said[0]
    assert {"init": "init is broken", "run": "disk full"}[broken] in said[0]


def _never(host, port):
    raise AssertionError(f"probed {host}:{port}")


@pytest.mark.parametrize(
    ("configured", "variable", "expected"),
    [
        ("disabled", "online", "disabled"),
        ("offline", None, "offline"),
        ("auto", "dryrun", "offline"),
        (None, "disabled", "disabled"),
        (None, "online", "online"),
    ],
)
def test_config_goes_before_the_variable(clean_env, configured, variable, expected):
    env = {"WANDB_MODE": variable, "WANDB_API_KEY": "k"} if variable else {"WANDB_API_KEY": "k"}
    assert resolve_mode(configured, env=env, probe=_never) == expected


def test_misspelt_modes_are_named(clean_env):
    with pytest.raises(ValueError, match="logger.mode='on': allowed are auto, online"):
        resolve_mode("on", env={})
    with pytest.raises(ValueError, match="WANDB_MODE='ofline'"):
        resolve_mode(None, env={"WANDB_MODE": "ofline"})


@pytest.mark.parametrize("reachable", [True, False])
def test_with_a_key_the_route_decides(clean_env, reachable):
    asked = []

    def probe(host, port):
        asked.append((host, port))
        return reachable

    env = {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://wandb.example:8080"}
    assert resolve_mode(None, env=env, probe=probe) == ("online" if reachable else "offline")
    assert asked == [("wandb.example", 8080)]
    proxied = {**env, "HTTP_PROXY": "http://proxy.example:3128"}
    resolve_mode(None, env=proxied, probe=probe)
    resolve_mode(None, env={**proxied, "NO_PROXY": "localhost, .example"}, probe=probe)
    assert asked[1:] == [("proxy.example", 3128), ("wandb.example", 8080)]


def test_the_key_may_be_in_netrc(clean_env):
    env = {"HOME": str(clean_env), "WANDB_BASE_URL": "https://wandb.example"}
    assert resolve_mode(None, env=env, probe=_never) == "offline"
    netrc = clean_env / ".netrc"
    netrc.write_text("machine wandb.example login user password k\n")
    netrc.chmod(0o600)
    assert resolve_mode(None, env=env, probe=lambda *_: True) == "online"
    other = {**env, "WANDB_BASE_URL": "https://other.example"}
    assert resolve_mode(None, env=other, probe=_never) == "offline"


def test_wandb_settings_files_are_respected(clean_env):
    folder = clean_env / ".config" / "wandb"
    folder.mkdir(parents=True)
    (folder / "settings").write_text("[default]\nmode = disabled\nbase_url = https://w.example\n")
    env = {"HOME": str(clean_env), "WANDB_API_KEY": "k"}
    assert resolve_mode(None, env=env, probe=_never) == "disabled"
    (folder / "settings").write_text("[default]\nbase_url = https://w.example\n")
    asked = []
    resolve_mode(None, env=env, probe=lambda *route: asked.append(route))
    assert asked == [("w.example", 443)]


def test_a_route_that_does_not_answer_costs_at_most_the_timeout(monkeypatch):
    monkeypatch.setattr(tracking, "_PROBE_SECONDS", 0.2)
    started = time.monotonic()
    assert not tracking._reachable("127.0.0.1", 9)
    assert time.monotonic() - started < 2


def test_run_id_is_stable_and_tells_runs_apart():
    assert run_id("s", "n", 0) == run_id("s", "n", "0")
    assert len({run_id("s", "n", 0), run_id("s", "n", 1), run_id("sn", "", 0)}) == 3
    assert run_id("a").isalnum()


def test_tags_and_groups_that_wandb_refuses_are_shortened(tmp_path, real_wandb):
    long = replace(ABOUT, tags=["x" * 90, "", "demo", "demo"], group="a->" * 60)
    with WandbMirror() as mirror:
        mirror.start(tmp_path / "run", long, mode="offline")
        path = mirror.path
    assert path is not None  # it began
    records = _reference_wandb_reader(next(path.glob("*.wandb")))
    run = next(r["run"] for r in records if r["type"] == "run")
    assert run["tags"] == ["x" * 64, "demo"]
    assert run["run_group"] == ("a->" * 60)[:128]
