"""The networks of a stylegan2-ada-pytorch checkout under our training step, for comparison.

Only what its documentation names is called, from a checkout of the user's that is on `sys.path`;
nothing of it is part of this package. It runs in its best state: its plugins, half precision in the
four highest resolutions, regularisers without weight gradients, and no options of ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix
from training import augment, networks

from stylegan_tl import losses
from stylegan_tl.models.stylegan2 import StyleGAN2

__all__ = ["Augment", "Baseline"]

_BGC = (
    "xflip rotate90 xint scale rotate aniso xfrac brightness contrast lumaflip hue saturation"
).split()


class Baseline(StyleGAN2):
    """Its G and D, trained by our steps; the state of its gradient fixes is set as it sets it."""

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """Return its networks of the same architecture and widths."""
        _settings()
        size = dict(c_dim=0, img_resolution=network["resolution"], img_channels=3)
        widths = {k: network[k] for k in ("channel_base", "channel_max")}
        if network["bf16"]:
            if not torch.cuda.is_available():
                raise RuntimeError("its half precision is for GPUs")
            widths |= dict(num_fp16_res=4, conv_clamp=256)
        G = networks.Generator(
            z_dim=network["z_dim"], w_dim=network["w_dim"], synthesis_kwargs=widths,
            mapping_kwargs=dict(num_layers=network["num_mapping_layers"]), **size,
        )  # fmt: skip
        epilogue = dict(mbstd_group_size=network["mbstd_group_size"])
        D = networks.Discriminator(epilogue_kwargs=epilogue, **widths, **size)
        return _Maker(G), _Judge(D)

    def styles(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Style mixing with one crossing for the whole batch."""
        ws = self.G.mapping(z, None)
        if self.style_mixing and torch.rand([]) < self.style_mixing:
            cut = int(torch.randint(1, ws.shape[1], []))
            ws[:, cut:] = self.G.mapping(torch.randn_like(z), None)[:, cut:]
        return ws


class _Maker(nn.Module):
    """Its G behind our signature: it draws its noise itself."""

    def __init__(self, G: nn.Module) -> None:
        super().__init__()
        self.net, self.mapping = G, G.mapping
        self.z_dim, self.resolution = G.z_dim, G.img_resolution

    def synthesis(self, ws: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return self.net.synthesis(ws)


class _Judge(nn.Module):
    """Its D behind our signature: it has no chunks, so real and fake are two calls."""

    def __init__(self, D: nn.Module) -> None:
        super().__init__()
        self.D = D

    def forward(self, img: Tensor, c: Tensor | None = None, *, chunks: int = 1) -> Tensor:
        return torch.cat([self.D(part, None) for part in img.chunk(chunks)])


class Augment(nn.Module):
    """Its ADA pipeline at a fixed p behind our signature."""

    def __init__(self, *, preset: str, p: float, fixed: bool) -> None:
        super().__init__()
        if preset != "bgc" or not fixed:
            raise ValueError("the comparison is of the preset bgc at a fixed p")
        self.pipe = augment.AugmentPipe(**dict.fromkeys(_BGC, 1))
        self.pipe.p.fill_(p)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment with its own random numbers."""
        return self.pipe(images)

    def observe(self, real_logits: Tensor) -> None:
        """Nothing: p is fixed."""

    def adapt(self, batch: int) -> None:
        """Nothing: p is fixed."""


def _settings() -> None:
    warnings.filterwarnings("ignore", message="conv2d_gradfix|grid_sample_gradfix")
    conv2d_gradfix.enabled = grid_sample_gradfix.enabled = True
    losses.path_lengths = _without_weight_gradients(losses.path_lengths)
    losses.r1_penalty = _without_weight_gradients(losses.r1_penalty)


def _without_weight_gradients(penalty: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrapped(*arguments: Tensor) -> Tensor:
        with conv2d_gradfix.no_weight_gradients():
            return penalty(*arguments)

    return wrapped
