"""`python -m stylegan_tl.latent <tool> checkpoint=…`: what the latents of a generator can do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

__all__ = ["TOOLS", "main"]

TOOLS = {
    "interpolate": "walks between latents, as an animation: lerp or slerp, in z or w, loops",
    "mix": "style mixing: some layers of one latent in another, rows x columns",
    "truncation": "from the average image to no truncation, a row per seed",
    "project": "the latents whose images are nearest to given images",
    "factorise": "directions that change the image most (SeFa), a strip for each",
    "blend": "a model of the source's low and the child's high resolutions, or the reverse",
    "pair": "the same latents through source and child, and the way from one to the other",
}


def main() -> None:
    """Run one tool, its configuration composed from `conf/latent.yaml` and `conf/latent/`."""
    words = sys.argv[1:]
    if not words or (words[0] not in TOOLS and {"-h", "--help"} & set(words)):
        print(_help(), file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    import shlex

    from stylegan_tl.command import run_command
    from stylegan_tl.errors import near, user_errors

    with user_errors():
        if words[0] not in TOOLS:
            raise ValueError(f"{words[0]}: no such tool; {near(words[0], list(TOOLS))}")

    command = shlex.join(["python", "-m", "stylegan_tl.latent", *words])
    sys.argv[1:] = [f"latent={words[0]}", *words[1:]]
    run_command("latent", lambda cfg: _run(cfg, command))


def run(config: dict[str, Any], command: str = "") -> list[Path]:
    """Run the tool of a plain configuration; the files written, their record last."""
    from importlib import import_module

    from stylegan_tl.latent.record import write_record

    made = import_module(f"stylegan_tl.latent.{config['tool']}").make(config)
    return [*made.files, write_record(made, config, command)]


def _run(cfg: DictConfig, command: str) -> None:
    from stylegan_tl.config import plain
    from stylegan_tl.errors import user_errors

    with user_errors():
        for path in run(plain(cfg), command):
            print(path)


def _help() -> str:
    lines = ["python -m stylegan_tl.latent <tool> checkpoint=… [key=value …]", ""]
    lines += [f"  {name:<13}{what}" for name, what in TOOLS.items()]
    return "\n".join([*lines, "", "python -m stylegan_tl.latent <tool> --help lists its keys."])


if __name__ == "__main__":
    main()
