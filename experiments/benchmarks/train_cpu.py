"""Images per second of a full StyleGAN2 training iteration on the CPU: G, D, lazy R1, EMA.

    python experiments/benchmarks/train_cpu.py [--baseline PATH_TO/stylegan2-ada-pytorch]

With `--baseline` that checkout's networks train in turn with ours, round by round, in one process
and with the same step, and the ratio is printed. Wall time is what a user waits for; CPU time is
what remains fair when others use the machine.
"""

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stylegan_tl.networks import stylegan2  # noqa: E402

BASE = {32: 2048, 64: 4096}
Z, WIDTH_MAX, R1_EVERY, MIX, GAMMA, BETA = 128, 128, 16, 0.9, 1.0, 0.998


def ours(resolution: int, bf16: bool) -> tuple[nn.Module, nn.Module]:
    """Build our generator and discriminator."""
    widths = dict(resolution=resolution, channel_base=BASE[resolution], channel_max=WIDTH_MAX)
    G = stylegan2.Generator(z_dim=Z, w_dim=Z, num_mapping_layers=2, bf16=bf16, **widths)
    return G, stylegan2.Discriminator(bf16=bf16, **widths)


def baseline(resolution: int, path: str) -> tuple[nn.Module, nn.Module]:
    """Build the same architecture from a checkout of stylegan2-ada-pytorch."""
    sys.path.insert(0, path)
    from training import networks

    widths = dict(channel_base=BASE[resolution], channel_max=WIDTH_MAX)
    G = networks.Generator(
        z_dim=Z,
        c_dim=0,
        w_dim=Z,
        img_resolution=resolution,
        img_channels=3,
        mapping_kwargs=dict(num_layers=2),
        synthesis_kwargs=widths,
    )
    epilogue = dict(mbstd_group_size=4)
    D = networks.Discriminator(
        c_dim=0, img_resolution=resolution, img_channels=3, epilogue_kwargs=epilogue, **widths
    )
    return G, D


class Step:
    """One training iteration: G step, D step, every 16th time R1, EMA."""

    def __init__(self, G: nn.Module, D: nn.Module, batch: int, *, chunks: bool) -> None:
        self.G, self.D, self.batch, self.chunks, self.count = G, D, batch, chunks, 0
        self.G_ema = [p.detach().clone() for p in G.parameters()]
        options = dict(lr=0.002, betas=(0.0, 0.99), eps=1e-8)
        fused = dict(fused=True) if chunks else {}
        self.opt_G = torch.optim.Adam(G.parameters(), **options, **fused)
        self.opt_D = torch.optim.Adam(D.parameters(), **options, **fused)

    def fake(self) -> Tensor:
        """Generate a batch with style mixing."""
        z = torch.randn(2, self.batch, Z)
        ws = self.G.mapping(z[0], None)
        if torch.rand([]) < MIX:
            cut = int(torch.randint(1, ws.shape[1], []))
            ws[:, cut:] = self.G.mapping(z[1], None)[:, cut:]
        return self.G.synthesis(ws)

    def logits(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Judge real and fake: in one batch (ours) or two (the baseline has no chunks)."""
        if self.chunks:
            return self.D(torch.cat([real, fake]), chunks=2).chunk(2)
        return self.D(real, None), self.D(fake, None)

    def __call__(self, real: Tensor) -> None:
        """Train both networks on one batch."""
        self.D.requires_grad_(False)
        F.softplus(-self.D(self.fake(), None)).mean().backward()
        self.opt_G.step()
        self.opt_G.zero_grad(set_to_none=True)
        self.D.requires_grad_(True)
        with torch.no_grad():
            fake = self.fake()
        real_logits, fake_logits = self.logits(real, fake)
        (F.softplus(-real_logits) + F.softplus(fake_logits)).mean().backward()
        self.opt_D.step()
        self.opt_D.zero_grad(set_to_none=True)
        if self.count % R1_EVERY == 0:
            self.r1(real)
        self.count += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.G_ema, list(self.G.parameters()), 1 - BETA)

    def r1(self, real: Tensor) -> None:
        """Take a D step on the lazy gradient penalty."""
        real = real.detach().requires_grad_(True)
        logits = self.D(real, None)
        (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)).mean() * (GAMMA / 2 * R1_EVERY)
        (penalty + 0 * logits.sum()).backward()
        self.opt_D.step()
        self.opt_D.zero_grad(set_to_none=True)


def measure(step: Callable[[Tensor], None], real: Tensor, iterations: int) -> tuple[float, float]:
    """Return the wall and the CPU seconds of `iterations` iterations."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(iterations):
        step(real)
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(steps: dict[str, Step], resolution: int, args: argparse.Namespace) -> list[dict]:
    """Run all steps in turn for some rounds; return one row per step and the ratios."""
    torch.manual_seed(0)
    real = torch.rand(args.batch, 3, resolution, resolution) * 2 - 1
    for step in steps.values():
        measure(step, real, 2)  # warm up: builds, caches, R1
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, step in steps.items():
            seconds[name].append(measure(step, real, args.iterations))
    images = args.batch * args.iterations
    rows = []
    for name, pairs in seconds.items():
        row = {"resolution": resolution, "networks": name}
        row["img_per_s"] = round(images / statistics.median(w for w, _ in pairs), 2)
        row["cpu_ms_per_img"] = round(1e3 * statistics.median(c for _, c in pairs) / images, 2)
        if "baseline" in steps:
            both = list(zip(seconds["baseline"], pairs, strict=True))
            row["wall_ratio"] = round(statistics.median(b[0] / o[0] for b, o in both), 3)
            row["cpu_ratio"] = round(statistics.median(b[1] / o[1] for b, o in both), 3)
        rows.append(row)
    return rows


def main() -> None:
    """Parse the arguments, run, print one JSON line per row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--baseline", help="a checkout of stylegan2-ada-pytorch to measure too")
    parser.add_argument("--resolution", type=int, nargs="*", default=[32, 64], choices=BASE)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=16, help="per round; 16 is one R1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="measure ours in bfloat16 as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps({"torch": torch.__version__, "machine": platform.machine(), **vars(args)}))
    for resolution in args.resolution:
        steps = {"ours": Step(*ours(resolution, False), args.batch, chunks=True)}
        if args.bf16:
            steps["ours bf16"] = Step(*ours(resolution, True), args.batch, chunks=True)
        if args.baseline:
            warnings.filterwarnings("ignore", message="conv2d_gradfix")
            nets = baseline(resolution, args.baseline)
            steps["baseline"] = Step(*nets, args.batch, chunks=False)
        for row in compare(steps, resolution, args):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
