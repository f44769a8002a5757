"""A wheel, an editable install and a bare checkout find the configuration and all files."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source")
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines():  # fmt: skip
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", out, source], check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


def _compose(code_root: Path, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(code_root)}
    command = [sys.executable, "-m", "stylegan_tl.train", "--cfg", "job", "--package", "target"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_bare_checkout_finds_its_configuration(tmp_path) -> None:
    assert "name: rooms/kitchen" in _compose(ROOT, tmp_path)


def test_a_wheel_finds_its_configuration_and_carries_its_files(wheel, tmp_path) -> None:
    unpacked = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(unpacked)
    assert "name: rooms/kitchen" in _compose(unpacked, tmp_path)
    for file in ("metrics/small.safetensors", "conf/train.yaml", "conf/dataset/rooms/kitchen.yaml"):
        assert f"stylegan_tl/{file}" in names
    assert any(n.startswith("stylegan_tl/source/bundled/") for n in names)
    assert any(n.startswith("cuda_ops/csrc/") for n in names)
    assert not [n for n in names if n.split("/")[0] in ("conf", "tests", "experiments")]


def test_each_launcher_is_an_extra(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    for extra, package in (("slurm", "hydra-submitit-launcher"), ("ray", "hydra-ray-launcher")):
        assert f"Provides-Extra: {extra}\n" in metadata
        needs = [s for s in metadata.splitlines() if s.startswith(f"Requires-Dist: {package}")]
        assert [f'extra == "{extra}"' in line for line in needs] == [True]


def test_metadata_is_what_the_readme_says() -> None:
    text = subprocess.run(
        [sys.executable, "setup.py", "--license", "--name"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert text.split() == ["MIT", "stylegan_tl"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "4000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_go_to_sleep_early_unless_they_are_told(given: dict, expected: str) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {k: v for k, v in os.environ.items() if k not in names} | given
    code = "import stylegan_tl, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=env)
    assert done.stdout.strip() == expected
