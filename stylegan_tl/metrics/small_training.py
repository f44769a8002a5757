"""How the bundled small extractor is trained; the command is `train_small.py`.

Three tasks share its features: name the procedural domain, name the degradation, and tell how
strong it is, all under crops, flips, recolouring and re-lighting.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stylegan_tl.data.procedural import DOMAINS, VERSION, render
from stylegan_tl.metrics.degrade import KINDS, degrade
from stylegan_tl.metrics.small import SIZE, Conv, SmallNetwork, limit
from stylegan_tl.metrics.train_small import Settings

__all__ = ["train"]

FIRST = 1_000_000  # image indices far from those that data sets and tests use


def train(settings: Settings) -> Path:
    """Render, train, fold, standardise and save; returns the path of the file."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    images = _render(settings.images)
    learner = Learner()
    for step, report in _steps(learner, images, settings):
        if step % 50 == 0 or step == settings.steps:
            print(f"step {step:5d}  {report}", flush=True)
    return _save(_finish(learner.network, images), settings, report)


class Learner(nn.Module):
    """The network with one linear head per task on its normalised features."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SmallNetwork(norm=True).to(memory_format=torch.channels_last)
        width = self.network.num_features
        self.normalise = nn.BatchNorm1d(width, affine=False)
        self.domain, self.kind = nn.Linear(width, len(DOMAINS)), nn.Linear(width, len(KINDS))
        self.strength = nn.Linear(width, len(KINDS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float images [N, 3, 64, 64] → logits of domain and kind, strength for every kind."""
        x = limit(self.normalise(self.network.features(x)))
        return self.domain(x), self.kind(x), self.strength(x)


def _render(count: int) -> Tensor:
    """Images FIRST … of every domain: float [D, count, 3, 64, 64] in [-1, 1]."""
    rendered = []
    for domain in DOMAINS:
        began = time.perf_counter()
        rendered.append(np.stack([render(domain, FIRST + i, SIZE) for i in range(count)]))
        print(f"{domain}: {count} images in {time.perf_counter() - began:.1f} s", flush=True)
    return torch.from_numpy(np.stack(rendered)).float() / 127.5 - 1


def _steps(learner: Learner, images: Tensor, settings: Settings) -> Iterator[tuple[int, str]]:
    optimizer = torch.optim.AdamW(learner.parameters(), lr=settings.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.lr, total_steps=settings.steps, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(settings.seed)
    running = torch.zeros(3)
    for step in range(1, settings.steps + 1):
        loss, scores = _loss(learner, *_batch(images, settings.batch, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        running = running.lerp(scores, max(0.05, 1 / step))
        yield step, "domain {:.3f}  kind {:.3f}  strength error {:.3f}".format(*running.tolist())


def _batch(images: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Augmented and degraded images with their domain, kind and strength."""
    domain = torch.randint(images.shape[0], (count,), generator=generator)
    index = torch.randint(images.shape[1], (count,), generator=generator)
    kind = torch.randint(len(KINDS), (count,), generator=generator)
    strength = torch.rand(count, generator=generator)
    x = _relight(_crop(images[domain, index], generator), generator)
    return degrade(x, kind, strength, generator), domain, kind, strength


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Zoom up to 1.8 times somewhere, and flip half of the images."""
    n = len(images)
    scale = 1 - 0.45 * torch.rand(n, generator=generator)
    flip = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale * flip, scale
    theta[:, :, 2] = ((torch.rand(2, n, generator=generator) * 2 - 1) * (1 - scale)).T
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _relight(images: Tensor, generator: torch.Generator) -> Tensor:
    """Exchange colour channels in some images; change brightness and tint by powers in all."""
    n = len(images)
    order = torch.stack([torch.randperm(3, generator=generator) for _ in range(n)])
    order[torch.rand(n, generator=generator) < 0.6] = torch.arange(3)
    x = images.gather(1, order[:, :, None, None].expand_as(images))
    power = torch.rand(n, 3, 1, 1, generator=generator) - 0.5
    power = power + 1.2 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    return ((x + 1) / 2).clamp(1e-4, 1) ** 2**power * 2 - 1


def _loss(
    learner: Learner, x: Tensor, domain: Tensor, kind: Tensor, strength: Tensor
) -> tuple[Tensor, Tensor]:
    domains, kinds, strengths = learner(x)
    error = (strengths.gather(1, kind[:, None])[:, 0] - strength) * (kind > 0)
    loss = F.cross_entropy(domains, domain) + F.cross_entropy(kinds, kind)
    scores = [domains.argmax(1) == domain, kinds.argmax(1) == kind, error.detach().abs()]
    return loss + 4 * error.square().mean(), torch.stack([s.float().mean() for s in scores])


@torch.no_grad()
def _finish(network: SmallNetwork, images: Tensor) -> SmallNetwork:
    """Fold the normalisations into the convolutions; standardise on the clean images."""
    finished = SmallNetwork().eval()
    pairs = zip(_convolutions(network.eval()), _convolutions(finished), strict=True)
    for trained, folded in pairs:
        folded.conv.load_state_dict(fuse_conv_bn_eval(trained.conv, trained.bn).state_dict())
        folded.conv.half().float()  # as it will be stored
    features = torch.cat([finished.features(x) for x in images.flatten(0, 1).split(256)])
    finished.mean.copy_(features.mean(0))
    finished.scale.copy_(features.std(0).clamp_min(1e-3 * features.std(0).max().item()))
    return finished


def _convolutions(network: SmallNetwork) -> list[Conv]:
    return [module for module in network.modules() if isinstance(module, Conv)]


def _save(network: SmallNetwork, settings: Settings, report: str) -> Path:
    said = asdict(settings)
    out = Path(said.pop("out"))
    arguments = " ".join(f"{key}={value}" for key, value in said.items())
    training = {
        "trained_on": "procedural domains only, no photographs: " + ", ".join(DOMAINS),
        "procedural_version": VERSION,
        "tasks": "name the domain, the degradation and its strength",
        "command": f"python -m stylegan_tl.metrics.train_small {arguments}",
        "result": " ".join(report.split()),
        "torch": str(torch.__version__),
    }
    state = {
        key: (value.half() if key.endswith("conv.weight") else value).contiguous()
        for key, value in network.state_dict().items()
    }
    # one key, since the order of several is not reproducible
    save_file(state, out, metadata={"training": json.dumps(training)})
    return out
