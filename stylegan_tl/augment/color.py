"""Colour transformations of ADA as 4 x 4 matrices on (r, g, b, 1), images in [-1, 1]."""

import math

import torch
from torch import Tensor

__all__ = ["brightness", "contrast", "hue", "luma_flip", "saturation"]


def brightness(offset: Tensor) -> Tensor:
    """[N, 4, 4]: add `offset` [N] to every channel."""
    matrix = torch.eye(4, device=offset.device).repeat(len(offset), 1, 1)
    matrix[:, :3, 3] = offset[:, None]
    return matrix


def contrast(gain: Tensor) -> Tensor:
    """[N, 4, 4]: multiply every channel by `gain` [N], about mid-grey."""
    return _linear(torch.eye(3, device=gain.device) * gain[:, None, None])


def luma_flip(flip: Tensor) -> Tensor:
    """[N, 4, 4]: where `flip` [N] is one, reflect at the plane of zero luma; Householder."""
    eye = torch.eye(3, device=flip.device)
    return _linear(eye - 2 * _luma(flip) * flip[:, None, None])


def hue(angle: Tensor) -> Tensor:
    """[N, 4, 4]: rotate by `angle` [N] radians about the luma axis (Rodrigues)."""
    luma, eye = _luma(angle), torch.eye(3, device=angle.device)
    cross = (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)  # v -> axis x v, made on the device
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return _linear(luma + (eye - luma) * cos + cross * sin)


def saturation(gain: Tensor) -> Tensor:
    """[N, 4, 4]: multiply what is not luma by `gain` [N]."""
    luma = _luma(gain)
    return _linear(luma + (torch.eye(3, device=gain.device) - luma) * gain[:, None, None])


def _luma(like: Tensor) -> Tensor:
    """[3, 3]: projection on the grey axis (1, 1, 1) / sqrt 3."""
    return torch.full((3, 3), 1 / 3, device=like.device)


def _linear(three: Tensor) -> Tensor:
    matrix = torch.eye(4, device=three.device).repeat(len(three), 1, 1)
    matrix[:, :3, :3] = three
    return matrix
