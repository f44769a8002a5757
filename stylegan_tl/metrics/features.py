"""Feature extractors: uint8 images in, one row of float32 features per image out.

`small` is bundled; `inception` is the 2015 network, read from a file the user has and verifies.
Nothing is ever downloaded here: `python -m stylegan_tl.metrics.fetch --help`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_tl.files import file_sha256
from stylegan_tl.metrics.protocol import EXTRACTORS

__all__ = ["Extractor", "load_extractor", "verify_sha256"]


class Extractor:
    """A frozen network and what identifies its features.

    `network` maps uint8 [N, 3, R, R] to float32 [N, num_features]; `digest` is the SHA-256 of its
    weights; `resize` says in words how images reach its input size.
    """

    def __init__(
        self, name: str, network: nn.Module, *, digest: str, num_features: int, resize: str
    ) -> None:
        self.name, self.digest, self.resize = name, digest, resize
        self.num_features = num_features
        self._network = network.eval().requires_grad_(False)
        self._device = torch.device("cpu")

    def to(self, device: torch.device | str) -> Extractor:
        """Move the network; images are moved to it in each call. Returns self."""
        self._network.to(device)
        self._device = torch.device(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features float32 [N, F] of uint8 images [N, 3, R, R], on the network's device."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"extractor {self.name} takes uint8 [N, 3, R, R], "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        return self._network(images.to(self._device)).float()


def load_extractor(
    name: str, *, path: str | Path | None = None, sha256: str | None = None
) -> Extractor:
    """Open extractor `small` (bundled) or `inception` (`path` to its weights and their `sha256`).

    `sha256` may be a prefix of 8 or more hex digits. ValueError if the name is unknown, the file is
    missing, has another digest or does not hold this network.
    """
    if name == "small":
        from stylegan_tl.metrics.small import load_small

        network, weights = load_small(path)
    elif name == "inception":
        from stylegan_tl.metrics.inception import load_inception

        weights = _required(path)
        verify_sha256(weights, sha256)
        network = load_inception(weights)
    else:
        raise ValueError(f"extractor {name!r} does not exist; there are {', '.join(EXTRACTORS)}")
    return Extractor(
        name,
        network,
        digest=file_sha256(weights),
        num_features=network.num_features,
        resize=network.resize,
    )


def verify_sha256(path: Path, sha256: str | None) -> None:
    """Raise ValueError unless the file's SHA-256 begins with `sha256` (8 to 64 hex digits)."""
    found = file_sha256(path)
    if sha256 is None:
        raise ValueError(
            f"{path}: sha256 is required, so that one name always means one network; this file has "
            f"sha256={found}"
        )
    if len(sha256) < 8 or not found.startswith(sha256.lower()):
        raise ValueError(
            f"{path}: sha256 is {found}, not {sha256} (8 to 64 hex digits). The file is damaged or "
            "another version: fetch it again, or give the digest you mean"
        )


def _required(path: str | Path | None) -> Path:
    if path is None or not Path(path).is_file():
        raise ValueError(
            f"extractor inception: path={path} is not a file. It needs the 2015 Inception weights "
            "as a state dict; fetch them once with "
            "`python -m stylegan_tl.metrics.fetch inception --url URL --sha256 HEX --out PATH`, "
            "or use the bundled extractor (…_small)"
        )
    return Path(path)
