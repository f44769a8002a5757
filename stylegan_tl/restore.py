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

__all__ = ["check_fit", "examine", "rebuild", "restore"]

_MODELS = (
    "stylegan_tl.models.stylegan2.StyleGAN2",
    "stylegan_tl.models.stylegan.StyleGAN",
    "stylegan_tl.models.stylegan3.StyleGAN3",
    "stylegan_tl.models.dcgan.DCGAN",
    "stylegan_tl.models.gangogh.GANGogh",
)

_ORIGINS = {"G": "G_ema", "D": "D"}
_MOST_UNSEEN = 1 << 28
"""Numbers of a network that a file describes without holding it; the largest known has 74 M."""
_LARGEST_IMAGE = 4096  # pixels along a side; the largest published are 1024

warn = logging.getLogger("stylegan_tl").warning


def restore(path: str | Path) -> tuple[AdversarialModel, SourceModel]:
    """Rebuild the model that a file describes, whatever `read_model` takes, in eval mode."""
    source = read_model(Path(path))
    return rebuild(source), source


def examine(path: str | Path) -> SourceModel:
    """Read a file and compare its tensors with what it says of itself; nothing is built.

    Raises SourceError for what `restore` could not rebuild.
    """
    source = read_model(Path(path))
    check_fit(_class_of(source), source)
    return source


def rebuild(source: SourceModel) -> AdversarialModel:
    """The model of what was read from a file, in eval mode."""
    model_class = _class_of(source)
    check_fit(model_class, source)
    there = _there(source)
    for name in _ORIGINS.keys() - set(there):
        warn(f"{source.path} has no {name}: this one has random weights")
    model = _made(model_class, source)
    load_into(model, source, networks=there)
    model.lineage = source.lineage
    return model.eval()


def check_fit(model_class: type[AdversarialModel], source: SourceModel) -> None:
    """Compare the tensors of a file with the network that it describes, of which nothing is built.

    A file may claim more than memory holds. Raises SourceError where they differ, for a network
    that is not in the file and would be huge, buffers and all, and for images larger than any.
    """
    _check_size(source)
    there = _there(source)
    with torch.device("meta"):
        blank = _made(model_class, source)
        load_into(blank, source, networks=there)
    for name in _ORIGINS.keys() - set(there):
        network = getattr(blank, name)
        count = sum(t.numel() for t in (*network.parameters(), *network.buffers()))
        if count > _MOST_UNSEEN:
            raise SourceError(
                f"{source.path} has no {name}, and describes one of {count:,} numbers; "
                f"{_MOST_UNSEEN:,} are built"
            )


def _check_size(source: SourceModel) -> None:
    resolution = source.network.get("resolution")
    if type(resolution) is not int or not 1 <= resolution <= _LARGEST_IMAGE:
        raise SourceError(
            f"{source.path} says network.resolution={str(resolution)[:60]!r}: images of 1 to "
            f"{_LARGEST_IMAGE} pixels are built"
        )


def _class_of(source: SourceModel) -> type[AdversarialModel]:
    if source.model not in _MODELS:
        raise SourceError(f"{source.path}: model {source.model!r} is not one of {_MODELS}")
    module, _, name = source.model.rpartition(".")
    return getattr(import_module(module), name)


def _there(source: SourceModel) -> list[str]:
    return [name for name, origin in _ORIGINS.items() if source.state(origin)]


def _made(model_class: type[AdversarialModel], source: SourceModel) -> AdversarialModel:
    """The model with random weights.

    SourceError for a network dictionary that is not its own, or that memory does not hold.
    """
    try:
        return model_class(network=source.network, training=asdict(Training()))
    except (TypeError, KeyError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        wrong = "memory does not hold" if _is_full(error) else f"no {source.model} has"
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SourceError(f"{source.path}: {wrong} its network: {why}") from error


def _is_full(error: Exception) -> bool:
    """Whether it says that there is no memory left; on a CPU that is a plain RuntimeError."""
    full = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return full or "tried to allocate" in str(error)
