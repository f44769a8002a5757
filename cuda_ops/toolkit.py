"""Finding what builds kernels: a C++ compiler, nvcc, ninja; and the command that installs each.

Free of torch, and nothing is run or searched on import.
"""

import ctypes
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Compiler", "ToolError", "Toolkit", "architectures", "driver_version", "gencode",
    "host_compiler", "ninja", "toolkits",
]  # fmt: skip

PIP = "pip install 'nvidia-cuda-nvcc>=13,<14' 'nvidia-cuda-cccl>=13,<14'"
_ARCHIVE = "https://developer.nvidia.com/cuda-toolkit-archive"


class ToolError(RuntimeError):
    """A tool is missing or does not fit; the message says what installs it."""


class Compiler(NamedTuple):
    """A C++ compiler: its command and the version that it reports."""

    command: tuple[str, ...]
    version: str


class Toolkit(NamedTuple):
    """An nvcc, where it was found, its version (13, 0, 88), and the GPUs it compiles for (90)."""

    nvcc: str
    origin: str
    version: tuple[int, ...]
    knows: tuple[int, ...]


def host_compiler() -> Compiler:
    """Return `$CXX`, or the first of g++, clang++ and c++; raises ToolError if there is none."""
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["g++", "clang++", "c++"]:
        command = tuple(shlex.split(name))
        if command and shutil.which(command[0]):
            return Compiler(command, _say(*command, "--version"))
    raise ToolError(
        f"no C++ compiler found ({chosen or 'g++, clang++, c++'}); install one (`apt install g++`, "
        "`dnf install gcc-c++`, `conda install gxx`) or name it in CXX"
    )


def toolkits() -> list[Toolkit]:
    """Return every nvcc that answers, in the order in which they are tried; raises ToolError.

    CUDA_HOME, the PATH, the pip-installed one (extra `[cuda]`), /usr/local/cuda. One that is newer
    than the driver (by the major version) is left out: its kernels would not run.
    """
    found, driver, reasons = [], driver_version(), []
    for path, origin in _candidates():
        said = re.search(r"V(\d+)\.(\d+)\.(\d+)", _say(path, "--version"))
        listed = re.findall(r"compute_(\d+)$", _say(path, "--list-gpu-arch"), re.MULTILINE)
        if said is None or not listed:
            reasons.append(f"{path} ({origin}) does not answer")
        elif driver and int(said[1]) > driver[0]:
            reasons.append(f"{path} ({origin}) is of CUDA {said[1]}.{said[2]}")
        else:
            numbers = tuple(sorted(map(int, listed)))
            found.append(Toolkit(path, origin, tuple(map(int, said.groups())), numbers))
    if not found:
        raise ToolError(_missing(driver, reasons))
    return found


def ninja() -> str | None:
    """Return the path of ninja, of its Python package or on the PATH; None without it."""
    if importlib.util.find_spec("ninja"):
        import ninja as package

        path = Path(package.BIN_DIR) / "ninja"
        if path.is_file():
            return str(path)
    return shutil.which("ninja")


def driver_version() -> tuple[int, int] | None:
    """Return the newest CUDA that the installed driver serves, as (13, 0); None without one."""
    number = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if failed or not number.value else (number.value // 1000, number.value % 1000 // 10)


def architectures(text: str) -> tuple[str, ...]:
    """Return the architectures of a list such as "8.0;9.0a" or "80, 90a": ("80", "90a")."""
    items = [item.removeprefix("sm_").replace(".", "") for item in re.split(r"[\s,;]+", text)]
    bad = [item for item in items if item and not re.fullmatch(r"\d{2,3}[af]?", item)]
    if bad:
        raise ToolError(f"CUDA_OPS_ARCH={text!r} is not a list such as '80 90'")
    return tuple(sorted({item for item in items if item}, key=lambda a: (_number(a), a)))


def gencode(toolkit: Toolkit, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return nvcc's flags: machine code for each architecture, and PTX of the highest.

    A GPU that nvcc does not know gets the PTX of the newest one below it, which the driver
    translates. Raises ToolError if the GPU is older than all that nvcc knows.
    """
    flags, highest = [], max(wanted, key=_number)
    for arch in wanted:
        below = [known for known in toolkit.knows if known <= _number(arch)]
        if not below:
            raise ToolError(
                f"{_name(toolkit)} compiles for sm_{toolkit.knows[0]} and newer, the GPU is "
                f"sm_{arch}: install an older CUDA ({_ARCHIVE}) and name it in CUDA_HOME"
            )
        if _number(arch) in below:
            flags.append(f"-gencode=arch=compute_{arch},code=sm_{arch}")
        if arch == highest or _number(arch) not in below:
            known = arch if _number(arch) in below else str(below[-1])
            flags.append(f"-gencode=arch=compute_{known},code=compute_{known}")
    return tuple(dict.fromkeys(flags))


def _candidates() -> Iterator[tuple[str, str]]:
    """Yield the paths of nvcc and where they were found, each once."""
    homes = [(Path(os.environ[k]), k) for k in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(k)]
    paths = [(str(home / "bin" / "nvcc"), origin) for home, origin in homes]
    paths.append((shutil.which("nvcc") or "", "PATH"))
    paths += [(str(path), "pip") for path in _packaged()]
    paths.append(("/usr/local/cuda/bin/nvcc", "/usr/local/cuda"))
    seen = set()
    for path, origin in paths:
        real = os.path.realpath(path)  # nvcc looks for its parts beside itself, not beside a link
        if os.access(real, os.X_OK) and os.path.isfile(real) and real not in seen:
            seen.add(real)
            yield real, origin


def _packaged() -> Iterator[Path]:
    """Yield nvcc of the packages nvidia-cuda-nvcc: site-packages/nvidia/cu13/bin/nvcc."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(folder).glob("cu[0-9]*/bin/nvcc"), reverse=True)


def _missing(driver: tuple[int, int] | None, reasons: list[str]) -> str:
    if driver and driver[0] < 13:
        version = f"{driver[0]}.{driver[1]}"
        cure = f"install the toolkit of CUDA {version} or older ({_ARCHIVE}) and name it in "
        cure += "CUDA_HOME, or update the driver"
        reasons = [*reasons, f"the driver serves CUDA {version}"]
    else:
        cure = f"install it with `{PIP}`, which the extra `[cuda]` of this package does too"
    where = "no nvcc that fits in CUDA_HOME, on the PATH, among the pip packages or in /usr/local"
    return f"{where}{''.join(f'; {r}' for r in reasons)}: {cure}"


def _number(arch: str) -> int:
    return int(arch.rstrip("af"))


def _name(toolkit: Toolkit) -> str:
    return f"nvcc {'.'.join(map(str, toolkit.version))}"


def _say(*command: str) -> str:
    """Return what a tool says of itself; nothing if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
