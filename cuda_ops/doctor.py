"""`python -m cuda_ops.doctor`: what is found, whether all kernels build and are right, what to do.

Exits with 0 if all is well, with 1 if something needs doing; the last line says what.
"""

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch

from cuda_ops import check, compile, store, toolkit

__all__ = ["main"]

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_SECONDS = 15.0  # for each self-check


class _Finding(NamedTuple):
    """A line of the table; `cure` says what to do about it, if anything."""

    what: str
    found: str
    cure: str = ""


def main() -> int:
    """Print the table and the verdict; returns the exit status."""
    if compile.switched_off():
        print("kernels are switched off by STYLEGAN_TL_KERNELS=off: unset it to check and use them")
        return 0
    cures = []
    with warnings.catch_warnings(), _environment(None if compile.emulating() else _chosen()):
        warnings.simplefilter("ignore")  # what they say is in the table
        for finding in _findings():
            first, *rest = finding.found.splitlines() or [""]
            print(f"{finding.what:<18} {first}", *(f"{'':<18} {line}" for line in rest), sep="\n")
            sys.stdout.flush()
            cures += [finding.cure] if finding.cure else []
    print()
    print(f"to do: {'; then '.join(dict.fromkeys(cures))}" if cures else _well())
    return 1 if cures else 0


def _findings() -> Iterator[_Finding]:
    yield _Finding("torch", f"{torch.__version__}, built for CUDA {torch.version.cuda or '(none)'}")
    yield _gpu()
    yield from _tools()
    yield _cache()
    yield _built("CPU kernels", "cpu")
    yield _checked("self-check, CPU", _cpu_runs())
    yield _cuda_built()
    if torch.cuda.is_available():
        yield _checked("self-check, GPU", _gpu_runs())
    yield _built("emulated kernels", "emulated")
    with _environment("emulate"):
        yield _checked("self-check, CUDA", _emulated_runs(), "emulated on the CPU")


# -- what is found --------------------------------------------------------------------------------


def _gpu() -> _Finding:
    driver = toolkit.driver_version()
    serves = f"the driver serves CUDA {driver[0]}.{driver[1]}" if driver else "no NVIDIA driver"
    if torch.cuda.is_available():
        names = [
            f"{torch.cuda.get_device_name(i)}, compute capability "
            f"{'.'.join(map(str, torch.cuda.get_device_capability(i)))}"
            for i in range(torch.cuda.device_count())
        ]
        return _Finding("GPU", "\n".join([*names, serves]))
    if driver and torch.version.cuda is None:
        cure = "install a torch that is built for CUDA (https://pytorch.org/get-started)"
        return _Finding("GPU", f"not seen by this torch, but {serves}", cure)
    return _Finding("GPU", f"none ({serves})")


def _tools() -> Iterator[_Finding]:
    try:
        found = toolkit.toolkits()
        lines = [f"{'.'.join(map(str, t.version))}, {t.nvcc} ({t.origin})" for t in found]
        yield _Finding("nvcc", "\n".join(lines))
    except toolkit.ToolError as error:
        yield _Finding(
            "nvcc", f"none: {error}" if _needs_nvcc() else "none (needed for a GPU only)"
        )
    try:
        compiler = toolkit.host_compiler()
        version = (compiler.version.splitlines() or ["it does not tell its version"])[0]
        yield _Finding("C++ compiler", f"{' '.join(compiler.command)}: {version}")
    except toolkit.ToolError as error:
        yield _Finding("C++ compiler", "none", str(error))
    yield _Finding("ninja", toolkit.ninja() or "none: slower builds (`pip install ninja`)")


def _cache() -> _Finding:
    try:
        folder = compile.cache_dir()
    except compile.CompileError as error:
        return _Finding("cache", "none", str(error))
    if store.writable(folder):
        return _Finding("cache", f"{folder}, writable")
    cure = "name a writable folder for kernels in STYLEGAN_TL_KERNELS"
    return _Finding("cache", f"{folder}, cannot be written: each process builds its own", cure)


def _needs_nvcc() -> bool:
    return torch.cuda.is_available() and torch.version.cuda is not None


# -- what builds ----------------------------------------------------------------------------------


def _built(what: str, kind: str, architectures: Sequence[str] = ()) -> _Finding:
    """Build, and load what is not merely a compile check."""
    try:
        built = compile.build(kind, architectures)
        if not architectures:
            _load(kind)
    except compile.CompileError as error:
        return _Finding(what, f"failed: {error}", _cure(kind, error))
    how = f"{'cached' if built.cached else 'built'}, {built.seconds:.2f} s"
    return _Finding(what, f"{how}{''.join(f', sm_{a}' for a in architectures)}")


def _load(kind: str) -> None:
    kernels = {"cpu": compile.cpu_kernels, "cuda": compile.cuda_kernels}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if kernels.get(kind, compile.emulated_kernels)() is None:
            raise compile.CompileError("; ".join(str(w.message) for w in said) or "not loaded")


def _cuda_built() -> _Finding:
    if _needs_nvcc():
        return _built("CUDA kernels", "cuda")
    try:
        toolkit.toolkits()
    except toolkit.ToolError:
        return _Finding("CUDA kernels", "not built: no GPU and no nvcc")
    return _built("CUDA kernels", "cuda", ["90"])


def _cure(kind: str, error: Exception) -> str:
    try:
        toolkit.host_compiler()
        if kind == "cuda":
            toolkit.toolkits()
    except toolkit.ToolError as missing:
        return str(missing)
    return f"mend what the failed {kind} kernels say above, or set STYLEGAN_TL_KERNELS=off"


# -- what is right --------------------------------------------------------------------------------

_Run = tuple[check.Case, str, torch.dtype, str, str]  # case, impl, dtype, layout, device


def _cpu_runs() -> list[_Run]:
    if compile.cpu_kernels() is None:
        return []
    cases = [case for case in check.CASES if "cpu" in case.kernels]
    return [(c, "cpu", torch.float32, how, "cpu") for how, c in product(check.LAYOUTS, cases)]


def _gpu_runs() -> list[_Run]:
    if compile.cuda_kernels() is None:
        return []
    every = product(_DTYPES, check.LAYOUTS, _cuda_cases())
    return [(case, "cuda", dtype, layout, "cuda") for dtype, layout, case in every]


def _emulated_runs() -> list[_Run]:
    """Return each case once, with dtypes and layouts taking turns."""
    if compile.emulated_kernels() is None:
        return []
    return [
        (case, "cuda", _DTYPES[i % 4], check.LAYOUTS[i % 3], "cpu")
        for i, case in enumerate(_cuda_cases())
    ]


def _cuda_cases() -> list[check.Case]:
    return [case for case in check.CASES if "cuda" in case.kernels]


def _checked(what: str, runs: list[_Run], how: str = "") -> _Finding:
    """Run until the time is over; each must be within twice the reference's own error."""
    if not runs:
        return _Finding(what, "not run: there are no such kernels, or no cases for them")
    start, done, wrong = time.monotonic(), 0, []
    for run in runs:
        if time.monotonic() - start > _SECONDS:
            break
        done += 1
        if reason := _wrong(*run):
            wrong.append(f"{run[0].name} {str(run[2])[6:]} {run[3]}: {reason}")
    took = f"{time.monotonic() - start:.1f} s{f', {how}' if how else ''}"
    line = f"{done - len(wrong)} of {done} right: values, gradients, second gradients ({took})"
    if done < len(runs):
        line += f"; {len(runs) - done} more did not fit in the time (cuda_ops.bench --check)"
    cure = f"report the failed {what}; until then set STYLEGAN_TL_KERNELS=off" if wrong else ""
    return _Finding(what, "\n".join([line, *wrong[:10]]), cure)


def _wrong(case: check.Case, impl: str, dtype: torch.dtype, layout: str, device: str) -> str:
    try:
        for error in check.errors(case, impl, dtype=dtype, layout=layout, device=device):
            if not check.holds(error):
                return f"{error.what} off by {error.kernel:.1e}, reference {error.reference:.1e}"
    except Exception as error:  # whatever it is belongs into the table
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def _chosen() -> str | None:
    return os.environ.get("STYLEGAN_TL_KERNELS")


@contextlib.contextmanager
def _environment(kernels: str | None) -> Iterator[None]:
    """Set STYLEGAN_TL_KERNELS (None: unset it) for a while; libraries once loaded stay."""
    before = os.environ.pop("STYLEGAN_TL_KERNELS", None)
    try:
        if kernels is not None:
            os.environ["STYLEGAN_TL_KERNELS"] = kernels
        yield
    finally:
        os.environ.pop("STYLEGAN_TL_KERNELS", None)
        if before is not None:
            os.environ["STYLEGAN_TL_KERNELS"] = before


def _well() -> str:
    gpu = "" if torch.cuda.is_available() else " (no GPU: the CUDA kernels ran only in emulation)"
    return f"all is well{gpu}"


if __name__ == "__main__":
    sys.exit(main())
