"""What every generation of StyleGAN's generator is: a mapping of z to ws, a synthesis of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["StyleGenerator"]


class StyleGenerator(nn.Module):
    """`mapping` and `synthesis`; `make_mapping` takes the sizes and makes the former."""

    def __init__(
        self,
        synthesis: nn.Module,
        make_mapping: Callable[..., nn.Module],
        *,
        resolution: int,
        z_dim: int,
        w_dim: int,
        c_dim: int,
        num_mapping_layers: int,
        miner: bool,
    ) -> None:
        super().__init__()
        self.resolution, self.z_dim, self.w_dim, self.c_dim = resolution, z_dim, w_dim, c_dim
        self.synthesis, self.num_ws = synthesis, synthesis.num_ws
        self.mapping = make_mapping(
            z_dim=z_dim,
            c_dim=c_dim,
            w_dim=w_dim,
            num_ws=self.num_ws,
            num_layers=num_mapping_layers,
            miner=miner,
        )

    @property
    def ws_resolutions(self) -> list[int]:
        """The resolution in pixels that each of the ws draws at: two at each from 4 px up."""
        return [4 << (i // 2) for i in range(self.num_ws)]

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: str = "random",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Map `z [N, z_dim]` and labels `c [N, c_dim]` to images `[N, 3, R, R]` in float32."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, noise=noise, generator=generator)
