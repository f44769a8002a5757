"""Finding nvcc, choosing architectures, and the CUDA kernels' way from there; no GPU is needed."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import pytest
import torch

from cuda_ops import compile as building
from cuda_ops import toolkit
from cuda_ops.compile import CompileError, build, cuda_kernels

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def _answer(path: Path) -> int:
    return ctypes.CDLL(str(path)).answer()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the kernels, so that each test meets its own environment."""
    yield
    monkeypatch.undo()
    cuda_kernels.cache_clear()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for sources and an own cache."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    monkeypatch.setattr(building, "SOURCES", folder)
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", str(tmp_path / "kernels"))
    return folder


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def _nvcc(path: Path, version: str = "13.0.88", then: str = "exit 1") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f'case "$1" in --version) echo V{version}; exit;; --list-gpu-arch) '
    return _script(path, f"{text}printf 'compute_80\\ncompute_90\\n'; exit;; esac\n{then}")


@pytest.fixture
def _no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "driver_version", lambda: None)
    monkeypatch.setattr(toolkit, "_packaged", lambda: iter(()))
    for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_OPS_ARCH", "CUDAHOSTCXX"):
        monkeypatch.delenv(name, raising=False)
    real = os.path.isfile
    monkeypatch.setattr(
        os.path, "isfile", lambda p: not str(p).startswith("/usr/local/cuda") and real(p)
    )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def test_cuda_is_silent_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STYLEGAN_TL_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(building, "build", lambda *_: pytest.fail("built"))
    cuda_kernels.cache_clear()
    assert cuda_kernels() is None


@needs_compiler
@pytest.mark.usefixtures("_no_toolkit")
def test_a_gpu_without_nvcc_names_the_command(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_gpus", lambda: ("90",))
    cuda_kernels.cache_clear()
    with pytest.warns(UserWarning, match="pip install 'nvidia-cuda-nvcc>=13,<14'"):
        assert cuda_kernels() is None
    assert cuda_kernels() is None  # and no second warning


@pytest.mark.usefixtures("_no_toolkit")
def test_toolkits_are_tried_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("home", "path", "pip")
    home, path, pip = (_nvcc(tmp_path / name / "bin" / "nvcc") for name in names)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "nvcc").symlink_to(path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'links'}:/usr/bin:/bin")
    monkeypatch.setattr(toolkit, "_packaged", lambda: iter([Path(pip)]))
    found = toolkit.toolkits()
    assert [(t.nvcc, t.origin) for t in found] == [
        (home, "CUDA_HOME"),
        (path, "PATH"),
        (pip, "pip"),
    ]
    assert found[0][2:] == ((13, 0, 88), (80, 90))
    monkeypatch.setattr(toolkit, "driver_version", lambda: (12, 8))
    with pytest.raises(toolkit.ToolError, match="driver serves CUDA 12.8.*update the driver"):
        toolkit.toolkits()


@needs_compiler
@pytest.mark.usefixtures("_no_toolkit")
def test_the_next_toolkit_serves_where_the_first_fails(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources / "k.cu").write_text('extern "C" int answer() { return 42; }')
    then = "echo 'error: too old' >&2; exit 1"
    _nvcc(tmp_path / "old" / "bin" / "nvcc", then=then)
    then = 'case "$*" in *-shared*) exec g++ -shared k.o -o library.so;; esac\n'
    then += f"exec g++ -fPIC -x c++ -c {sources}/k.cu -o k.o"
    good = _nvcc(tmp_path / "good" / "bin" / "nvcc", then=then)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "old"))
    with pytest.raises(CompileError, match="too old"):
        build("cuda", ["90"])
    monkeypatch.setattr(toolkit, "_packaged", lambda: iter([Path(good)]))
    assert _answer(build("cuda", ["90"]).path) == 42
    assert build("cuda", ["90"]).cached  # without asking the first again


@needs_compiler
@pytest.mark.usefixtures("_no_toolkit")
def test_a_newer_host_compiler_than_nvcc_likes_is_tried(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources / "k.cu").write_text("")
    then = """case "$*" in *-allow-unsupported-compiler*) ;; *)
        echo "#error -- unsupported GNU version! use -allow-unsupported-compiler" >&2; exit 1;;
        esac; for out; do :; done; echo made >$out"""
    _nvcc(tmp_path / "home" / "bin" / "nvcc", then=then)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert build("cuda", ["90"]).path.read_text() == "made\n"


def test_a_driver_that_refuses_the_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        cuda_ops_probe = staticmethod(lambda: 35)

        @staticmethod
        def cuda_ops_error(code: int) -> bytes:
            return b"driver version is insufficient"

    Refused.cuda_ops_error.restype = None
    monkeypatch.setattr(toolkit, "driver_version", lambda: (13, 0))
    with pytest.raises(CompileError, match=r"CUDA 13\.0.*is insufficient; update the driver"):
        building._probe(Refused)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("90", ["compute_90,code=sm_90", "compute_90,code=compute_90"]),
        (
            "8.0;90a",
            ["compute_80,code=sm_80", "compute_90a,code=sm_90a", "compute_90a,code=compute_90a"],
        ),
        ("100", ["compute_90,code=compute_90"]),  # newer than nvcc: its newest PTX
        ("86 100", ["compute_80,code=compute_80", "compute_90,code=compute_90"]),
    ],
)
def test_architectures(wanted: str, expected: list[str]) -> None:
    tools = toolkit.Toolkit("nvcc", "PATH", (13, 0, 88), (80, 90))
    flags = toolkit.gencode(tools, toolkit.architectures(wanted))
    assert list(flags) == [f"-gencode=arch={flag}" for flag in expected]


def test_wrong_architectures() -> None:
    tools = toolkit.Toolkit("nvcc", "PATH", (13, 0, 88), (80, 90))
    with pytest.raises(toolkit.ToolError, match=r"13\.0\.88.*sm_80 and newer.*sm_70.*CUDA_HOME"):
        toolkit.gencode(tools, ["70"])
    with pytest.raises(toolkit.ToolError, match="CUDA_OPS_ARCH='hopper'"):
        toolkit.architectures("hopper")
