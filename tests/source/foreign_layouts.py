"""Files in the layouts of NVIDIA's projects, written here with weights in closed form.

Names and shapes are facts of those projects (stylegan2-ada-pytorch d72cc7d `training/networks.py`,
stylegan3 c233a91 `training/networks_stylegan2.py`, stylegan 1e0d5c7 and stylegan2 bf0fe0b
`training/networks_*.py`); no code of theirs is here.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SIZE = dict(resolution=32, z_dim=16, w_dim=24, base=512, most=32, layers=2)
BATCH = 4


def latents(c_dim: int = 0) -> tuple[Tensor, Tensor | None]:
    """z [4, 16] in closed form, and one-hot labels."""
    k = torch.arange(BATCH * SIZE["z_dim"], dtype=torch.float64)
    z = (torch.sin(k * k * 0.3) * 1.4).float().reshape(BATCH, -1)
    return z, torch.eye(c_dim)[[i % c_dim for i in range(BATCH)]] if c_dim else None


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights as a function of the name and the place; biases and noise are smaller."""
    k = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
    value = np.sin(0.37 * k * k + sum(map(ord, name)) % 97) * 1.4
    last = name.replace("/", ".").rpartition(".")[2]
    small = {
        "bias": 0.2,
        "w_avg": 0.2,
        "dlatent_avg": 0.2,
        "noise_strength": 0.1,
        "noise_const": 0.7,
    }
    value *= small.get(last, 1.0) * (100 if ".fc" in name and "mapping" in name else 1)
    return np.asarray(value, dtype=np.float32)


def width(r: int) -> int:
    """Channels at `r` px."""
    return min(SIZE["base"] // r, SIZE["most"])


def sizes() -> list[int]:
    """4, 8, 16, 32."""
    return [4, 8, 16, 32]


# -- NVIDIA's persistent classes ------------------------------------------------------------


def G_shapes(c_dim: int = 0, layers: int = SIZE["layers"]) -> dict[str, tuple[int, ...]]:
    """Parameters and buffers of a StyleGAN2 generator, as NVIDIA's PyTorch code names them."""
    w, features = SIZE["w_dim"], SIZE["z_dim"] + (SIZE["w_dim"] if c_dim else 0)
    found: dict[str, tuple[int, ...]] = {"mapping.w_avg": (w,)}
    if c_dim:
        found |= {"mapping.embed.weight": (w, c_dim), "mapping.embed.bias": (w,)}
    for i in range(layers):
        found |= {f"mapping.fc{i}.weight": (w, features if i == 0 else w)}
        found |= {f"mapping.fc{i}.bias": (w,)}
    for r in sizes():
        block, out = f"synthesis.b{r}", width(r)
        found |= {f"{block}.resample_filter": (4, 4)}
        found |= {f"{block}.const": (out, 4, 4)} if r == 4 else {}
        for conv, into in (("conv0", width(r // 2) if r > 4 else 0), ("conv1", out)):
            if not into:
                continue
            found |= {f"{block}.{conv}.weight": (out, into, 3, 3), f"{block}.{conv}.bias": (out,)}
            found |= {f"{block}.{conv}.noise_strength": (), f"{block}.{conv}.noise_const": (r, r)}
            found |= {f"{block}.{conv}.affine.weight": (into, w)}
            found |= {f"{block}.{conv}.affine.bias": (into,)}
            found |= {f"{block}.{conv}.resample_filter": (4, 4)}
        found |= {f"{block}.torgb.weight": (3, out, 1, 1), f"{block}.torgb.bias": (3,)}
        found |= {f"{block}.torgb.affine.weight": (out, w), f"{block}.torgb.affine.bias": (out,)}
    return found


def D_shapes(c_dim: int = 0) -> dict[str, tuple[int, ...]]:
    """Likewise of a StyleGAN2 discriminator."""
    found: dict[str, tuple[int, ...]] = {}
    for r in sizes()[:0:-1]:
        block, into, out = f"b{r}", width(r), width(r // 2)
        found |= {f"{block}.resample_filter": (4, 4)}
        if r == SIZE["resolution"]:
            found |= {f"{block}.fromrgb.weight": (into, 3, 1, 1), f"{block}.fromrgb.bias": (into,)}
        found |= {f"{block}.conv0.weight": (into, into, 3, 3), f"{block}.conv0.bias": (into,)}
        found |= {f"{block}.conv1.weight": (out, into, 3, 3), f"{block}.conv1.bias": (out,)}
        found |= {f"{block}.skip.weight": (out, into, 1, 1)}
        found |= {f"{block}.skip.resample_filter": (4, 4)}
    n = width(4)
    found |= {"b4.conv.weight": (n, n + 1, 3, 3), "b4.conv.bias": (n,)}
    found |= {"b4.fc.weight": (n, 16 * n), "b4.fc.bias": (n,)}
    found |= {"b4.out.weight": (n if c_dim else 1, n), "b4.out.bias": (n if c_dim else 1,)}
    if c_dim:
        found |= {"mapping.embed.weight": (n, c_dim), "mapping.embed.bias": (n,)}
        for i in range(8):
            found |= {f"mapping.fc{i}.weight": (n, n), f"mapping.fc{i}.bias": (n,)}
    return found


def nvidia_pickle(
    path: Path,
    *,
    flat: bool = False,
    c_dim: int = 0,
    frozen: tuple[str, ...] = (),
    clamp: float | None = None,
    G_more: dict[str, Any] | None = None,
    D_more: dict[str, Any] | None = None,
    D: bool = True,
    protocol: int = 4,
) -> Path:
    """A pickle of stylegan2-ada-pytorch, or with `flat` of stylegan3's StyleGAN2.

    `frozen`: prefixes of D whose weights are buffers. `G_more`, `D_more`: further arguments.
    """
    layers = 8 if c_dim else SIZE["layers"]
    synthesis = dict(channel_base=SIZE["base"], channel_max=SIZE["most"], conv_clamp=clamp)
    common = dict(c_dim=c_dim, img_resolution=SIZE["resolution"], img_channels=3)
    given = dict(z_dim=SIZE["z_dim"], w_dim=SIZE["w_dim"], mapping_kwargs={"num_layers": layers})
    given |= common | (synthesis if flat else {"synthesis_kwargs": synthesis}) | (G_more or {})
    of_D = synthesis | common | {"epilogue_kwargs": {"mbstd_group_size": 4}} | (D_more or {})
    with _modules() as classes:
        G = _persistent(classes, "Generator", given, G_shapes(c_dim, layers), (), clamp)
        data = {"training_set_kwargs": None, "G": G, "G_ema": G, "augment_pipe": None}
        if D:
            shapes = D_shapes(c_dim)
            data["D"] = _persistent(classes, "Discriminator", of_D, shapes, frozen, clamp)
        path.write_bytes(pickle.dumps(data, protocol))
    return path


def _persistent(
    classes: Any,
    name: str,
    given: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    frozen: tuple[str, ...],
    clamp: float | None,
    values: dict[str, Tensor] | None = None,
) -> Any:
    """Nested modules, each pickled as NVIDIA's persistent classes are.

    Tensors are those of `values`, or else in closed form.
    """
    tree: dict[str, Any] = {}
    for full, shape in shapes.items():
        *blocks, leaf = full.split(".")
        node = tree
        for block in blocks:
            node = node.setdefault(block, {})
        fixed = leaf in ("w_avg", "noise_const", "resample_filter") or full.startswith(frozen)
        value = torch.from_numpy(numbers(full, shape))
        if leaf == "resample_filter":
            one = torch.tensor([1.0, 3.0, 3.0, 1.0])
            value = torch.outer(one, one) / 64
        value = (values or {}).get(full, value)
        node[leaf] = value if fixed else torch.nn.Parameter(value)
    return _module(classes, name, given, tree, clamp)


def _module(
    classes: Any, name: str, given: dict[str, Any], tree: dict[str, Any], clamp: float | None
) -> Any:
    parts = {k: _module(classes, "Part", {}, v, clamp) for k, v in tree.items() if type(v) is dict}
    parameters = {k: v for k, v in tree.items() if isinstance(v, torch.nn.Parameter)}
    buffers = {k: v for k, v in tree.items() if k not in parts and k not in parameters}
    state = {
        "training": False,
        "_parameters": OrderedDict(parameters),
        "_buffers": OrderedDict(buffers),
        "_modules": OrderedDict(parts),
        "_init_args": (),
        "_init_kwargs": classes.EasyDict(given),
        "conv_clamp": clamp,
    }
    meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": name}
    return classes.Persistent({**meta, "state": state})


# -- TensorFlow -----------------------------------------------------------------------------


def stylegan2_variables(c_dim: int = 0) -> dict[str, dict[str, tuple[int, ...]]]:
    """Variables of TensorFlow's StyleGAN2 (configurations E and F), by network and part.

    With labels G is that of StyleGAN2-ADA.
    """
    w = SIZE["w_dim"]
    mapping, synthesis, D = _tf_mapping(), {}, {}
    if c_dim:
        mapping |= {"LabelEmbed/weight": (c_dim, w), "LabelEmbed/bias": (w,)}
        mapping |= {"Dense0/weight": (SIZE["z_dim"] + w, w)}
    for number in range(2 * len(sizes()) - 1):
        r = 4 << (number + 1) // 2
        synthesis[f"noise{number}"] = (1, 1, r, r)
    for r in sizes():
        block, out, into = f"{r}x{r}", width(r), width(r // 2)
        layers = {"Conv": (3, out, out)} if r == 4 else {}
        layers |= {"Conv0_up": (3, into, out), "Conv1": (3, out, out)} if r > 4 else {}
        layers |= {"ToRGB": (1, out, 3)}
        synthesis |= {f"{block}/Const/const": (1, out, 4, 4)} if r == 4 else {}
        for layer, (k, i, o) in layers.items():
            synthesis |= {f"{block}/{layer}/weight": (k, k, i, o), f"{block}/{layer}/bias": (o,)}
            synthesis |= {f"{block}/{layer}/mod_weight": (w, i), f"{block}/{layer}/mod_bias": (i,)}
            if layer != "ToRGB":
                synthesis |= {f"{block}/{layer}/noise_strength": ()}
        if r > 4:
            for layer, k, o in (("Conv0", 3, out), ("Conv1_down", 3, into), ("Skip", 1, into)):
                D |= {f"{block}/{layer}/weight": (k, k, out, o)}
                D |= {f"{block}/{layer}/bias": (o,)} if layer != "Skip" else {}
    top, n = width(SIZE["resolution"]), width(4)
    D |= {"32x32/FromRGB/weight": (1, 1, 3, top), "32x32/FromRGB/bias": (top,)}
    D |= {"4x4/Conv/weight": (3, 3, n + 1, n), "4x4/Conv/bias": (n,)}
    D |= {"4x4/Dense0/weight": (16 * n, n), "4x4/Dense0/bias": (n,)}
    D |= {"Output/weight": (n, 1), "Output/bias": (1,)}
    G = {"lod": (), "dlatent_avg": (w,)}
    return {"G": G, "mapping": mapping, "synthesis": synthesis, "D": D}


def stylegan_variables(c_dim: int = 0) -> dict[str, dict[str, tuple[int, ...]]]:
    """Variables of TensorFlow's StyleGAN."""
    w, synthesis, D = SIZE["w_dim"], {"lod": ()}, {"lod": ()}
    for i, r in enumerate(sizes()):
        block, out, into = f"{r}x{r}", width(r), width(r // 2)
        lod = len(sizes()) - 1 - i
        synthesis |= {f"noise{2 * i}": (1, 1, r, r), f"noise{2 * i + 1}": (1, 1, r, r)}
        first, second = ("Const", "Conv") if r == 4 else ("Conv0_up", "Conv1")
        synthesis |= {f"{block}/Const/const": (1, out, 4, 4)} if r == 4 else {}
        synthesis |= {f"{block}/{first}/weight": (3, 3, into, out)} if r > 4 else {}
        synthesis |= {f"{block}/{second}/weight": (3, 3, out, out)}
        for layer in (first, second):
            synthesis |= {f"{block}/{layer}/bias": (out,), f"{block}/{layer}/Noise/weight": (out,)}
            synthesis |= {f"{block}/{layer}/StyleMod/weight": (w, 2 * out)}
            synthesis |= {f"{block}/{layer}/StyleMod/bias": (2 * out,)}
        synthesis |= {f"ToRGB_lod{lod}/weight": (1, 1, out, 3), f"ToRGB_lod{lod}/bias": (3,)}
        D |= {f"FromRGB_lod{lod}/weight": (1, 1, 3, out), f"FromRGB_lod{lod}/bias": (out,)}
        if r > 4:
            D |= {f"{block}/Conv0/weight": (3, 3, out, out), f"{block}/Conv0/bias": (out,)}
            D |= {f"{block}/Conv1_down/weight": (3, 3, out, into)}
            D |= {f"{block}/Conv1_down/bias": (into,)}
    n, classes = width(4), max(c_dim, 1)
    D |= {"4x4/Conv/weight": (3, 3, n + 1, n), "4x4/Conv/bias": (n,)}
    D |= {"4x4/Dense0/weight": (16 * n, n), "4x4/Dense0/bias": (n,)}
    D |= {"4x4/Dense1/weight": (n, classes), "4x4/Dense1/bias": (classes,)}
    G = {"lod": (), "dlatent_avg": (w,)}
    return {"G": G, "mapping": _tf_mapping(c_dim), "synthesis": synthesis, "D": D}


def _tf_mapping(c_dim: int = 0) -> dict[str, tuple[int, ...]]:
    z, w = SIZE["z_dim"], SIZE["w_dim"]
    found = {"LabelConcat/weight": (c_dim, z)} if c_dim else {}
    for i in range(SIZE["layers"]):
        into = (2 * z if c_dim else z) if i == 0 else w
        found |= {f"Dense{i}/weight": (into, w), f"Dense{i}/bias": (w,)}
    return found


def tensorflow_values(
    variables: dict[str, dict[str, tuple[int, ...]]], lod: float = 0.0
) -> dict[str, dict[str, np.ndarray]]:
    """Numbers for all of them; `lod` for how far the networks have grown."""
    found = {part: {k: numbers(k, s) for k, s in own.items()} for part, own in variables.items()}
    for part, own in found.items():
        own |= {k: np.float32(lod) for k in own if k == "lod"}
        own |= {k: v * 100 for k, v in own.items() if part == "mapping" and "Dense" in k}
        own |= {k: v * 0.02 for k, v in own.items() if part == "mapping" and k.endswith("bias")}
        own |= {k: v * 0.1 for k, v in own.items() if "Noise" in k}
    return found


def tensorflow_pickle(
    path: Path,
    values: dict[str, dict[str, np.ndarray]],
    *,
    version: int = 4,
    G_more: dict[str, Any] | None = None,
    D_more: dict[str, Any] | None = None,
    protocol: int = 4,
) -> Path:
    """(G, D, Gs) with these variables."""
    size = dict(resolution=SIZE["resolution"], num_channels=3, label_size=0)
    size |= dict(fmap_base=SIZE["base"] // 2, fmap_max=SIZE["most"])
    given = size | dict(latent_size=SIZE["z_dim"], dlatent_size=SIZE["w_dim"])
    given |= dict(mapping_layers=SIZE["layers"], mapping_fmaps=SIZE["w_dim"]) | (G_more or {})
    with _modules() as classes:

        def network(name: str, own: dict[str, np.ndarray], options: dict, parts: dict) -> Any:
            made = classes.Network()
            made.state = {
                "version": version,
                "name": name,
                "static_kwargs": options,
                "components": parts,
                "build_module_src": "raise SystemExit",
                "build_func_name": name,
                "variables": [(k, v if v.ndim else v[()]) for k, v in own.items()],
            }
            return made

        parts = {k: network(k, values[k], given, {}) for k in ("mapping", "synthesis")}
        G, Gs = (network("G", values["G"], given, parts) for _ in range(2))
        D = network("D", values["D"], size | (D_more or {}), {})
        path.write_bytes(pickle.dumps((G, D, Gs), protocol))
    return path


# -- the names that such pickles use, for as long as one is written ---------------------------


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("nothing may call this")


class EasyDict(dict):
    """NVIDIA's dictionary with attributes."""


class Persistent:
    """An object of a class that carries its source."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta

    def __reduce__(self) -> tuple:
        return _reconstruct_persistent_obj, (self.meta,)


class Network:
    """A TensorFlow network: pickled as its state."""

    def __getstate__(self) -> dict[str, Any]:
        return self.state


@contextmanager
def _modules() -> Iterator[Any]:
    """Lend our stand-ins the names that the originals have."""
    homes = {
        "torch_utils.persistence": [_reconstruct_persistent_obj],
        "dnnlib.util": [EasyDict],
        "dnnlib.tflib.network": [Network],
    }
    before = {what: what.__module__ for own in homes.values() for what in own}
    made = [".".join(k.split(".")[: i + 1]) for k in homes for i in range(k.count(".") + 1)]
    there = {name: sys.modules[name] for name in made if name in sys.modules}
    for name in made:
        sys.modules[name] = types.ModuleType(name)
    for name, own in homes.items():
        for what in own:
            setattr(sys.modules[name], what.__name__, what)
            what.__module__ = name
    try:
        yield types.SimpleNamespace(EasyDict=EasyDict, Persistent=Persistent, Network=Network)
    finally:
        for what, module in before.items():
            what.__module__ = module
        for name in made:
            sys.modules.pop(name, None)
        sys.modules.update(there)
