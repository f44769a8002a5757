"""Every CUDA source compiles for every architecture of the project, without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cuda_ops import compile as building
from cuda_ops import toolkit

ARCHITECTURES = ("80", "90", "100", "120")
SOURCES = sorted(building.SOURCES.glob("*.cu"))


def _toolkit() -> toolkit.Toolkit | None:
    try:
        return toolkit.toolkits()[0] if shutil.which("g++") else None
    except toolkit.ToolError:
        return None


needs_nvcc = pytest.mark.skipif(_toolkit() is None, reason="needs nvcc and g++")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess]:
    """All sources, compiled in parallel, one call of nvcc for each."""
    out = tmp_path_factory.mktemp("objects")
    (recipe,) = building._recipes("cuda", ARCHITECTURES)[:1]

    def run(source: Path) -> subprocess.CompletedProcess:
        strict = ("-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror")
        command = (*recipe.compile, *strict, "-c", str(source), "-o", str(out / f"{source.stem}.o"))
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip([s.name for s in SOURCES], pool.map(run, SOURCES), strict=True))


@needs_nvcc
@pytest.mark.parametrize("name", [source.name for source in SOURCES])
def test_compiles(name: str, compiled: dict[str, subprocess.CompletedProcess]) -> None:
    done = compiled[name]
    assert done.returncode == 0, done.stderr[:4000]


@needs_nvcc
def test_builds_and_loads_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "csrc").mkdir()
    for name in ("error.cu", "device.cuh"):
        shutil.copy(building.SOURCES / name, tmp_path / "csrc")
    monkeypatch.setattr(building, "SOURCES", tmp_path / "csrc")
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", str(tmp_path / "kernels"))
    kernels = building._with_errors(building.ctypes.CDLL(str(building.build("cuda", ["90"]).path)))
    assert kernels.cuda_ops_error(0) == b"no error"
    assert kernels.cuda_ops_error(1) == b"invalid argument"
    needed = subprocess.run(["ldd", kernels._name], capture_output=True, text=True).stdout
    assert "cudart" not in needed  # linked statically: independent of torch's


def test_kernels_know_no_torch_and_launch_in_one_way() -> None:
    for path in building.SOURCES.glob("*.cu*"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#\s*include\s*[<\"](torch|ATen|c10)/", text), path.name
        assert path.name == "device.cuh" or "<<<" not in text, path.name
