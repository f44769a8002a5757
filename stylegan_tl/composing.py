"""Configurations of `conf/`, composed by Hydra, and in plain words what is wrong with overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)

from stylegan_tl.config import conf_dir
from stylegan_tl.dataset_options import register
from stylegan_tl.errors import near

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["MISTAKES", "compose", "explain", "group_options"]

MISTAKES = (ConfigCompositionException, OverrideParseException)  # of Hydra, made by who typed


def compose(name: str, overrides: Sequence[str], folders: Sequence[str] = ()) -> DictConfig:
    """`conf/<name>.yaml` with `overrides`, options of `folders` too. ValueError with what is wrong.

    >>> compose("train", ["kimg=2", "freeze=freeze_d"]).kimg
    2
    """
    try:
        return _composed(name, overrides, folders)
    except HydraException as error:
        raise ValueError(explain(error, name, overrides, folders)) from error


def group_options(group: str, folders: Sequence[str] = ()) -> list[str]:
    """Options of a configuration group, those of `folders` too; none if there is no such group."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    with _hydra():
        own = [f for folder in folders for f in Path(folder, group).glob("*.yaml")]
        found = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
        return sorted({*found, *(f.stem for f in own)})


def explain(
    error: Exception, name: str, overrides: Sequence[str], folders: Sequence[str] = ()
) -> str:
    """What Hydra's error of composing `name` with `overrides` means, and what was likely meant."""
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _no_option(error.missing_cfg_file, overrides, folders)
    if isinstance(error, OverrideParseException):
        how = "write key=value, with quotes around a list: 'key=[a,b]'"
        return f"{error.override}: this cannot be read; {how}"
    if found := re.search(r"Could not override '([^']+)'", str(error)):
        return _no_key(found[1], name, overrides, folders)
    causes = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
    return ": ".join(cause.partition("\n")[0] for cause in causes)


def _no_option(missing: str, overrides: Sequence[str], folders: Sequence[str]) -> str:
    given = {key.partition("@")[0]: key for o in overrides if (key := _key(o))}
    groups = [group for group in given if missing.startswith(f"{group}/")]
    group = max(groups, key=len, default=missing.rpartition("/")[0])
    option = missing.removeprefix(f"{group}/")
    hint = near(option, group_options(group, folders), 3)
    return f"{given.get(group, group)}={option} is no option; {hint}"


def _no_key(key: str, name: str, overrides: Sequence[str], folders: Sequence[str]) -> str:
    others = [o for o in overrides if _key(o) != key]
    known = _known(name, others, folders) or _known(name, (), folders)
    hint = near(key, known)
    every = "--cfg job shows all keys"
    return f"{key}= is no key here; {hint if hint.startswith('did') else every}"


def _known(name: str, overrides: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Every key, as a path with dots, and every group; none where even these do not compose."""
    from omegaconf import OmegaConf

    try:
        cfg = _composed(name, overrides, folders, return_hydra_config=True)
    except HydraException:
        return []
    plain = OmegaConf.to_container(cfg, resolve=False)
    own = {key: value for key, value in plain.items() if key != "hydra"}
    return [*_paths(own), *(k for k in plain["hydra"]["runtime"]["choices"] if "hydra" not in k)]


def _paths(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{above}{key}.")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _composed(name: str, overrides: Sequence[str], folders: Sequence[str], **more: Any) -> Any:
    from hydra import compose

    paths = ",".join(f"'file://{Path(f).absolute()}'" for f in folders)
    search = [f"hydra.searchpath=[{paths}]"] if folders else []
    with _hydra():
        return compose(name, overrides=[*search, *overrides], **more)


@contextmanager
def _hydra() -> Iterator[None]:
    from hydra import initialize_config_dir

    register()
    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        yield
