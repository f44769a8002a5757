"""`python -m stylegan_tl.distance source=… target=…`: what is known of a pair before training."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["main"]


def main() -> None:
    """Compose the configuration and measure the pair."""
    from stylegan_tl.command import run_command

    run_command("distance", _run)


def _run(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from stylegan_tl.config import plain
    from stylegan_tl.errors import user_errors

    alone = HydraConfig.get().mode == RunMode.RUN  # in a sweep an error must not end the others
    with user_errors() if alone else nullcontext():
        from stylegan_tl.pair.measure import measure
        from stylegan_tl.pair.records import table

        config = plain(cfg)
        print(table(config, measure(config)))


if __name__ == "__main__":
    main()
