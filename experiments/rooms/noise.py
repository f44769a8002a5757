"""KID of every finished StyleGAN2 trial with its noise, as measured, and without, as in the grids.

python experiments/rooms/noise.py runs/rooms > experiments/rooms/noise.csv
"""

import json
import sys
from pathlib import Path

import torch

from stylegan_tl.assembly import open_target
from stylegan_tl.metrics.features import Extractor, load_extractor
from stylegan_tl.metrics.kid import polynomial_mmd
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.restore import rebuild
from stylegan_tl.source.portable import read_model

FAKES, BATCH = 512, 64


def main() -> None:
    """One line for each trial that fine-tunes everything."""
    extractor = load_extractor("small")
    print("source,target,seed,with_noise,without_noise")
    for file in sorted(Path(sys.argv[1]).glob("*/seed=*/trial.json")):
        trial = json.loads(file.read_text())
        chosen = trial["choices"]
        plain = chosen["freeze"] == "none" and chosen["source"] != "scratch"
        if trial["state"] != "complete" or chosen["model"] != "stylegan2_small" or not plain:
            continue
        target = open_target(trial["config"])
        reals = extractor(torch.from_numpy(target.dataset.images(target.held_out)))
        model = rebuild(read_model(file.parent))
        values = [
            polynomial_mmd(_features(model, extractor, how), reals)[0] for how in ("random", "none")
        ]
        row = [chosen["source"], chosen["target"], trial["seed"], *(f"{v:.2f}" for v in values)]
        print(*row, sep=",", flush=True)


def _features(model: AdversarialModel, extractor: Extractor, noise: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(12345)
    drawn = []
    for _ in range(FAKES // BATCH):
        z = model.latents(BATCH, generator)
        images = model.sample(z, generator=generator, noise=noise)
        drawn.append(extractor(images))
    return torch.cat(drawn)


if __name__ == "__main__":
    main()
