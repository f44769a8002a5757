"""Errors for people: one clear message and exit code 2 instead of a traceback."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["near", "user_errors"]

_SHOWN = 40  # options that a hint lists
_MENDABLE = {"MisconfigurationException", "TrainingDiverged", "YAMLError"}  # heavy to import


def near(word: str, allowed: Sequence[str], count: int = 1, otherwise: str | None = None) -> str:
    """What a person who wrote `word` may have meant.

    Where nothing is like it, `otherwise`, or all that is allowed.

    >>> near("freez_d", ["freeze_d", "freeze_g", "none"])
    'did you mean freeze_d?'
    """
    close = difflib.get_close_matches(word, allowed, count)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if otherwise is not None:
        return otherwise
    more = f" … ({len(allowed)} in all)" if len(allowed) > _SHOWN else ""
    return f"there are {', '.join(allowed[:_SHOWN])}{more}"


@contextmanager
def user_errors() -> Iterator[None]:
    """Print what a person can mend as `error: …` and exit with 2.

    That is a ValueError, also one that Hydra wrapped while it built an object, a file that cannot
    be read or written or that is no YAML, a trainer that this machine cannot have, and a training
    that diverged.
    """
    try:
        yield
    except Exception as error:
        wrapped = type(error).__name__ == "InstantiationException" and error.__cause__ is not None
        cause = error.__cause__ if wrapped else error
        said = _said(cause)
        if said is None or os.environ.get("STYLEGAN_TL_TRACEBACK"):
            raise
        print(f"error: {said}\n(STYLEGAN_TL_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(2)


def _said(error: BaseException | None) -> str | None:
    """What to tell a person who can mend it, else None."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    named = _MENDABLE & {kind.__name__ for kind in type(error).__mro__}
    return str(error) if isinstance(error, ValueError) or named else None
