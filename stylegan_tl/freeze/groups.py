"""One vocabulary for the parts of every network: which groups each tensor belongs to.

A tensor has a network (G or D), groups ("conv", "affine", "torgb", ...), a resolution where it
belongs to a block, and a layer number where it belongs to a mapping network. Rules match whole
names, the first that does decides, and a tensor that matches none is an error.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from torch import nn

from stylegan_tl.networks.adapters import is_adapter, plain_name

__all__ = ["GROUPS", "Part", "parts_of"]

GROUPS = {
    "mapping": "z (and label) to w; D's is that of the label",
    "embed": "the table of classes",
    "miner": "z to the z that the mapping network or the first deconvolution gets (freeze=miner)",
    "const": "what the synthesis starts from: StyleGAN2's constant, StyleGAN3's Fourier features, "
    "DCGAN's first deconvolution",
    "block": "everything at one resolution; the discriminator's head is no block",
    "conv": "convolutions with their biases, without the layers to and from RGB",
    "affine": "w to styles; in a DCGAN the scale and shift of batch normalisation",
    "style": "w to styles; a DCGAN has none, its nearest is affine",
    "torgb": "features to RGB, with its affine layer",
    "noise": "strength of the noise, and the constant noise",
    "fromrgb": "RGB to features",
    "head": "4 x 4 features to the logit",
    "adapter": "the trainable change beside a frozen tensor; also in the tensor's groups",
}
"""Group -> what it holds. "input" means const, "norm" means affine."""


class Part(NamedTuple):
    """A tensor of a network, a parameter or a buffer, and what it is."""

    name: str  # from the model: 'G.synthesis.b8.conv0.weight'
    groups: frozenset[str]
    resolution: int | None
    layer: int | None  # of a mapping network, counted from z; the class table is 0
    count: int
    is_parameter: bool

    @property
    def network(self) -> str:
        """'G' or 'D'."""
        return self.name[0]


# (pattern, groups); {last} is the resolution of the image. Named groups: r, the resolution; layer.
_STYLEGAN2 = {
    "G": (
        (r"mapping\.miner\..*", "miner"),
        (r"mapping\.embed\..*", "mapping embed"),
        (r"mapping\.fc(?P<layer>\d+)\..*", "mapping"),
        (r"mapping\.w_avg", "mapping"),
        (r"synthesis\.b(?P<r>4)\.const", "const block"),
        (r"synthesis\.b(?P<r>\d+)\.conv\d\.affine\..*", "affine style block"),
        (r"synthesis\.b(?P<r>\d+)\.conv\d\.(weight|bias)", "conv block"),
        (r"synthesis\.b(?P<r>\d+)\.conv\d\.noise_(strength|const)", "noise block"),
        (r"synthesis\.b(?P<r>\d+)\.torgb\.affine\..*", "torgb affine style block"),
        (r"synthesis\.b(?P<r>\d+)\.torgb\.(weight|bias)", "torgb block"),
    ),
    "D": (
        (r"b(?P<r>\d+)\.fromrgb\..*", "fromrgb block"),
        (r"b(?P<r>\d+)\.(conv0|conv1|skip)\..*", "conv block"),
        (r"b4\.(conv|fc|out)\..*", "head"),
        (r"mapping\.embed\..*", "mapping embed"),
        (r"mapping\.fc(?P<layer>\d+)\..*", "mapping"),
    ),
}
_DCGAN = {
    "G": (
        (r"miner\..*", "miner"),
        (r"embed\.weight", "embed"),
        (r"b(?P<r>4)\.0\.(weight|bias)", "const conv block"),
        (r"b(?P<r>{last})\.0\.(weight|bias)", "torgb block"),
        (r"b(?P<r>\d+)\.0\.(weight|bias)", "conv block"),
        (r"b(?P<r>\d+)\.1\..*", "affine block"),
    ),
    "D": (
        (r"embed\.weight", "embed head"),
        (r"b(?P<r>{last})\.0\.(weight|bias)", "fromrgb block"),
        (r"b(?P<r>\d+)\.0\.(weight|bias)", "conv block"),
        (r"b(?P<r>\d+)\.1\..*", "affine block"),
        (r"b4\.(weight|bias)", "head"),
    ),
}
_GANGOGH = {
    "G": (
        (r"gates\.b(?P<r>\d+)\.weight", "embed block"),
        (r"gates\.b(?P<r>\d+)\.bias", "affine block"),
        *_DCGAN["G"],
    ),
    "D": ((r"classes\.(weight|bias)", "embed head"), *_DCGAN["D"]),
}
_STYLEGAN = {
    "G": (
        *_STYLEGAN2["G"][:5],
        (r"synthesis\.b(?P<r>\d+)\.epilogue\d\.affine\..*", "affine style block"),
        (r"synthesis\.b(?P<r>\d+)\.(conv\d\.weight|epilogue\d\.bias)", "conv block"),
        (r"synthesis\.b(?P<r>\d+)\.epilogue\d\.noise_(strength|const)", "noise block"),
        (r"synthesis\.b(?P<r>\d+)\.torgb\..*", "torgb block"),
        (r"synthesis\.lod", ""),  # how far it has grown: the clock's, whatever stays
    ),
    "D": (
        (r"b4\.fromrgb\..*", "fromrgb head"),
        (r"b(?P<r>\d+)\.fromrgb\..*", "fromrgb block"),
        (r"b4\.out\..*", "embed head"),  # with classes a row for each
        (r"b4\.(conv|fc)\..*", "head"),
        (r"b(?P<r>\d+)\.conv\d\..*", "conv block"),
        (r"lod", ""),
    ),
}
_STYLEGAN3 = {
    "G": (
        *_STYLEGAN2["G"][:4],
        (r"synthesis\.b(?P<r>\d+)\.input\.affine\..*", "const affine style block"),
        (r"synthesis\.b(?P<r>\d+)\.input\.(weight|freqs|phases)", "const block"),
        (r"synthesis\.b(?P<r>\d+)\.L\d+\.affine\..*", "affine style block"),
        (r"synthesis\.b(?P<r>\d+)\.L\d+\.(weight|bias)", "conv block"),
        (r"synthesis\.b(?P<r>\d+)\.L\d+\.magnitude\.ema", "block"),
        (r"synthesis\.b(?P<r>\d+)\.torgb\.affine\..*", "torgb affine style block"),
        (r"synthesis\.b(?P<r>\d+)\.torgb\.(weight|bias|magnitude\.ema)", "torgb block"),
    ),
}
_RULES = {
    "stylegan2": _STYLEGAN2,
    "stylegan": _STYLEGAN,
    "stylegan3": _STYLEGAN3,  # its D is StyleGAN2's
    "dcgan": _DCGAN,
    "gangogh": _GANGOGH,
}


def parts_of(model: nn.Module) -> list[Part]:
    """Every parameter and buffer of `model.G` and `model.D`, in the networks' order.

    Raises ValueError for a network or a tensor that no rule speaks of.
    """
    return [part for network in "GD" for part in _parts(network, getattr(model, network))]


def _parts(network: str, module: nn.Module) -> list[Part]:
    family = type(module).__module__.rpartition(".")[2]
    if family not in _RULES:
        raise ValueError(f"freeze knows no groups for {type(module).__qualname__} of {family!r}")
    parameters = {name for name, _ in module.named_parameters()}
    rules = [
        (re.compile(pattern.replace("{last}", str(module.resolution))), frozenset(groups.split()))
        for pattern, groups in _RULES[family][network]
    ]
    return [
        _part(f"{network}.{name}", *_match(name, rules), tensor.numel(), name in parameters)
        for name, tensor in module.state_dict().items()
    ]


def _match(
    name: str, rules: list[tuple[re.Pattern[str], frozenset[str]]]
) -> tuple[re.Match[str], frozenset[str]]:
    for pattern, groups in rules:
        if match := pattern.fullmatch(plain_name(name)):
            return match, groups | {"adapter"} if is_adapter(name) else groups
    raise ValueError(f"the tensor {name} belongs to no group")


def _part(
    name: str, match: re.Match[str], groups: frozenset[str], count: int, is_parameter: bool
) -> Part:
    found = match.groupdict()
    layer = int(found["layer"]) if found.get("layer") else 0 if "embed" in groups else None
    resolution = int(found["r"]) if found.get("r") else None
    return Part(name, groups, resolution, layer, count, is_parameter)
