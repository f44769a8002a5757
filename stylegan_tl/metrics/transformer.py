"""DINOv2 and CLIP as feature extractors, through `transformers` when it is installed.

Both come from a folder on disk as `save_pretrained` writes it (`config.json`,
`model.safetensors`): nothing is downloaded, no code of the folder is run. Preparation of images is
plain PyTorch, so that it does not change with the library's image processors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stylegan_tl.metrics.pixels import IMAGENET_MEAN, IMAGENET_STD, resized, to_255

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Transformer", "load_clip", "load_dinov2"]

DINOV2_SIZE = 224  # as its features are used (Stein et al. 2023); it was tuned up to 518
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_INSTALL = "pip install 'stylegan_tl[features]'"


class Transformer(nn.Module):
    """uint8 [N, 3, R, R] → one row per image of a vision transformer, float32.

    `output` names the row: `pooler_output` is DINOv2's normalised class token, `image_embeds`
    CLIP's projected embedding.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str,
        num_features: int,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.model, self.output, self.size = model, output, size
        self.num_features = num_features
        self.mean, self.std = mean, std
        self.resize = f"antialiased bicubic to {size} px, clamped"

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, F] of uint8 images."""
        x = resized(to_255(images), self.size, mode="bicubic").clamp(0, 255) / 255
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return getattr(self.model(pixel_values=(x - mean) / std), self.output).float()


def load_dinov2(folder: str | Path) -> Transformer:
    """Read DINOv2 (Oquab et al. 2024): its class token at 224 px, or the model's size if smaller.

    ValueError if transformers is not installed or the folder holds another network.
    """
    model = _load("dinov2", folder, "Dinov2Model", ("dinov2",))
    size = min(model.config.image_size, DINOV2_SIZE)
    size -= size % model.config.patch_size
    width = model.config.hidden_size
    return Transformer(
        model,
        output="pooler_output",
        num_features=width,
        size=size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def load_clip(folder: str | Path) -> Transformer:
    """Read CLIP's image side (Radford et al. 2021): its projected embedding, not normalised.

    ValueError if transformers is not installed or the folder holds another network.
    """
    kinds = ("clip", "clip_vision_model")
    model = _load("clip", folder, "CLIPVisionModelWithProjection", kinds)
    return Transformer(
        model,
        output="image_embeds",
        num_features=model.visual_projection.out_features,
        size=model.config.image_size,
        mean=_CLIP_MEAN,
        std=_CLIP_STD,
    )


def _load(name: str, folder: str | Path, cls: str, kinds: tuple[str, ...]) -> PreTrainedModel:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"extractor {name} needs the package transformers: {_INSTALL}") from error
    folder = Path(folder)
    kind = _kind(folder / "config.json")
    if kind not in kinds:
        raise ValueError(f"{folder}/config.json says model_type={kind!r}, not {' or '.join(kinds)}")
    with _quiet(transformers):
        try:
            model, info = getattr(transformers, cls).from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,  # else that of the file
            )
        except Exception as error:  # the library raises many kinds for a wrong or damaged file
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{folder} does not hold {name}: {said}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"{folder}/model.safetensors does not hold {name}: {len(missing)} tensors are missing, "
            f"e.g. {', '.join(missing[:3])}"
        )
    return model.eval()


def _kind(config: Path) -> str | None:
    try:
        return json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{config} is not a model's configuration: {error}") from error


@contextmanager
def _quiet(transformers: object) -> Iterator[None]:
    """Silence the library's bar and its table of unused tensors (CLIP's text side) while loading.

    What is missing is an error of ours.
    """
    logging = transformers.utils.logging
    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
