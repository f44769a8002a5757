"""The record of a trial survives kills, refuses strangers and says what is wrong."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from stylegan_tl.study import provenance
from stylegan_tl.study.comparable import ProtocolMismatch, comparable
from stylegan_tl.study.trial import (
    SCHEMA_VERSION,
    MetricsLog,
    Trial,
    TrialMismatch,
    check_same,
    identity,
    write_lines,
    write_records,
)

CONFIG = {
    "source": {"name": "bedroom", "path": "/data/bedroom.zip"},
    "freeze": {"k": 2},
    "kimg": 12.0,
    "logger": {"mode": "offline"},
    "trainer": {"devices": 1},
}


PROTOCOL = {
    "of": "model",
    "num_fakes": 1000,
    "num_reals": 900,
    "split": "train",
    "extractor": "small",
    "extractor_digest": "aa",
    "precision": "fp32",
    "resize": "64 px",
    "estimator": "plain",
    "reference_hash": "00",
}

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def _trial(**changes):
    fields = {
        "study": "pairs",
        "name": "bedroom-kitchen",
        "seed": 3,
        "choices": {},
        "config": CONFIG,
    }
    return Trial(**{**fields, **changes})


def test_round_trip_is_exact_and_plain(tmp_path):
    trial = _trial(freeze={"k": 2, "share": np.float64(0.25), "sizes": np.arange(3)})
    trial.metrics = {"fid": {"value": float("nan")}}
    trial.save(tmp_path / "trial.json")
    loaded = Trial.load(tmp_path / "trial.json")
    assert loaded.freeze == {"k": 2, "share": 0.25, "sizes": [0, 1, 2]}
    assert loaded.metrics == {"fid": {"value": None}}
    loaded.save(tmp_path / "again.json")
    assert Trial.load(tmp_path / "again.json").config == CONFIG
    json.loads((tmp_path / "trial.json").read_text(), parse_constant=pytest.fail)  # strict JSON
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.json", "trial.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"state": "done"}, "state: got 'done', allowed: running"),
        ({"seed": "3"}, "seed: got '3', expected int"),
        ({"seed": True}, "seed: got True, expected int"),
        ({"files": None}, "files: got None, expected dict"),
        ({"schema_version": 99}, "schema_version is 99"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_load_names_file_and_key(tmp_path, damage, message):
    path = tmp_path / "trial.json"
    _trial().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    with pytest.raises(ValueError, match=message) as error:
        Trial.load(path)
    assert str(path) in str(error.value)


def test_load_refuses_half_a_file(tmp_path):
    path = tmp_path / "trial.json"
    _trial().save(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="not readable as JSON"):
        Trial.load(path)


def _record(metric, value, **more):
    return {"metric": metric, "value": value, **PROTOCOL, **more}


def test_best_final_and_rewind():
    trial = _trial()
    for kimg, value in ((1, 50.0), (2, 30.0), (3, math.nan), (4, 40.0)):
        trial.observe(_record("fid1k", value, seconds=2), kimg=kimg)
    fid = trial.metrics["fid1k"]
    assert fid["best"] == {"kimg": 2, "value": 30.0}
    assert fid["final"] == {"kimg": 4, "value": 40.0}
    assert fid["protocol"] == PROTOCOL
    trial.rewind(1)
    assert trial.metrics["fid1k"]["best"] == trial.metrics["fid1k"]["final"]
    assert trial.metrics["fid1k"]["final"] == {"kimg": 1, "value": 50.0}


def test_the_record_says_which_value_is_better():
    trial = _trial()
    for kimg, value in ((1, 0.1), (2, 0.3), (3, 0.2)):
        trial.observe(_record("recall", value, better="max"), kimg=kimg)
        trial.observe(_record("fid1k", value), kimg=kimg)
    assert trial.metrics["recall"]["best"]["value"] == 0.3
    assert trial.metrics["fid1k"]["best"]["value"] == 0.1
    assert (trial.metrics["recall"]["better"], trial.metrics["fid1k"]["better"]) == ("max", "min")
    with pytest.raises(ValueError, match="better='higher', expected 'min' or 'max'"):
        trial.observe(_record("recall", 0.1, better="higher"), kimg=4)


@pytest.mark.parametrize("field", PROTOCOL)
def test_a_record_without_its_whole_protocol_is_refused(field):
    record = _record("fid1k", 1.0)
    del record[field]
    trial = _trial()
    with pytest.raises(ValueError, match=f"'fid1k' lacks {field}: "):
        trial.observe(record, kimg=1)
    assert trial.metrics == {}
    trial.observe(_record("swd500", 1.0, **{field: None}), kimg=1)


def test_a_repeated_evaluation_replaces_the_earlier_one():
    trial = _trial()
    for value in (9.0, 8.0):
        trial.observe(_record("kid", value, stderr=0.1), kimg=1)
        trial.observe_change({"G.conv": value}, kimg=1)
    assert trial.metrics["kid"]["at"] == [{"kimg": 1, "value": 8.0, "stderr": 0.1}]
    assert trial.change == [{"kimg": 1, "groups": {"G.conv": 8.0}}]


def test_a_changed_protocol_is_refused():
    trial = _trial()
    trial.observe(_record("fid1k", 1.0, num_reals=1000), kimg=1)
    with pytest.raises(ValueError, match="num_reals: 1000 -> 900"):
        trial.observe(_record("fid1k", 1.0), kimg=2)


def test_changes_and_flags_rewind_with_the_metrics(tmp_path):
    trial = _trial(flags=[{"flag": "mode collapse", "tick": t, "kimg": float(t)} for t in (1, 3)])
    for kimg in (0, 2, 4):
        trial.observe_change({"G": kimg / 10, "D.noise": None}, kimg=kimg)
    trial.rewind(2)
    trial.save(tmp_path / "trial.json")
    loaded = Trial.load(tmp_path / "trial.json")
    assert [row["kimg"] for row in loaded.change] == [0, 2]
    assert loaded.change[1]["groups"] == {"G": 0.2, "D.noise": None}
    assert [flag["tick"] for flag in loaded.flags] == [1]


def test_a_record_of_version_1_is_read_with_what_it_has(tmp_path):
    path = tmp_path / "trial.json"
    _trial(kimg=2.0).save(path)
    record = json.loads(path.read_text())
    later = {"change", "flags", "evaluation_seconds"}
    old = {k: v for k, v in record.items() if k not in later} | {"schema_version": 1}
    path.write_text(json.dumps(old))
    trial = Trial.load(path)
    assert (trial.kimg, trial.change, trial.flags, trial.evaluation_seconds) == (2.0, [], [], 0.0)
    trial.save(path)
    assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION
    for version, missing in ((SCHEMA_VERSION, "flags"), (1, "kimg")):
        damaged = {k: v for k, v in old.items() if k != "kimg"} if version == 1 else old
        path.write_text(json.dumps({**damaged, "schema_version": version}))
        with pytest.raises(ValueError, match=f"missing key '{missing}'"):
            Trial.load(path)


def _version_1(path, protocols):
    """A trial as version 1 wrote it: protocols said neither `of` nor `precision`."""
    trial = _trial()
    for name, protocol in protocols.items():
        trial.observe({"metric": name, "value": 2.0, **protocol}, kimg=1)
    trial.save(path)
    record = json.loads(path.read_text())
    for key in ("change", "flags", "evaluation_seconds"):
        del record[key]
    for entry in record["metrics"].values():
        del entry["protocol"]["of"], entry["protocol"]["precision"]
    path.write_text(json.dumps({**record, "schema_version": 1}))


def test_protocols_of_version_1_are_completed_and_compare_with_new_ones(tmp_path):
    path = tmp_path / "trial.json"
    bare = {"extractor": None, "extractor_digest": None, "precision": None, "resize": None}
    protocols = {"fid1k_train_small": PROTOCOL, "swd500_train": {**PROTOCOL, **bare}}
    _version_1(path, protocols)
    trial = Trial.load(path)
    for name, protocol in protocols.items():
        assert trial.metrics[name]["protocol"] == protocol
        old = {"metric": name, **trial.metrics[name]["protocol"]}
        comparable(old, {"metric": name, **protocol})
        trial.observe({"metric": name, "value": 1.0, **protocol}, kimg=2)  # a run that goes on
    with pytest.raises(ProtocolMismatch, match="precision: 'fp32' ≠ 'bf16'"):
        comparable(
            {"metric": "fid1k_train_small", **trial.metrics["fid1k_train_small"]["protocol"]},
            {"metric": "fid1k_train_small", **PROTOCOL, "precision": "bf16"},
        )


def test_version_2_must_say_it(tmp_path):
    path = tmp_path / "trial.json"
    _version_1(path, {"fid1k_train_small": PROTOCOL})
    later = {"change": [], "flags": [], "evaluation_seconds": 0.0, "schema_version": 2}
    path.write_text(json.dumps({**json.loads(path.read_text()), **later}))
    assert "precision" not in Trial.load(path).metrics["fid1k_train_small"]["protocol"]


def test_identity_is_about_science_only():
    def changed(**changes):
        return identity({**CONFIG, **changes})

    same = changed(
        kimg=12,
        logger={"mode": "online"},
        trainer={"devices": 4},
        source={"path": "/scratch/bedroom.zip", "name": "bedroom"},
    )
    assert same == identity(CONFIG)
    others = [
        changed(kimg=13),
        changed(freeze={"k": 3}),
        changed(freeze={"k": 2, "net": "D"}),
        changed(source={"name": "bedroom", "path": "/data/kitchen.zip"}),
    ]
    assert len({identity(CONFIG), *others}) == 5
    text = json.dumps({"a": 1, "b": [2, None]}, sort_keys=True)
    assert identity({"b": (2.0, None), "a": 1}) == hashlib.sha256(text.encode()).hexdigest()


def test_a_model_of_before_there_were_losses_and_widths_to_choose_is_the_same_experiment():
    """Today's options, said with the values that there once were alone, change no identity."""
    old = {"network": {"width": 64}, "training": {"lr_G": 0.1, "micro_batch": None}}
    more = {"loss": "nonsaturating", "G_steps": 1, "D_steps": 1, "gp_weight": 10.0}
    network = {"width": 64, "width_G": None, "kernel": 4, "norm_D": "batch"}
    new = {"network": network, "training": {**old["training"], **more, "label_noise": 0.0}}

    def with_model(model):
        return identity({**CONFIG, "model": model, "pretrain": {"model": model, "kimg": 5}})

    assert with_model(new) == with_model(old)
    others = [{**new, "network": {**network, "kernel": 5}}]
    others += [
        {**new, "training": {**new["training"], **d}} for d in ({"loss": "bce"}, {"G_steps": 2})
    ]
    assert len({with_model(model) for model in (old, *others)}) == 4


OLD_METRIC = {
    "names": ["kid1k_train_small"],
    "every_ticks": 1,
    "best": "kid1k_train_small",
    "extractors": {},
}  # as configurations were before there were intervals, precisions and six extractors
NO_FILE = {"path": None, "sha256": None}
NEW_METRIC = {
    **OLD_METRIC,
    "rounds": 0,
    "precision": "fp32",
    "extractors": {"small": NO_FILE, "lpips": {**NO_FILE, "heads": None}},
}


def test_a_key_that_says_nothing_new_leaves_an_old_run_what_it_was(tmp_path):
    old = {**CONFIG, "metric": OLD_METRIC}
    _trial(config=old, state="complete").save(tmp_path / "trial.json")
    assert check_same(tmp_path, {**CONFIG, "metric": NEW_METRIC}).is_complete
    others = [
        {"rounds": 40},
        {"precision": "bf16"},
        {"names": []},
        {"extractors": {"small": {"path": "x.safetensors", "sha256": None}}},
        {"every_ticks": 2},
    ]
    found = {identity({**CONFIG, "metric": {**NEW_METRIC, **other}}) for other in others}
    assert len(found | {identity(old)}) == 6
    with pytest.raises(TrialMismatch) as error:
        check_same(tmp_path, {**CONFIG, "metric": {**NEW_METRIC, "rounds": 40}})
    assert str(error.value).splitlines()[1:-1] == ["  metric.rounds: (absent) -> 40"]


def test_elsewhere_null_and_zero_are_values(tmp_path):
    whole = [{"kimg": 1}, {"kimg": 1, "num_images": None}, {"kimg": 1, "rounds": 0}]
    assert len({identity(config) for config in whole}) == 3


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    assert check_same(tmp_path, CONFIG) is None
    _trial().save(tmp_path / "trial.json")
    assert check_same(tmp_path, {**CONFIG, "logger": None}).name == "bedroom-kitchen"
    with pytest.raises(TrialMismatch) as error:
        check_same(tmp_path, {**CONFIG, "freeze": {"k": 4}, "batch": 16})
    lines = str(error.value).splitlines()
    assert lines[1:3] == ["  batch: (absent) -> 16", "  freeze.k: 2 -> 4"]


def test_metrics_log_rewinds(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.read() == []
    for nimg in (0, 1000, 2000, 3000):
        log.append({"nimg": nimg, "loss": np.float32(0.5), "fid": math.inf})
    assert log.rewind(1000) == 2
    log.append({"nimg": 1500})
    assert [r["nimg"] for r in MetricsLog(log.path).read()] == [0, 1000, 1500]
    assert log.read()[0] == {"nimg": 0, "loss": 0.5, "fid": None}
    with pytest.raises(ValueError, match="integer 'nimg'"):
        log.append({"kimg": 1})


@pytest.mark.parametrize("kept", range(1, 24))
def test_a_line_torn_anywhere_is_forgotten(tmp_path, kept):
    path = tmp_path / "metrics.jsonl"
    last = b'{"nimg": 2, "x": "\xc3\xa9"}\n'
    path.write_bytes(b'{"nimg": 1}\n' + last[:kept])
    whole = kept >= len(last) - 1
    assert [r["nimg"] for r in MetricsLog(path).read()] == ([1, 2] if whole else [1])
    MetricsLog(path).append({"nimg": 3})
    assert [r["nimg"] for r in MetricsLog(path).read()] == ([1, 2, 3] if whole else [1, 3])


@pytest.mark.parametrize("kept", range(1, 12))
def test_a_torn_last_line_does_not_swallow_the_next_record(tmp_path, kept):
    path, last = tmp_path / "new" / "lines.jsonl", b'{"value": 2}'
    write_lines(path, [{"value": 1}])
    path.write_bytes(path.read_bytes() + last[:kept])
    write_lines(path, [])
    write_lines(path, [{"value": 3}, {"value": math.nan}])
    lines = path.read_bytes().split(b"\n")
    assert lines == [b'{"value": 1}', last[:kept], b'{"value": 3}', b'{"value": null}', b""]


def test_an_evaluation_without_its_protocol_is_not_written(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    whole = _record("fid1k", 1.0)
    write_records(path, iter([whole, whole]))
    half = {k: v for k, v in whole.items() if k != "precision"}
    with pytest.raises(ValueError, match="'fid1k' lacks precision"):
        write_records(path, [whole, half])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [whole, whole]


def test_damage_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"nimg": 1}\n{"nim\n{"nimg": 3}\n')
    with pytest.raises(ValueError, match="line 2 is damaged"):
        MetricsLog(path).read()


def test_sigkill_leaves_readable_records(tmp_path):
    """A real process writes both files as fast as it can and is killed at several moments."""
    code = (
        "import sys; from stylegan_tl.study.trial import MetricsLog, Trial\n"
        "log = MetricsLog(sys.argv[1] + '/metrics.jsonl')\n"
        "trial = Trial(study='s', name='n', seed=0, choices={}, config={'pad': 'x' * 100_000})\n"
        "start = len(log.read())\n"
        "for i in range(start, 10**9):\n"
        "    log.append({'nimg': i}, sync=False)\n"
        "    trial.kimg = i\n"
        "    trial.save(sys.argv[1] + '/trial.json')\n"
    )
    for delay in (0.02, 0.03, 0.05, 0.07):
        before = len(MetricsLog(tmp_path / "metrics.jsonl").read())
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        _wait_until(lambda b=before: len(MetricsLog(tmp_path / "metrics.jsonl").read()) > b)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        records = MetricsLog(tmp_path / "metrics.jsonl").read()
        assert [r["nimg"] for r in records] == list(range(len(records)))
        assert Trial.load(tmp_path / "trial.json").kimg >= before - 1


def _wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@needs_git
def test_commit_agrees_with_git():
    def reference_git(*arguments):
        root = os.path.dirname(provenance.__file__)
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)

    tracked = reference_git("ls-files", "--error-unmatch", provenance.__file__).returncode == 0
    found = provenance.commit()
    if not tracked:  # an installed copy
        assert found is None
        return
    assert found["sha"] == reference_git("rev-parse", "HEAD").stdout.strip()
    assert found["dirty"] == (reference_git("diff", "--quiet", "HEAD").returncode != 0)


@needs_git
def test_an_untracked_copy_has_no_commit(tmp_path, monkeypatch):
    """A package installed into a folder inside somebody's repository is not that repository."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    copy = tmp_path / "provenance.py"
    copy.touch()
    monkeypatch.setattr(provenance, "__file__", str(copy))
    assert provenance.commit() is None


def test_hardware_and_versions():
    found = provenance.hardware("cuda", threads=4, gpu="H200")
    assert found["device"] == "cuda"
    assert (found["threads"], found["gpu"]) == (4, "H200")
    assert found["memory"] > 0.1
    assert found["cpu"]
    assert provenance.versions()["numpy"] == np.__version__
    assert provenance.versions()["python"].startswith("3.")


def test_the_record_needs_no_torch():
    code = "import sys, stylegan_tl.study.trial; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
