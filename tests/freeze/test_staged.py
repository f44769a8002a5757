"""Schedules: what trains when, with what optimiser state, and resumed in any stage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import nn

from stylegan_tl.config import conf_dir
from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.freeze.groups import parts_of
from stylegan_tl.freeze.staged import gradual
from stylegan_tl.networks import stylegan2
from stylegan_tl.runner import run_trial

MODELS = ["stylegan2_small", "dcgan"]
# schedule option -> overrides, and [(first nimg, {model: pattern of what trains from then on})]
D, G_LOW, G_HIGH = r"D\.", r"G\.(mapping\.|(synthesis\.)?({})\.)", r"G\.(synthesis\.)?({})\."
SCHEDULES = {
    "none": ([], [(0, r"[GD]\.")]),
    "head_warmup": (["freeze.schedule.kimg=0.006"], [(0, r"D\.b4\."), (8, r"[GD]\.")]),
    "low_to_high": (
        ["freeze.schedule.every_kimg=0.004"],
        [
            (0, rf"{D}|{G_LOW.format('b4')}"),
            (4, rf"{D}|{G_LOW.format('b4|b8')}"),
            (8, rf"{D}|{G_LOW.format('b4|b8|b16')}"),
            (12, r"[GD]\."),
        ],
    ),
    "high_to_low": (
        ["freeze.schedule.every_kimg=0.004", "freeze.schedule.networks=[G,D]"],
        [
            (0, rf"D\.(b4|b32)\.|{G_HIGH.format('b32')}"),
            (4, rf"D\.(b4|b32|b16)\.|{G_HIGH.format('b32|b16')}"),
            (8, rf"D\.|{G_HIGH.format('b32|b16|b8')}"),
            (12, r"[GD]\."),
        ],
    ),
    "miner_first": (["freeze.schedule.kimg=0.008"], [(0, r"D\.|G\..*miner\."), (8, r"[GD]\.")]),
    "stages": (
        [
            "freeze.schedule.stages=[{until_kimg: 0.004, train: [G.conv]},"
            "{until_kimg: 0.008, train: [D.fromrgb, G.torgb]}]"
        ],
        [
            (0, r"G\..*(conv[01]\.(weight|bias)|b(4|8|16)\.0\.weight|L\d\.(weight|bias))"),
            (4, r"D\.b32\.(fromrgb|0)\.|G\.(.*torgb\.|b32\.)"),
            (8, r"[GD]\."),
        ],
    ),
}
# G's blocks are b16 and b32 there: one stage until all trains
OF_STYLEGAN3 = {
    "low_to_high": [(0, rf"{D}|{G_LOW.format('b16')}"), (4, r"[GD]\.")],
    "high_to_low": [(0, rf"D\.(b4|b32)\.|{G_HIGH.format('b32')}"), (4, r"[GD]\.")],
}
FREEZES = {"none": r"$^", "freeze_d_1": r"D\.b32\.", "miner": r"$^"}
CASES = [
    (s, f) for s in SCHEDULES for f in ("none", "freeze_d_1") if s not in ("stages", "miner_first")
]
CASES += [("stages", "none"), ("miner_first", "miner")]
CASES = [(name, *case) for name in MODELS for case in CASES]
CASES += [("stylegan3_small", s, "none") for s in (*OF_STYLEGAN3, "stages")]


class _Images(torch.utils.data.IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            image = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
            yield {"image": image, "label": torch.zeros(4, 0)}


class _Watch(pl.Callback):
    """Before and after every iteration: nimg, what moved, what has optimiser state of what age."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, set[str], dict[str, int]]] = []

    def on_train_batch_start(self, trainer, model, batch, index) -> None:
        self.before = {k: v.clone() for k, v in model.state_dict().items()}
        self.nimg = model.nimg

    def on_train_batch_end(self, trainer, model, outputs, batch, index) -> None:
        after = model.state_dict()
        moved = {k for k, v in self.before.items() if not torch.equal(v, after[k])}
        moved = {k for k in moved if k.startswith(("G.", "D."))}
        names = {parameter: name for name, parameter in model.named_parameters()}
        states = [o.state for o in trainer.optimizers]
        ages = {names[p]: int(s["step"]) for state in states for p, s in state.items()}
        self.seen.append((self.nimg, moved, ages))


def _make(compose, tiny_overrides, name: str, *more: str):
    config = compose(tiny_overrides(name, *more))
    freeze = freeze_of(config["freeze"])
    network = {**config["model"]["network"], **freeze.strategy.network}
    return instantiate(config["model"], network=network, seed=0, _convert_="all"), freeze


def test_every_schedule_has_its_row() -> None:
    found = {f.stem for f in (Path(conf_dir()) / "freeze" / "schedule").glob("*.yaml")}
    assert found == set(SCHEDULES)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
@pytest.mark.parametrize(("name", "schedule", "strategy"), CASES)
def test_stages_switch_at_their_time_with_clean_optimiser_state(
    compose, tiny_overrides, name: str, schedule: str, strategy: str
) -> None:
    overrides, expected = SCHEDULES[schedule]
    if name == "stylegan3_small":
        expected = OF_STYLEGAN3.get(schedule, expected)
    more = [f"freeze/schedule={schedule}", f"freeze={strategy}", *overrides]
    model, freeze = _make(compose, tiny_overrides, name, *more)
    assert freeze.apply(model)["schedule"] == freeze.schedule.record()
    parameters = {k for k, _ in model.named_parameters() if k.startswith(("G.", "D."))}
    watch = _Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[freeze, watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(_Images(), batch_size=None))
    assert [nimg for nimg, *_ in watch.seen] == [0, 4, 8, 12, 16]
    last: set[str] = set()
    for nimg, moved, ages in watch.seen:
        (*_, pattern) = [p for start, p in expected if start <= nimg]
        training = {
            k for k in parameters if re.match(pattern, k) and not re.match(FREEZES[strategy], k)
        }
        still = {k for k in training if nimg == 0 and ".miner.first." in k}  # behind zeros as yet
        assert moved & parameters | still == training
        assert set(ages) == training
        assert all(ages[k] <= 2 for k in training - last)  # new: one step, two with a lazy one
        buffers = moved - parameters
        if not any(k.startswith("G.") for k in training):
            assert not any(k.startswith("G.") for k in buffers)
        last = training


@pytest.mark.parametrize("name", MODELS)
def test_resumed_in_any_stage_is_bit_identical(
    compose, tiny_overrides, tmp_path, monkeypatch, name: str
) -> None:
    """Stages of one and of two iterations, a checkpoint after each, ended in every one."""
    from stylegan_tl.models.adversarial import AdversarialModel

    stages = "{until_kimg: 0.004, train: [D.head]}, {until_kimg: 0.012, train: [G.conv, D.head]}"
    more = [
        "freeze/schedule=stages",
        f"freeze.schedule.stages=[{stages}]",
        "freeze/anchor=[l2_sp]",
        "kimg=0.016",
        "kimg_per_tick=0.004",
    ]
    config = compose(tiny_overrides(name, *more))
    run_trial(config, tmp_path / "whole", choices={})
    original, ended = AdversarialModel.training_step, set()

    def step(self, batch, index):
        if self.nimg not in ended:
            ended.add(self.nimg)
            raise RuntimeError("as if killed")
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(AdversarialModel, "training_step", step)
        for _ in range(4):
            with pytest.raises(RuntimeError, match="as if killed"):
                run_trial(config, tmp_path / "parts", choices={})
    assert ended == {0, 4, 8, 12}
    assert run_trial(config, tmp_path / "parts", choices={}) == 0
    one, other = (
        torch.load(tmp_path / f / "last.ckpt", weights_only=True) for f in ("whole", "parts")
    )
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    for a, b in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        assert a["state"].keys() == b["state"].keys()
        for index, state in a["state"].items():
            assert all(torch.equal(v, b["state"][index][k]) for k, v in state.items())


def test_gradual_unfreezing_at_1024_px_has_eight_stages() -> None:
    sizes = {"resolution": 1024, "channel_base": 1024, "channel_max": 8}
    with torch.device("meta"):
        G, D = stylegan2.Generator(**sizes, z_dim=8, w_dim=8), stylegan2.Discriminator(**sizes)
    parts = parts_of(nn.ModuleDict({"G": G, "D": D}))
    up, down = (gradual(order, 10).of(parts, ()) for order in ("low_to_high", "high_to_low"))
    assert [s.until_kimg for s in up.stages] == [10, 20, 30, 40, 50, 60, 70, 80]
    assert "G.block@res:..512" in up.stages[-1].train
    assert "G.block@res:8.." in down.stages[-1].train
    assert up.at(9_999) == up.stages[0]
    assert up.at(10_000) == up.stages[1]
    assert up.at(80_000) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["freeze/schedule=head_warmup", "freeze.schedule.train=[D.tail]"], "groups are mapping"),
        (["freeze/schedule=head_warmup", "freeze.schedule.kimg=0"], "numbers above 0 that rise"),
        (["freeze/schedule=stages"], "write a list such as"),
        (["freeze/schedule=low_to_high", "freeze.schedule.order=up"], "use one of low_to_high"),
        (["freeze/schedule=low_to_high", "freeze.schedule.networks=[X]"], r"use \[G\], \[D\]"),
        (
            [
                "freeze/schedule=head_warmup",
                "freeze.schedule.train=[D.fromrgb]",
                "freeze=freeze_d_1",
            ],
            "until 1 kimg nothing trains: the strategy freezes all of D.fromrgb",
        ),
    ],
)
def test_a_wrong_schedule_says_what_to_do(
    compose, tiny_overrides, overrides: list[str], message: str
) -> None:
    def select() -> None:
        model, freeze = _make(compose, tiny_overrides, "stylegan2_small", *overrides)
        freeze.select(model)

    with pytest.raises(ValueError, match=message):
        select()
