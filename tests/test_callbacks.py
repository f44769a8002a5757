"""A fake of a metric depends on its number alone; change counts from the source's weights."""

import copy
import types

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_tl.assembly import samples_of
from stylegan_tl.callbacks import EvaluationSamples, Interrupt, SourceChange, Ticker, snapshots
from stylegan_tl.freeze.adapt import Adapt, register
from stylegan_tl.freeze.groups import parts_of
from stylegan_tl.models.dcgan import DCGAN
from stylegan_tl.models.stylegan2 import StyleGAN2
from stylegan_tl.networks.adapters import LowRank
from stylegan_tl.record import write_grid

TRAINING = {"batch_size": 4, "betas": (0.0, 0.99)}
BOTH = {"G": "source", "D": "source"}


def _stylegan2(c_dim=0):
    network = {
        "resolution": 32,
        "z_dim": 8,
        "w_dim": 8,
        "c_dim": c_dim,
        "num_mapping_layers": 2,
        "channel_base": 256,
        "channel_max": 16,
        "mbstd_group_size": 4,
    }
    model = StyleGAN2(network=network, training=TRAINING, precision="fp32")
    with torch.no_grad():  # else noise is invisible
        for name, parameter in model.G_ema.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return model.eval()


def _dcgan(c_dim=0):
    network = {"resolution": 32, "z_dim": 8, "width": 4, "c_dim": c_dim}
    return DCGAN(network=network, training=TRAINING).eval()


def _fakes(model, labels=None):
    return EvaluationSamples(model, labels)


@pytest.fixture(params=[_stylegan2, _dcgan], ids=["stylegan2", "dcgan"])
def make(request):
    return request.param


@pytest.mark.parametrize("c_dim", [0, 3])
def test_a_fake_is_the_same_whoever_asks_and_how(make, c_dim):
    model = make(c_dim)
    labels = np.eye(c_dim, dtype=np.float32)[np.arange(20) % c_dim] if c_dim else None
    whole = _fakes(model, labels)(0, 150)
    assert whole.shape == (150, 3, 32, 32)
    assert whole.dtype == torch.uint8
    for size in (24, 64, 100):  # batches of another metric
        sample = _fakes(model, labels)
        parts = [sample(i, min(size, 150 - i)) for i in range(0, 150, size)]
        assert torch.equal(torch.cat(parts), whole), size
    sample = _fakes(model, labels)  # in any order, and as one of three processes would
    for start, count in ((140, 10), (63, 2), (30, 100)):
        assert torch.equal(sample(start, count), whole[start : start + count])
    assert torch.equal(torch.cat([_fakes(model, labels)(50 * r, 50) for r in range(3)]), whole)


def test_the_latents_are_distinct_and_do_not_touch_the_global_generator(make):
    model = make()
    before = torch.random.get_rng_state()
    images = _fakes(model)(0, 128).flatten(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(images.unique(dim=0)) > 120


def test_nothing_asked_for_is_nothing(make):
    assert _fakes(make())(7, 0).shape == (0, 3, 32, 32)


def test_each_block_is_made_once_when_asked_for_in_order(make, monkeypatch):
    model, calls = make(), []
    original = model.sample
    count = lambda z, *a, **k: calls.append(len(z)) or original(z, *a, **k)  # noqa: E731
    monkeypatch.setattr(model, "sample", count)
    sample = _fakes(model)
    for start in range(0, 120, 24):
        sample(start, 24)
    assert calls == [64, 64]


def test_labels_are_those_of_the_reals():
    model = _dcgan(3)
    with torch.no_grad():
        model.G_ema.embed.weight.mul_(1000)  # the class decides the image
    only = np.eye(3, dtype=np.float32)[[1, 1]]
    other = np.eye(3, dtype=np.float32)[[2, 2]]
    assert not torch.equal(_fakes(model, only)(0, 8), _fakes(model, other)(0, 8))


def test_change_is_zero_at_the_source_and_that_of_the_moved_group_after(make):
    model = make()
    change = SourceChange(model, BOTH)
    start = change(model)
    assert {v for v in start.values() if v is not None} == {0.0}
    assert {"G", "D", "G.conv", "G.affine", "D.conv", "D.head", "D.fromrgb"} <= start.keys()
    assert not [group for group in start if group.endswith((".block", ".adapter"))]
    with torch.no_grad():
        for part in parts_of(model):
            if part.network == "D" and "head" in part.groups and part.is_parameter:
                model.D.get_parameter(part.name[2:]).mul_(1.25)
        for tensor in model.G.parameters():  # G itself is not what is measured: G_ema is
            tensor.mul_(2)
        for buffer in model.G_ema.buffers():
            if buffer.is_floating_point():
                buffer.add_(1)
    moved = change(model)
    assert moved["D.head"] == pytest.approx(0.25, rel=1e-6)
    assert 0 < moved["D"] < 0.25
    assert moved["D.conv"] == moved["G"] == moved["G.conv"] == 0.0


def test_a_group_of_zeros_has_no_ratio():
    model = _stylegan2()
    with torch.no_grad():
        for name, parameter in model.G_ema.named_parameters():
            if name.endswith("noise_strength"):
                parameter.zero_()
    assert SourceChange(model, BOTH)(model)["G.noise"] is None


def test_what_the_source_did_not_give_is_left_out(make):
    model = make(3)
    model.reinitialised = ("G.embed", "G.mapping.embed", "D.embed", "D.mapping.embed")
    groups = SourceChange(model, {"G": "source", "D": "scratch"}).groups
    assert not [group for group in groups if group.startswith("D")]
    names = {name for own in groups.values() for name in own}
    assert names
    assert not [name for name in names if "embed" in name]


def test_adapters_count_by_the_weights_that_they_make():
    """LoRA on the convolutions: the change is that of the folded weights, measured by hand."""
    model = _stylegan2()
    source = copy.deepcopy(model.G_ema.state_dict())
    register(model, [Adapt("G.conv", lambda layer, g: LowRank(layer.weight, 1, g))])
    change = SourceChange(model, BOTH)
    assert change(model)["G.conv"] == 0.0
    with torch.no_grad():
        for name, parameter in model.G_ema.named_parameters():
            if name.endswith(".up"):
                parameter.fill_(0.1)
    names = [p.name[2:] for p in parts_of(model) if "conv" in p.groups and p.network == "G"]
    names = {n.replace("parametrizations.", "").replace(".original", "") for n in names}
    names = [n for n in names if n in source]
    now = {n: model.G_ema.get_submodule(n.rpartition(".")[0]) for n in names}
    now = {n: getattr(layer, n.rpartition(".")[2]) for n, layer in now.items()}
    moved = sum(float((now[n] - source[n]).double().square().sum()) for n in names)
    norm = sum(float(source[n].double().square().sum()) for n in names)
    assert change(model)["G.conv"] == pytest.approx((moved / norm) ** 0.5, rel=1e-5)
    assert change(model)["G.conv"] > 0


@pytest.mark.parametrize("first", [True, False])
def test_every_process_evaluates_and_the_first_one_writes(tmp_path, first):
    calls = []
    ticker = Ticker(
        kimg=1,
        kimg_per_tick=1,
        checkpoint=tmp_path / "last.ckpt",
        grid=lambda model, kimg: calls.append("grid"),
        evaluation=lambda model: calls.append("evaluation") or [{"metric": "m", "value": 1.0}],
        every_ticks=1,
        sinks=[lambda row: calls.append(row)],
        interrupt=Interrupt(),
        change=lambda model: calls.append("change") or {"G": 0.5, "G.noise": None},
    )
    trainer = types.SimpleNamespace(is_global_zero=first, save_checkpoint=lambda path: path.touch())
    ticker.on_train_start(trainer, _dcgan())
    if not first:
        assert calls == ["evaluation", "change"]
        return
    *before, row = calls
    assert before == ["grid", "evaluation", "change"]
    assert (row["m"], row["change"]) == (1.0, {"G": 0.5, "G.noise": None})
    assert row["change_note"] == "G.noise: all zero in the source, no ratio"
    assert row["evaluation_seconds"] == ticker.state_dict()["evaluation_seconds"] > 0
    assert row["seconds"] == 0


@pytest.mark.parametrize("per_tick", [0.05, 0.2, 4.0])
def test_every_run_keeps_a_grid_at_the_same_marks_whatever_its_ticks(tmp_path, per_tick):
    kept, ticks = [], []
    ticker = Ticker(
        kimg=5.1,
        kimg_per_tick=per_tick,
        checkpoint=tmp_path / "last.ckpt",
        grid=lambda model, kimg: kept.append(kimg),
        evaluation=None,
        every_ticks=1,
        sinks=[lambda row: ticks.append(row["kimg"])],
        interrupt=Interrupt(),
    )
    trainer = types.SimpleNamespace(
        is_global_zero=True, save_checkpoint=lambda path: path.touch(), should_stop=False
    )
    model = types.SimpleNamespace(nimg=0, nimg_before=0, images_per_step=16, augment=None)
    ticker.on_train_start(trainer, model)
    while not trainer.should_stop:
        model.nimg_before, model.nimg = model.nimg, model.nimg + 16
        ticker.on_train_batch_end(trainer, model, {}, None, 0)
    for mark in (0, 0.125, 0.25, 0.5, 1, 2, 5):  # at it, or in the batch that passes it
        assert any(mark <= kimg < mark + 0.016 for kimg in kept), mark
    assert kept == sorted(set(kept))
    assert set(ticks) <= set(kept)
    assert len(ticks) == {0.05: 103, 0.2: 27, 4.0: 3}[per_tick]  # the marks are no ticks
    assert snapshots(400_000)[:3] == [1000, 2000, 5000]  # a long run keeps no fractions


def test_a_grid_has_a_class_in_each_row(tmp_path):
    """Also where as many images would be laid out otherwise: 3 x 8 as 4 x 6."""
    places = {"columns": 8, "rows": 3, "seed": 0}
    conditional = types.SimpleNamespace(G=types.SimpleNamespace(c_dim=3))
    classes = samples_of({"grid": places}, conditional).labels.argmax(1)

    def samples(model):  # as bright as the number of the class
        return np.full((24, 3, 8, 8), 40, np.uint8) * classes[:, None, None, None].astype(np.uint8)

    mirror = types.SimpleNamespace(image=lambda *_, **__: None)
    write_grid(tmp_path, samples, lambda _: None, mirror, places["columns"], conditional, 1.0)
    (path,) = (tmp_path / "grids").iterdir()
    bottom = np.asarray(Image.open(path))[-30:, :82, 0].astype(int)
    tiles = bottom[:30, 2:].reshape(3, 10, 8, 10)[:, :8, :, :8]
    assert (tiles == 40 * np.arange(3)[:, None, None, None]).all()


@pytest.mark.parametrize(
    ("kimg", "per_tick", "batch", "every"),
    [
        *((0.4, 0.04, 16, every) for every in (1, 3, 4, 50)),
        (0.4, 0.016, 64, 1),  # a batch crosses several borders of ticks
        (0.4, 0.04, 64, 1),
        (0.41, 0.04, 64, 2),  # the last border and the budget at once
        (0.42, 0.04, 48, 2),
    ],
)
def test_the_eta_has_the_evaluations_that_are_left(
    tmp_path, monkeypatch, kimg, per_tick, batch, every
):
    """2 s for each batch and 7 s for each evaluation, by a clock that only these move.

    At a tick after which m of them evaluate, and with n images to go, that is 2 n / batch + 7 m.
    """
    clock, rows, evaluated = [0.0], [], []
    monkeypatch.setattr("stylegan_tl.callbacks.time.perf_counter", lambda: clock[0])

    def evaluation(model):
        clock[0] += 7
        evaluated.append(model.nimg)
        return [{"metric": "m", "value": 1.0}]

    ticker = Ticker(
        kimg=kimg,
        kimg_per_tick=per_tick,
        checkpoint=tmp_path / "last.ckpt",
        grid=lambda model, kimg: None,
        evaluation=evaluation,
        every_ticks=every,
        sinks=[rows.append],
        interrupt=Interrupt(),
    )
    trainer = types.SimpleNamespace(
        is_global_zero=True, save_checkpoint=lambda path: path.touch(), should_stop=False
    )
    model = types.SimpleNamespace(nimg=0, nimg_before=0, images_per_step=batch, augment=None)
    ticker.on_train_start(trainer, model)
    while not trainer.should_stop:
        model.nimg_before, model.nimg = model.nimg, model.nimg + batch
        clock[0] += 2
        ticker.on_train_batch_end(trainer, model, {}, None, 0)
    assert len(rows) > 4
    for row in rows[1:]:
        left, images = sum(at > row["nimg"] for at in evaluated), max(kimg * 1000 - row["nimg"], 0)
        assert row["eta_seconds"] == pytest.approx(2 * images / batch + 7 * left)
