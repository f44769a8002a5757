"""G_ema as one ONNX graph, z (and psi) to images, and whether it draws what PyTorch draws."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cuda_ops import compile as kernels
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.sampling import has_truncation, labels, latents

__all__ = [
    "OPSET",
    "TOLERANCE",
    "Whole",
    "check_exporter",
    "check_onnx",
    "describe_onnx",
    "export_onnx",
    "reference_ops",
]

OPSET = 18
"""Of ONNX: what onnxruntime 1.17 and onnxruntime-web 1.17 and all later ones read."""
TOLERANCE = 1e-4
"""The largest difference of a pixel from PyTorch's, where black is -1 and white 1."""
_SWITCH = "STYLEGAN_TL_KERNELS"
_CACHED = (kernels.cpu_kernels, kernels.cuda_kernels, kernels.emulated_kernels)


class Whole(nn.Module):
    """Mapping, truncation and synthesis without noise, in float32, of one class."""

    def __init__(self, model: AdversarialModel, label: int | str | None = None) -> None:
        super().__init__()
        self.G = copy.deepcopy(model.G_ema).cpu().float()
        self.truncates = has_truncation(model)
        if self.truncates:
            self.G.synthesis.bf16 = False
        if hasattr(self.G, "synthesis") and hasattr(self.G.synthesis, "pin"):
            self.G.synthesis.pin()
        self.register_buffer("c", labels(model, 1, label))
        self.eval()

    def forward(self, z: Tensor, psi: Tensor | None = None) -> Tensor:
        """Map `z [N, z_dim]` and the scalar `psi` to images `[N, 3, R, R]`, about [-1, 1]."""
        c = None if self.c is None else self.c.expand(z.shape[0], -1)
        if not self.truncates:
            return self.G(z, c)
        average = self.G.mapping.w_avg
        ws = average + psi * (self.G.mapping(z, c) - average)
        return self.G.synthesis(ws, noise="none")


@contextmanager
def reference_ops() -> Iterator[None]:
    """Serve the fused operations by native ones, which an exporter can see through."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "off"
    _forget()
    try:
        yield
    finally:
        os.environ.pop(_SWITCH)
        if before is not None:
            os.environ[_SWITCH] = before
        _forget()


def check_exporter(key: str = "live=true") -> None:
    """Raise ValueError, with the command that installs it, where torch's exporter is not there.

    `key`: the option that asked for it.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{key} needs {' and '.join(missing)}: pip install -c constraints.txt -e '.[live]'"
        )


def export_onnx(model: AdversarialModel, path: Path, label: int | str | None = None) -> Path:
    """Write `path`: inputs `z` (and `psi`, a scalar), output `images`; any batch size.

    ValueError where the exporter of torch is not installed.
    """
    check_exporter()
    whole, z = Whole(model, label), torch.zeros(2, model.G_ema.z_dim)
    inputs = {"z": z, "psi": torch.tensor(1.0)} if whole.truncates else {"z": z}
    shapes = {key: None for key in inputs} | {"z": {0: torch.export.Dim("n", min=1, max=1024)}}
    partial = path.with_name(f".{path.name}.part")
    with reference_ops(), torch.no_grad(), _quiet("onnx_ir", "onnxscript", "torch.onnx"):
        torch.onnx.export(
            whole,
            tuple(inputs.values()),
            str(partial),
            input_names=list(inputs),
            output_names=["images"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    os.replace(partial, path)
    return path


def describe_onnx(path: Path, facts: dict[str, str]) -> None:
    """Add `facts` to the graph's metadata, where runtimes and viewers show them."""
    import onnx

    graph = onnx.load(str(path))
    for key, value in facts.items():
        graph.metadata_props.add(key=key, value=value)
    partial = path.with_name(f".{path.name}.part")
    onnx.save(graph, str(partial))
    os.replace(partial, path)


def check_onnx(path: Path, model: AdversarialModel, label: int | str | None = None) -> float | None:
    """The largest difference from PyTorch over four seeds and three psis.

    None without onnxruntime; RuntimeError if it exceeds `TOLERANCE`.
    """
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    whole, z, worst = Whole(model, label), latents(model, range(4)), 0.0
    for psi in (0.0, 0.7, 1.0) if whole.truncates else (None,):
        given = {} if psi is None else {"psi": torch.tensor(psi)}
        with reference_ops(), torch.no_grad():
            expected = whole(z, **given).numpy()
        feeds = {"z": z.numpy(), **{k: v.numpy() for k, v in given.items()}}
        (images,) = session.run(["images"], feeds)
        worst = max(worst, float(np.abs(images - expected).max()))
    if not worst <= TOLERANCE:
        raise RuntimeError(f"{path}: differs from PyTorch by {worst:.2g}, {TOLERANCE} is allowed")
    return worst


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """No word below an error from these loggers: they tell every constant that they fold.

    Nor of a deprecation inside torch, which no user of it can mend.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _forget() -> None:
    """The switch is read again by the next call; kernels that were built are found again."""
    for found in _CACHED:
        found.cache_clear()
