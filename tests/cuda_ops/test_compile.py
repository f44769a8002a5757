"""Building the kernels: when, where, how often, and what happens when it is not possible."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from cuda_ops import compile as building
from cuda_ops.compile import cache_dir, cpu_kernels
from cuda_ops.conv3x3 import conv3x3

ROOT = Path(__file__).parents[2]
needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
BUILD = "from cuda_ops.compile import cpu_kernels; print(cpu_kernels().winograd_lanes())"
TRAIN = """
import warnings
import torch
from stylegan_tl.networks.stylegan2 import Discriminator
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    torch.manual_seed(0)
    model = Discriminator(resolution=16, channel_base=256, channel_max=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    images, losses = torch.randn(4, 3, 16, 16), []
    for _ in range(6):
        loss = torch.nn.functional.softplus(model(images)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
print(losses[-1] < losses[0], len(caught))
print(*(w.message for w in caught), sep="\\n")
"""


def _start(code: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the kernels before and after, so that each test meets its own environment."""
    yield
    monkeypatch.undo()
    cpu_kernels.cache_clear()


def test_import_builds_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "kernels"
    code = "import cuda_ops, stylegan_tl.networks.stylegan2\n"
    code = "import subprocess\nsubprocess.run = None\n" + code  # no compiler is asked
    _finish(_start(code, STYLEGAN_TL_KERNELS=str(cache)))
    assert not cache.exists()


@needs_kernels
def test_parallel_builds(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "kernels"
    both = [_start(BUILD, STYLEGAN_TL_KERNELS=str(cache)) for _ in range(2)]
    lanes = [int(_finish(process)) for process in both]
    assert lanes == [cpu_kernels().winograd_lanes()] * 2
    (library,) = cache.iterdir()  # one library and nothing half-made
    assert library.suffix == ".so"
    built = library.stat().st_mtime_ns
    _finish(_start(BUILD, STYLEGAN_TL_KERNELS=str(cache), PATH=os.environ["PATH"]))
    assert library.stat().st_mtime_ns == built  # the second time it is taken as it is


def test_missing_compiler_warns_once_and_training_goes_on(tmp_path: Path) -> None:
    out = _finish(_start(TRAIN, CXX="/no/such", STYLEGAN_TL_KERNELS=str(tmp_path)))
    done, *message = out.splitlines()
    assert done == "True 1"
    for word in ("/no/such", "install", "apt install g++", "CXX"):
        assert word in "\n".join(message)


def test_off_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "off")
    monkeypatch.setattr(building, "_build", lambda: pytest.fail("built"))
    cpu_kernels.cache_clear()
    x, w = torch.randn(2, 16, 8, 8), torch.randn(16, 16, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cpu_kernels() is None
        y = conv3x3(x, w)
    assert torch.equal(y, torch.nn.functional.conv2d(x, w, padding=1))
    with pytest.raises(ValueError, match="impl='cpu'"):
        conv3x3(x, w, impl="cpu")


def test_failing_compiler_shows_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "bad"
    compiler.write_text("#!/bin/sh\necho broken header >&2\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", str(tmp_path / "kernels"))
    cpu_kernels.cache_clear()
    with pytest.warns(UserWarning, match="broken header"):
        assert cpu_kernels() is None
    assert cpu_kernels() is None  # and no second warning
    assert list((tmp_path / "kernels").iterdir()) == []


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("STYLEGAN_TL_KERNELS", raising=False)
    assert cache_dir() == Path("/x/stylegan_tl/kernels")
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "/y")
    assert cache_dir() == Path("/y")


def test_key_follows_sources_and_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {building._key("true")}
    keys.add(building._key("echo"))
    monkeypatch.setattr(building, "SOURCES", tmp_path)
    (tmp_path / "a.cpp").write_text("int a;", encoding="utf-8")
    keys.add(building._key("true"))
    (tmp_path / "a.cpp").write_text("int b;", encoding="utf-8")
    keys.add(building._key("true"))
    monkeypatch.setattr(building, "_cpu", lambda: "another")
    keys.add(building._key("true"))
    assert len(keys) == 5
