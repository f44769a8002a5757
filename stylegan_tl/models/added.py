"""What strategies put into the game of G and D: a further loss, or one in place of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from stylegan_tl.models.adversarial import AdversarialModel

__all__ = ["Objective", "Penalty"]


class Penalty(Protocol):
    """A further loss of G, of D or of both, added to the adversarial one in the same step.

    A loss is a scalar, weighted already: the mean over the samples of a micro-batch, or a function
    of the weights alone. None means none of this network. Logged as `{name}_G` and `{name}_D`.
    """

    name: str

    def of_G(
        self, model: AdversarialModel, z: Tensor, c: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The loss of G at the latents `z [N, z_dim]` of this micro-batch."""

    def of_D(
        self, model: AdversarialModel, real: Tensor, c: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The loss of D at the images `real [N, 3, R, R]` of this micro-batch, not augmented."""


class Objective(Protocol):
    """Losses of G that replace the adversarial ones; D then rests. A module: it is in the state.

    Losses are scalars by name, weighted already; they are added up and logged by their names.
    """

    lr_G: float

    def groups(self) -> list[dict]:
        """Its own parameters with their learning rates, for the optimizer of G."""

    def of_images(self, model: AdversarialModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over the images of this micro-batch: `image`, `label`, `index`."""

    def of_weights(self, model: AdversarialModel, generator: torch.Generator) -> dict[str, Tensor]:
        """What does not depend on the batch, once per iteration."""
