"""Torch7 files, written by `torch7_writer` from the format's description, and what they draw.

The networks are held against an evaluation in NumPy that knows nothing of PyTorch's layers.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch7_writer import Closure, Module, Writer

from stylegan_tl.networks import dcgan
from stylegan_tl.restore import rebuild
from stylegan_tl.source.foreign.torch7 import is_torch7, read_torch7
from stylegan_tl.source.foreign.values import Budget, Record, Stored
from stylegan_tl.source.portable import SourceError, read_model

# `hello=123.t7` and `list_table.t7` as Torch7 itself wrote them (bshillingford/python-torchfile)
WRITTEN_BY_TORCH7 = bytes.fromhex(
    "030000000100000001000000020000000500000068656c6c6f010000000000000000c05e40"
)


def _read(data: bytes):
    return read_torch7(data, Budget(len(data)))


def _wave(shape: tuple[int, ...], phase: float, scale: float = 1.0) -> np.ndarray:
    values = np.cos(np.arange(math.prod(shape)) * 0.7 + phase) * scale
    return values.reshape(shape).astype("f4")


def _conv(kind: str, shape: tuple[int, ...], stride: int, phase: float, bias: bool) -> Module:
    planes = shape[:2] if kind == "SpatialFullConvolution" else shape[1::-1]
    fields = {"nInputPlane": planes[0], "nOutputPlane": planes[1], "kW": 4, "kH": 4}
    fields |= {"dW": stride, "dH": stride, "padW": stride - 1, "padH": stride - 1}
    fields |= {"weight": _wave(shape, phase, (2 / math.prod(shape[1:])) ** 0.5)}
    fields |= {"gradWeight": np.zeros(shape, "f4"), "output": np.zeros(0, "f4")}
    fields |= {"bias": _wave((planes[1],), phase + 1, 0.3)} if bias else {}
    return Module(f"nn.{kind}", fields)


def _norm(count: int, phase: float, *, old: bool = False, eps: float = 1e-5) -> Module:
    variance = 1 + _wave((count,), phase + 3) / 2
    fields = {"weight": 1 + _wave((count,), phase, 0.2), "bias": _wave((count,), phase + 1, 0.2)}
    fields |= {"running_mean": _wave((count,), phase + 2, 0.2), "eps": eps, "affine": True}
    fields |= {"running_std": (variance + eps) ** -0.5} if old else {"running_var": variance}
    return Module("nn.SpatialBatchNormalization", fields, version="V 1" if old else "V 2")


def _networks(steps: int, *, ngf: int, ndf: int, bias: bool, slope: float = 0.2, **norm):
    """G and D of `2 ** (steps + 1)` px as lists of modules."""
    g = [ngf * 2**i for i in range(steps - 1)][::-1]
    G = [_conv("SpatialFullConvolution", (5, g[0], 4, 4), 1, 0.1, bias)]
    for i, width in enumerate(g):
        G += [_norm(width, i, **norm), Module("nn.ReLU", {"inplace": True})]
        out = g[i + 1] if i + 1 < len(g) else 3
        G.append(_conv("SpatialFullConvolution", (width, out, 4, 4), 2, i + 0.5, bias))
    G.append(Module("nn.Tanh", {}))
    d = [ndf * 2**i for i in range(steps - 1)]
    D = [_conv("SpatialConvolution", (d[0], 3, 4, 4), 2, 0.2, bias)]
    for i, width in enumerate(d):
        D += [_norm(width, i, **norm)] if i else []
        D.append(Module("nn.LeakyReLU", {"negval": slope}))
        last = i + 1 == len(d)
        shape = (1 if last else d[i + 1], width, 4, 4)
        D.append(_conv("SpatialConvolution", shape, 1 if last else 2, i + 0.7, bias))
    D += [Module("nn.Sigmoid", {}), Module("nn.View", {"numInputDims": 3})]
    return G, D


def _sequence(modules: list[Module], name: str = "nn.Sequential") -> Module:
    return Module(name, {"modules": dict(enumerate(modules, 1)), "train": True})


def _save(folder: Path, G: list[Module], D: list[Module], *, cuda: bool = False) -> Path:
    for name, modules in (("G", G), ("D", D)):
        data = Writer(cuda=cuda).dump(_sequence(modules))
        (folder / f"portrait_100_net_{name}.t7").write_bytes(data)
    return folder / "portrait_100_net_G.t7"


def _evaluate(modules: list[Module], x: np.ndarray) -> np.ndarray:
    """What Torch7 computes for one sample [C, H, W], in float64, from each layer's definition."""
    x = x.astype("f8")
    for module in modules:
        f, kind = module.fields, module.name.partition(".")[2]
        if kind == "SpatialFullConvolution":
            x = _transposed(x, f["weight"].astype("f8"), f["dW"], f["padW"])
            x = x + f["bias"].astype("f8")[:, None, None] if "bias" in f else x
        elif kind == "SpatialConvolution":
            x = _convolved(x, f["weight"].astype("f8"), f["dW"], f["padW"])
            x = x + f["bias"].astype("f8")[:, None, None] if "bias" in f else x
        elif kind == "SpatialBatchNormalization":
            inverse = (
                f["running_std"].astype("f8")
                if "running_std" in f
                else (f["running_var"].astype("f8") + f["eps"]) ** -0.5
            )
            x = (x - f["running_mean"][:, None, None]) * (inverse * f["weight"])[:, None, None]
            x = x + f["bias"][:, None, None]
        elif kind == "ReLU":
            x = np.maximum(x, 0)
        elif kind == "LeakyReLU":
            x = np.where(x > 0, x, f["negval"] * x)
        elif kind == "Tanh":
            x = np.tanh(x)
    return x


def _transposed(x: np.ndarray, weight: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """Each input puts its kernel on the output, `stride` apart; `pad` is cut off."""
    size = (x.shape[1] - 1) * stride + 4
    y = np.zeros((weight.shape[1], size, size))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            part = np.tensordot(x[:, i, j], weight, 1)
            y[:, i * stride : i * stride + 4, j * stride : j * stride + 4] += part
    return y[:, pad : size - pad, pad : size - pad]


def _convolved(x: np.ndarray, weight: np.ndarray, stride: int, pad: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    n = (x.shape[1] - 4) // stride + 1
    y = np.zeros((len(weight), n, n))
    for i in range(n):
        for j in range(n):
            part = x[:, i * stride : i * stride + 4, j * stride : j * stride + 4]
            y[:, i, j] = np.tensordot(weight, part, 3)
    return y


CASES = {
    "dcgan.torch": dict(steps=5, ngf=2, ndf=2, bias=False),
    "art-DCGAN": dict(steps=6, ngf=4, ndf=1, bias=False),
    "biases, other epsilon": dict(steps=4, ngf=3, ndf=2, bias=True, eps=1e-3),
    "before version 2": dict(steps=4, ngf=2, ndf=3, bias=True, old=True, slope=0.1),
}


@pytest.mark.parametrize("name", CASES)
def test_networks_draw_what_their_layers_say(name: str, tmp_path) -> None:
    G, D = _networks(**CASES[name])
    source = read_model(_save(tmp_path, G, D, cuda=name == "art-DCGAN"))
    model = rebuild(source)
    z = _wave((1, 5), 0.3, 1.4)
    with torch.no_grad():
        image = model.G_ema(torch.from_numpy(z))
        logit = model.D(image)
    expected = _evaluate(G, z[0][:, None, None])
    assert np.abs(image[0].numpy() - expected).max() < 1e-5
    assert abs(logit.item() - _evaluate(D, expected).item()) < 1e-4  # before the sigmoid
    taken, left = (source.extra["report"][k] for k in ("taken", "left"))
    assert len(taken) == sum(
        k in ("weight", "bias", "running_mean", "running_var", "running_std")
        for module in G + D
        for k in module.fields
    )
    assert {k.rpartition(".")[2] for k in left} == {"gradWeight", "output"}


def test_published_art_dcgan_has_the_published_sizes() -> None:
    """73.7 and 4.4 million parameters at ngf=160, ndf=40: what its architecture counts."""
    with torch.device("meta"):
        G = dcgan.Generator(resolution=128, z_dim=100, width=160, width_max=16)
        D = dcgan.Discriminator(resolution=128, width=40, width_max=16)
    assert sum(p.numel() for p in G.parameters()) == 73_745_600
    assert sum(p.numel() for p in D.parameters()) == 4_366_560


def test_values_of_every_type_come_back() -> None:
    array = _wave((3, 4), 0).T  # strides that are not those of a copy
    shared = {"x": 1.5}
    value = {1: None, 2: True, "name": "t7", "again": {"a": shared, "b": shared}, 3: Closure()}
    found = _read(Writer().dump(value | {"array": array.copy(), 4: Closure(tag=7)}))
    assert found[2] is True
    assert found["name"] == "t7"
    assert found["again"]["a"] is found["again"]["b"]
    assert isinstance(found[3], Record)
    assert found[3].name == "function"
    assert found["array"].read().tolist() == array.tolist()


def test_a_file_that_torch7_wrote_is_read() -> None:
    assert is_torch7(WRITTEN_BY_TORCH7)
    assert _read(WRITTEN_BY_TORCH7) == {"hello": 123.0}


def test_an_object_without_a_version_and_sequences_in_sequences_are_read(tmp_path) -> None:
    G, D = _networks(4, ngf=2, ndf=2, bias=False)
    plain = read_model(_save(tmp_path, G, D))
    for module in G:
        module.version = ""
    nested = [_sequence(G[:3]), _sequence([_sequence(G[3:])])]
    again = read_model(_save(tmp_path, [Module("nn.Copy", {}), *nested], D))
    assert all(torch.equal(plain.tensors[k], v) for k, v in again.tensors.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda G: G.insert(2, Module("nn.Dropout", {})), "nn.Dropout: no part of a DCGAN"),
        (lambda G: G[3].fields.update(kW=5), "kW=5.0, where a DCGAN has 4"),
        (lambda G: G[3].fields.update(nInputPlane=float("nan")), "no number of maps"),
        (lambda G: G[3].fields.update(weight=_wave((2, 2, 4, 4), 0)), "RuntimeError"),
        (lambda G: G[3].fields.pop("weight"), "weight is missing"),
        (lambda G: G[1].fields.update(eps=-1), "eps=-1"),
        (lambda G: G.__delitem__(slice(3, 6)), "maps where a DCGAN has|3 convolutions"),
        (lambda G: G.clear(), "without a convolution"),
        (lambda G: G.pop(2), "a DCGAN has ReLU after every convolution"),
        (lambda G: G.pop(), "Tanh after the last"),
    ],
)
def test_other_networks_are_refused_by_name(change, said: str, tmp_path) -> None:
    G, D = _networks(4, ngf=2, ndf=2, bias=False)
    change(G)
    with pytest.raises(SourceError, match=said) as error:
        read_model(_save(tmp_path, G, D))
    assert "\n" not in str(error.value)


def test_sizes_beyond_the_file_are_refused_before_memory_is_taken() -> None:
    head = struct.pack("<iii", 4, 1, 3) + b"V 1" + struct.pack("<i", 17) + b"torch.FloatTensor"
    storage = struct.pack("<iii", 4, 2, 3) + b"V 1" + struct.pack("<i", 18) + b"torch.FloatStorage"
    for tail, said in (
        (struct.pack("<i2qq", 1, 1 << 40, 1, 1) + storage + struct.pack("<q", 1 << 40), "follow"),
        (struct.pack("<i2qq", 1, 8, 0, 1) + storage + struct.pack("<qf", 1, 0), "storage of 1"),
        (struct.pack("<i2qq", 1, 1, 1, 9) + storage + struct.pack("<qf", 1, 0), "storage of 1"),
        (struct.pack("<i2qq", 1, 1, -1, 1) + storage + struct.pack("<qf", 1, 0), "whole numbers"),
        (struct.pack("<i", 99), "99 dimensions"),
    ):
        with pytest.raises(SourceError, match=said):
            _read(head + tail)
    for data in (struct.pack("<iii", 3, 1, 1 << 30), struct.pack("<ii", 2, 1 << 30)):
        with pytest.raises(SourceError, match="more than follow"):
            _read(data + bytes(64))
    deep = b"".join(struct.pack("<iiiid", 3, i, 1, 1, 1.0) for i in range(1, 5000))
    with pytest.raises(SourceError, match="deeper than 100"):
        _read(deep)


def test_a_network_in_itself_is_refused(tmp_path) -> None:
    G, D = _networks(4, ngf=2, ndf=2, bias=False)
    own = _sequence(G)
    own.fields["modules"][len(G) + 1] = own
    (tmp_path / "x.t7").write_bytes(Writer().dump(own))
    with pytest.raises(SourceError, match="holds itself"):
        read_model(tmp_path / "x.t7")


def test_a_sequence_that_is_in_others_many_times_is_not_unfolded(tmp_path) -> None:
    """A file of two thousand bytes, a billion modules."""
    inner = _sequence([Module("nn.ReLU", {})])
    for _ in range(7):
        inner = _sequence([inner] * 20)
    (tmp_path / "x.t7").write_bytes(Writer().dump(inner))
    with pytest.raises(SourceError, match="more than 1,000 modules"):
        read_model(tmp_path / "x.t7")


def test_damage_anywhere_ends_in_one_clear_line_or_in_a_model(tmp_path) -> None:
    """Every byte of the structure changed, and the file cut at many places."""
    G, D = _networks(4, ngf=1, ndf=1, bias=False)
    path = _save(tmp_path, G, D)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for trial in range(120):
        data = bytearray(whole)
        if trial % 3:
            data[int(rng.integers(len(data) if trial % 2 else 400))] ^= int(rng.integers(1, 256))
        else:
            data = data[: int(rng.integers(len(data)))]
        path.write_bytes(data)
        try:
            read_model(path)
        except SourceError as error:
            refused.append(str(error))
    assert len(refused) > 60
    assert all(str(path) in line and "\n" not in line for line in refused)


def test_only_tensors_that_are_used_are_read(tmp_path) -> None:
    """A storage is a place in the file until its tensor is taken."""
    tensor = _read(Writer().dump(_wave((2, 3), 0)))
    assert isinstance(tensor, Stored)
    assert tensor.read().tolist() == _wave((2, 3), 0).tolist()
