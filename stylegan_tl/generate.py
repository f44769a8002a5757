"""`python -m stylegan_tl.generate checkpoint=…`: `kind=` for pictures, `page=` for a web page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from stylegan_tl.models.adversarial import AdversarialModel

__all__ = ["main", "parse_seeds"]

_TRUNCATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
_PICTURES = ("kind=images", "kind=grid", "kind=truncation", "kind=interpolation")
_ONLY_OF = {
    "kind": _PICTURES,
    "out": _PICTURES,
    "columns": ("kind=grid",),
    "frames": ("kind=interpolation", "page="),
    "truncation": ("kind=images", "kind=grid", "kind=interpolation", "page="),
    "page_images": ("page=",),
    "page_name": ("page=",),
    "source.checkpoint": ("page=",),
    "live": ("page=",),
    "ort": ("live=true",),
}
"""Keys that change only some of what can be made, and what that is."""


def main() -> None:
    """Compose the configuration and draw."""
    from stylegan_tl.command import run_command

    run_command("generate", _run)


def parse_seeds(seeds: Any) -> list[int]:
    """'0-31', '3,1,4', 7 or [3, 1, 4] to a list of whole numbers from 0."""
    import re

    if isinstance(seeds, list):
        return [seed for item in seeds for seed in parse_seeds(item)]
    found = []
    for part in str(seeds).split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ValueError(f"seeds={seeds}: use 0-31, [3,1,4] or one whole number")
        first, last = int(match[1]), int(match[2] or match[1])
        found += range(first, last + 1)
    if not found:
        raise ValueError(f"seeds={seeds} is empty: the first number must not exceed the last")
    return found


def _run(cfg: DictConfig) -> None:
    from stylegan_tl.config import plain
    from stylegan_tl.errors import user_errors

    with user_errors():
        for path in _generate(plain(cfg)):
            print(path)


def _generate(config: dict[str, Any]) -> list[str]:
    from pathlib import Path

    from stylegan_tl.files import check_free
    from stylegan_tl.latent.checks import whole
    from stylegan_tl.restore import restore
    from stylegan_tl.sampling import labels

    kinds = {
        "images": _images,
        "grid": _grid,
        "truncation": _truncation,
        "interpolation": _interpolation,
    }
    if config["kind"] not in kinds:
        raise ValueError(f"kind={config['kind']}: choose one of {', '.join(kinds)}")
    _check_used(config)
    if config["page"]:
        return _site(config)
    seeds = parse_seeds(config["seeds"])
    if config["kind"] == "interpolation" and len(seeds) < 2:
        raise ValueError("kind=interpolation needs two seeds or more, such as seeds=[1,5,9]")
    _look(config)
    for key in ("columns", "frames"):
        whole(config, key, 1)
    out = Path(config["out"]).expanduser()
    check_free([out / name for name in _names(config, seeds)], config["overwrite"])
    model, _ = restore(config["checkpoint"])
    labels(model, 1, config["label"])
    out.mkdir(parents=True, exist_ok=True)
    return [str(path) for path in kinds[config["kind"]](model, seeds, config, out)]


def _check_used(config: dict[str, Any]) -> None:
    """Raise ValueError for keys that were set and would change nothing of what is asked for."""
    from pathlib import Path

    from omegaconf import OmegaConf

    from stylegan_tl.config import conf_dir

    made = {"page="} if config["page"] else {f"kind={config['kind']}"}
    made |= {"live=true"} if config["live"] else set()
    given, usual = OmegaConf.create(config), OmegaConf.load(Path(conf_dir()) / "generate.yaml")
    wrong = []
    for key, of in _ONLY_OF.items():
        value = OmegaConf.select(given, key)
        if not made & set(of) and value != OmegaConf.select(usual, key):
            shown = str(value).lower() if isinstance(value, bool) else value
            wrong.append(f"{key}={shown} belongs to {' or '.join(of)}")
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}: ask for that, or leave the key out")


def _names(config: dict[str, Any], seeds: list[int]) -> list[str]:
    """The files that a kind writes."""
    frames = [f"frames/{_frame(i)}" for i in range(len(seeds) * config["frames"])]
    return {
        "images": [_name(seed) for seed in seeds],
        "grid": ["grid.png"],
        "truncation": ["truncation.png"],
        "interpolation": [
            *(f"interpolation.{suffix}" for suffix in ("png", "webp", "gif")),
            *frames,
        ],
    }[config["kind"]]


def _name(seed: int) -> str:
    return f"seed{seed:06d}.png"


def _frame(number: int) -> str:
    return f"frame{number:05d}.png"


def _images(model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any) -> list:
    from stylegan_tl.pictures import save_grid
    from stylegan_tl.sampling import latents, sample

    paths = []
    for start in range(0, len(seeds), 16):
        part = seeds[start : start + 16]
        images = sample(model, latents(model, part), _look(config))
        for seed, image in zip(part, images, strict=True):
            paths.append(out / _name(seed))
            save_grid(paths[-1], image[None], padding=0)
    return paths


def _grid(model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any) -> list:
    from stylegan_tl.pictures import save_grid
    from stylegan_tl.sampling import latents, sample

    images = sample(model, latents(model, seeds), _look(config))
    save_grid(out / "grid.png", images, columns=min(config["columns"], len(seeds)))
    return [out / "grid.png"]


def _truncation(
    model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any
) -> list:
    """One row per seed, from the average image (psi 0) to no truncation (psi 1)."""
    import numpy as np

    from stylegan_tl.pictures import save_grid
    from stylegan_tl.sampling import latents, sample

    z = latents(model, seeds)
    columns = [sample(model, z, _look(config, truncation=psi)) for psi in _TRUNCATIONS]
    rows = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
    save_grid(out / "truncation.png", rows, columns=len(_TRUNCATIONS))
    return [out / "truncation.png"]


def _interpolation(
    model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any
) -> list:
    """A loop through the seeds: in w for a StyleGAN, on the sphere in z for a DCGAN."""
    import torch

    from stylegan_tl.pictures import animation, save_grid
    from stylegan_tl.sampling import between, latents

    z = latents(model, seeds)
    steps = torch.linspace(0, 1, config["frames"] + 1)[:-1]
    images = between(model, z, z.roll(-1, 0), steps, _look(config))
    for old in (out / "frames").glob("frame?????.png"):  # of a longer walk
        old.unlink()
    frames = [out / "frames" / _frame(i) for i in range(len(images))]
    for path, image in zip(frames, images, strict=True):
        save_grid(path, image[None], padding=0)
    every = max(len(images) // 16, 1)
    save_grid(out / "interpolation.png", images[::every], columns=8)
    return [out / "interpolation.png", animation(out / "interpolation.webp", frames, ms=80)]


def _look(config: dict[str, Any], **changed: Any) -> Any:
    from dataclasses import replace

    from stylegan_tl.sampling import look_in

    return replace(look_in(config), **changed)


def _site(config: dict[str, Any]) -> list[str]:
    """The page, and the folder beside it if there is one."""
    from stylegan_tl.site import site

    return [str(path) for path in site(config, parse_seeds(config["seeds"])[0], _look(config))]


if __name__ == "__main__":
    main()
