"""StyleGAN3 (Karras et al. 2021, arXiv:2106.12423) as a LightningModule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cuda_ops.upfirdn2d import filter2d
from stylegan_tl.ema import half_life_decay
from stylegan_tl.models.style_based import StyleBased
from stylegan_tl.networks import stylegan3
from stylegan_tl.processes import ranks

__all__ = ["StyleGAN3"]


class StyleGAN3(StyleBased):
    """Alias-free generator, StyleGAN2's discriminator, lazy R1; no path length regularisation.

    `network`: resolution, z_dim, w_dim, c_dim, num_mapping_layers, channel_base, channel_max (of G)
    and channel_base_D, channel_max_D where D's differ, mbstd_group_size, clamp, output_scale, miner
    where there is one, and the fields of `alias_free.Design`. `training`: see `Training`.
    `magnitude_kimg` is the half-life of the layers' input magnitudes. Until `blur_fade_kimg` D sees
    images blurred by a Gaussian that shrinks from `blur_init_sigma` pixels, unless a source gave
    one of the networks.
    """

    w_avg_beta = 0.998

    def __init__(
        self,
        *,
        network: dict,
        training: dict,
        style_mixing: float = 0.0,
        magnitude_kimg: float = 20.0,
        blur_init_sigma: float = 0.0,
        blur_fade_kimg: float = 200.0,
        seed: int = 0,
    ) -> None:
        super().__init__(network=network, training=training, seed=seed)
        self.save_hyperparameters()
        self.style_mixing, self.magnitude_kimg = style_mixing, magnitude_kimg
        self.blur_init_sigma, self.blur_fade_kimg = blur_init_sigma, blur_fade_kimg

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """G and D by what each takes of the dictionary."""
        of_G, of_D = stylegan3.arguments(network)
        G = stylegan3.Generator(**of_G, miner=network.get("miner", False))
        return G, stylegan3.Discriminator(**of_D, mbstd_group_size=network["mbstd_group_size"])

    def synthesise(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Fakes; in a step of G its layers' magnitudes move, as the mean w does."""
        ws = self.styles(z, c, generator)
        beta = None
        if torch.is_grad_enabled():
            beta = half_life_decay(len(z) * ranks()[0], self.magnitude_kimg, self.nimg)
        return self.G.synthesis(ws, magnitude_beta=beta)

    @property
    def blur_sigma(self) -> float:
        """What D's images are blurred by, in pixels: a function of nimg (appendix F)."""
        if self.from_source or not self.blur_fade_kimg:
            return 0.0
        return self.blur_init_sigma * max(1 - self.nimg / (1000 * self.blur_fade_kimg), 0.0)

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Blurred first, reals and fakes alike."""
        return super()._augmented(_blurred(images, self.blur_sigma), generator)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Images under the separable filter 2^-(x / sigma)^2, cut at 3 sigma; nothing below 1/3."""
    reach = int(3 * sigma)
    if reach == 0:
        return images
    at = torch.arange(-reach, reach + 1, dtype=torch.float32, device=images.device)
    taps = torch.exp2(-((at / sigma) ** 2))
    return filter2d(images, taps / taps.sum())
