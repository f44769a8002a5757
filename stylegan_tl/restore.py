"""A trained model back from a file, ready to sample."""

from __future__ import annotations

import logging
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

from stylegan_tl.models.adversarial import AdversarialModel, Training
from stylegan_tl.source.load import load_into
from stylegan_tl.source.portable import SourceError, SourceModel, read_model

__all__ = ["rebuild", "restore"]

_MODELS = (
    "stylegan_tl.models.stylegan2.StyleGAN2",
    "stylegan_tl.models.stylegan.StyleGAN",
    "stylegan_tl.models.stylegan3.StyleGAN3",
    "stylegan_tl.models.dcgan.DCGAN",
    "stylegan_tl.models.gangogh.GANGogh",
)


_ORIGINS = {"G": "G_ema", "D": "D"}

warn = logging.getLogger("stylegan_tl").warning


def restore(path: str | Path) -> tuple[AdversarialModel, SourceModel]:
    """Rebuild the model that a file describes, whatever `read_model` takes, in eval mode."""
    source = read_model(Path(path))
    return rebuild(source), source


def rebuild(source: SourceModel) -> AdversarialModel:
    """The model of what was read from a file, in eval mode."""
    if source.model not in _MODELS:
        raise SourceError(f"{source.path}: model {source.model!r} is not one of {_MODELS}")
    module, _, name = source.model.rpartition(".")
    model_class = getattr(import_module(module), name)
    there = [name for name, origin in _ORIGINS.items() if source.state(origin)]
    for name in _ORIGINS.keys() - set(there):
        warn(f"{source.path} has no {name}: this one has random weights")
    with torch.device("meta"):  # a file may claim more than memory holds: compare shapes first
        load_into(_made(model_class, source), source, networks=there)
    model = _made(model_class, source)
    load_into(model, source, networks=there)
    return model.eval()


def _made(model_class: type[AdversarialModel], source: SourceModel) -> AdversarialModel:
    """The model with random weights; SourceError for a network dictionary that is not its own."""
    try:
        return model_class(network=source.network, training=asdict(Training()))
    except (TypeError, KeyError, RuntimeError, ArithmeticError) as error:
        why = str(error).splitlines()[0][:200]
        raise SourceError(f"{source.path}: no {source.model} has its network: {why}") from error
