"""Where networks keep what belongs to one class each: the rows of their class tables."""

import re

from torch import nn

__all__ = ["class_axis"]

_ENTERING = r"((mapping\.)?embed|gates\.b\d+)\.weight"  # linear layers that a one-hot label enters


def class_axis(network: nn.Module, name: str) -> int | None:
    """The axis of the tensor `name` of G or D that counts classes, or None.

    A network names what leads to its classes, one row each, in `class_rows`.
    """
    if not network.c_dim:
        return None
    if name in getattr(network, "class_rows", ()):
        return 0
    return 1 if re.fullmatch(_ENTERING, name) else None
