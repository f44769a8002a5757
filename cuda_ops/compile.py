"""The one place that builds kernels: lazily, once, cached, and saying why when it cannot.

The CPU kernels have a plain C interface, so that they build in seconds (no torch headers), do not
break when torch changes, and share torch's OpenMP threads. They are compiled for this very CPU.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

__all__ = [
    "CompileError", "cache_dir", "cpu_kernels", "cuda_kernels", "emulated_kernels", "emulating",
]  # fmt: skip

SOURCES = Path(__file__).parent / "csrc"
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno")


class CompileError(RuntimeError):
    """A kernel could not be built or loaded; the message says why and what to do."""


def cache_dir() -> Path:
    """Return where built kernels are kept: `$STYLEGAN_TL_KERNELS` or the user's cache folder."""
    chosen = os.environ.get("STYLEGAN_TL_KERNELS")
    chosen = None if chosen in ("off", "emulate") else chosen
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "stylegan_tl" / "kernels"


@functools.cache
def cpu_kernels() -> ctypes.CDLL | None:
    """Return the CPU kernels, built on the first call; None, after one warning, if impossible.

    `STYLEGAN_TL_KERNELS=off` asks for None without a warning.
    """
    if os.environ.get("STYLEGAN_TL_KERNELS") == "off":
        return None
    try:
        return _load(_build("cpu", _FLAGS, sorted(SOURCES.glob("*.cpp"))))
    except (CompileError, OSError) as error:
        warnings.warn(
            f"CPU kernels are not available, training is about half as fast: {error}", stacklevel=2
        )
        return None


@functools.cache
def cuda_kernels() -> ctypes.CDLL | None:
    """Return the CUDA kernels, built on the first call; None, after one warning, if impossible."""
    return None


@functools.cache
def emulated_kernels() -> ctypes.CDLL | None:
    """Return the CUDA kernels compiled for the CPU (csrc/emulator.h), built on the first call."""
    sources = sorted(SOURCES.glob("*.cu"))
    flags = ("-std=c++17", "-O1", "-fPIC", "-shared", "-DCUDA_OPS_EMULATE", "-x", "c++")
    library = ctypes.CDLL(str(_build("emulated", flags, sources)))
    library.cuda_ops_error.restype = ctypes.c_char_p
    return library


def emulating() -> bool:
    """Say whether CPU tensors are served by the emulated CUDA kernels."""
    return os.environ.get("STYLEGAN_TL_KERNELS") == "emulate"


def _build(kind: str, flags: tuple[str, ...], sources: list[Path]) -> Path:
    """Compile the sources unless the cache has them; return the shared library."""
    compiler = _compiler()
    command = [compiler, *flags, *map(str, sources)]
    library = cache_dir() / f"{kind}-{_key(compiler, flags)}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=library.parent, suffix=".partial")
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", partial], capture_output=True, text=True)
        if done.returncode:
            raise CompileError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        os.replace(partial, library)  # atomic: parallel builds leave one whole file
    finally:
        Path(partial).unlink(missing_ok=True)
    return library


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        if shutil.which(name):
            return name
    raise CompileError(
        f"no C++ compiler found ({', '.join(names)}); install one (for instance `apt install g++`) "
        "or name it in CXX"
    )


def _key(compiler: str, flags: tuple[str, ...] = _FLAGS) -> str:
    """Digest everything that the library depends on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    parts = [version, *flags, platform.platform(), _cpu()]
    parts += [p.name + p.read_text(encoding="utf-8") for p in sorted(SOURCES.iterdir())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """Return the instruction sets of this CPU: a cache on a shared disk serves several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name in ("winograd_conv_scratch", "winograd_grad_scratch"):
        getattr(library, name).restype = ctypes.c_int64
    return library
