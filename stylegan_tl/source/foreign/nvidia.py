"""NVIDIA's PyTorch pickles (stylegan2-ada-pytorch, stylegan3): classes that carry their source.

A network is a record of its class: its name, its source (which is not looked at), the arguments
that it was built with, its parameters and its buffers. What `--freezed` froze lies in the buffers.
StyleGAN2 has the names that this project has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.networks.layers import channels
from stylegan_tl.source.foreign import nvidia_stylegan3
from stylegan_tl.source.foreign.moves import Moves
from stylegan_tl.source.foreign.names import PERSISTENT_CLASS
from stylegan_tl.source.foreign.options import Options
from stylegan_tl.source.foreign.shapes import stylegan2_shapes, stylegan3_shapes
from stylegan_tl.source.foreign.stylegan2 import MODEL
from stylegan_tl.source.foreign.values import Record, Stored, short
from stylegan_tl.source.portable import SourceError, SourceModel

__all__ = ["WHOLE_BATCH", "flattened", "matches", "read"]

LICENCE = (
    "not stated in the file; NVIDIA publishes its own networks of this format under the NVIDIA "
    "Source Code License (non-commercial)"
)
WHOLE_BATCH = 1 << 20  # as a group size of the minibatch statistics
_MOST_MODULES = 5_000
_NO_EFFECT = ("num_fp16_res", "fp16_channels_last", "use_fp16", "channels_last")


def matches(data: Any) -> bool:
    """A dictionary with networks among its values that are persistent classes."""
    values = [data.get(k) for k in ("G_ema", "G", "D")] if isinstance(data, dict) else []
    return any(isinstance(v, Record) and v.name == PERSISTENT_CLASS for v in values)


def read(path: Path, data: dict[str, Any]) -> SourceModel:
    """G_ema and D of the file; D is left behind if this project has none like it."""
    G, D = _Network("G_ema", data.get("G_ema")), _Network("D", data.get("D"))
    alias_free = any(name.startswith("G_ema.synthesis.input.") for name in G.tensors)
    network = _stylegan3(G) if alias_free else _stylegan2(G)
    moves = Moves(path, {**G.tensors, **D.tensors})
    why = _discriminator(D, network) if data.get("D") else "not in the file"
    if alias_free:
        nvidia_stylegan3.move(moves, network, "G_ema.synthesis")
    for name in moves.source:
        if name in moves.taken or name in moves.left:
            continue
        if name.endswith(".resample_filter"):
            moves.leave(name, "the filter [1, 3, 3, 1], as here")
        elif name.startswith("D.") and why:
            moves.leave(name, f"D is left: {why}")
        else:
            moves.take(name, name)
    for name in ("G", "augment_pipe"):
        if data.get(name) is not None:
            moves.leave(name, "not part of a transfer")
    shapes = stylegan3_shapes if alias_free else stylegan2_shapes
    return moves.source_model(
        model=nvidia_stylegan3.MODEL if alias_free else MODEL,
        network=network,
        expected=shapes(network, D=not why),
        format="stylegan3 pickle" if alias_free else "stylegan2-ada-pytorch pickle",
        licence=LICENCE,
    )


class _Network:
    """A persistent class: its name, arguments and tensors."""

    def __init__(self, name: str, record: Any) -> None:
        self.name, self.record, self.tensors = name, record, dict[str, Stored]()
        if record is None:
            return
        state = _state(name, record)
        self.class_name = record.args[0].get("class_name")
        if state.get("_init_args"):
            raise SourceError(f"{name} was built with arguments without names")
        self.options = Options(name, state.get("_init_kwargs"))
        self.tensors = flattened(record, name)


def flattened(root: Any, name: str) -> dict[str, Stored]:
    """All tensors of a persistent class, its parameters and buffers by their dotted names."""
    found: dict[str, Stored] = {}
    todo, seen = [(name, root)], 0
    while todo:
        prefix, record = todo.pop()
        state, seen = _state(prefix, record), seen + 1
        if seen > _MOST_MODULES:
            raise SourceError(f"{name} has more than {_MOST_MODULES:,} modules")
        for kind in ("_parameters", "_buffers"):
            tensors = _table(state, kind)
            found |= {f"{prefix}.{k}": v for k, v in tensors.items() if v is not None}
        modules = _table(state, "_modules")
        parts = [(f"{prefix}.{k}", v) for k, v in modules.items() if v is not None]
        todo += reversed(parts)
    wrong = [k for k, v in found.items() if not isinstance(v, Stored)]
    if wrong:
        raise SourceError(f"{wrong[0]} is no tensor")
    return found


def _state(name: str, record: Any) -> dict[str, Any]:
    """The attributes of a persistent class."""
    made = isinstance(record, Record) and record.name == PERSISTENT_CLASS and len(record.args) == 1
    meta = record.args[0] if made else None
    if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
        raise SourceError(f"{name[:80]} is not a network as NVIDIA's code writes it")
    return meta["state"]


def _table(state: dict[str, Any], kind: str) -> dict[str, Any]:
    table = state.get(kind, {})
    if not isinstance(table, dict) or not all(isinstance(k, str) for k in table):
        raise SourceError(f"{kind} is no table of names")
    return table


def _stylegan3(G: _Network) -> dict[str, Any]:
    """The network dictionary of `model=stylegan3`."""
    network = _latents(G) | nvidia_stylegan3.network_of(G.options)
    G.options.end()
    return network


def _latents(G: _Network) -> dict[str, Any]:
    """What every generator says of its size and its mapping network."""
    if G.class_name != "Generator":
        raise SourceError(f"G_ema is of the class {short(G.class_name)}; Generator is read")
    given = G.options
    given.only("img_channels", 3, default=0)
    w_dim = given.whole("w_dim", least=1)
    return {
        "resolution": _resolution(given),
        "z_dim": given.whole("z_dim", least=1),
        "w_dim": w_dim,
        "c_dim": given.whole("c_dim"),
        "num_mapping_layers": _mapping(given.part("mapping_kwargs"), w_dim),
        "mbstd_group_size": 4,  # of D, if there is one
    }


def _stylegan2(G: _Network) -> dict[str, Any]:
    """The network dictionary of `model=stylegan2`; SourceError if it has no such generator."""
    if not G.tensors:
        raise SourceError("it has no G_ema")
    network, given = _latents(G), G.options
    nested = "synthesis_kwargs" in given.values  # stylegan3's networks_stylegan2 has them flat
    synthesis = given.part("synthesis_kwargs") if nested else given
    network["channel_base"] = synthesis.whole("channel_base", 32768, least=1)
    network["channel_max"] = synthesis.whole("channel_max", 512, least=1)
    synthesis.only("architecture", "skip")
    synthesis.only("use_noise", True)
    _activation(synthesis)
    clamp = _clamp(G, "synthesis", "b4", "conv1")
    synthesis.ignore("conv_clamp", "fused_modconv_default", *_NO_EFFECT)
    synthesis.end()
    given.end()
    return network | ({"clamp": clamp} if clamp else {})


def _resolution(given: Options) -> int:
    resolution = given.whole("img_resolution", least=8, most=4096)
    if resolution & (resolution - 1):
        raise SourceError(f"{given.of}: img_resolution={resolution} is no power of two")
    return resolution


def _mapping(given: Options, w_dim: int) -> int:
    layers = given.whole("num_layers", 8, least=1, most=64)
    given.only("embed_features", None, w_dim)
    given.only("layer_features", None, w_dim)
    given.only("activation", "lrelu")
    given.only("lr_multiplier", 0.01)
    given.ignore("w_avg_beta")
    given.end()
    return layers


def _activation(given: Options) -> None:
    given.only("activation", "lrelu")
    given.only("resample_filter", [1, 3, 3, 1])


def _clamp(network: _Network, *layer: str) -> float | None:
    """What a layer of the network limits its activations to, or None."""
    record = network.record
    for name in layer:
        record = _table(_state(network.name, record), "_modules").get(name)
    value = _state(network.name, record).get("conv_clamp")
    if value is not None and (type(value) not in (int, float) or not value > 0):
        raise SourceError(f"{network.name}: conv_clamp is no number above 0")
    return None if value is None else float(value)


def _discriminator(D: _Network, network: dict[str, Any]) -> str | None:
    """Complete the network dictionary by what D says; or why this project has no such D."""
    widths = {}
    if "kernel" in network:  # D of a StyleGAN3 has widths of its own
        defaults = {"channel_base": 32768, "channel_max": 512}
        widths = {k: D.options.get(k, default) for k, default in defaults.items()}
    try:
        network["mbstd_group_size"] = _group_size(D, network | widths)
    except SourceError as error:
        return str(error)
    network |= {f"{k}_D": D.options.whole(k, v, least=1) for k, v in widths.items()}
    return None


def _group_size(D: _Network, network: dict[str, Any]) -> int:
    given = D.options
    if D.class_name != "Discriminator":
        raise SourceError(f"D is of the class {short(D.class_name)}")
    same = {"img_resolution": "resolution", "c_dim": "c_dim"}
    for key, ours in same.items():
        given.only(key, network[ours], default=-1)
    given.only("channel_base", network["channel_base"], default=32768)
    given.only("channel_max", network["channel_max"], default=512)
    given.only("img_channels", 3, default=0)
    given.only("architecture", "resnet")
    width = channels(4, network["channel_base"], network["channel_max"])
    given.only("cmap_dim", None, width)
    if _clamp(D, "b4", "conv") != network.get("clamp"):
        raise SourceError("D limits activations, G does not, or the other way round")
    blocks, epilogue = given.part("block_kwargs"), given.part("epilogue_kwargs")
    _activation(blocks)
    blocks.ignore("freeze_layers", *_NO_EFFECT)
    mapping = given.part("mapping_kwargs")
    if network["c_dim"] and _mapping(mapping, width) != 8:
        raise SourceError("D has another number of mapping layers than 8")
    epilogue.only("mbstd_num_channels", 1)
    epilogue.only("activation", "lrelu")
    size = epilogue.get("mbstd_group_size", 4)
    size = WHOLE_BATCH if size is None else epilogue.whole("mbstd_group_size", 4, least=1)
    given.ignore("num_fp16_res", "conv_clamp")
    for part in (epilogue, blocks, given):
        part.end()
    return size
