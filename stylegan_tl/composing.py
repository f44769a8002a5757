"""Configurations of `conf/`, composed by Hydra, and in plain words what is wrong with overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException

from stylegan_tl.config import conf_dir
from stylegan_tl.dataset_options import register
from stylegan_tl.errors import near

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["compose", "explain", "first_keys", "group_options"]


def compose(name: str, overrides: Sequence[str], folders: Sequence[str] = ()) -> DictConfig:
    """`conf/<name>.yaml` with `overrides`, options of `folders` too. ValueError with what is wrong.

    >>> compose("train", ["kimg=2", "freeze=freeze_d"]).kimg
    2
    """
    try:
        return _composed(name, overrides, folders)
    except CompactHydraException as error:
        raise ValueError(explain(error, name, overrides, folders)) from error


def first_keys(name: str) -> list[str]:
    """What the keys of `conf/<name>.yaml` may begin with: its own keys and its groups."""
    from omegaconf import OmegaConf

    tree = OmegaConf.to_container(OmegaConf.load(Path(conf_dir(), f"{name}.yaml")), resolve=False)
    named = [next(iter(entry)) for entry in tree.pop("defaults") if isinstance(entry, dict)]
    return sorted({*tree, "hydra", *(re.split("[/@]", group)[0] for group in named)})


def group_options(group: str, folders: Sequence[str] = ()) -> list[str]:
    """Options of a configuration group, those of `folders` too; none if there is no such group."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    with _hydra():
        own = [f for folder in folders for f in Path(folder, group).glob("*.yaml")]
        found = GlobalHydra.instance().config_loader().get_group_options(group, ObjectType.CONFIG)
        return sorted({*found, *(f.stem for f in own)})


def explain(
    error: CompactHydraException, name: str, overrides: Sequence[str], folders: Sequence[str] = ()
) -> str:
    """What Hydra's error of composing `name` with `overrides` means, and what was likely meant."""
    text, given = str(error), {_key(o).partition("@")[0]: _key(o) for o in overrides}
    if isinstance(error, OverrideParseException):
        how = "write key=value, with quotes around a list: 'key=[a,b]'"
        return f"{error.override}: this cannot be read; {how}"
    if found := re.match(r"Ambiguous value for argument '(([^=]+)=([^']+))'", text):
        whole, key, values = found.groups()
        return f"{whole}: add -m for a trial of each, or write a list as '{key}=[{values}]'"
    if found := re.match(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"+{found[1]}=: there is {found[1]} already, leave out the +"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _no_option(error, given, folders)
    if (found := re.search(r"Could not override '([^']+)'", text)) and found[1] in given.values():
        return _no_key(found[1], name, overrides, folders)
    return "\n".join([text, *([str(error.__cause__)] if error.__cause__ else [])])


def _no_option(
    error: MissingConfigException, given: Mapping[str, str], folders: Sequence[str]
) -> str:
    missing = error.missing_cfg_file
    groups = [group for group in given if missing.startswith(f"{group}/")]
    group = max(groups, key=len, default=missing.rpartition("/")[0])
    option = missing.removeprefix(f"{group}/")
    hint = near(option, group_options(group, folders), 3)
    if not groups:  # a file names it, which the first line says
        return f"{str(error).partition(chr(10))[0].rstrip('.')}; {hint}"
    return f"{given[group]}={option} is no option; {hint}"


def _no_key(key: str, name: str, overrides: Sequence[str], folders: Sequence[str]) -> str:
    others = [_first(o) for o in overrides if _key(o) != key]
    known = _known(name, others, folders) or _known(name, (), folders)
    every = "--cfg hydra" if key.startswith("hydra") else "--cfg job"
    return f"{key}= is no key here; {near(key, known, otherwise=f'{every} shows all keys')}"


def _first(override: str) -> str:
    """Of the values of a sweep `key=a,b` the first."""
    return re.sub(r"^([^=]+=[^=\[({'\",]*),.*", r"\1", override)


def _known(name: str, overrides: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Every key, as a path with dots, and every group; none where even these do not compose."""
    from omegaconf import OmegaConf

    try:
        cfg = _composed(name, overrides, folders, return_hydra_config=True)
    except CompactHydraException:
        return []
    plain = OmegaConf.to_container(cfg, resolve=False)
    groups = plain["hydra"]["runtime"]["choices"]
    return [*_paths(plain), *(g for g in groups if re.split("[/@]", g)[0] in plain)]


def _paths(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from _paths(value, f"{above}{key}.")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _composed(name: str, overrides: Sequence[str], folders: Sequence[str], **more: Any) -> Any:
    from hydra import compose

    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"--config-dir {folder}: no such folder")
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
