"""`python -m stylegan_tl.generate checkpoint=… kind=images|grid|truncation|interpolation`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from omegaconf import DictConfig

    from stylegan_tl.models.adversarial import AdversarialModel

__all__ = ["main", "parse_seeds"]

_TRUNCATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


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

    from stylegan_tl.restore import restore

    kinds = {
        "images": _images,
        "grid": _grid,
        "truncation": _truncation,
        "interpolation": _interpolation,
    }
    if config["kind"] not in kinds:
        raise ValueError(f"kind={config['kind']}: choose one of {', '.join(kinds)}")
    seeds = parse_seeds(config["seeds"])
    model, _ = restore(config["checkpoint"])
    out = Path(config["out"])
    out.mkdir(parents=True, exist_ok=True)
    return [str(path) for path in kinds[config["kind"]](model, seeds, config, out)]


def _images(model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any) -> list:
    from stylegan_tl.pictures import save_grid

    paths = []
    for start in range(0, len(seeds), 16):
        part = seeds[start : start + 16]
        images = _sample(model, _latents(model, part), config)
        for seed, image in zip(part, images, strict=True):
            paths.append(out / f"seed{seed:06d}.png")
            save_grid(paths[-1], image[None], padding=0)
    return paths


def _grid(model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any) -> list:
    from stylegan_tl.pictures import save_grid

    images = _sample(model, _latents(model, seeds), config)
    save_grid(out / "grid.png", images, columns=min(config["columns"], len(seeds)))
    return [out / "grid.png"]


def _truncation(
    model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any
) -> list:
    """One row per seed, from the average image (psi 0) to no truncation (psi 1)."""
    import numpy as np

    from stylegan_tl.pictures import save_grid

    z = _latents(model, seeds)
    columns = [_sample(model, z, {**config, "truncation": psi}) for psi in _TRUNCATIONS]
    rows = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
    save_grid(out / "truncation.png", rows, columns=len(_TRUNCATIONS))
    return [out / "truncation.png"]


def _interpolation(
    model: AdversarialModel, seeds: list[int], config: dict[str, Any], out: Any
) -> list:
    """A loop through the seeds: in w for a StyleGAN, on the sphere in z for a DCGAN."""
    import torch

    from stylegan_tl.pictures import animation, save_grid

    if len(seeds) < 2:
        raise ValueError("kind=interpolation needs two seeds or more, such as seeds=[1,5,9]")
    z = _latents(model, seeds)
    steps = torch.linspace(0, 1, config["frames"] + 1)[:-1]
    images = _between(model, z, z.roll(-1, 0), steps, config)
    frames = [out / "frames" / f"frame{i:05d}.png" for i in range(len(images))]
    for path, image in zip(frames, images, strict=True):
        save_grid(path, image[None], padding=0)
    every = max(len(images) // 16, 1)
    save_grid(out / "interpolation.png", images[::every], columns=8)
    return [out / "interpolation.png", animation(out / "interpolation.webp", frames, ms=80)]


def _between(model: AdversarialModel, a: Any, b: Any, steps: Any, config: dict) -> np.ndarray:
    import torch

    if hasattr(model.G_ema, "mapping"):
        psi = {"truncation_psi": config["truncation"]}
        c = _labels(model, len(a), config)
        with torch.no_grad():
            w_a, w_b = (model.G_ema.mapping(z, c, **psi) for z in (a, b))
            ws = torch.cat(
                [torch.lerp(w_a[[i]], w_b[[i]], t) for i in range(len(a)) for t in steps]
            )
            parts = [_synthesise(model, part, config) for part in ws.split(16)]
        return torch.cat(parts).numpy()
    z = torch.cat([_slerp(a[[i]], b[[i]], t) for i in range(len(a)) for t in steps])
    return _sample(model, z, config)


def _synthesise(model: AdversarialModel, ws: Any, config: dict[str, Any]) -> Any:
    from stylegan_tl.models.adversarial import to_uint8

    return to_uint8(model.G_ema.synthesis(ws, noise=config["noise"]))


def _slerp(a: Any, b: Any, t: Any) -> Any:
    """Spherical interpolation: straight lines leave the shell where normal latents lie."""
    import torch

    cosine = torch.nn.functional.cosine_similarity(a, b).clamp(-1 + 1e-6, 1 - 1e-6)
    angle = torch.acos(cosine).unsqueeze(1)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def _latents(model: AdversarialModel, seeds: list[int]) -> Any:
    """z [len(seeds), z_dim], each from its own generator."""
    import torch

    rows = [model.latents(1, torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.cat(rows)


def _labels(model: AdversarialModel, count: int, config: dict[str, Any]) -> Any:
    import torch

    classes, label = model.G_ema.c_dim, config["label"]
    if not classes:
        return None
    if not isinstance(label, int) or not 0 <= label < classes:
        raise ValueError(f"label={label}: this model has classes, choose 0 to {classes - 1}")
    return torch.eye(classes)[[label]].expand(count, -1)


def _sample(model: AdversarialModel, z: Any, config: dict[str, Any]) -> np.ndarray:
    """Images uint8 [N, 3, R, R] of latents z, in parts."""
    import torch

    how = {}
    if hasattr(model.G_ema, "mapping"):
        how = {"truncation_psi": config["truncation"], "noise": config["noise"]}
    generator = torch.Generator().manual_seed(0)
    c = _labels(model, len(z), config)
    parts = [
        model.sample(
            z[i : i + 16], None if c is None else c[i : i + 16], generator=generator, **how
        )
        for i in range(0, len(z), 16)
    ]
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    main()
