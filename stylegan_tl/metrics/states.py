"""State dicts of foreign networks: read without executing anything, loaded exactly or refused."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from stylegan_tl.files import is_safetensors

__all__ = ["load_exactly", "read_state"]


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors or a plain `.pth` file, told by content, on the CPU.

    ValueError for anything else: a pickled or TorchScript network, a damaged file.
    """
    path = Path(path)
    try:
        state = _open(path)
    except OSError:
        raise
    except Exception as error:  # any damage a file can have ends in one clear line
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is not a plain state dict (a TorchScript or pickled network is not read "
            f"here): {said}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} is not a plain state dict: it does not map names to tensors")
    return dict(state)


def load_exactly(
    network: nn.Module,
    state: dict[str, Tensor],
    path: str | Path,
    what: str,
    *,
    optional: tuple[str, ...] = (),
    assign: bool = False,
) -> None:
    """Load `state` into `network`; ValueError unless names and shapes agree.

    BatchNorm's step counters are no weights; the names in `optional` may be missing. `assign` takes
    the tensors themselves, for a network built on the meta device.
    """
    wanted = {k: v.shape for k, v in network.state_dict().items() if _is_weight(k)}
    wrong = [k for k, v in wanted.items() if k in state and state[k].shape != v]
    wrong += [k for k in wanted if k not in state and k not in optional]
    wrong += [k for k in state if _is_weight(k) and k not in {*wanted, *optional}]
    if wrong:
        raise ValueError(
            f"{path} is not {what}: {len(wrong)} tensors are missing, unknown or of another "
            f"shape, e.g. {', '.join(wrong[:3])}"
        )
    network.load_state_dict(state, strict=False, assign=assign)


def _open(path: Path) -> object:
    if not is_safetensors(path):
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise RuntimeError(str(error)) from error


def _is_weight(key: str) -> bool:
    return not key.endswith("num_batches_tracked")
