"""A Hydra config source that offers every option of `dataset/` as `source=` and as `target=`.

So one file defines a dataset, and a user's own `--config-dir` needs only `dataset/mine.yaml`.
Every public model of the catalogue is an option as well: `source=pretrained/<name>`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from stylegan_tl.config import conf_dir, config_dirs, readable
from stylegan_tl.source.catalogue import PREFIX, PRETRAINED, find
from stylegan_tl.study.launcher import LocalLauncher
from stylegan_tl.study.sweeper import StudySweeper

__all__ = ["DatasetOptions", "DatasetSearchPath", "register"]

_OWN = {"source": {"checkpoint": None}, "target": {}}  # what a role adds to the dataset


def register() -> None:
    """Tell Hydra of the dataset options, the folder-name resolver, the sweeper and the launcher.

    Run before composing.
    """
    OmegaConf.register_new_resolver("readable_overrides", readable, replace=True)
    plugins = Plugins.instance()
    for plugin in (DatasetOptions, DatasetSearchPath, StudySweeper, LocalLauncher):
        plugins.register(plugin)
    for plugin in (StudySweeper, LocalLauncher):  # Hydra makes these only by a name of this form
        plugins.class_name_to_class[f"hydra_plugins.stylegan_tl.{plugin.__name__}"] = plugin


class DatasetOptions(ConfigSource):
    """`source/<name>` and `target/<name>` stand for `dataset/<name>`; nothing is written."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._roots = [Path(d) / "dataset" for d in [conf_dir(), *config_dirs(sys.argv)]]

    @staticmethod
    def scheme() -> str:
        """`datasets://` in a search path."""
        return "datasets"

    def load_config(self, config_path: str) -> ConfigResult:
        """The dataset's own file, in the package of its role."""
        role, _, name = config_path.removesuffix(".yaml").partition("/")
        own = {"defaults": [{"/dataset@_here_": name}, "_self_"], **_OWN[role]}
        config = _pretrained(name) if _is_pretrained(config_path) else own
        return self._result(role, config)

    def _result(self, role: str, config: dict[str, Any]) -> ConfigResult:
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.create(config),
            header={"package": role},
        )

    def available(self) -> bool:
        """Always: the roots are folders."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether a role, or a folder of datasets under it, is meant."""
        folder = f"{config_path}/" == f"source/{PREFIX}"
        return folder or any(found.is_dir() for found in self._places(config_path))

    def is_config(self, config_path: str) -> bool:
        """Whether a dataset under a role is meant."""
        file = config_path.removesuffix(".yaml") + ".yaml"
        if _is_pretrained(config_path):
            return True
        return any(found.is_file() for found in self._places(file))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """All options of a role in one list, named as a user types them: `houses/bedroom`."""
        if not config_path:
            return [] if results_filter == ObjectType.CONFIG else sorted(_OWN)
        if config_path not in _OWN or results_filter == ObjectType.GROUP:
            return []
        files = {f.relative_to(root) for root in self._roots for f in root.rglob("*.yaml")}
        models = [f"{PREFIX}{one.name}" for one in PRETRAINED if config_path == "source"]
        return sorted([*(f.with_suffix("").as_posix() for f in files), *models])

    def _places(self, config_path: str) -> Iterator[Path]:
        role, _, name = config_path.partition("/")
        return (root / name for root in self._roots) if role in _OWN else iter(())


def _is_pretrained(config_path: str) -> bool:
    name = config_path.removesuffix(".yaml").removeprefix("source/")
    return name in {f"{PREFIX}{one.name}" for one in PRETRAINED} and name != config_path


def _pretrained(name: str) -> dict[str, Any]:
    """The option of a public model: its place in the cache, there or not."""
    return {"kind": "checkpoint", "name": name, "checkpoint": str(find(name).path)}


class DatasetSearchPath(SearchPathPlugin):
    """Puts the options above behind everything on file."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append `datasets://`."""
        search_path.append("stylegan_tl", "datasets://")
