"""What the StyleGANs share in training: style mixing, and D on both halves at once."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_tl.models.adversarial import AdversarialModel

__all__ = ["StyleBased"]


class StyleBased(AdversarialModel):
    """A G of `mapping` and `synthesis`; `style_mixing` is the share of mixed samples."""

    still = {"noise": "none"}
    style_mixing: float
    w_avg_beta = 0.995  # of the mean w, per step of G

    @property
    def layers_in_use(self) -> int:
        """How many of the num_ws styles reach the image."""
        return self.G.num_ws

    def synthesise(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Fakes from styles of two latents, crossed over at a random layer (style mixing)."""
        return self.G.synthesis(self.styles(z, c, generator), generator=generator)

    def styles(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """ws [N, num_ws, w_dim] of `z`, mixed; moves the mean w in a step of G."""
        ws = self.G.mapping(z, c)
        if self.G.mapping.training and torch.is_grad_enabled():
            self.G.mapping.update_w_avg(ws[:, 0].detach(), self.w_avg_beta)
        if not self.style_mixing:
            return ws
        other = self.G.mapping(self.latents(len(z), generator), c)
        draw = torch.rand(2, len(z), 1, generator=generator, device=z.device)
        cutoff = 1 + (draw[0] * (self.layers_in_use - 1)).floor()
        cutoff = torch.where(draw[1] < self.style_mixing, cutoff, ws.shape[1])
        keep = torch.arange(ws.shape[1], device=z.device) < cutoff  # [N, num_ws]
        return torch.where(keep.unsqueeze(2), ws, other)

    def _judged(
        self, real: Tensor, fake: Tensor, label: Tensor, augment: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """One pass over both halves; minibatch statistics stay within each."""
        both = self._augmented(torch.cat([real, fake]), augment)
        return *self.D(both, torch.cat([label, label]), chunks=2).chunk(2), {}
