"""How every command that Hydra composes begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["run_command"]


def run_command(name: str, run: Callable[[Any], None]) -> None:
    """Compose `conf/<name>.yaml` with the command line and call `run` with it."""
    import hydra

    from stylegan_tl.config import conf_dir, quote_paths
    from stylegan_tl.dataset_options import register

    register()
    sys.argv[1:] = quote_paths(sys.argv[1:])
    hydra.main(version_base="1.3", config_path=conf_dir(), config_name=name)(run)()
