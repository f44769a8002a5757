"""Maps of the image plane in homogeneous coordinates, in pixels, x before y."""

import torch
from torch import Tensor

__all__ = ["rotation", "scaling", "translation"]


def rotation(angle: Tensor) -> Tensor:
    """[N, 3, 3]: turn by `angle` radians, from x towards y."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _homogeneous(cos, -sin, zero, sin, cos, zero)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3]: stretch by `x` and `y`."""
    zero = torch.zeros_like(x)
    return _homogeneous(x, zero, zero, zero, y, zero)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """[N, 3, 3]: move by `x` and `y`."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _homogeneous(one, zero, x, zero, one, y)


def _homogeneous(*six: Tensor) -> Tensor:
    zero, one = torch.zeros_like(six[0]), torch.ones_like(six[0])
    return torch.stack([*six, zero, zero, one], dim=-1).view(-1, 3, 3)
