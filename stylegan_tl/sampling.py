"""Images of a restored model by seed: one seed is one latent, in pictures and on pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_tl.metrics.ppl import slerp
from stylegan_tl.models.adversarial import AdversarialModel, to_uint8
from stylegan_tl.source.classes import class_names

__all__ = [
    "Look",
    "between",
    "has_truncation",
    "look_in",
    "labels",
    "latents",
    "sample",
    "styles",
    "synthesise",
]

_BATCH = 16
_SHOWN = 40  # classes in a message


@dataclass(frozen=True)
class Look:
    """What beside z makes an image: psi and the noise of a StyleGAN, the class of a label."""

    truncation: float = 1.0
    noise: str = "none"
    label: int | str | None = None


def has_truncation(model: AdversarialModel) -> bool:
    """Whether the generator has a mapping network, and so an average w to move towards."""
    return hasattr(model.G_ema, "mapping")


def latents(model: AdversarialModel, seeds: Sequence[int]) -> Tensor:
    """z [len(seeds), z_dim], each from its own generator."""
    rows = [model.latents(1, torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(rows)


def look_in(config: Mapping[str, Any]) -> Look:
    """Truncation, noise and label of `config`; ValueError for what no model takes."""
    noise, psi = config["noise"], config["truncation"]
    if noise not in ("none", "const", "random"):
        raise ValueError(f"noise={noise}: use none, const or random")
    if not isinstance(psi, int | float) or isinstance(psi, bool):
        raise ValueError(f"truncation={psi}: use a number; 1 is none, 0 the average image")
    return Look(truncation=psi, noise=noise, label=config["label"])


def labels(model: AdversarialModel, count: int, label: int | str | None) -> Tensor | None:
    """One-hot [count, c_dim] of the class `label`; None for a model without classes.

    A class is known by its number, and by its name where the model's lineage has names.
    """
    classes = model.G_ema.c_dim
    if not classes:
        if label is not None:
            raise ValueError(f"label={label}: this model has no classes; leave label= out")
        return None
    names = class_names(model.lineage, classes)
    number = names.index(label) if label in names else label
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < classes:
        which = ", ".join(f"{i} {name}" for i, name in enumerate(names[:_SHOWN]))
        more = f", … {classes - 1} {names[-1]}" if len(names) > _SHOWN else ""
        known = f" ({which}{more})" if names else ", without names"
        raise ValueError(
            f"label={label}: this model has {classes} classes{known}; give the number of one, from "
            f"0 to {classes - 1}{', or its name' if names else ''}"
        )
    return torch.eye(classes)[[number]].expand(count, -1)


def sample(model: AdversarialModel, z: Tensor, look: Look) -> np.ndarray:
    """Images uint8 [N, 3, R, R] of latents z, in parts."""
    how = {}
    if has_truncation(model):
        how = {"truncation_psi": look.truncation, "noise": look.noise}
    generator = torch.Generator().manual_seed(0)
    c = labels(model, len(z), look.label)
    parts = [
        model.sample(
            z[i : i + _BATCH],
            None if c is None else c[i : i + _BATCH],
            generator=generator,
            **how,
        )
        for i in range(0, len(z), _BATCH)
    ]
    return torch.cat(parts).numpy()


@torch.no_grad()
def styles(model: AdversarialModel, z: Tensor, look: Look) -> Tensor:
    """ws [N, num_ws, w_dim] of latents z, truncated; of a model with a mapping network."""
    c = labels(model, len(z), look.label)
    return model.G_ema.mapping(z, c, truncation_psi=look.truncation)


@torch.no_grad()
def synthesise(model: AdversarialModel, ws: Tensor, look: Look) -> np.ndarray:
    """Images uint8 [N, 3, R, R] of ws [N, num_ws, w_dim], in parts; they are not truncated."""
    generator = torch.Generator().manual_seed(0)
    how = {"noise": look.noise, "generator": generator}
    parts = [to_uint8(model.G_ema.synthesis(w, **how)) for w in ws.split(_BATCH)]
    return torch.cat(parts).numpy()


def between(model: AdversarialModel, a: Tensor, b: Tensor, steps: Tensor, look: Look) -> np.ndarray:
    """Images uint8 [len(a) * len(steps), 3, R, R] on the way from each a to its b.

    Straight in w for a StyleGAN, on the sphere in z for a DCGAN.
    """
    places = steps.repeat(len(a))
    if not has_truncation(model):
        ends = (z.repeat_interleave(len(steps), 0) for z in (a, b))
        return sample(model, slerp(*ends, places), look)
    w_a, w_b = (styles(model, z, look).repeat_interleave(len(steps), 0) for z in (a, b))
    return synthesise(model, w_a.lerp(w_b, places[:, None, None]), look)
