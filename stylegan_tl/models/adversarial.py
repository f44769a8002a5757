"""The LightningModule that both families share: G, D and G_ema, and one clock, `nimg`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from stylegan_tl import ema, losses
from stylegan_tl.processes import agree, average_gradients

__all__ = ["AdversarialModel", "Objective", "Penalty", "Training", "bf16_pays", "to_uint8"]

_STREAMS = {"G": 0, "D": 1, "path_length": 2, "augment_G": 3, "augment_D": 4, "augment_R1": 5}
_STREAMS |= {"penalty_G": 6, "penalty_D": 7, "objective": 8}


@dataclass(frozen=True)
class Training:
    """How both networks are optimised; intervals count iterations, `ema_kimg` is a half-life.

    `batch_size` counts the images of all processes together, `micro_batch` those of a pass in one.
    """

    batch_size: int = 32
    micro_batch: int | None = None
    lr_G: float = 0.0025
    lr_D: float = 0.0025
    betas: tuple[float, float] = (0.0, 0.99)
    r1_gamma: float = 1.0
    r1_interval: int = 16
    ema_kimg: float = 10.0
    ema_rampup: float | None = None


class Penalty(Protocol):
    """A further loss of G, of D or of both, added to the adversarial one in the same step.

    A loss is a scalar, weighted already: the mean over the samples of a micro-batch, or a function
    of the weights alone. None means none of this network. Logged as `{name}_G` and `{name}_D`.
    """

    name: str

    def of_G(
        self, model: AdversarialModel, z: Tensor, c: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The loss of G at the latents `z [N, z_dim]` of this micro-batch."""

    def of_D(
        self, model: AdversarialModel, real: Tensor, c: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        """The loss of D at the images `real [N, 3, R, R]` of this micro-batch, not augmented."""


class Objective(Protocol):
    """Losses of G that replace the adversarial ones; D then rests. A module: it is in the state.

    Losses are scalars by name, weighted already; they are added up and logged by their names.
    """

    lr_G: float

    def groups(self) -> list[dict]:
        """Its own parameters with their learning rates, for the optimizer of G."""

    def of_images(self, model: AdversarialModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over the images of this micro-batch: `image`, `label`, `index`."""

    def of_weights(self, model: AdversarialModel, generator: torch.Generator) -> dict[str, Tensor]:
        """What does not depend on the batch, once per iteration."""


def bf16_pays(precision: str) -> bool:
    """Whether a network runs in bfloat16: 'bf16' and 'fp32' decide, 'auto' asks the processor.

    On a CPU bfloat16 wins only with matrix units (AMX); elsewhere it was measured slower.
    On a GPU 'auto' stays with float32 until the benchmark has shown otherwise.
    """
    choices = {"bf16": True, "fp32": False}
    if precision == "auto":
        return not torch.cuda.is_available() and torch.cpu._is_amx_tile_supported()
    if precision not in choices:
        raise ValueError(f"model.precision must be auto, fp32 or bf16, but got {precision!r}")
    return choices[precision]


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, the rounding that every metric and grid uses."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


class AdversarialModel(pl.LightningModule):
    """Alternating non-saturating training with lazy R1 and an EMA of G.

    A subclass builds the networks and says how G is called. Batches are
    {"image": float32 [N, 3, R, R] in [-1, 1], "label": float32 [N, c_dim]}, and for an objective
    "index": int64 [N], which of the training images each is.
    Random draws come from generators seeded by (seed, nimg, rank, stream), so a resumed run
    repeats them. Of several processes each has its part of the batch; gradients, buffers and
    statistics are averaged, so the state is the same in all. `augment` is assigned after
    construction; it is part of the state.
    """

    automatic_optimization = False
    still: dict[str, str] = {}  # what `sample` takes for a picture that depends on z alone

    def __init__(self, *, network: dict, training: dict, seed: int = 0) -> None:
        super().__init__()
        self.training_plan = Training(**{**training, "betas": tuple(map(float, training["betas"]))})
        self.seed = seed
        self.nimg = 0
        self.lineage: dict = {}
        self.lr_factors: dict[str, float] = {}  # of parameters, by name; 1 where not named
        self.reinitialised: tuple[str, ...] = ()  # prefixes of what no source model gave
        self.augment: nn.Module | None = None
        self.penalties: Sequence[Penalty] = ()  # no modules: kept out of the state
        self.objective: Objective | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.G, self.D = self.build(network)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)

    # -- what a family defines ---------------------------------------------------------------

    def build(self, network: dict) -> tuple[nn.Module, nn.Module]:
        """Return G and D for the `network` dictionary of the hyper-parameters."""
        raise NotImplementedError

    def synthesise(self, z: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Fakes as training sees them, [N, 3, R, R] in about [-1, 1]."""
        raise NotImplementedError

    def regularise_G(self, opt_G: torch.optim.Optimizer, c: Tensor) -> dict[str, Tensor]:
        """Lazy regularisation of G; the default has none."""
        return {}

    @property
    def G_interval(self) -> int:
        """Iterations between lazy steps of G, 0 for none."""
        return 0

    # -- public ------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, z: Tensor, c: Tensor | None = None, *, generator: torch.Generator | None = None, **how
    ) -> Tensor:
        """Images of G_ema as uint8 [N, 3, R, R]; `how` is the family's (truncation_psi, noise)."""
        return to_uint8(self.G_ema(z, c, generator=generator, **how))

    def latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal z [count, z_dim] on the model's device."""
        return torch.randn(
            count, self.G.z_dim, generator=generator, device=generator.device, dtype=torch.float32
        )

    def generator(self, stream: str, *, rank: int | None = None) -> torch.Generator:
        """The random stream of this iteration, a function of (seed, nimg, rank) alone.

        `rank` is this process's own unless it is given.
        """
        rank = self.global_rank if rank is None else rank
        key = [self.seed, self.nimg, rank, _STREAMS[stream]]
        state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        return torch.Generator(self.device).manual_seed(state & (2**63 - 1))

    @property
    def images_per_step(self) -> int:
        """Real images that one optimiser step of D consumes, over all processes."""
        return self.training_plan.batch_size

    # -- Lightning ---------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam with the lazy-regularisation correction; all parameters, frozen ones are skipped."""
        plan = self.training_plan
        D_interval = plan.r1_interval if plan.r1_gamma else 0
        G, G_interval = self._groups("G", plan.lr_G), self.G_interval
        if self.objective is not None:
            G, G_interval = self._groups("G", self.objective.lr_G) + self.objective.groups(), 0
        return [
            _adam(G, plan.betas, G_interval),
            _adam(self._groups("D", plan.lr_D), plan.betas, D_interval),
        ]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One iteration: G, lazy G, D, lazy R1, EMA, then the clock. What is all frozen rests."""
        real, label = batch["image"], batch["label"]
        opt_G, opt_D = self.optimizers()
        plan, iteration = self.training_plan, self.nimg // self.images_per_step
        stats: dict[str, Tensor] = {}
        if self.objective is not None:
            with self.toggled_optimizer(opt_G):
                stats = self._step_objective(opt_G, batch)
            return self._advance(stats)
        if _trains(self.G):
            with self.toggled_optimizer(opt_G):
                stats |= self._step_G(opt_G, label)
                if self.G_interval and iteration % self.G_interval == 0:
                    stats |= self.regularise_G(opt_G, label)
        if _trains(self.D):
            with self.toggled_optimizer(opt_D):
                stats |= self._step_D(opt_D, real, label)
                if plan.r1_gamma and iteration % plan.r1_interval == 0:
                    stats |= self._step_R1(opt_D, real, label)
        return self._advance(stats)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Store the clock, the lineage and the class: all that rebuilding needs."""
        checkpoint["stylegan_tl"] = {
            "nimg": self.nimg,
            "lineage": self.lineage,
            "model": f"{type(self).__module__}.{type(self).__qualname__}",
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Set the clock before Lightning asks for the data loader."""
        self.nimg = checkpoint["stylegan_tl"]["nimg"]
        self.lineage = checkpoint["stylegan_tl"]["lineage"]

    # -- steps -------------------------------------------------------------------------------

    def _step_G(self, opt_G: torch.optim.Optimizer, label: Tensor) -> dict[str, Tensor]:
        generator = self.generator("G")
        augment = self.generator("augment_G")
        z = self.latents(len(label), generator)
        opt_G.zero_grad(set_to_none=True)
        penalties, extra = {}, self.generator("penalty_G")
        total = torch.zeros([], device=self.device)
        for part in self._micro_batches(len(label)):
            fake = self._augmented(self.synthesise(z[part], label[part], generator), augment)
            loss = losses.nonsaturating_G(self.D(fake, label[part])).sum() / len(label)
            self.manual_backward(loss)
            total += loss.detach()
            self._penalise("G", z[part], label, part, extra, penalties)
        self._step(opt_G)
        return {"loss_G": total, **penalties}

    def _step_objective(
        self, opt_G: torch.optim.Optimizer, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        opt_G.zero_grad(set_to_none=True)
        count = len(batch["image"])
        found = self.objective.of_weights(self, self.generator("objective"))
        self.manual_backward(sum(found.values()))
        stats = {name: loss.detach() for name, loss in found.items()}
        for part in self._micro_batches(count):
            some = {name: value[part] for name, value in batch.items()}
            found = self.objective.of_images(self, some)
            share = len(some["image"]) / count
            self.manual_backward(sum(found.values()) * share)
            for name, loss in found.items():
                stats[name] = stats.get(name, 0) + loss.detach() * share
        self._step(opt_G)
        return {"loss_G": sum(stats.values()), **stats}

    def _step_D(
        self, opt_D: torch.optim.Optimizer, real: Tensor, label: Tensor
    ) -> dict[str, Tensor]:
        generator = self.generator("D")
        augment = self.generator("augment_D")
        z = self.latents(len(label), generator)
        opt_D.zero_grad(set_to_none=True)
        logits: list[tuple[Tensor, Tensor]] = []
        penalties, extra = {}, self.generator("penalty_D")
        total = torch.zeros([], device=self.device)
        for part in self._micro_batches(len(label)):
            with torch.no_grad():
                fake = self.synthesise(z[part], label[part], generator)
            pair = self._logits(real[part], fake, label[part], augment)
            loss = sum(losses.nonsaturating_D(*pair)).sum() / len(label)
            self.manual_backward(loss)
            total += loss.detach()
            logits.append((pair[0].detach(), pair[1].detach()))
            self._penalise("D", real[part], label, part, extra, penalties)
        self._step(opt_D)
        real_logits, fake_logits = (torch.cat(side) for side in zip(*logits, strict=True))
        if self.augment is not None:
            self.augment.observe(real_logits)
        return {
            "loss_D": total,
            "D_real": real_logits.mean(),
            "D_fake": fake_logits.mean(),
            "D_sign_real": real_logits.sign().mean(),
            **penalties,
        }

    def _penalise(
        self,
        network: str,
        x: Tensor,
        label: Tensor,
        part: slice,
        generator: torch.Generator,
        stats: dict[str, Tensor],
    ) -> None:
        """Add the gradients of the penalties at a micro-batch, by its share; their sum to stats."""
        share = len(x) / len(label)
        for penalty in self.penalties:
            of = penalty.of_G if network == "G" else penalty.of_D
            loss = of(self, x, label[part], generator)
            if loss is None:
                continue
            if loss.requires_grad:  # nothing that it depends on may train at present
                self.manual_backward(loss * share)
            key = f"{penalty.name}_{network}"
            stats[key] = stats.get(key, 0) + loss.detach() * share

    def _logits(
        self, real: Tensor, fake: Tensor, label: Tensor, augment: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        real_logits = self.D(self._augmented(real, augment), label)
        return real_logits, self.D(self._augmented(fake, augment), label)

    def _step_R1(
        self, opt_D: torch.optim.Optimizer, real: Tensor, label: Tensor
    ) -> dict[str, Tensor]:
        plan, augment = self.training_plan, self.generator("augment_R1")
        opt_D.zero_grad(set_to_none=True)
        total = torch.zeros([], device=self.device)
        for part in self._micro_batches(len(label)):
            image = real[part].detach().requires_grad_(True)
            logits = self.D(self._augmented(image, augment), label[part])
            penalty = losses.r1_penalty(image, logits).sum() / len(label)
            self.manual_backward(penalty * (plan.r1_gamma / 2 * plan.r1_interval))
            total += penalty.detach()
        self._step(opt_D)
        return {"r1": total}

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        """Step on the gradients of the whole batch."""
        average_gradients(p for group in optimizer.param_groups for p in group["params"])
        optimizer.step()

    def _advance(self, stats: dict[str, Tensor]) -> dict[str, Tensor]:
        """End the iteration: buffers and `stats` agree, EMA and clock move; return the stats."""
        plan = self.training_plan
        stats = {name: value.detach().clone() for name, value in stats.items()}
        buffers = (b for name, b in self.named_buffers() if not name.startswith("G_ema."))
        agree([*buffers, *stats.values()])
        self.nimg += self.images_per_step
        beta = ema.half_life_decay(
            self.images_per_step, plan.ema_kimg, self.nimg, rampup=plan.ema_rampup
        )
        ema.update_ema(self.G_ema, self.G, beta)
        if self.augment is not None:
            self.augment.adapt(self.images_per_step)
        return stats

    def _groups(self, network: str, lr: float) -> list[dict]:
        """The parameters of a network by learning rate, those of the plan's own rate first."""
        by_factor: dict[float, list[nn.Parameter]] = {1.0: []}
        for name, parameter in getattr(self, network).named_parameters():
            factor = self.lr_factors.get(f"{network}.{name}", 1.0)
            by_factor.setdefault(factor, []).append(parameter)
        return [{"params": some, "lr": lr * factor} for factor, some in by_factor.items() if some]

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images if self.augment is None else self.augment(images, generator)

    def _micro_batches(self, count: int) -> Iterator[slice]:
        size = self.training_plan.micro_batch or count
        for start in range(0, count, size):
            yield slice(start, min(start + size, count))


def _trains(network: nn.Module) -> bool:
    return any(p.requires_grad for p in network.parameters())


def _adam(groups: list[dict], betas: tuple[float, float], interval: int) -> torch.optim.Adam:
    for group in groups:
        group["lr"], corrected = losses.lazy_adam(group["lr"], betas, interval)
    return torch.optim.Adam(groups, betas=corrected, eps=1e-8, fused=True)
