"""What is measured of one side alone, kept on disk for all pairs that share it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from stylegan_tl.files import write_atomic

__all__ = ["kept"]

FORMAT = 1  # raise it when a number would come out differently


def kept(
    folder: Path, name: str, inputs: list[Any], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors by name, on the CPU: from `folder/pairs`, or made and written there.

    `inputs` are all that they depend on, as JSON has it. A damaged file is made again.
    """
    text = json.dumps([FORMAT, name, *inputs], sort_keys=True)
    path = folder / "pairs" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
    try:
        return load(path.read_bytes())
    except (FileNotFoundError, SafetensorError):
        made = {key: value.detach().cpu().contiguous() for key, value in make().items()}
        write_atomic(path, save(made))
        return made
