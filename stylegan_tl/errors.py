"""Errors for people: one clear message and exit code 2 instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["user_errors"]

_MENDABLE = ("MisconfigurationException", "TrainingDiverged")  # by name: their modules are heavy


@contextmanager
def user_errors() -> Iterator[None]:
    """Print what a person can mend as `error: …` and exit with 2.

    That is a ValueError, also one that Hydra wrapped while it built an object, a trainer that
    this machine cannot have, and a training that diverged.
    """
    try:
        yield
    except Exception as error:
        wrapped = type(error).__name__ == "InstantiationException" and error.__cause__ is not None
        cause = error.__cause__ if wrapped else error
        mendable = isinstance(cause, ValueError) or type(cause).__name__ in _MENDABLE
        if not mendable or os.environ.get("STYLEGAN_TL_TRACEBACK"):
            raise
        print(f"error: {cause}\n(STYLEGAN_TL_TRACEBACK=1 shows where)", file=sys.stderr)
        sys.exit(2)
