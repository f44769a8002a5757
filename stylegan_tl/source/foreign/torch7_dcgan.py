"""Networks of dcgan.torch and art-DCGAN: a Torch7 file each for G and D."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylegan_tl.source.foreign.dcgan import EPSILON, NORM, Stage, move_dcgan
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.origin import UNKNOWN_LICENCE
from stylegan_tl.source.foreign.pairs import both
from stylegan_tl.source.foreign.values import Record, Stored
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["FORMAT", "matches", "read"]

FORMAT = "Torch7 DCGAN"
_CONTAINERS = ("Sequential", "DataParallelTable")
_CONVOLUTIONS = ("SpatialFullConvolution", "SpatialConvolution", "SpatialConvolutionMM")
_NORM = "SpatialBatchNormalization"
_ACTIVATIONS = {"G": ("ReLU", "Tanh"), "D": ("LeakyReLU", "Sigmoid")}
_SILENT = ("View", "Identity", "Copy")
_DEPTH = 8
_MOST_MODULES = 1_000  # a sequence may be in another one more than once


def matches(data: Any) -> bool:
    """A module of Torch7 that contains others."""
    return isinstance(data, Record) and _kind(data) in _CONTAINERS


def read(path: Path, data: Any) -> SourceModel:
    """G as G_ema and D, from this file and from its partner beside it.

    D gives logits here: its last Sigmoid is part of the loss.
    """
    with both(path, data, _role) as (files, budget):
        layers = {role: list(_layers(files[role])) for role in files}
        tensors = {
            f"{role}.{i}.{name}": value
            for role, found in layers.items()
            for i, layer in enumerate(found, 1)
            for name, value in layer.state.items()
            if isinstance(value, Stored)
        }
        moves = Moves(path, tensors)
        moves.budget = budget
        stages = {role: _stages(role, found) for role, found in layers.items()}
        model = move_dcgan(
            moves,
            stages["G"],
            stages.get("D", []),
            format=FORMAT,
            licence=UNKNOWN_LICENCE,
            slope=_slope(layers.get("D", [])),
            rest="a buffer or gradient of training",
        )
    return model


def _kind(module: Any) -> str:
    """The class of a module without its library: nn and cudnn have the same ones."""
    library, _, kind = module.name.rpartition(".") if isinstance(module, Record) else ("", "", "")
    return kind if library in ("nn", "cudnn", "cunn") else ""


def _role(data: Any) -> str | None:
    """G if its first convolution is transposed, D if it is not."""
    if not matches(data):
        return None
    first = next((_kind(m) for m in _layers(data) if _kind(m) in _CONVOLUTIONS), None)
    if first is None:
        raise SourceError("a Torch7 network without a convolution")
    return "G" if first == "SpatialFullConvolution" else "D"


def _layers(root: Record) -> Iterator[Record]:
    """The modules of nested sequences, in the order in which they run."""
    todo, seen = [(root, 0)], 0
    while todo:
        module, depth = todo.pop()
        seen += 1
        if seen > _MOST_MODULES or depth > _DEPTH:
            raise SourceError(f"more than {_MOST_MODULES:,} modules, or deeper than {_DEPTH}")
        if _kind(module) in _CONTAINERS:
            todo += reversed([(one, depth + 1) for one in _inner(module)])
        else:
            yield module


def _inner(module: Record) -> list[Record]:
    """What a sequence holds, in its order; of replicas of one network the first."""
    inner = module.state.get("modules") if isinstance(module.state, dict) else None
    if not isinstance(inner, dict) or sorted(inner, key=str) != sorted(
        range(1, len(inner) + 1), key=str
    ):
        raise SourceError(f"{module.name[:60]} without a list of modules")
    found = [inner[i] for i in range(1, len(inner) + 1)]
    for i, one in enumerate(found, 1):
        if not isinstance(one, Record) or not isinstance(one.state, dict):
            raise SourceError(f"module {i} of a sequence is none")
    return found[:1] if _kind(module) == "DataParallelTable" else found


def _stages(role: str, layers: list[Record]) -> list[Stage]:
    """Convolutions with the normalisations that follow them."""
    _check_order(role, [_kind(layer) for layer in layers])
    stages: list[Stage] = []
    expected = [k for k in _CONVOLUTIONS if (k == "SpatialFullConvolution") == (role == "G")]
    last = max(i for i, m in enumerate(layers) if _kind(m) in _CONVOLUTIONS)
    for i, layer in enumerate(layers):
        kind, name = _kind(layer), f"{role}.{i + 1}"
        if kind in expected:
            stages.append(_convolution(role, layer, name, first=not stages, last=i == last))
        elif kind == _NORM and stages and _kind(layers[i - 1]) in _CONVOLUTIONS:
            stages[-1] = _normalised(stages[-1], layer, name)
        elif kind not in (*_SILENT, *_ACTIVATIONS[role]):
            raise SourceError(f"module {i + 1} of {role} is {layer.name[:60]}: no part of a DCGAN")
    return stages


def _check_order(role: str, kinds: list[str]) -> None:
    """SourceError unless an activation stands between two convolutions, and Tanh at G's end."""
    inner, last = _ACTIVATIONS[role]
    steps = ["conv" if kind in _CONVOLUTIONS else kind for kind in kinds]
    steps = [step for step in steps if step in ("conv", inner, last)]
    count = steps.count("conv")
    wanted = [*["conv", inner] * (count - 1), "conv", last]
    if steps != wanted and (role == "G" or steps != wanted[:-1]):
        raise SourceError(
            f"{role} runs {', '.join(steps)[:80]}…: a DCGAN has {inner} after every convolution, "
            f"{last} after the last"
        )


def _convolution(role: str, layer: Record, name: str, *, first: bool, last: bool) -> Stage:
    """A stage of 4 x 4 kernels: by a factor of 2, but next to the latent or the logit, 1 x 1."""
    small = first if role == "G" else last
    wanted = {"kW": 4, "kH": 4, "dW": 1 if small else 2, "dH": 1 if small else 2}
    wanted |= {"padW": 0 if small else 1, "padH": 0 if small else 1, "adjW": 0, "adjH": 0}
    wanted |= {"groups": 1}
    for key, value in wanted.items():
        if layer.state.get(key, value) != value:
            raise SourceError(f"{name}: {key}={layer.state[key]}, where a DCGAN has {value}")
    sizes = [layer.state.get(key) for key in ("nInputPlane", "nOutputPlane")]
    if not all(isinstance(n, float) and 0 < n < 1 << 20 and n.is_integer() for n in sizes):
        raise SourceError(f"{name}: no number of maps")
    planes = (int(sizes[0]), int(sizes[1]))
    shape = (*(planes if role == "G" else planes[::-1]), 4, 4)
    has_bias = isinstance(layer.state.get("bias"), Stored)
    return Stage(f"{name}.weight", shape, bias=f"{name}.bias" if has_bias else None)


def _normalised(stage: Stage, layer: Record, name: str) -> Stage:
    """The stage with a batch normalisation; before version 2 it kept 1 / deviation."""
    old = isinstance(layer.state.get("running_std"), Stored)
    norm = {ours: f"{name}.{ours}" for ours in NORM}
    norm |= {"running_var": f"{name}.running_std"} if old else {}
    epsilon = layer.state.get("eps", EPSILON)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise SourceError(f"{name}: eps={epsilon}")
    return Stage(stage.weight, stage.shape, stage.bias, norm, epsilon, inverse_deviation=old)


def _slope(layers: list[Record]) -> float:
    """The slope of all leaky ReLUs."""
    slopes: set[Any] = {m.state.get("negval") for m in layers if _kind(m) == "LeakyReLU"} or {0.2}
    slope = slopes.pop()
    if slopes or not isinstance(slope, float) or not 0 <= slope < 1:
        raise SourceError(f"leaky ReLUs of slope {slope}")
    return slope
