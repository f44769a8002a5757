"""Where networks keep what belongs to one class each: the rows of their class tables."""

import re

from torch import nn

__all__ = ["class_axis"]

_TABLES = (
    (r"(mapping\.)?embed\.weight", 1),  # linear layers that a one-hot label enters
    (r"gates\.b\d+\.weight", 1),
    (r"classes\.(weight|bias)", 0),  # the linear layer that tells the classes
)


def class_axis(network: nn.Module, name: str) -> int | None:
    """The axis of the tensor `name` of `network` (G or D) that counts classes, or None.

    A network may name further tensors with a row for each class in its `class_rows`.
    """
    if network.c_dim and name in getattr(network, "class_rows", ()):
        return 0
    return next((axis for pattern, axis in _TABLES if re.fullmatch(pattern, name)), None)
