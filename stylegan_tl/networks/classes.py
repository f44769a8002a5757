"""Where networks keep what belongs to one class each: the rows of their class tables."""

import re

__all__ = ["class_axis"]

_TABLES = (
    (r"(mapping\.)?embed\.weight", 1),  # linear layers that a one-hot label enters
    (r"gates\.b\d+\.weight", 1),
    (r"classes\.(weight|bias)", 0),  # the linear layer that tells the classes
)


def class_axis(name: str) -> int | None:
    """The axis of the tensor `name` of G or D that counts classes, or None."""
    return next((axis for pattern, axis in _TABLES if re.fullmatch(pattern, name)), None)
