"""`python experiments/benchmarks/gpu.py [--device cuda] [--out gpu.json]`: checks, then speed.

First correctness: G, D, R1 and path-length gradients on the device against the CPU,
and one training step of every model, fp32 and bf16. Then s/kimg of full training iterations.
`--device cpu --tiny` runs the same lines without a GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from stylegan_tl import losses
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.models.dcgan import DCGAN
from stylegan_tl.models.stylegan2 import StyleGAN2

TRAINING = {
    "batch_size": 32, "micro_batch": None, "lr_G": 0.0025, "lr_D": 0.0025, "betas": (0.0, 0.99),
    "r1_gamma": 1.0, "r1_interval": 16, "ema_kimg": 10.0, "ema_rampup": None,
}  # fmt: skip


def network(resolution: int, layers: int = 2, base: int = 16384, width: int = 512) -> dict:
    """Arguments of a StyleGAN2 network."""
    return {
        "resolution": resolution, "z_dim": width, "w_dim": width, "num_mapping_layers": layers,
        "channel_base": base, "channel_max": width, "mbstd_group_size": 4,
    }  # fmt: skip


def alone(model: AdversarialModel, device: str) -> AdversarialModel:
    """Let `training_step` run without a Trainer: raw optimizers, requires_grad set by hand."""
    model = model.to(device).train()
    raw = model.configure_optimizers()

    def toggled(optimizer: torch.optim.Optimizer) -> object:
        own, other = (model.G, model.D) if optimizer is raw[0] else (model.D, model.G)
        own.requires_grad_(True)
        other.requires_grad_(False)
        return torch.enable_grad()

    model.optimizers = lambda: raw
    model.manual_backward = lambda loss: loss.backward()
    model.toggled_optimizer = toggled
    return model


def check(device: str, resolution: int, width: int) -> dict[str, float]:
    """Largest relative error on `device` of image, logits and gradients against the CPU."""
    model = StyleGAN2(network=network(resolution, base=64 * width, width=width), training=TRAINING)
    found = {}
    for where in ("cpu", device):
        model = model.to(where)
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(8, model.G.z_dim, generator=generator).to(where)
        real = (torch.rand(8, 3, resolution, resolution, generator=generator) * 2 - 1).to(where)
        noise = torch.randn(real.shape, generator=generator).to(where)
        ws = model.G.mapping(z)
        images = model.G.synthesis(ws, noise="const")
        lengths = losses.path_lengths(images, ws, noise)
        path = torch.autograd.grad(
            lengths.square().sum(), list(model.G.parameters()), allow_unused=True
        )
        real.requires_grad_(True)
        logits = model.D(real)
        r1 = torch.autograd.grad(
            losses.r1_penalty(real, logits).sum(), list(model.D.parameters()), allow_unused=True
        )
        parts = {"images": [images], "logits": [logits], "path_length": path, "r1": r1}
        found[where] = {k: [t.detach().cpu() for t in v if t is not None] for k, v in parts.items()}
    return {
        key: max(_error(a, b) for a, b in zip(found["cpu"][key], found[device][key], strict=True))
        for key in found["cpu"]
    }


def _error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))


def speed(model: AdversarialModel, device: str, iterations: int) -> dict[str, float]:
    """Seconds per kimg and images per second of full iterations, and the memory they took."""
    batch = model.training_plan.batch_size
    size = model.G.resolution
    data = {
        "image": torch.rand(batch, 3, size, size, device=device) * 2 - 1,
        "label": torch.zeros(batch, 0, device=device),
    }
    for index in range(2):
        model.training_step(data, index)
    _wait(device)
    start = time.perf_counter()
    for index in range(iterations):
        stats = model.training_step(data, index)
    _wait(device)
    seconds = (time.perf_counter() - start) / (iterations * batch)
    assert all(torch.isfinite(v) for v in stats.values())
    row = {"s_per_kimg": 1000 * seconds, "img_per_s": 1 / seconds}
    if device != "cpu":
        row["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return row


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU")
    parser.add_argument("--iterations", type=int, default=64)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    name = platform.processor() if args.device == "cpu" else torch.cuda.get_device_name()
    result = {"device": name, "torch": torch.__version__, "check": {}, "speed": {}}
    result["check"] = check(args.device, *((16, 16) if args.tiny else (64, 256)))
    print(f"largest relative error against the CPU: {result['check']}")
    cases = {}
    for precision in ("fp32", "bf16"):
        for size in (16,) if args.tiny else (64, 128, 256):
            own = network(size, base=256, width=16) if args.tiny else network(size)
            cases[f"stylegan2 {size} {precision}"] = lambda own=own, precision=precision: StyleGAN2(
                network=own, training=TRAINING, precision=precision
            )
    dcgan = {"resolution": 32 if args.tiny else 64, "z_dim": 100, "width": 4 if args.tiny else 64}
    cases["dcgan fp32"] = lambda: DCGAN(network=dcgan, training={**TRAINING, "r1_gamma": 0.0})
    for case, build in cases.items():
        model = alone(build(), args.device)
        result["speed"][case] = speed(model, args.device, 2 if args.tiny else args.iterations)
        print(case, {k: round(v, 2) for k, v in result["speed"][case].items()}, flush=True)
        del model
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
