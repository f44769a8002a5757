"""How every command that Hydra composes begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["run_command"]


def run_command(name: str, run: Callable[[Any], None]) -> None:
    """Compose `conf/<name>.yaml` with the command line and call `run` with it.

    A mistake on the command line ends it with one clear message and exit code 2.
    """
    import hydra
    from hydra.errors import CompactHydraException

    from stylegan_tl.composing import explain
    from stylegan_tl.config import conf_dir, config_dirs, quote_paths
    from stylegan_tl.dataset_options import register
    from stylegan_tl.errors import user_errors

    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here: Hydra does not write them itself
    sys.argv[1:] = quote_paths(sys.argv[1:])
    command = hydra.main(version_base="1.3", config_path=conf_dir(), config_name=name)(run)
    with user_errors():
        try:
            command()
        except CompactHydraException as error:
            given = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
            raise ValueError(explain(error, name, given, config_dirs(sys.argv))) from error
