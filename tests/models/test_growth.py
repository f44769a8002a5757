"""Progressive growing: the published schedule, one clock, and sources of every stage."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from stylegan_tl.assembly import blank_model, build
from stylegan_tl.freeze.strategy import Strategy
from stylegan_tl.models.growth import Growth, changes_stage
from stylegan_tl.models.stylegan import StyleGAN
from stylegan_tl.networks import stylegan
from stylegan_tl.restore import rebuild
from stylegan_tl.source.portable import SourceError, SourceModel

NETWORK = dict(resolution=32, z_dim=8, w_dim=8, num_mapping_layers=2)
NETWORK |= dict(channel_base=256, channel_max=16, mbstd_group_size=4)
TRAINING = dict(batch_size=4, betas=[0.0, 0.99], r1_interval=2, r1_gamma=1.0)
GROWTH = dict(lod_initial_resolution=8, lod_training_kimg=0.008, lod_transition_kimg=0.008)


def _reference_lod(kimg: float, resolution: int, initial: int, train: float, fade: float) -> float:
    """The schedule of the published training loop, as its documentation states it."""
    phase = math.floor(kimg / (train + fade))
    within = kimg - phase * (train + fade)
    lod = math.log2(resolution) - math.floor(math.log2(initial)) - phase
    if fade > 0:
        lod -= max(within - train, 0) / fade
    return max(lod, 0.0)


@pytest.mark.parametrize(
    ("resolution", "initial", "train", "fade"),
    [(1024, 8, 600, 600), (64, 4, 0.1, 0.05), (32, 8, 0.5, 0), (64, 16, 0, 0.3), (64, 64, 1, 1)],
)
def test_the_published_schedule(resolution: int, initial: int, train: float, fade: float) -> None:
    growth = Growth(resolution, initial, train, fade)
    for nimg in np.linspace(0, 1.1 * 1000 * (train + fade) * 8, 997).astype(int).tolist():
        expected = _reference_lod(nimg / 1000, resolution, initial, train, fade)
        assert growth.lod(nimg) == pytest.approx(expected, abs=1e-9)


def test_a_stage_is_a_resolution_and_how_far_it_has_faded_in() -> None:
    growth = Growth(32, 8, 0.1, 0.2)  # 8 px for 100 images, 16 px fade in for 200, …
    seen = {
        0: (8, 1),
        100: (8, 1),
        150: (16, 0.25),
        299: (16, 0.995),
        300: (16, 1),
        450: (32, 0.25),
    }
    for nimg, (resolution, share) in {**seen, 600: (32, 1), 9000: (32, 1)}.items():
        found = growth.stage(nimg)
        assert found == {"resolution": resolution, "fade_in": pytest.approx(share)}
    assert Growth(32, start_resolution=32).stage(50) == {}


def test_batches_and_iterations_by_resolution() -> None:
    """Counted one by one, also across the changes."""
    growth = Growth(64, 8, 0.0975, 0.0331, None, {"8": 13, 16: 7}, {"64": 0.5})
    nimg = count = 0
    while nimg < 700:
        assert growth.iterations(nimg, 4) == count
        size = {8: 13, 16: 7, 32: 4, 64: 4}[growth.top(nimg)]
        assert growth.batch_at(nimg, 4) == size
        assert growth.factor_at(nimg) == (0.5 if growth.top(nimg) == 64 else 1)
        nimg, count = nimg + size, count + 1
    assert growth.top(nimg) == 64


def test_a_resolution_counts_from_the_image_that_its_fade_begins_with() -> None:
    """1.001 * 1000 is a little less than 1001, in floating point."""
    growth = Growth(64, 8, 1.001, 0.3, None, {"8": 13})
    assert (growth.top(1000), growth.top(1001), growth.top(1002)) == (8, 8, 16)
    assert growth.iterations(1001, 4) == 77
    assert growth.iterations(1001 + 13 + 40, 4) == 78 + 10
    for begin in growth._boundaries(10**6):
        assert growth.top(begin) == 2 * growth.top(begin - 1)


def test_a_stage_changes_where_a_fade_begins_and_ends() -> None:
    assert not changes_stage(2, 2)
    assert not changes_stage(1.9, 1.2)
    assert changes_stage(2, 1.99)
    assert changes_stage(1.01, 1)
    assert changes_stage(2, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lod_initial_resolution": 12}, "lod_initial_resolution=12: use a power of two from 4"),
        ({"start_resolution": 64}, "start_resolution=64: use .* from 4 to resolution=32"),
        ({"lod_training_kimg": -1}, "lod_training_kimg=-1: use 0 or more"),
        ({"lod_transition_kimg": None}, "lod_transition_kimg=None"),
        ({"batch_size": {"8": 0}}, "batch_size.8=0: use a number above 0"),
        ({"lr_factor": {"9": 1.0}}, "lr_factor.9: name a resolution"),
    ],
)
def test_a_wrong_schedule_names_the_key(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StyleGAN(network=NETWORK, training=TRAINING, growth=given)


class _Images(torch.utils.data.IterableDataset):
    """As many as the model asks for, until it has seen `until` of them."""

    def __init__(self, model: StyleGAN, until: int) -> None:
        self.model, self.until = model, until

    def __iter__(self):
        generator, nimg = torch.Generator().manual_seed(0), 0
        while nimg < self.until:
            n = self.model.images_at(nimg)
            nimg += n
            image = torch.rand(n, 3, 32, 32, generator=generator) * 2 - 1
            yield {"image": image, "label": torch.zeros(n, 0), "index": torch.arange(n)}


class _Watch(pl.Callback):
    """What every iteration was like."""

    def __init__(self) -> None:
        self.seen: list[SimpleNamespace] = []

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        opt_G, opt_D = trainer.optimizers
        steps = {
            name: int(opt.state[p]["step"]) if p in opt.state else 0
            for name, p, opt in (
                ("G", model.G.mapping.fc0.weight, opt_G),
                ("D", model.D.b4.fc.weight, opt_D),
            )
        }
        lods = {float(x) for x in model._lods()}
        self.seen.append(
            SimpleNamespace(
                nimg=model.nimg_before,
                lr=opt_G.param_groups[0]["lr"],
                steps=steps,
                lods=lods,
                stats={k: float(v) for k, v in outputs.items()},
                top=copy.deepcopy(model.G.synthesis.b32.state_dict()),
            )
        )


@pytest.fixture
def fit():
    """`fit(model, until) -> what every iteration was like`."""

    def go(model: StyleGAN, until: int) -> list[SimpleNamespace]:
        watch = _Watch()
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, torch.utils.data.DataLoader(_Images(model, until), batch_size=None))
        return watch.seen

    return go


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
def test_training_grows_on_the_clock(fit) -> None:
    growth = {**GROWTH, "batch_size": {16: 2}, "lr_factor": {"16": 0.5, "32": 2}}
    model = StyleGAN(network=NETWORK, training=TRAINING, growth=growth)
    untouched = copy.deepcopy(model.G.synthesis.b32.state_dict())
    seen = fit(model, 40)
    assert [x.nimg for x in seen] == [0, 4, 8, *range(12, 26, 2), 26, 30, 34, 38]
    schedule = Growth(32, **growth)
    opt_steps, before = 0, 2.0
    for x in seen:
        now = schedule.lod(x.nimg)
        assert x.lods == {float(torch.tensor(now))}
        assert x.stats["lod"] == pytest.approx(now)
        assert x.lr == pytest.approx(0.0025 * schedule.factor_at(x.nimg))
        opt_steps = 1 if changes_stage(before, now) else opt_steps + 1
        assert x.steps["G"] == opt_steps
        still = all(torch.equal(v, untouched[k]) for k, v in x.top.items())
        assert still == (schedule.top(x.nimg) < 32)
        assert ("r1" in x.stats) == (schedule.iterations(x.nimg, 4) % 2 == 0)
        before = now
    assert {schedule.top(x.nimg) for x in seen} == {8, 16, 32}


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
def test_published_r1_is_in_every_step_and_corrects_nothing(fit) -> None:
    plan = {**TRAINING, "r1_interval": None, "lr_D": 0.003}
    model = StyleGAN(network=NETWORK, training=plan)
    seen = fit(model, 8)
    assert [x.steps["D"] for x in seen] == [1, 2]
    assert all(x.stats["r1"] > 0 for x in seen)
    assert model.configure_optimizers()[1].param_groups[0]["lr"] == 0.003


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
def test_wgan_gp(fit) -> None:
    plan = {**TRAINING, "loss": "wgan_gp", "drift_weight": 0.001, "r1_gamma": 0.0}
    seen = fit(StyleGAN(network=NETWORK, training=plan, growth=GROWTH), 20)
    assert all(x.stats["gradient_penalty"] > 0 and "r1" not in x.stats for x in seen)


def test_styles_mix_within_the_layers_in_use() -> None:
    """Two of eight styles per resolution; at 8 px all mixtures cross over within the first four."""
    model = StyleGAN(network=NETWORK, training=TRAINING, growth=GROWTH, style_mixing=1.0)
    assert model.layers_in_use == 4
    with torch.no_grad():
        ws = model.styles(torch.randn(64, 8), torch.zeros(64, 0), torch.Generator().manual_seed(0))
    crossed = [int((row[1:] != row[:-1]).any(1).nonzero()) + 1 for row in ws]
    assert set(crossed) == {1, 2, 3}


def test_what_is_frozen_at_a_stage_rests() -> None:
    """8 px frozen whole: neither network has anything to train until 16 px fade in."""
    model = StyleGAN(network=NETWORK, training=TRAINING, growth=GROWTH)
    for name, p in model.named_parameters():
        p.requires_grad_(".b16." in name or ".b32." in name)
    assert model.rests("G")
    assert model.rests("D")
    model.nimg = 9
    assert not model.rests("G")
    assert not model.rests("D")


def _source(resolution: int, lod: float) -> SourceModel:
    network = {**NETWORK, "resolution": resolution, "c_dim": 0}
    model = StyleGAN(network=network, training=TRAINING, seed=5)
    for buffer in model._lods():
        buffer.fill_(lod)
    tensors = {k: v for k, v in model.state_dict().items() if not k.startswith("G.")}
    target = f"{StyleGAN.__module__}.StyleGAN"
    return SourceModel(target, network, 0, "somewhere", {}, tensors, Path("source.ckpt"), "0" * 64)


def _config(resolution: int, growth: dict | None) -> dict:
    fields = {"_target_": f"{StyleGAN.__module__}.StyleGAN", "style_mixing": 0.9}
    model = {**fields, "network": NETWORK, "training": TRAINING, "growth": growth}
    rest = {"augment": {}, "target": {"name": "t"}, "num_images": None, "freeze": {}, "seed": 0}
    return {"model": model, "resolution": resolution, **rest}


def _transfer(source: SourceModel, resolution: int, start: int | None, **growth):
    dataset = SimpleNamespace(label_dim=0, content_hash="x")
    config = _config(resolution, {**GROWTH, "start_resolution": start, **growth})
    assert blank_model(config, Strategy(), source).growth.resolution == resolution
    return build(config, dataset, source, Strategy())


@pytest.mark.parametrize(
    ("source", "lod", "resolution", "start", "begins", "fresh", "left"),
    [
        (32, 0, 32, None, 32, set(), set()),
        (32, 0, 32, 8, 8, set(), set()),
        (32, 1, 32, None, 16, {32}, set()),
        (32, 0.6, 32, None, 16, {32}, set()),  # 32 px were fading in
        (32, 1, 64, None, 16, {32, 64}, set()),
        (32, 0, 64, 16, 16, {64}, set()),
        (64, 1, 16, None, 16, set(), {32, 64}),
        (64, 2, 32, 8, 8, {32}, {64}),
    ],
)
def test_a_transfer_begins_at_any_stage(
    source: int, lod: float, resolution: int, start: int | None, begins: int, fresh: set, left: set
) -> None:
    given = _source(source, lod)
    model, reports = _transfer(given, resolution, start)
    assert model.growth.top(0) == begins
    assert model.growth.top(10**6) == resolution
    for network in "GD":
        report = reports[network]
        assert {_resolution(k) for k in report.reinitialised} - {None} == fresh
        assert {_resolution(k) for k in report.left} == left
        assert not report.unexplained
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    parent = rebuild(given).G_ema  # at the stage where the target begins
    parent.synthesis.lod.fill_(math.log2(source // begins))
    ours, theirs = (_at(G(z, noise="none"), begins) for G in (model.G_ema, parent))
    assert torch.equal(ours, theirs)


def _resolution(name: str) -> int | None:
    block = next((part for part in name.split(".") if part[0] == "b" and part[1:].isdigit()), None)
    return int(block[1:]) if block else None


def _at(images: Tensor, size: int) -> Tensor:
    """Images that are enlarged from `size`, at that size."""
    step = images.shape[-1] // size
    small = images[:, :, ::step, ::step]
    assert torch.equal(images, stylegan._enlarged(small, images.shape[-1]))
    return small


def test_a_start_above_the_source_is_refused() -> None:
    given = _source(32, 1)
    with pytest.raises(SourceError, match="source.ckpt has grown to 16 px.*start_resolution=16"):
        _transfer(given, 32, 32)
    with pytest.raises(SourceError, match="grown to 16 px, and model.growth=null begins above"):
        build(_config(32, None), SimpleNamespace(label_dim=0), given, Strategy())
