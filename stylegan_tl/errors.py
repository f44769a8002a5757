"""Errors for people: one clear message and exit code 2 instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["user_errors"]


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a ValueError as `error: …` and exit with 2; STYLEGAN_TL_TRACEBACK=1 shows all of it."""
    try:
        yield
    except ValueError as error:
        if os.environ.get("STYLEGAN_TL_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
