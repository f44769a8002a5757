"""`python -m stylegan_tl.train source=… target=… freeze=…`: one trial, or a sweep with -m."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["main"]


def main() -> None:
    """Compose the configuration and run it; heavy imports wait until there is work."""
    from stylegan_tl.command import run_command

    run_command("train", _run)


def _run(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from stylegan_tl.config import ConfigError, freeze_name, plain, validate
    from stylegan_tl.errors import user_errors

    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    alone = hydra_cfg.mode == RunMode.RUN  # in a sweep an error must not end the other trials
    with _traceless(folder) if alone else nullcontext(), user_errors() if alone else nullcontext():
        config = plain(cfg)
        if "factors" in config["study"]:
            raise ConfigError(f"study={config['study']['name']} is many trials: add -m")
        validate(config)
        from stylegan_tl.runner import run_trial

        groups = ("source", "target", "freeze", "model", "augment", "metric", "experiment")
        chosen = hydra_cfg.runtime.choices
        choices = {k: chosen.get(k) for k in groups}
        anchors = [*config["freeze"].get("anchor", {})]
        choices["freeze"] = freeze_name(chosen["freeze"], chosen["freeze/schedule"], anchors)
        code = run_trial(config, folder, choices=choices)
    if code:
        sys.exit(code)


@contextmanager
def _traceless(folder: Path) -> Iterator[None]:
    """After a refusal or a dry run, remove what Hydra has made of `folder`."""
    try:
        yield
    except SystemExit:
        _remove_untouched(folder)
        raise
    _remove_untouched(folder)


def _remove_untouched(folder: Path) -> None:
    """Remove the folder of a trial that never began, and what is empty then up to this folder."""
    import shutil

    from filelock import FileLock, Timeout

    with suppress(Timeout, FileNotFoundError), FileLock(folder / ".lock", timeout=0):
        if {entry.name for entry in folder.iterdir()} - {".hydra", ".lock", "train.log"}:
            return
        shutil.rmtree(folder)
    with suppress(OSError):  # not empty
        for parent in folder.parents:
            if parent == Path.cwd() or not parent.is_relative_to(Path.cwd()):
                return
            parent.rmdir()


if __name__ == "__main__":
    main()
