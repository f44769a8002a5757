"""`python -m stylegan_tl.study <verb> study=<name>`: plan it, run it, look at what came of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from stylegan_tl.study.opened import Opened

__all__ = ["VERBS", "main", "open_by_arguments"]


class Verb(NamedTuple):
    """`module` has `command(opened, options) -> exit code`; `keys` are the verb's own options.

    Every other `key=value` of the command line is Hydra's, as of the train command.
    """

    module: str
    help: str
    keys: tuple[str, ...] = ()


_RUN = ("retry_failed", "gpus", "per_gpu", "gpu_memory", "processes", "threads", "attempts")
VERBS = {
    "plan": Verb("plan", "the matrix, what exists, what is to come; commands=true: its commands",
                 ("commands",)),
    "run": Verb("", f"train what is missing; also {' '.join(k + '=' for k in _RUN)}", _RUN),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is 0, 1 (trials not complete) or 2 (a mistake to mend)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in VERBS or {"-h", "--help"} & set(words):
        print(_help())
        return 0 if {"-h", "--help"} & set(words) else 2
    verb, given = VERBS[words[0]], words[1:]
    options = {k: v for k, _, v in (w.partition("=") for w in given) if k in verb.keys}
    rest = [w for w in given if w.partition("=")[0] not in verb.keys]
    if words[0] == "run":
        return _run(rest, options)
    from stylegan_tl.errors import user_errors

    with user_errors():
        opened = open_by_arguments(rest)
        return import_module(f"stylegan_tl.study.{verb.module}").command(opened, options)


def open_by_arguments(arguments: Sequence[str]) -> Opened:
    """The study of `study=<name>` with further overrides, as `run` would run it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from stylegan_tl.config import conf_dir, config_dirs, plain
    from stylegan_tl.data.count import count_train
    from stylegan_tl.dataset_options import register
    from stylegan_tl.study.opened import open_study

    register()
    folders = config_dirs(arguments)
    search = [f"hydra.searchpath=[{','.join(f'file://{f}' for f in folders)}]"] if folders else []
    own = [a for a in arguments if "--config-dir" not in a and a != "-cd" and a not in folders]

    def options(group: str) -> list[str]:
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, ObjectType.CONFIG)

    def make(overrides: Sequence[str]) -> dict[str, Any]:
        return plain(compose("train", overrides=[*search, *overrides]))

    with initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        try:
            named = [a for a in own if a.lstrip("+").startswith("study")]
            config = compose("train", overrides=[*search, *named])
        except HydraException as error:
            raise ValueError(str(error)) from error
        study = OmegaConf.to_container(config.study, resolve=True)
        return open_study(study, own, make, options, count_train)


def _run(arguments: Sequence[str], options: dict[str, str]) -> int:
    """The train command with -m, and our launcher unless another is named."""
    from stylegan_tl.train import main as train

    own = [*arguments]
    if not any(a.startswith("hydra/launcher=") for a in own):
        own.append("hydra/launcher=local")
    for key, value in options.items():
        if key == "retry_failed":
            own.append(f"hydra.sweeper.retry_failed={value}")
        else:
            own.append(f"hydra.launcher.{key}={value}")
    sys.argv = [sys.argv[0], "-m", *own]
    train()
    return 0


def _help() -> str:
    lines = ["python -m stylegan_tl.study <verb> study=<name> [key=value …]", ""]
    return "\n".join(lines + [f"  {name:<10}{verb.help}" for name, verb in VERBS.items()])


if __name__ == "__main__":
    sys.exit(main())
