"""GANGogh (Jones and Bonafilia 2017): a DCGAN whose classes gate G and are told by D.

G's activation is that of a conditional PixelCNN (van den Oord et al. 2016, arXiv:1606.05328,
equation 4), sigmoid(a + U c) * tanh(b + V c), at every place its own U and V. D is a critic without
batch normalisation (arXiv:1704.00028, section 4) and has a second head, the auxiliary classifier
(Odena et al. 2017, arXiv:1610.09585).
"""

import torch
from torch import Tensor, nn

from stylegan_tl.networks import dcgan
from stylegan_tl.networks.dcgan import draw_weights, width_at
from stylegan_tl.networks.layers import Miner, check_labels
from stylegan_tl.networks.strided import Projection, doubling, resolutions

__all__ = ["Discriminator", "Generator"]


class GatedBlock(nn.Sequential):
    """A deconvolution, its normalisation and the gate, `sigmoid(a) tanh(b)` of their halves."""

    def forward(self, x: Tensor, start: Tensor | None, gate: Tensor | None) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O / 2, H', W']`; a class adds before and after the norm."""
        conv, norm = self
        x = conv(x)
        x = x if start is None else x + start.view_as(x)
        x = norm(x)
        x = x if gate is None else x + gate.view_as(x)
        a, b = x.chunk(2, dim=1)
        return a.sigmoid() * b.tanh()


class Generator(nn.Module):
    """Gated 5 x 5 deconvolutions from z and class to a tanh image; modules `b4` ... as a DCGAN's.

    `embed` is the class's part of the first linear layer, `gates.b{r}` are U and V at `r`. Without
    classes the gates have none.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        z_dim: int = 128,
        c_dim: int = 0,
        img_channels: int = 3,
        width: int = 64,
        width_max: int = 8,
        miner: bool = False,
    ) -> None:
        super().__init__()
        self.resolution, self.z_dim, self.c_dim = resolution, z_dim, c_dim
        self.resolutions = resolutions(resolution, "GANGogh")
        self.gates = nn.ModuleDict()
        features = z_dim
        for r in self.resolutions[:-1]:
            out = 2 * width_at(r, resolution, width, width_max)
            conv = Projection(features, out) if r == 4 else doubling(features, out, 5, bias=True)
            self.add_module(f"b{r}", GatedBlock(conv, nn.BatchNorm2d(out)))
            if c_dim > 0:
                self.gates[f"b{r}"] = nn.Linear(c_dim, out * r * r, bias=r > 4)
            features = out // 2
        last = doubling(features, img_channels, 5, bias=True)
        self.add_module(f"b{resolution}", nn.Sequential(last, nn.Tanh()))
        if c_dim > 0:
            self.embed = nn.Linear(c_dim, self.b4[0].out_channels * 16, bias=False)
        draw_weights(self, "uniform")
        if miner:
            self.miner = Miner(nn.Linear(z_dim, z_dim), nn.Linear(z_dim, z_dim))

    def forward(
        self, z: Tensor, c: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Map `z [N, z_dim]` and labels `c [N, c_dim]` to images `[N, 3, R, R]` in [-1, 1].

        `generator` is taken for the sake of one call for all models; nothing here is random.
        """
        check_labels(c, self.c_dim)
        z = self.miner(z) if hasattr(self, "miner") else z
        x = z[:, :, None, None]
        for r in self.resolutions[:-1]:
            start = self.embed(c) if r == 4 and self.c_dim > 0 else None
            gate = self.gates[f"b{r}"](c) if self.c_dim > 0 else None
            x = getattr(self, f"b{r}")(x, start, gate)
        return getattr(self, f"b{self.resolution}")(x)


class Discriminator(dcgan.Discriminator):
    """The critic: DCGAN's with 5 x 5 kernels, biases and layer normalisation; `classes` tells them.

    Its logit does not depend on the label.
    """

    class_rows = ("classes.weight", "classes.bias")  # a row for each class

    def __init__(
        self, *, resolution: int = 64, c_dim: int = 0, width: int = 64, width_max: int = 8
    ) -> None:
        size = dict(resolution=resolution, width=width, width_max=width_max)
        super().__init__(**size, kernel=5, bias=True, init="uniform", norm="layer")
        self.c_dim = c_dim
        if c_dim > 0:
            self.classes = nn.Linear(self.b4.in_channels * 16, c_dim)
            draw_weights(self.classes, "uniform")

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        """Map images `[N, 3, R, R]` to logits `[N, 1]`, whatever the labels."""
        return self.b4(self.features(img)).flatten(1)

    def both(self, img: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, 1]`, and those of the classes `[N, c_dim]`, in one pass."""
        x = self.features(img)
        return self.b4(x).flatten(1), self.classes(x.flatten(1))
