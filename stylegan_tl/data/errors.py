"""What the data layer says when an input cannot be used."""

from pathlib import Path

__all__ = ["DataError", "Unusable", "hint"]

_NAMED = {  # file of an option in conf/dataset -> what says where it lies
    "houses-128.zip": "STYLEGAN_TL_HOUSES",
    "lsun-sample-64.zip": "STYLEGAN_TL_LSUN_SAMPLE",
}


class DataError(ValueError):
    """A data set cannot be used as asked; the message names the key, what came and the fix."""


class Unusable(DataError):
    """One file cannot become a training image; packing reports it and goes on."""


def hint(path: str | Path) -> str:
    """How to say where a missing file lies that the options of conf/dataset expect; else nothing.

    >>> hint("data/houses-128.zip")
    '; set STYLEGAN_TL_HOUSES to where it lies'
    """
    variable = _NAMED.get(Path(path).name)
    return f"; set {variable} to where it lies" if variable else ""
