"""Building the kernels: when, where, how often, and what happens when it is not possible."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from cuda_ops import compile as building
from cuda_ops import store, toolkit
from cuda_ops.compile import CompileError, build, cache_dir, cpu_kernels, cuda_kernels
from cuda_ops.conv3x3 import conv3x3

ROOT = Path(__file__).parents[2]
needs_kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
# A process that builds SOURCES without importing torch, whose import would take all the time.
LIGHT = """
import ctypes, pathlib, sys, types
package = types.ModuleType("cuda_ops")
package.__path__ = [{package!r}]
sys.modules["cuda_ops"] = package
from cuda_ops import compile as building
building.SOURCES = pathlib.Path({sources!r})
assert "torch" not in sys.modules
"""
BUILD = """
print(ctypes.CDLL(str(building.build("cpu").path)).answer())
"""
# Twenty-five of them at once.
FORK = """
def build():
    return ctypes.CDLL(str(building.build("cpu").path)).answer()

import os
children = [os.fork() or os._exit(build()) for _ in range(25)]
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
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


def _start(code: str, *options: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", *options, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def _wait_for(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def _answer(path: Path) -> int:
    return ctypes.CDLL(str(path)).answer()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the kernels before and after, so that each test meets its own environment."""
    yield
    monkeypatch.undo()
    for kernels in (cpu_kernels, cuda_kernels, store._own_folder):
        kernels.cache_clear()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny units and an own cache, in which this process builds too."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / "one.cpp").write_text('#include "two.h"\nextern "C" int answer() { return two(); }')
    (folder / "two.cpp").write_text('#include "two.h"\nint two() { return TWO; }')
    (folder / "two.h").write_text("#define TWO 42\nint two();\n")
    monkeypatch.setattr(building, "SOURCES", folder)
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", str(tmp_path / "kernels"))
    return folder


def _light(sources: Path, then: str = BUILD, **env: str) -> subprocess.Popen:
    code = LIGHT.format(package=str(ROOT / "cuda_ops"), sources=str(sources)) + then
    return _start(code, "-S", STYLEGAN_TL_KERNELS=str(sources.parent / "kernels"), **env)


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


# -- when, and how often --------------------------------------------------------------------------


def test_import_builds_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "kernels"
    code = "import cuda_ops, cuda_ops.check, stylegan_tl.networks.stylegan2\n"
    code = "import subprocess\nsubprocess.run = None\n" + code  # no compiler is asked
    _finish(_start(code, STYLEGAN_TL_KERNELS=str(cache)))
    assert not cache.exists()


@needs_compiler
def test_two_hundred_processes_build_once(sources: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    compiler = _script(tmp_path / "cxx", f'[ "$1" = --version ] || echo x >>{log}\nexec g++ "$@"')
    crowd = [_light(sources, FORK, CXX=compiler) for _ in range(8)]
    assert [_finish(process) for process in crowd] == [f"{[42] * 25}\n"] * 8
    assert log.read_text() == "x\n" * 3  # two units and the link, once
    left = sorted(path.suffix for path in (tmp_path / "kernels").iterdir())
    assert left == [".lock", ".so"]  # one library and nothing half-made


@needs_compiler
def test_a_file_system_without_locks(sources: Path, tmp_path: Path) -> None:
    fail = "import fcntl\ndef fail(*_): raise OSError(37, 'No locks available')\nfcntl.flock = fail"
    assert _finish(_light(sources, f"{fail}\n{FORK.replace('25', '8')}")) == f"{[42] * 8}\n"
    assert all(path.suffix in (".so", ".lock") for path in (tmp_path / "kernels").iterdir())


@needs_compiler
def test_the_second_time_it_is_taken_as_it_is(sources: Path) -> None:
    first, second = build("cpu"), build("cpu")
    assert (first.cached, second.cached) == (False, True)
    assert first.path == second.path
    assert _answer(first.path) == 42


@needs_compiler
def test_units_compile_without_ninja(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "ninja", lambda: None)
    assert _answer(build("cpu").path) == 42


@needs_compiler
def test_awkward_paths(tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    awkward = tmp_path / "a $b: 'c\" d"
    sources.rename(awkward)
    monkeypatch.setattr(building, "SOURCES", awkward)
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", str(awkward / "kernels"))
    assert _answer(build("cpu").path) == 42


@needs_compiler
def test_key_follows_what_the_library_depends_on(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(kind: str = "cpu", *architectures: str) -> str:
        (recipe,) = building._recipes(kind, architectures)
        return building._key(recipe)

    first, keys = key(), [key()]
    (sources / "unrelated.cu").write_text("__global__ void kernel() {}")
    assert key() == first  # CUDA's sources do not concern the CPU kernels
    (sources / "two.h").write_text("#define TWO 43\nint two();\n")
    keys.append(key())
    (sources / "three.cpp").write_text("int three;")
    keys.append(key())
    compiler = _script(tmp_path / "cxx", 'echo version "$(cat $0.version)"')
    monkeypatch.setenv("CXX", compiler)
    for version in "12":
        (tmp_path / "cxx.version").write_text(version)
        keys.append(key())
    monkeypatch.setattr(building, "_cpu_flags", lambda: "another")
    keys += [key(), key("emulated")]
    newer, other = (toolkit.Toolkit("nvcc", "PATH", (13, n, 0), (80, 90)) for n in (1, 2))
    for tools in (newer, other):
        monkeypatch.setattr(toolkit, "toolkits", lambda tools=tools: [tools])
        keys += [key("cuda", "80"), key("cuda", "90"), key("cuda", "80", "90")]
    assert len(set(keys)) == len(keys)


def test_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    for name in ("STYLEGAN_TL_KERNELS", "STYLEGAN_TL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert cache_dir() == Path("/x/stylegan_tl/kernels")
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "/y")
    assert cache_dir() == Path("/y")
    for switch in ("emulate", "OFF"):
        monkeypatch.setenv("STYLEGAN_TL_KERNELS", switch)
        assert cache_dir() == Path("/x/stylegan_tl/kernels")
    monkeypatch.setenv("STYLEGAN_TL_CACHE", "/z")
    assert cache_dir() == Path("/z/kernels")
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "./here")
    assert cache_dir() == Path.cwd() / "here"
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "offf")
    with pytest.raises(CompileError, match="use off, emulate or"):
        cache_dir()


# -- the dead, the damaged and the full -----------------------------------------------------------


@needs_compiler
def test_a_killed_builder_blocks_nobody(sources: Path, tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    wait = f"for i in $(seq 300); do [ -e {go} ] && break; sleep 0.1; done"
    slow = _script(
        tmp_path / "cxx",
        f"""if [ "$1" != --version ]
        then touch {started}; {wait}
        fi; exec g++ "$@" """,
    )
    builder = _light(sources, CXX=slow)
    _wait_for(started.exists)  # it holds the lock, and its compiler is at work
    waiting = _light(sources, CXX=slow)
    time.sleep(0.3)
    kernels = tmp_path / "kernels"
    (left,) = kernels.glob("*.building")
    builder.kill()  # not even a chance to unlock
    builder.communicate()
    _wait_for(lambda: [p for p in kernels.glob("*.building") if p != left])
    gone = not left.exists()  # the one that waited took over and cleared away
    go.touch()
    assert _finish(waiting) == "42\n"
    assert gone
    _wait_for(lambda: sorted(p.suffix for p in kernels.iterdir()) == [".lock", ".so"])


@needs_compiler
def test_leftovers_of_other_builds_are_cleared_those_of_the_living_are_not(
    sources: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "kernels" / f"cpu-{name}.x.building" for name in ("dead", "living")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "alive").touch()
    with open(folders[1] / "alive", "rb") as alive:
        assert store._try_lock(alive.fileno()) is True
        build("cpu")
        assert [folder.exists() for folder in folders] == [False, True]


@needs_compiler
def test_a_builder_that_hangs_is_waited_for_only_so_long(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (recipe,) = building._recipes("cpu", ())
    cache_dir().mkdir()
    with open(cache_dir() / f"cpu-{building._key(recipe)}.lock", "w", encoding="utf-8") as lock:
        assert store._try_lock(lock.fileno())
        monkeypatch.setattr(store, "PATIENCE", 0.2)
        start = time.monotonic()
        path = store.keep(cache_dir(), "x-1", lambda work: (work / "library.so").touch())
        assert time.monotonic() - start < 0.15  # another library is not concerned
        monkeypatch.setattr(building, "_call", lambda *_: pytest.fail("never asked"))
        monkeypatch.setattr(
            building, "_compile", lambda _, work: (work / "library.so").write_bytes(b"made")
        )
        assert build("cpu").path.read_bytes() == b"made"
        assert path.exists()


@needs_compiler
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_library_is_built_anew(sources: Path, damage: str) -> None:
    path = build("cpu").path
    whole = path.read_bytes()
    bad = {"truncated": whole[: len(whole) // 2], "garbage": b"x" * len(whole), "empty": b""}
    path.unlink()
    path.write_bytes(bad[damage])
    again = build("cpu")
    assert not again.cached
    assert _answer(again.path) == 42
    assert list(path.parent.glob("*.so")) == [again.path]


@needs_compiler
def test_a_folder_that_cannot_be_written_gives_way_to_a_temporary_one(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", str(tmp_path / "file" / "kernels"))
    with pytest.warns(UserWarning, match="file/kernels: Not a directory.*STYLEGAN_TL_KERNELS"):
        built = build("cpu")
    assert _answer(built.path) == 42
    assert build("cpu") == (built.path, pytest.approx(0, abs=1), True)  # and no second warning


@needs_compiler
@pytest.mark.parametrize("where", ["lock", "compiler", "rename"])
def test_a_full_disk(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    kernels = tmp_path / "kernels"

    def full(real):
        def fails(first, *more, **named):
            if str(kernels) in str(first):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(first, *more, **named)

        return fails

    if where == "lock":
        monkeypatch.setattr("builtins.open", full(open))
    elif where == "rename":
        monkeypatch.setattr(os, "replace", full(os.replace))
    else:
        text = (
            f'case "$PWD" in {kernels}*) echo "as: a.o: No space left on device" >&2; exit 1;; esac'
        )
        monkeypatch.setenv("CXX", _script(tmp_path / "cxx", f'{text}\nexec g++ "$@"'))
    with pytest.warns(UserWarning, match="No space left on device"):
        path = build("cpu").path
    assert _answer(path) == 42
    assert kernels not in path.parents
    assert not list(kernels.glob("*.so")) + list(kernels.glob("*.building"))


@needs_compiler
def test_a_temporary_folder_is_gone_when_its_process_ends(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "kernels").touch()
    (tmp_path / "tmp").mkdir()
    code = LIGHT.format(package=str(ROOT / "cuda_ops"), sources=str(sources)) + BUILD
    code = "import warnings\nwarnings.simplefilter('ignore')\n" + code
    env = {"STYLEGAN_TL_KERNELS": str(tmp_path / "kernels"), "TMPDIR": str(tmp_path / "tmp")}
    assert _finish(_start(code, **env)) == "42\n"
    assert list((tmp_path / "tmp").iterdir()) == []


# -- failure --------------------------------------------------------------------------------------


def test_missing_compiler_warns_once_and_training_goes_on(tmp_path: Path) -> None:
    out = _finish(_start(TRAIN, CXX="/no/such", STYLEGAN_TL_KERNELS=str(tmp_path)))
    done, *message = out.splitlines()
    assert done == "True 1"
    for word in ("/no/such", "install", "apt install g++", "CXX"):
        assert word in "\n".join(message)


def test_off_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "off")
    monkeypatch.setattr(building, "build", lambda *_: pytest.fail("built"))
    cpu_kernels.cache_clear()
    x, w = torch.randn(2, 16, 8, 8), torch.randn(16, 16, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cpu_kernels() is None
        assert cuda_kernels() is None
        y = conv3x3(x, w)
    assert torch.equal(y, torch.nn.functional.conv2d(x, w, padding=1))
    with pytest.raises(ValueError, match="impl='cpu'"):
        conv3x3(x, w, impl="cpu")


def test_failing_compiler_shows_its_words(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", _script(tmp_path / "bad", "echo broken header >&2\nexit 1"))
    cpu_kernels.cache_clear()
    with pytest.warns(UserWarning, match="broken header"):
        assert cpu_kernels() is None
    assert cpu_kernels() is None  # and no second warning
    assert [path.suffix for path in cache_dir().iterdir()] == [".lock"]


@needs_compiler
def test_the_first_error_is_shown(sources: Path) -> None:
    (sources / "two.cpp").write_text('#warning "noise"\nint two() { return undeclared; }')
    with pytest.raises(CompileError, match="'undeclared' was not declared") as caught:
        build("cpu")
    assert "noise" not in str(caught.value)
    (sources / "two.cpp").write_text("int two() { return 43; }")
    assert _answer(build("cpu").path) == 43  # a failure is not remembered


@needs_compiler
def test_those_who_wait_for_a_failure_do_not_repeat_it(sources: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = f'[ "$1" = --version ] && exit\necho x >>{log}; sleep 1; echo error: bad >&2; exit 1'
    crowd = [_light(sources, CXX=_script(tmp_path / "cxx", text)) for _ in range(5)]
    for process in crowd:
        assert "error: bad" in process.communicate(timeout=60)[1]
        assert process.returncode == 1
    assert log.read_text().count("x") <= 2  # two units at a time; the others heard of it
