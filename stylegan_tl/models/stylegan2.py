"""StyleGAN2 (Karras et al. 2020a) as a LightningModule: path length regularisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_tl import losses
from stylegan_tl.models.style_based import StyleBased
from stylegan_tl.networks import stylegan2
from stylegan_tl.processes import mean

__all__ = ["StyleGAN2", "bf16_pays"]


def bf16_pays(precision: str) -> bool:
    """Whether a network runs in bfloat16: 'bf16' and 'fp32' decide, 'auto' asks the processor.

    On a CPU bfloat16 wins only with matrix units (AMX); elsewhere it was measured slower.
    On a GPU 'auto' stays with float32 until the benchmark has shown otherwise.
    """
    choices = {"bf16": True, "fp32": False}
    if precision == "auto":
        return not torch.cuda.is_available() and torch.cpu._is_amx_tile_supported()
    if precision not in choices:
        raise ValueError(f"model.precision must be auto, fp32 or bf16, but got {precision!r}")
    return choices[precision]


class StyleGAN2(StyleBased):
    """Skip generator, residual discriminator, lazy R1 and path length regularisation.

    `network`: resolution, z_dim, w_dim, c_dim, num_mapping_layers, channel_base, channel_max,
    mbstd_group_size, and miner or clamp where there is one. `training`: see `Training`.
    """

    def __init__(
        self,
        *,
        network: dict,
        training: dict,
        precision: str = "auto",
        style_mixing: float = 0.9,
        pl_weight: float = 2.0,
        pl_interval: int = 4,
        seed: int = 0,
    ) -> None:
        built = {**network, "bf16": bf16_pays(precision)}
        super().__init__(network=built, training=training, seed=seed)
        self.save_hyperparameters()
        self.style_mixing = style_mixing
        self.pl_weight = pl_weight
        self.pl_interval = pl_interval
        self.register_buffer("pl_mean", torch.zeros([]))

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """G takes all but the minibatch group size, D takes what concerns images and labels."""
        both = {k: network[k] for k in ("resolution", "channel_base", "channel_max", "bf16")}
        both |= {"c_dim": network.get("c_dim", 0), "clamp": network.get("clamp")}
        latent = {k: network[k] for k in ("z_dim", "w_dim", "num_mapping_layers")}
        G = stylegan2.Generator(**both, **latent, miner=network.get("miner", False))
        return G, stylegan2.Discriminator(**both, mbstd_group_size=network["mbstd_group_size"])

    @property
    def G_interval(self) -> int:
        """Path length every `pl_interval` iterations, unless its weight is zero."""
        return self.pl_interval if self.pl_weight else 0

    def regularise_G(self, opt_G: torch.optim.Optimizer, c: Tensor) -> dict[str, Tensor]:
        """Path length regularisation on half of the batch (Karras et al. 2020a, section 3.2)."""
        generator = self.generator("path_length")
        count = max(len(c) // 2, 1)
        opt_G.zero_grad(set_to_none=True)
        z = self.latents(count, generator)
        lengths = []
        for part in self._micro_batches(count):
            ws = self.styles(z[part], c[part], generator)
            if not ws.requires_grad:  # a frozen mapping network: w is an input like any other
                ws = ws.detach().requires_grad_(True)
            images = self.G.synthesis(ws, generator=generator)
            noise = torch.randn(images.shape, generator=generator, device=images.device)
            length = losses.path_lengths(images, ws, noise)
            target = mean(length.detach().mean())
            penalty, _ = losses.path_length_penalty(length, self.pl_mean, mean=target)
            weight = self.pl_weight * self.pl_interval * self.training_plan.G_steps / count
            # 0 * images keeps every parameter of G in the graph
            self.manual_backward(penalty.sum() * weight + 0 * images[:, 0, 0, 0].sum())
            lengths.append(length.detach())
        self._step(opt_G)
        _, moved = losses.path_length_penalty(torch.cat(lengths), self.pl_mean)
        self.pl_mean.copy_(moved)
        return {"path_length": torch.cat(lengths).mean()}
