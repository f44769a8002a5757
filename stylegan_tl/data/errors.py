"""What the data layer says when an input cannot be used."""

__all__ = ["DataError", "Unusable"]


class DataError(ValueError):
    """A data set cannot be used as asked; the message names the key, what came and the fix."""


class Unusable(DataError):
    """One file cannot become a training image; packing reports it and goes on."""
