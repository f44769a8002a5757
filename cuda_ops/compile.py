"""The one place that builds kernels: lazily, once, cached, and saying why when it cannot.

Three libraries with a plain C interface: the CPU kernels, the CUDA kernels, and the CUDA kernels
compiled for the CPU. They know no torch headers, so they build in seconds and do not break when
torch changes. `torch.utils.cpp_extension` is not used: it imports setuptools, which a fresh Python
3.12 lacks; it links torch's CUDA libraries; and the lock file of a builder that was killed makes
every later start wait for ever. Here locks belong to the kernel, which frees those of the dead.
"""

import ctypes
import errno
import functools
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cuda_ops import store
from cuda_ops import toolkit as tools

__all__ = [
    "Built", "CompileError", "build", "cache_dir", "cpu_kernels", "cuda_kernels",
    "emulated_kernels", "emulating",
]  # fmt: skip

SOURCES = Path(__file__).parent / "csrc"
_FULL = "No space left on device|Disk quota exceeded|Read-only file system"


class CompileError(RuntimeError):
    """A kernel could not be built or loaded; the message says why and what to do."""


class Built(NamedTuple):
    """A library in the cache, what it took to have it, and whether it was there already."""

    path: Path
    seconds: float
    cached: bool


class _Recipe(NamedTuple):
    kind: str
    compile: tuple[str, ...]  # the command up to `-c source -o object`
    link: tuple[str, ...]  # up to `objects -o library`
    sources: tuple[Path, ...]
    versions: tuple[str, ...]  # what else the result depends on


def cache_dir() -> Path:
    """Return where built kernels are kept.

    The folder that `$STYLEGAN_TL_KERNELS` names, `kernels` in `$STYLEGAN_TL_CACHE`, or the user's
    cache folder. Raises CompileError for a word that is neither a switch nor a path.
    """
    chosen, shared = _switch(), os.environ.get("STYLEGAN_TL_CACHE")
    if chosen not in ("", "off", "emulate"):
        if Path(chosen).name == chosen:  # a slip like OF must not become a folder
            raise CompileError(
                f"STYLEGAN_TL_KERNELS={chosen}: use off, emulate or a folder's path, ./{chosen}"
            )
        return Path(chosen).expanduser().absolute()
    if shared:
        return Path(shared).expanduser().absolute() / "kernels"
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home: no folder can be made there, see store.keep
        base = Path(os.devnull)
    return base / "stylegan_tl" / "kernels"


@functools.cache
def cpu_kernels() -> ctypes.CDLL | None:
    """Return the CPU kernels, built on the first call; None, after one warning, if impossible.

    `STYLEGAN_TL_KERNELS=off` asks for None without a warning.
    """
    if switched_off():
        return None
    kernels = _or_none("cpu", "CPU kernels are not available, training is about half as fast")
    for name in ("winograd_conv_scratch", "winograd_grad_scratch"):
        if kernels is not None:
            getattr(kernels, name).restype = ctypes.c_int64
    return kernels


@functools.cache
def cuda_kernels() -> ctypes.CDLL | None:
    """Return the CUDA kernels, built on the first call; None, after one warning, if impossible.

    None without a warning where torch has no NVIDIA GPU, and with `STYLEGAN_TL_KERNELS=off`.
    """
    if switched_off() or not _gpus():
        return None
    without = "CUDA kernels are not available, the slower reference operations take over"
    return _with_errors(_or_none("cuda", without, _probe))


@functools.cache
def emulated_kernels() -> ctypes.CDLL | None:
    """Return the CUDA kernels compiled for the CPU (csrc/emulator.h), built on the first call.

    None, after one warning, if impossible; None without one with `STYLEGAN_TL_KERNELS=off`.
    """
    if switched_off():
        return None
    return _with_errors(_or_none("emulated", "the CUDA kernels cannot be emulated"))


def switched_off() -> bool:
    """Say whether `STYLEGAN_TL_KERNELS=off` forces the references everywhere."""
    return _switch() == "off"


def emulating() -> bool:
    """Say whether CPU tensors are served by the emulated CUDA kernels."""
    return _switch() == "emulate"


def build(kind: str, architectures: Sequence[str] = ()) -> Built:
    """Build a library ("cpu", "cuda", "emulated") unless the cache has it; needs no GPU.

    `architectures` ("80", "90a") are those of `cuda`; by default `$CUDA_OPS_ARCH`, or the GPUs
    present. Where the cache cannot be written, a temporary folder serves this process. Raises
    CompileError, with the compiler's last words or the command that installs what is missing.
    """
    start = time.monotonic()
    recipes = {f"{r.kind}-{_key(r)}": r for r in _recipes(kind, tuple(architectures))}
    for stem in recipes:  # all, before any is built: the first may be one that fails
        if found := store.find(cache_dir(), stem) or store.find(None, stem):
            return Built(found, time.monotonic() - start, True)
    reasons = []
    for stem, recipe in recipes.items():
        try:
            path = store.keep(cache_dir(), stem, functools.partial(_compile, recipe))
            return Built(path, time.monotonic() - start, False)
        except (CompileError, store.Failed) as error:
            reasons.append(str(error))
    raise CompileError("\n".join(reasons))


# -- loading --------------------------------------------------------------------------------------


def _or_none(
    kind: str, without: str, check: Callable[[ctypes.CDLL], None] = lambda kernels: None
) -> ctypes.CDLL | None:
    """Build and load, or warn; `check(library)` raises CompileError if it does not run here."""
    try:
        library = _load(kind)
        check(library)
    except CompileError as error:
        warnings.warn(f"{without}: {error}", stacklevel=3)
        return None
    return library


def _load(kind: str) -> ctypes.CDLL:
    path = build(kind).path
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompileError(
            f"{path} cannot be loaded: {error}; if its file system executes nothing, name another "
            "folder in STYLEGAN_TL_KERNELS"
        ) from None


def _with_errors(kernels: ctypes.CDLL | None) -> ctypes.CDLL | None:
    if kernels is not None:
        kernels.cuda_ops_error.restype = ctypes.c_char_p
    return kernels


def _probe(kernels: ctypes.CDLL) -> None:
    """Raise CompileError if the driver cannot run these kernels on this GPU."""
    code = kernels.cuda_ops_probe()
    if code:
        reason = _with_errors(kernels).cuda_ops_error(code).decode()
        raise CompileError(
            f"the driver (CUDA {'.'.join(map(str, tools.driver_version() or '?'))}) refuses the "
            f"kernels: {reason}; update the driver, or name a toolkit of its version in CUDA_HOME"
        )


def _switch() -> str:
    """Return `$STYLEGAN_TL_KERNELS`: off and emulate in small letters, or a folder as it is."""
    said = os.environ.get("STYLEGAN_TL_KERNELS", "")
    return said.lower() if said.lower() in ("off", "emulate") else said


def _gpus() -> tuple[str, ...]:
    """Return the architectures of the NVIDIA GPUs present, as ("90",)."""
    import torch

    if not torch.cuda.is_available() or torch.version.cuda is None:
        return ()
    every = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
    return tools.architectures(" ".join(f"{major}{minor}" for major, minor in every))


# -- recipes --------------------------------------------------------------------------------------


def _recipes(kind: str, architectures: tuple[str, ...]) -> list[_Recipe]:
    """Return the ways to build a library, in the order in which they are tried."""
    try:
        compiler = tools.host_compiler()
        if kind == "cuda":
            wanted = tools.architectures(os.environ.get("CUDA_OPS_ARCH", ""))
            wanted = tuple(architectures) or wanted or _gpus()
            if not wanted:
                raise tools.ToolError("no GPU here; name its architecture in CUDA_OPS_ARCH ('90')")
            return [_cuda(t, compiler, wanted) for t in tools.toolkits()]
        return [{"cpu": _cpu, "emulated": _emulated}[kind](compiler)]
    except tools.ToolError as error:
        raise CompileError(str(error)) from None


def _cpu(compiler: tools.Compiler) -> _Recipe:
    """Return the recipe for this very CPU, sharing torch's OpenMP threads."""
    flags = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC")
    return _Recipe(
        "cpu",
        (*compiler.command, *flags),
        (*compiler.command, "-shared", "-fopenmp"),
        tuple(SOURCES.glob("*.cpp")),
        (compiler.version, _cpu_flags()),
    )


def _emulated(compiler: tools.Compiler) -> _Recipe:
    flags = ("-std=c++17", "-O1", "-fPIC", "-DCUDA_OPS_EMULATE", "-x", "c++")
    return _Recipe(
        "emulated",
        (*compiler.command, *flags),
        (*compiler.command, "-shared"),
        tuple(SOURCES.glob("*.cu")),
        (compiler.version,),
    )


def _cuda(toolkit: tools.Toolkit, compiler: tools.Compiler, wanted: tuple[str, ...]) -> _Recipe:
    """Return the recipe for GPUs. The CUDA runtime is linked statically (nvcc's habit), so that
    toolkit and torch may be of different versions.
    """
    words = [word for word in compiler.command if not word.startswith("-")]
    host = os.environ.get("CUDAHOSTCXX") or words[-1]  # the last of "ccache g++ -m64"
    command = (toolkit.nvcc, "-ccbin", host, *tools.gencode(toolkit, wanted), "-Xcompiler", "-fPIC")
    inherited = (os.environ.get(f"NVCC_{w}PEND_FLAGS", "") for w in ("PRE", "AP"))
    version = ".".join(map(str, toolkit.version))
    return _Recipe(
        "cuda",
        (*command, "-std=c++17", "-O3"),
        (*command, "-shared"),
        tuple(SOURCES.glob("*.cu")),
        (version, compiler.version, *inherited),
    )


def _key(recipe: _Recipe) -> str:
    """Digest everything that the library depends on; torch's version is not of it (no headers)."""
    parts = [*recipe.compile, "", *recipe.link, "", *recipe.versions, sys.platform]
    parts += [platform.machine(), *platform.libc_ver()]
    for path in sorted(_closure(recipe.sources)):
        parts += [path.name, path.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _closure(sources: Sequence[Path]) -> set[Path]:
    """Return the sources and all files of ours that they include, directly or not."""
    seen, todo = set(), list(sources)
    while todo:
        path = todo.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        names = re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(encoding="utf-8"), re.M)
        todo += [path.parent / name for name in names]
    return seen


def _cpu_flags() -> str:
    """Return the instruction sets of this CPU: a cache on a shared disk serves several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


# -- compiling ------------------------------------------------------------------------------------


def _compile(recipe: _Recipe, folder: Path) -> None:
    """Make folder/library.so, its units in parallel if ninja is there. Raises CompileError."""
    sources = sorted(recipe.sources, key=lambda path: (-path.stat().st_size, path.name))
    objects = [f"{path.stem}.o" for path in sources]
    steps = [
        (unit, (*recipe.compile, "-c", str(path.resolve()), "-o", unit), ())
        for path, unit in zip(sources, objects, strict=True)
    ]
    steps.append(("library.so", (*recipe.link, *objects, "-o", "library.so"), objects))
    done = _run(steps, folder)
    if done.returncode and "-allow-unsupported-compiler" in done.stdout:
        flag = "-allow-unsupported-compiler"  # nvcc's opinion of a newer g++, often too strict
        steps = [(made, (command[0], flag, *command[1:]), uses) for made, command, uses in steps]
        done = _run(steps, folder)
    if done.returncode and re.search(_FULL, done.stdout):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if done.returncode:
        raise CompileError(f"{' '.join(recipe.compile)} failed:\n{_last_words(done.stdout)}")


def _run(steps: Sequence[tuple], folder: Path) -> subprocess.CompletedProcess:
    """Run the steps (what is made, the command, what it is made of); stop at the first failure."""
    runner = tools.ninja()
    if runner:
        (folder / "build.ninja").write_text(_ninja_file(steps), encoding="utf-8")
        return _call((runner, "-j", str(_cores())), folder)
    done = None
    for _, command, _ in steps:
        done = _call(command, folder)
        if done.returncode:
            break
    return done


def _ninja_file(steps: Sequence[tuple]) -> str:
    lines = ["rule run", "  command = $line"]
    for made, command, uses in steps:
        lines.append(f"build {made}: run {' '.join(uses)}")
        lines.append(f"  line = {shlex.join(command).replace('$', '$$')}")
    return "\n".join(lines) + "\n"


def _call(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess:
    """Run in `folder`, temporary files included; what it prints, in English, is in `stdout`."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C", "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=store.PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise CompileError(f"{' '.join(command)} took longer than {store.PATIENCE:.0f} s") from None
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error}") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _last_words(text: str, lines: int = 15) -> str:
    """Return the output from its first error on, or its end."""
    ours = ("[", "FAILED:", "ninja:")
    said = [line for line in text.strip().splitlines() if not line.startswith(ours)]
    wrong = re.compile(r"\berror(:| #)|\bfatal\b")
    first = next((i for i, line in enumerate(said) if wrong.search(line)), None)
    chosen = said[-lines:] if first is None else said[first : first + lines]
    return "\n".join(chosen)[:2000]
