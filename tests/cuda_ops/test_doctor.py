"""The doctor says what is found and what to do, and finds what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cuda_ops import check, doctor, toolkit
from cuda_ops import compile as building

ROOT = Path(__file__).parents[2]
needs_kernels = pytest.mark.skipif(building.cpu_kernels() is None, reason="kernels are off")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SECONDS", 1.0)
    yield
    monkeypatch.undo()
    for kernels in (building.cpu_kernels, building.cuda_kernels, building.emulated_kernels):
        kernels.cache_clear()


def _table(text: str) -> dict[str, str]:
    """Return what is beside each name of the table, and the verdict under ""."""
    *lines, verdict = text.strip().splitlines()
    return {line[:18].strip(): line[19:] for line in lines if line[:18].strip()} | {"": verdict}


@needs_kernels
def test_all_is_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ.get("STYLEGAN_TL_KERNELS")
    assert doctor.main() == 0
    table = _table(capsys.readouterr().out)
    assert table["torch"].startswith(torch.__version__)
    assert table["cache"] == f"{building.cache_dir()}, writable"
    for kind in ("CPU", "emulated"):
        assert table[f"{kind} kernels"].split(",")[0] in ("built", "cached")
    done = table["self-check, CPU"].split()
    assert done[0] == done[2] > "0"
    assert table[""].startswith("all is well")
    assert os.environ.get("STYLEGAN_TL_KERNELS") == before


@needs_kernels
def test_a_wrong_kernel_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(inputs: list[torch.Tensor], impl: str) -> torch.Tensor:
        if inputs[0].shape[0] == 3:
            raise ValueError("not\nthis")
        return inputs[0] * (2.001 if impl == "cpu" else 2)

    wrong = (
        check.Case("twice", twice, ((2, 3, 4, 5),), ("cpu",)),
        check.Case("thrice", twice, ((3, 3, 4, 5),), ("cpu",)),
    )
    monkeypatch.setattr(check, "CASES", wrong)
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert "0 of 6 right" in out
    assert "twice float32 contiguous: value off by 5.0e-04" in out
    assert "thrice float32 strided: ValueError: not" in out
    assert "STYLEGAN_TL_KERNELS=off" in _table(out)[""]


def test_a_missing_compiler(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/no/such")
    for kernels in (building.cpu_kernels, building.emulated_kernels):
        kernels.cache_clear()
    assert doctor.main() == 1
    table = _table(capsys.readouterr().out)
    assert table["CPU kernels"].startswith("failed")
    assert table["self-check, CPU"].startswith("not run")
    assert "apt install g++" in table[""]
    assert table[""].count("apt install g++") == 1  # said once, though three libraries lack it


@needs_kernels
def test_a_gpu_without_nvcc(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise toolkit.ToolError(toolkit._missing((13, 0), []))

    monkeypatch.setattr(toolkit, "toolkits", none)
    monkeypatch.setattr(toolkit, "driver_version", lambda: (13, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    building.cuda_kernels.cache_clear()
    assert doctor.main() == 1
    table = _table(capsys.readouterr().out)
    assert table["GPU"] == "NVIDIA H200, compute capability 9.0"
    assert table["CUDA kernels"].startswith("failed: no nvcc")
    assert "pip install 'nvidia-cuda-nvcc>=13,<14' 'nvidia-cuda-cccl>=13,<14'" in table[""]


@needs_kernels
def test_a_cache_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", str(tmp_path / "file" / "kernels"))
    monkeypatch.setattr(doctor, "_built", lambda what, *_: doctor._Finding(what, "not asked"))
    assert doctor.main() == 1
    table = _table(capsys.readouterr().out)
    assert "cannot be written" in table["cache"]
    assert "STYLEGAN_TL_KERNELS" in table[""]


def test_off_needs_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "cuda_ops.doctor"],
        cwd=ROOT,
        env=os.environ | {"STYLEGAN_TL_KERNELS": "off", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "unset it" in done.stdout
