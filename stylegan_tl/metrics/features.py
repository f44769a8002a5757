"""Feature extractors: uint8 images in, one row of float32 features per image out.

`small` is bundled; the others are read from files the user has and verifies (`inception`, `vgg16`,
`lpips`) or from a folder (`dinov2`, `clip`). Nothing is ever downloaded here:
`python -m stylegan_tl.weights --help`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_tl.files import file_sha256
from stylegan_tl.metrics import catalogue
from stylegan_tl.metrics.pixels import float32_arithmetic
from stylegan_tl.metrics.protocol import EXTRACTORS, PRECISIONS

__all__ = ["Extractor", "check_extractor", "check_weights", "load_extractor", "verify_sha256"]


class Extractor:
    """A frozen network and what identifies its features.

    `network` maps uint8 [N, 3, R, R] to float32 [N, num_features]; `digest` is the SHA-256 of its
    weights (of all its files, where it has several); `resize` says in words how images reach its
    input size; `precision` is that of features and logits: "fp32" is float32 without TF32, in
    "bf16" convolutions and matrix products are in bfloat16 (autocast), pooling and the result in
    float32. digest, resize and precision together are one protocol.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        digest: str,
        num_features: int,
        resize: str,
        precision: str = "fp32",
    ) -> None:
        self.name, self.digest, self.resize = name, digest, resize
        self.num_features, self.precision = num_features, precision
        self._network = network.eval().requires_grad_(False)
        self._device = torch.device("cpu")

    @property
    def device(self) -> torch.device:
        """Where the network is; images are moved to it."""
        return self._device

    def to(self, device: torch.device | str) -> Extractor:
        """Move the network; images are moved to it in each call. Returns self."""
        self._network.to(device)
        self._device = torch.device(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 [N, F] of uint8 images [N, 3, R, R], on the network's device."""
        if not self.num_features:
            raise ValueError(f"extractor {self.name} measures distances only: it has no features")
        return self._run(self._network, images)

    def logits(self, images: Tensor) -> Tensor:
        """Class scores float32 [N, C] of uint8 images; ValueError if the network has no classes."""
        if not hasattr(self._network, "logits"):
            raise ValueError(f"extractor {self.name} gives no logits: use inception")
        return self._run(self._network.logits, images)

    def embed(self, images: Tensor) -> Tensor:
        """Rows float32 [N, E] whose squared Euclidean distance is the perceptual distance.

        Takes uint8 [N, 3, R, R], or float in [-1, 1], through which gradients flow. Always in
        float32 (gradients in what the caller's flags allow): it serves small distances. E grows
        with R: 8 million for lpips at 256 px.
        ValueError if the extractor is not perceptual.
        """
        if not hasattr(self._network, "embed"):
            raise ValueError(f"extractor {self.name} is no perceptual distance: use small or lpips")
        self._check(images, images.is_floating_point())
        with float32_arithmetic():
            return self._network.embed(images.to(self._device)).float()

    @torch.no_grad()
    def _run(self, function: nn.Module, images: Tensor) -> Tensor:
        self._check(images)
        lower = self.precision == "bf16"
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=lower)
        with float32_arithmetic(), autocast:
            return function(images.to(self._device)).float()

    def _check(self, images: Tensor, floats: bool = False) -> None:
        right = floats or images.dtype == torch.uint8
        if not right or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"extractor {self.name} takes uint8 [N, 3, R, R], "
                f"got {images.dtype} {tuple(images.shape)}"
            )


def load_extractor(
    name: str,
    *,
    path: str | Path | None = None,
    sha256: str | None = None,
    heads: str | Path | None = None,
    precision: str = "fp32",
) -> Extractor:
    """Open an extractor: `small` is bundled, `inception`, `vgg16` and `lpips` are a weights file.

    `path` is that file with its `sha256` (a prefix of 8 or more hex digits); without a path the
    catalogue's file is looked for in the cache. `dinov2` and `clip` take a folder with
    `config.json` and `model.safetensors`: `sha256` is of the latter, the extractor's digest of both
    (the number of attention heads is only in the former). `heads` are LPIPS's linear layers
    (default: those that torchmetrics carries). ValueError if the name is unknown, a file is
    missing, has another digest or does not hold this network.
    """
    files = _located(name, path, sha256, heads, precision)
    network = _network(name, files)
    return Extractor(
        name,
        network,
        digest=files.digest,
        num_features=network.num_features,
        resize=network.resize,
        precision=precision,
    )


def check_extractor(
    name: str,
    *,
    path: str | Path | None = None,
    sha256: str | None = None,
    heads: str | Path | None = None,
    precision: str = "fp32",
) -> str:
    """Return the digest that `load_extractor` would give, without building a network.

    ValueError as there, but for a file of another network: that takes loading it.
    """
    return _located(name, path, sha256, heads, precision).digest


def check_weights(name: str, path: Path) -> None:
    """Read the weights of `inception` or `vgg16` in a file of any digest.

    ValueError if they are not that network's.
    """
    _network(name, _Files(path, None, ""))


def verify_sha256(path: str | Path, sha256: str | None) -> str:
    """Return the file's SHA-256; ValueError unless it begins with `sha256` (8 to 64 hex digits)."""
    found = _sha256(path)
    if sha256 is None:
        raise ValueError(
            f"{path}: sha256 is required, so that one name always means one network; this file has "
            f"sha256={found}"
        )
    catalogue.check_digest(path, found, sha256)
    return found


@dataclass(frozen=True)
class _Files:
    weights: Path
    heads: Path | None
    digest: str


def _located(
    name: str,
    path: str | Path | None,
    sha256: str | None,
    heads: str | Path | None,
    precision: str,
) -> _Files:
    if precision not in PRECISIONS:
        raise ValueError(f"extractor {name}: precision={precision!r} is not one of {PRECISIONS}")
    if heads is not None and name != "lpips":
        raise ValueError(f"extractor {name}: heads={heads} belong to lpips alone")
    if name == "small":
        weights, digest = _small(path, sha256)
    elif name in ("inception", "vgg16", "lpips"):
        weights, digest = _weights(name, path, sha256)
    elif name in ("dinov2", "clip"):
        weights, digest = _folder(name, path, sha256)
    else:
        raise ValueError(f"extractor {name!r} does not exist; there are {', '.join(EXTRACTORS)}")
    if name != "lpips":
        return _Files(weights, None, digest)
    lines = _file(name, "heads", _bundled_heads() if heads is None else heads)
    return _Files(weights, lines, _of_both(digest, lines))


def _network(name: str, files: _Files) -> nn.Module:
    if name == "small":
        from stylegan_tl.metrics.small import load_small

        return load_small(files.weights)[0]
    if name == "inception":
        from stylegan_tl.metrics.inception import load_inception

        return load_inception(files.weights)
    if name in ("vgg16", "lpips"):
        from stylegan_tl.metrics.vgg16 import load_lpips, load_vgg16

        return load_vgg16(files.weights) if name == "vgg16" else load_lpips(*_pair(files))
    from stylegan_tl.metrics.transformer import load_clip, load_dinov2

    return (load_clip if name == "clip" else load_dinov2)(files.weights.parent)


def _pair(files: _Files) -> tuple[Path, Path | None]:
    return files.weights, files.heads


def _small(path: str | Path | None, sha256: str | None) -> tuple[Path, str]:
    from stylegan_tl.metrics.small import BUNDLED

    weights = _file("small", "path", BUNDLED if path is None else path)
    return weights, _sha256(weights) if sha256 is None else verify_sha256(weights, sha256)


def _weights(name: str, path: str | Path | None, sha256: str | None) -> tuple[Path, str]:
    """The file given, or the catalogue's in the cache, and its digest."""
    if path is not None:
        weights = _file(name, "path", path)
        return weights, verify_sha256(weights, sha256)
    entry = catalogue.entry(name)
    weights = catalogue.default_folder() / entry.file
    if not weights.is_file():
        raise ValueError(catalogue.missing(f"extractor {name}: no path is given and", entry))
    digest = catalogue.verified(entry, weights, sha256_of=_sha256)
    return weights, digest if sha256 is None else verify_sha256(weights, sha256)


def _folder(name: str, path: str | Path | None, sha256: str | None) -> tuple[Path, str]:
    folder = None if path is None else Path(path).expanduser()
    if folder is None or not folder.is_dir():
        raise ValueError(
            f"extractor {name}: path={path} is not a folder; it needs one with config.json and "
            "model.safetensors, as transformers' save_pretrained writes it"
        )
    for part in ("config.json", "model.safetensors"):
        _file(name, "path", folder / part)
    weights = folder / "model.safetensors"
    return weights, _of_both(verify_sha256(weights, sha256), folder / "config.json")


def _of_both(digest: str, file: Path) -> str:
    """The digest of a network of two files, from that of one and the other file."""
    return hashlib.sha256(f"{digest} {_sha256(file)}".encode()).hexdigest()


def _file(name: str, key: str, path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"extractor {name}: {key}={path} is not a file")
    return path


def _bundled_heads() -> Path:
    """LPIPS v0.1's linear layers for VGG16, as the installed torchmetrics carries them."""
    from importlib.util import find_spec

    package = Path(find_spec("torchmetrics").submodule_search_locations[0])
    return package / "functional" / "image" / "lpips_models" / "vgg.pth"


def _sha256(path: str | Path) -> str:
    """The file's digest; read once per process while its time and size stay the same."""
    path = Path(path).resolve()
    stat = path.stat()
    return _read_sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _read_sha256(path: Path, mtime_ns: int, size: int) -> str:
    return file_sha256(path)
