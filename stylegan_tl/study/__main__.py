"""`python -m stylegan_tl.study <verb> study=<name>`: plan it, run it, look at what came of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stylegan_tl.errors import near, user_errors

if TYPE_CHECKING:
    from stylegan_tl.study.opened import Opened

__all__ = ["VERBS", "main", "open_by_arguments"]


class Verb(NamedTuple):
    """`module`, relative to this package, has `command(opened, options) -> exit code`; `keys` are
    the verb's own options.

    Every other `key=value` of the command line is Hydra's, as of the train command.
    """

    module: str
    help: str
    keys: tuple[str, ...] = ()


_RUN = ("retry_failed", "gpus", "per_gpu", "gpu_memory", "processes", "threads", "attempts")
VERBS = {
    "plan": Verb(".plan", "the matrix, what exists, what is to come; commands=true: its commands",
                 ("commands",)),
    "wandb": Verb(".wandb_page", "a report of the study on W&B; entity= project=",
                  ("entity", "project")),
    "run": Verb("", f"train what is missing; also {' '.join(k + '=' for k in _RUN)}", _RUN),
    "table": Verb(".table", "trials as CSV, Markdown and LaTeX, with error bars",
                  ("out", "metrics", "measures", "same_reals")),
    "report": Verb(".report", "one page to look at, that opens from disk",
                   ("out", "images", "show", "distances", "verdict")),
    "nearest": Verb("..nearest", "generated images beside their nearest training images, for the "
                    "report; new trials end with it"),
    "figures": Verb(".figures", "the matrix and the same latents over kimg as PNG, for a paper",
                    ("out", "metric", "measure", "freeze")),
    "compare": Verb(".compare", "measured beside published", ("out", "same_reals")),
    "distances": Verb("..pair.every", "what is known of every pair before training",
                      ("out", "extractor", "images", "inversion", "steps", "train_source",
                       "device")),
    "predict": Verb(".predict", "what could be known before training, beside what came of it",
                    ("distances", "metrics", "measures", "out")),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is 0, 1 (trials not complete) or 2 (a mistake to mend)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or {"-h", "--help"} & set(words):
        print(_help(words[0] if words else ""))
        return 0 if words else 2
    with user_errors():
        if words[0] not in VERBS:
            raise ValueError(f"{words[0]} is no verb of study; {near(words[0], [*VERBS])}")
        verb, given = VERBS[words[0]], words[1:]
        options = {k: v for k, _, v in (w.partition("=") for w in given) if k in verb.keys}
        rest = [w for w in given if w.partition("=")[0] not in verb.keys]
        _check_keys(rest, verb.keys)
        if words[0] == "run":
            return _run(rest, options)
        opened = open_by_arguments(rest)
        return import_module(verb.module, "stylegan_tl.study").command(opened, options)


def _check_keys(words: Sequence[str], own: Sequence[str]) -> None:
    """ValueError for a key that is neither of the verb, in `own`, nor of a trial."""
    from stylegan_tl.composing import first_keys

    known = first_keys("train")
    for key in (word.partition("=")[0] for word in words if "=" in word and word[0] not in "-+~"):
        if re.split("[./@]", key)[0] not in known:
            raise ValueError(f"{key}= is no key here; {near(key, [*own, *known])}")


def open_by_arguments(arguments: Sequence[str]) -> Opened:
    """The study of `study=<name>` with further overrides, as `run` would run it."""
    from omegaconf import OmegaConf

    from stylegan_tl.composing import compose, group_options
    from stylegan_tl.config import config_dirs, plain, validate_values
    from stylegan_tl.data.count import count_train
    from stylegan_tl.study.opened import open_study

    folders = config_dirs(arguments)
    own = [a for a in arguments if not a.startswith(("--config-dir", "-cd")) and a not in folders]
    named = [a for a in own if a.lstrip("+").startswith("study")]
    study = OmegaConf.to_container(compose("train", named, folders).study, resolve=True)

    def composed(overrides: Sequence[str]) -> dict[str, Any]:
        return plain(compose("train", overrides, folders))

    options = partial(group_options, folders=folders)
    opened = open_study(study, own, composed, options, count_train, validate_values)
    return replace(opened, has_source=_has_source)


def _has_source(config: dict[str, Any]) -> bool:
    """Whether the source model of a trial is bundled or in the cache. Imports torch."""
    from stylegan_tl.config import pretrain_config
    from stylegan_tl.data.errors import DataError
    from stylegan_tl.source.obtain import find_source

    try:
        return find_source(pretrain_config(config), Path(config["cache"]).expanduser()) is not None
    except DataError:  # the images are not on this machine
        return False


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


def _help(verb: str) -> str:
    """Of one verb its keys; of none, or another word, all verbs."""
    shown = {verb: VERBS[verb]} if verb in VERBS else VERBS
    word = verb if verb in VERBS else "<verb>"
    lines = [f"python -m stylegan_tl.study {word} study=<name> [key=value …]", ""]
    lines += [f"  {name:<10}{about.help}" for name, about in shown.items()]
    if verb in VERBS:
        lines += ["", f"its own keys: {' '.join(f'{key}=' for key in VERBS[verb].keys) or 'none'}"]
    return "\n".join([*lines, "every key=value of stylegan_tl.train holds for all trials"])


if __name__ == "__main__":
    sys.exit(main())
