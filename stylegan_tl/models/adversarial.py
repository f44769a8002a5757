"""The LightningModule that both families share: G, D and G_ema, and one clock, `nimg`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from stylegan_tl import ema, losses
from stylegan_tl.models.added import Objective, Penalty
from stylegan_tl.models.inherited import Inherited, unchanged
from stylegan_tl.models.training import Training
from stylegan_tl.processes import agree, average_gradients

__all__ = ["AdversarialModel", "Objective", "Penalty", "Training", "to_uint8"]

_STREAMS = {"G": 0, "D": 1, "path_length": 2, "augment_G": 3, "augment_D": 4, "augment_R1": 5}
_STREAMS |= {"penalty_G": 6, "penalty_D": 7, "objective": 8, "labels": 9, "gradient_penalty": 10}


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, the rounding that every metric and grid uses."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)


class AdversarialModel(pl.LightningModule):
    """Alternating training of G and D by one of the losses of `Training`, and an EMA of G.

    A subclass builds the networks and says how G is called. Batches are
    {"image": float32 [N, 3, R, R] in [-1, 1], "label": float32 [N, c_dim]}, and for an objective
    "index": int64 [N], which of the training images each is; N is `images_per_step` over the
    processes. An iteration is `G_steps` steps of G, then `D_steps` of D on as many real batches.
    Random draws come from generators seeded by (seed, nimg, rank, stream, turn), so a resumed run
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
        self.nimg_before = 0  # where the iteration began that ended at nimg
        self.turn = 0  # which of the steps of this network in this iteration
        self.lineage: dict = {}
        self.lr_factors: dict[str, float] = {}  # of parameters, by name; 1 where not named
        self.reinitialised: tuple[str, ...] = ()  # prefixes of what no source model gave
        self.new_classes: tuple[int, ...] = ()  # numbers of those that the source did not have
        self.from_source: tuple[str, ...] = ()  # which of G and D a source model gave
        self.augment: nn.Module | None = None
        self.penalties: Sequence[Penalty] = ()  # no modules: kept out of the state
        self.objective: Objective | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.G, self.D = self.build(network)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)

    # -- what a family defines ---------------------------------------------------------------

    @classmethod
    def inherit(
        cls,
        fields: Mapping[str, Any],
        network: Mapping[str, Any],
        state: Mapping[str, Tensor],
        resolution: int,
    ) -> Inherited:
        """What a transfer at `resolution` builds, from a source's `network` and G_ema's state.

        `fields` are the other arguments of the constructor. Raises ValueError, of which the
        source is the subject, where it does not fit.
        """
        return unchanged(fields, network, resolution)

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

    def judge(self, images: Tensor, c: Tensor, shown: str) -> tuple[Tensor, dict[str, Tensor]]:
        """D's logits [N, 1] of what it is shown, and further losses of the family by name.

        `shown`: "G" (fakes, in a step of G), "real" or "fake" (in one of D). The losses are per
        sample, [N], weighted already, added to that step's and logged by their names.
        """
        return self.D(images, c), {}

    def view(self, real: Tensor) -> Tensor:
        """Reals [N, 3, R, R] as D is shown them at present, before augmentation."""
        return real

    def images_at(self, nimg: int) -> int:
        """Real images of the iteration that begins at `nimg`, over all processes: pure."""
        return self.training_plan.batch_size * self.training_plan.D_steps

    def iteration_at(self, nimg: int) -> int:
        """How many iterations end at or before `nimg`; what is lazy counts them."""
        return nimg // self.images_at(nimg)

    def rate(self, network: str) -> float:
        """The factor on the learning rates of "G" or "D" at the present nimg."""
        return 1.0

    def rests(self, network: str) -> bool:
        """Whether "G" or "D" is not stepped at the present nimg."""
        return False

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
        """The random stream of this step, a function of (seed, nimg, rank, turn) alone.

        `rank` is this process's own unless it is given.
        """
        rank = self.global_rank if rank is None else rank
        key = [self.seed, self.nimg, rank, _STREAMS[stream], *([self.turn] if self.turn else [])]
        state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        return torch.Generator(self.device).manual_seed(state & (2**63 - 1))

    @property
    def images_per_step(self) -> int:
        """Real images that this iteration shows to D, over all processes."""
        return self.images_at(self.nimg)

    # -- Lightning ---------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam with the lazy-regularisation correction; all parameters, frozen ones are skipped."""
        plan = self.training_plan
        D_interval = (plan.r1_interval or 0) * plan.D_steps if plan.r1_gamma else 0
        G, G_interval = self._groups("G", plan.lr_G), self.G_interval * plan.G_steps
        if self.objective is not None:
            G, G_interval = self._groups("G", self.objective.lr_G) + self.objective.groups(), 0
        return [
            _adam(G, plan.betas, G_interval),
            _adam(self._groups("D", plan.lr_D), plan.betas, D_interval),
        ]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One iteration: G, lazy G, D, lazy R1, EMA, then the clock. What is all frozen rests."""
        real, label = self.view(batch["image"]), batch["label"]
        opt_G, opt_D = self.optimizers()
        plan, iteration = self.training_plan, self.iteration_at(self.nimg)
        self._set_rates(G=opt_G, D=opt_D)
        stats: dict[str, Tensor] = {}
        if self.objective is not None:
            with self.toggled_optimizer(opt_G):
                stats = self._step_objective(opt_G, batch)
            return self._advance(stats)
        parts = self._turns(len(label))
        if _trains(self.G) and not self.rests("G"):
            with self.toggled_optimizer(opt_G):
                steps = [
                    self._at(i, self._step_G, opt_G, label[parts[i % len(parts)]])
                    for i in range(plan.G_steps)
                ]
                stats |= _means(steps)
                if self.G_interval and iteration % self.G_interval == 0:
                    stats |= self.regularise_G(opt_G, label[parts[0]])
        if _trains(self.D) and not self.rests("D"):
            with self.toggled_optimizer(opt_D):
                steps = [
                    self._at(i, self._step_D, opt_D, real[part], label[part])
                    for i, part in enumerate(parts)
                ]
                stats |= _means(steps)
                if plan.r1_gamma and plan.r1_interval and iteration % plan.r1_interval == 0:
                    stats |= self._step_R1(opt_D, real[parts[0]], label[parts[0]])
        return self._advance(stats)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Store the clock, the lineage and the class: all that rebuilding needs."""
        checkpoint["stylegan_tl"] = {
            "nimg": self.nimg,
            "nimg_before": self.nimg_before,
            "lineage": self.lineage,
            "model": f"{type(self).__module__}.{type(self).__qualname__}",
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Set the clock before Lightning asks for the data loader."""
        own = checkpoint["stylegan_tl"]
        self.nimg, self.lineage = own["nimg"], own["lineage"]
        before = max(self.nimg - self.training_plan.batch_size, 0)  # all that there once was
        self.nimg_before = own.get("nimg_before", before)

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
            logits, more = self.judge(fake, label[part], "G")
            loss = self.training_plan.loss_G(logits).sum() / len(label)
            self.manual_backward(self._with(loss, more, len(label), penalties))
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
        plan, generator = self.training_plan, self.generator("D")
        augment, targets = self.generator("augment_D"), self.generator("labels")
        between, R1 = self.generator("gradient_penalty"), self.generator("augment_R1")
        z = self.latents(len(label), generator)
        opt_D.zero_grad(set_to_none=True)
        logits: list[tuple[Tensor, Tensor]] = []
        penalties, extra = {}, self.generator("penalty_D")
        total = torch.zeros([], device=self.device)
        for part in self._micro_batches(len(label)):
            with torch.no_grad():
                fake = self.synthesise(z[part], label[part], generator)
            *pair, more = self._judged(real[part], fake, label[part], augment)
            loss = plan.loss_D(*pair, targets).sum() / len(label)
            self.manual_backward(self._with(loss, more, len(label), penalties))
            total += loss.detach()
            logits.append((pair[0].detach(), pair[1].detach()))
            if plan.penalises_gradient:
                self._penalise_gradient(real, fake, label, part, (between, augment), penalties)
            if plan.r1_gamma and not plan.r1_interval:
                r1 = self._penalise_R1(real, label, part, R1, plan.r1_gamma / 2)
                penalties["r1"] = penalties.get("r1", 0) + r1
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

    def _judged(
        self, real: Tensor, fake: Tensor, label: Tensor, augment: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits of reals and of fakes, and the further losses of both."""
        real_logits, more = self.judge(self._augmented(real, augment), label, "real")
        fake_logits, also = self.judge(self._augmented(fake, augment), label, "fake")
        return real_logits, fake_logits, {**more, **also}

    def _penalise_gradient(
        self,
        real: Tensor,
        fake: Tensor,
        label: Tensor,
        part: slice,
        generators: tuple[torch.Generator, torch.Generator],
        stats: dict[str, Tensor],
    ) -> None:
        """Add the gradients of the WGAN-GP penalty at a micro-batch; its sum to stats."""
        between, augment = generators
        images = losses.between(real[part], fake, between).requires_grad_(True)
        logits = self.D(self._augmented(images, augment), label[part])
        penalty = losses.gradient_penalty(images, logits).sum() / len(label)
        self.manual_backward(penalty * self.training_plan.gp_weight)
        stats["gradient_penalty"] = stats.get("gradient_penalty", 0) + penalty.detach()

    @staticmethod
    def _with(
        loss: Tensor, more: dict[str, Tensor], count: int, stats: dict[str, Tensor]
    ) -> Tensor:
        """The loss of a micro-batch with the family's further ones, whose sums go to stats."""
        for name, values in more.items():
            further = values.sum() / count
            stats[name] = stats.get(name, 0) + further.detach()
            loss = loss + further
        return loss

    def _step_R1(
        self, opt_D: torch.optim.Optimizer, real: Tensor, label: Tensor
    ) -> dict[str, Tensor]:
        plan, augment = self.training_plan, self.generator("augment_R1")
        opt_D.zero_grad(set_to_none=True)
        weight = plan.r1_gamma / 2 * plan.r1_interval * plan.D_steps
        parts = self._micro_batches(len(label))
        total = sum(self._penalise_R1(real, label, part, augment, weight) for part in parts)
        self._step(opt_D)
        return {"r1": total}

    def _penalise_R1(
        self, real: Tensor, label: Tensor, part: slice, augment: torch.Generator, weight: float
    ) -> Tensor:
        """Add the gradients of R1 at a micro-batch, weighted; return its share of the mean."""
        image = real[part].detach().requires_grad_(True)
        logits = self.D(self._augmented(image, augment), label[part])
        penalty = losses.r1_penalty(image, logits).sum() / len(label)
        self.manual_backward(penalty * weight)
        return penalty.detach()

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
        shown = self.images_per_step
        self.nimg_before, self.nimg = self.nimg, self.nimg + shown
        beta = ema.half_life_decay(shown, plan.ema_kimg, self.nimg, rampup=plan.ema_rampup)
        ema.update_ema(self.G_ema, self.G, beta)
        if self.augment is not None:
            self.augment.adapt(shown)
        return stats

    def _at(self, turn: int, step: Callable[..., dict[str, Tensor]], *what: Any) -> dict:
        """One step as the `turn`-th of its network in this iteration: it draws anew."""
        self.turn = turn
        try:
            return step(*what)
        finally:
            self.turn = 0

    def _turns(self, count: int) -> list[slice]:
        """The real images of each step of D, of the `count` that this process has."""
        steps = self.training_plan.D_steps
        size = count // steps
        return [slice(i * size, (i + 1) * size) for i in range(steps)]

    def _set_rates(self, **optimizers: torch.optim.Optimizer) -> None:
        for network, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * self.rate(network)

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


def _means(steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of the statistics of several steps, name by name."""
    if len(steps) == 1:
        return steps[0]
    return {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}


def _adam(groups: list[dict], betas: tuple[float, float], interval: int) -> torch.optim.Adam:
    for group in groups:
        group["lr"], corrected = losses.lazy_adam(group["lr"], betas, interval)
    return torch.optim.Adam(groups, betas=corrected, eps=1e-8, fused=True)
