"""Train the bundled small extractor: `python -m stylegan_tl.metrics.train_small [key=value …]`.

Needs no data: the procedural domains are rendered first. The same seed gives the same network on
the same machine. The file holds folded float16 weights; its metadata say what it was trained on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

__all__ = ["Settings", "main"]


@dataclass
class Settings:
    """What `key=value` sets: `images` per domain, `steps` of `batch` images, CPU `threads`, …."""

    out: str = "small.safetensors"
    images: int = 600
    steps: int = 1000
    batch: int = 96
    lr: float = 3e-3
    seed: int = 0
    threads: int = 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 if the file was written."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        print("keys and defaults: " + " ".join(f"{f.name}={f.default}" for f in fields(Settings)))
        return 0
    try:
        settings = _parse(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    from stylegan_tl.metrics.small_training import train

    print(f"written: {train(settings)}")
    return 0


def _parse(arguments: list[str]) -> Settings:
    kinds = {f.name: type(f.default) for f in fields(Settings)}
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in kinds:
            raise ValueError(f"{argument!r} is not key=value with a key of {', '.join(kinds)}")
        try:
            given[key] = kinds[key](value)
        except ValueError:
            raise ValueError(f"{argument}: {key} takes {kinds[key].__name__}") from None
    return Settings(**given)


if __name__ == "__main__":
    raise SystemExit(main())
