"""`python -m stylegan_tl.train source=… target=… freeze=…`: one trial, or a sweep with -m."""

from __future__ import annotations

import sys
from contextlib import nullcontext
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
    from stylegan_tl.run_folder import tidied

    hydra_cfg = HydraConfig.get()
    alone = hydra_cfg.mode == RunMode.RUN  # in a sweep an error must not end the other trials
    with tidied(cfg.dry_run) if alone else nullcontext(), user_errors() if alone else nullcontext():
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
        code = run_trial(config, hydra_cfg.runtime.output_dir, choices=choices)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
