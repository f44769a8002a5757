"""The cache of built libraries: built once whoever asks, whole or not there, nobody waits for ever.

    <stem>-<digest>.so    a library; damaged if its digest is not that of its name
    <stem>.lock           locked while one process builds; holds the reason if it failed
    <stem>.*.building/    where a builder works, itself locked, so that the dead's can be cleared

The lock is the operating system's, which frees it when its holder dies, however it dies. A library
appears by one rename. Free of torch.
"""

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without these locks: several may build, the last one wins
    fcntl = None

__all__ = ["PATIENCE", "Failed", "find", "keep", "writable"]

PATIENCE = 900.0  # seconds given to a compiler, and to another process that is building


class Failed(RuntimeError):
    """No library; the message says why."""


def find(folder: Path | None, stem: str) -> Path | None:
    """Return the library if it is there and whole; a folder of None is this process's own."""
    if folder is None:
        if not _own_folder.cache_info().currsize:
            return None
        folder = _own_folder()
    for path in sorted(folder.glob(f"{stem}-*.so")):
        with contextlib.suppress(OSError):
            if _trusted(path) and path.stem.endswith(_digest(path)):
                return path
    return None


def _trusted(path: Path) -> bool:
    """Say whether the file is this user's or root's: a library runs as soon as it is loaded."""
    return not hasattr(os, "getuid") or path.stat().st_uid in (os.getuid(), 0)


def keep(folder: Path, stem: str, make: Callable[[Path], None]) -> Path:
    """Return the library that `make(work)` leaves as work/library.so, kept in `folder`.

    One process makes it, the others wait for it. Where `folder` cannot be written (OSError), a
    temporary one serves this process, after a warning. Raises Failed if there is no such either or
    the process that was waited for failed; and whatever else `make` raises.
    """
    try:
        return _keep(folder, stem, make)
    except OSError as error:
        reason = f"{folder}: {error.strerror or error}"
    warnings.warn(
        f"kernels cannot be kept in {reason}. This process builds its own; name a writable folder "
        "in STYLEGAN_TL_KERNELS",
        stacklevel=6,
    )
    try:
        return _keep(_own_folder(), stem, make)
    except OSError as error:
        raise Failed(f"no folder to build in: {reason}; temporary files: {error}") from None


def writable(folder: Path) -> bool:
    """Say whether files can be made in a folder (made if need be)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError:
        return False
    return True


@functools.cache
def _own_folder() -> Path:
    """Return a folder of this process, gone when it ends."""
    folder = tempfile.mkdtemp(prefix="stylegan_tl-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _keep(folder: Path, stem: str, make: Callable[[Path], None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{stem}.lock") as (log, waited):
        if path := find(folder, stem):  # made since the caller looked
            return path
        if waited and (reason := log.read_text(encoding="utf-8")):
            raise Failed(reason)
        _sweep(folder)
        log.write_text("", encoding="utf-8")
        try:
            return _make(folder, stem, make)
        except RuntimeError as error:  # tell those who wait, or each would fail by itself
            with contextlib.suppress(OSError):
                log.write_text(str(error), encoding="utf-8")
            raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[tuple[Path, bool]]:
    """Hold the lock; yields its file and whether another process had it first.

    After `PATIENCE` seconds it goes on without: a builder that hangs does not block the others.
    """
    waited, deadline = False, time.monotonic() + PATIENCE
    with open(path, "a", encoding="utf-8") as file:
        while _try_lock(file.fileno()) is False and time.monotonic() < deadline:
            waited = True
            time.sleep(0.05)
        yield path, waited


def _try_lock(descriptor: int) -> bool | None:
    """Lock and return True; False if another process has it; None if there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sweep(folder: Path) -> None:
    """Remove what builders left that were killed: nobody locks it any more."""
    for left in folder.glob("*.building"):
        with contextlib.suppress(OSError), open(left / "alive", "rb") as file:
            if _try_lock(file.fileno()):
                shutil.rmtree(left, ignore_errors=True)


def _make(folder: Path, stem: str, make: Callable[[Path], None]) -> Path:
    """Build in a folder of its own (a killed builder's compilers still write), then rename."""
    work = Path(tempfile.mkdtemp(dir=folder, prefix=f"{stem}.", suffix=".building"))
    try:
        with open(work / "alive", "wb") as alive:
            if _try_lock(alive.fileno()) is False:  # swept as it was made
                return _make(folder, stem, make)
            make(work)
            path = folder / f"{stem}-{_digest(work / 'library.so')}.so"
            os.replace(work / "library.so", path)
            _drop_damaged(folder, stem)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


def _drop_damaged(folder: Path, stem: str) -> None:
    for path in folder.glob(f"{stem}-*.so"):
        with contextlib.suppress(OSError):
            if not path.stem.endswith(_digest(path)):
                path.unlink()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
