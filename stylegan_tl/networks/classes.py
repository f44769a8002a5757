"""Where networks keep what belongs to one class each: the rows of their class tables."""

import math
import re

from torch import nn

from stylegan_tl.networks.layers import FullyConnected

__all__ = ["class_axis", "class_scale"]

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


def class_scale(network: nn.Module, name: str, had: int) -> float:
    """The factor with which rows of a table of `had` classes mean the same in the table `name`.

    A layer of equalised learning rate divides what a label enters by the root of their number.
    """
    layer = network.get_submodule(name.rpartition(".")[0])
    enters = class_axis(network, name) == 1
    return math.sqrt(network.c_dim / had) if enters and isinstance(layer, FullyConnected) else 1.0
