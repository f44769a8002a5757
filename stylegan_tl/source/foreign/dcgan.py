"""Chains of convolutions as others store them, and the DCGAN of this project that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stylegan_tl.networks import dcgan
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.shapes import shapes
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["MODEL", "Stage", "move_dcgan"]

MODEL = "stylegan_tl.models.dcgan.DCGAN"
EPSILON = 1e-5
"""Of `torch.nn.BatchNorm2d`."""
NORM = ("weight", "bias", "running_mean", "running_var")
_COUNT = "num_batches_tracked"


@dataclass(frozen=True)
class Stage:
    """One convolution and what follows it, by the names that its tensors have in the file.

    `shape`: of the weight, [O, I, K, K], of G's transposed ones [I, O, K, K]. `norm`: their names
    of `NORM` (and of the count), empty for none; `inverse_deviation`: what stands for the variance
    is 1 / sqrt(variance + epsilon).
    """

    weight: str
    shape: tuple[int, ...]
    bias: str | None = None
    norm: dict[str, str] = field(default_factory=dict)
    epsilon: float = EPSILON
    inverse_deviation: bool = False


def move_dcgan(
    moves: Moves,
    G: Sequence[Stage],
    D: Sequence[Stage],
    *,
    format: str,
    licence: str,
    slope: float = 0.2,
    rest: str | None = None,
) -> SourceModel:
    """The DCGAN with these stages as a source model; `D` may be empty. `slope`: of D's leaky ReLU.

    `rest`: why the tensors of the file that are in no stage are left; without it they are an error.

    Convolutions without a bias get zeros if another one has a bias. Another epsilon of a batch
    normalisation goes into its variance, exactly for its running statistics.
    Raises SourceError for stages that no DCGAN of this project has.
    """
    network = _architecture(G, D)
    network |= {} if slope == 0.2 else {"slope": slope}
    r = network["resolution"]
    blocks = [f"G_ema.b{4 << i}.0" for i in range(len(G))]
    blocks += [f"D.b{r >> i}.0" for i in range(len(D) - 1)] + (["D.b4"] if D else [])
    for stage, block in zip([*G, *D], blocks, strict=True):
        _move(moves, stage, block, network["bias"])
    if rest is not None:
        for name in moves.source.keys() - moves.taken.keys():
            moves.leave(name, rest)
    keys = ("resolution", "width_max", "bias")
    both = {k: network[k] for k in keys}
    widths = {k: network[f"width_{k}"] for k in "GD"}
    z_dim = network["z_dim"]
    expected = shapes(lambda: dcgan.Generator(**both, width=widths["G"], z_dim=z_dim), "G_ema")
    if D:
        expected |= shapes(lambda: dcgan.Discriminator(**both, width=widths["D"]), "D")
    return moves.source_model(
        model=MODEL, network=network, expected=expected, format=format, licence=licence
    )


def _architecture(G: Sequence[Stage], D: Sequence[Stage]) -> dict[str, Any]:
    """The network dictionary of the stages."""
    resolution = 2 << len(G)
    if len(G) not in (4, 5, 6, 7) or (D and len(D) != len(G)):
        raise SourceError(
            f"{len(G)} convolutions in G and {len(D)} in D: a DCGAN of 32 to 256 px has 4 to 7 in "
            "each"
        )
    widths = {"G": [s.shape[1] for s in G[:-1]][::-1]}
    widths |= {"D": [s.shape[0] for s in D[:-1]]} if D else {}
    if not all(own[0] > 0 for own in widths.values()):
        raise SourceError("a convolution without maps")
    most = max(max(own) // own[0] for own in widths.values())
    most = 8 if most == min(8, resolution // 8) else most
    sizes = [resolution >> i for i in range(1, len(G))]
    for name, own in widths.items():
        wanted = [dcgan.width_at(r, resolution, own[0], most) for r in sizes]
        if own != wanted:
            raise SourceError(f"{name} has {own} maps where a DCGAN has {wanted}")
    return {
        "resolution": resolution,
        "z_dim": G[0].shape[0],
        "c_dim": 0,
        "width": widths["G"][0],
        "width_G": widths["G"][0],
        "width_D": widths.get("D", widths["G"])[0],
        "width_max": most,
        "bias": any(s.bias is not None for s in [*G, *D]),
    }


def _move(moves: Moves, stage: Stage, block: str, bias: bool) -> None:
    """Take one stage; `block`: our name of its convolution, such as 'G_ema.b4.0'."""
    moves.take(stage.weight, f"{block}.weight", lambda t: t.reshape(stage.shape))
    out = stage.shape[1] if block.startswith("G_ema") else stage.shape[0]
    places = (out, 4, 4) if block == "G_ema.b4.0" else (out,)
    if stage.bias is not None:
        moves.take(stage.bias, f"{block}.bias", lambda t: _spread(t, places))
    elif bias:
        moves.make(f"{block}.bias", torch.zeros(places), "zero: it has none")
    norm = f"{block[:-1]}1"
    for ours in NORM if stage.norm else ():
        change = _variance(stage) if ours == "running_var" else None
        moves.take(stage.norm[ours], f"{norm}.{ours}", change)
    if _COUNT in stage.norm:
        moves.take(stage.norm[_COUNT], f"{norm}.{_COUNT}")
    elif stage.norm:
        moves.make(f"{norm}.{_COUNT}", torch.tensor(0), "zero: nothing counted it")


def _spread(bias: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One bias per map, at every place that has one here."""
    return bias.reshape(-1, *[1] * (len(shape) - 1)).expand(shape)


def _variance(stage: Stage) -> Any:
    """What was stored to the variance that goes with our epsilon."""

    def change(stored: Tensor) -> Tensor:
        own = stored.double()
        total = own**-2 if stage.inverse_deviation else own + stage.epsilon
        return (total - EPSILON).float()

    return change
