"""The last step of the data path, done where the model is."""

import torch

__all__ = ["to_float"]


def to_float(image: torch.Tensor, flip: torch.Tensor | None = None) -> torch.Tensor:
    """Images uint8 [N, C, H, W] to float32 in [-1, 1], mirrored where `flip` (bool [N]) says so."""
    if flip is not None:
        image = torch.where(flip.view(-1, 1, 1, 1), image.flip(3), image)
    return image.to(torch.float32) / 127.5 - 1
