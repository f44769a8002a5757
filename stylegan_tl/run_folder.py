"""The folder that Hydra makes for a run before it is known whether there is anything to keep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["NewFolders", "tidied"]

_NOTES = {".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "train.log", ".lock"}
_new: list[Path] = []  # of the run of this process, the innermost first


class NewFolders(Callback):
    """Notes which folders of a run are not there yet (conf/hydra/stylegan_tl.yaml)."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Before Hydra makes them. What is there already is somebody's: it stays."""
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # as Hydra does next: the name needs it
        folder = Path(config.hydra.run.dir).absolute()
        HydraConfig.instance().cfg = before
        _new[:] = takewhile(lambda path: not path.exists(), (folder, *folder.parents))


@contextmanager
def tidied(dry_run: bool) -> Iterator[None]:
    """Around a run: if it is refused (exit code 2), or a dry run, its folder goes again."""
    began = time.time()
    try:
        yield
    except SystemExit as ended:
        if ended.code == 2:
            _remove_new(began)
        raise
    if dry_run:
        _remove_new(began)


def _remove_new(began: float) -> None:
    """Remove the new folders if nothing but Hydra's notes from before `began` is in them.

    Younger notes are those of another process, which needs them. What cannot be removed stays.
    """
    if not _new:
        return
    found = [path for path in _new[0].rglob("*") if not path.is_dir()]
    with suppress(OSError):
        for path in found:
            is_note = path.relative_to(_new[0]).as_posix() in _NOTES
            if not is_note or (path.parent.name == ".hydra" and path.stat().st_mtime > began):
                return
        for path in found:
            path.unlink()
        for path in (_new[0] / ".hydra", *_new):
            path.rmdir()
