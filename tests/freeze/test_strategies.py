"""One test over all strategies and both models: frozen is bit-identical, the rest moves."""

from __future__ import annotations

import copy

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from stylegan_tl.freeze.selectors import NotApplicable

# option -> {model: (frozen modules of G, frozen modules of D) or None where it does not apply}
STRATEGIES = {
    "none": {"stylegan2_small": ([], []), "dcgan": ([], [])},
    "freeze_d": {
        "stylegan2_small": ([], ["b32", "b16"]),
        "dcgan": ([], ["b32", "b16"]),
    },
    "freeze_d_1": {"stylegan2_small": ([], ["b32"]), "dcgan": ([], ["b32"])},
    "freeze_d_3": {
        "stylegan2_small": ([], ["b32", "b16", "b8"]),
        "dcgan": ([], ["b32", "b16", "b8"]),
    },
    "freeze_g": {
        "stylegan2_small": (["mapping", "synthesis.b4", "synthesis.b8", "synthesis.b16"], []),
        "dcgan": (["b4", "b8", "b16"], []),
    },
    "freeze_mapping": {"stylegan2_small": (["mapping"], []), "dcgan": None},
}
CASES = [(s, m) for s, by_model in STRATEGIES.items() for m in by_model]


class _Images(torch.utils.data.IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            image = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
            yield {"image": image, "label": torch.zeros(4, 0)}


def _fit(model: pl.LightningModule, freeze: pl.Callback) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[freeze],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(_Images(), batch_size=None))


def test_every_option_has_its_row(compose) -> None:
    from pathlib import Path

    from stylegan_tl.config import conf_dir

    assert {f.stem for f in (Path(conf_dir()) / "freeze").glob("*.yaml")} == set(STRATEGIES)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
@pytest.mark.parametrize(("strategy", "name"), CASES)
def test_frozen_is_bit_identical_and_the_rest_moves(
    compose, tiny_overrides, strategy: str, name: str
) -> None:
    expected = STRATEGIES[strategy][name]
    config = compose(tiny_overrides(name, f"freeze={strategy}"))
    model = instantiate(config["model"], seed=0, _convert_="all")
    freeze = instantiate(config["freeze"])
    if expected is None:
        with pytest.raises(NotApplicable, match="no mapping network"):
            freeze.select(model)
        return
    record = freeze.apply(model)
    before = copy.deepcopy(model.state_dict())
    _fit(model, freeze)
    frozen = [f"{net}.{m}." for net, names in zip("GD", expected, strict=True) for m in names]
    after = model.state_dict()
    trainable = {k for k, p in model.named_parameters() if not k.startswith("G_ema")}
    for key, value in before.items():
        still = any(key.startswith(prefix) for prefix in frozen)
        same = torch.equal(value, after[key])
        if (
            still
            or key.removeprefix("G_ema.")
            in {k.removeprefix("G.") for k in before if any(k.startswith(p) for p in frozen)}
            and key.startswith("G_ema.")
        ):
            assert same, f"{key} is frozen but moved"
        elif key in trainable:
            assert not same, f"{key} is trainable but stood still"
        elif key.endswith(("running_mean", "running_var", "w_avg")):
            assert not same, f"statistics {key} are not frozen but stood still"
    assert record["frozen"] == [p.removesuffix(".") for p in frozen]
    for network in "GD":
        module = getattr(model, network)
        count = sum(
            p.numel()
            for k, p in module.named_parameters()
            if any(f"{network}.{k}".startswith(prefix) for prefix in frozen)
        )
        assert record[network]["frozen"] == count
        assert record[network]["share"] == count / sum(p.numel() for p in module.parameters())


def test_frozen_share_of_freeze_d_at_256_px_is_the_published_one(compose) -> None:
    """Four blocks, NVIDIA's --freezed=13, are 31.2 % of the paper256 discriminator."""
    config = compose(["model=stylegan2_paper256", "resolution=256", "freeze=freeze_d"])
    with torch.device("meta"):
        model = instantiate(config["model"], _convert_="all")
    freeze = instantiate({**config["freeze"], "blocks": 4})
    record = freeze.apply(model)
    assert record["nvidia_freezed"] == 13
    assert round(100 * record["D"]["share"], 1) == 31.2


@pytest.mark.parametrize("override", ["blocks=5", "blocks=0"])
def test_too_many_blocks_names_the_range(compose, tiny_overrides, override: str) -> None:
    key, value = override.split("=")
    config = compose(tiny_overrides("stylegan2_small", "freeze=freeze_d"))
    model = instantiate(config["model"], _convert_="all")
    with pytest.raises(ValueError, match="choose 1 to 3"):
        instantiate({**config["freeze"], key: int(value)}).select(model)


def test_freezing_all_of_g_is_refused(compose, tiny_overrides) -> None:
    config = compose(tiny_overrides("dcgan", "freeze=freeze_g"))
    model = instantiate(config["model"], _convert_="all")
    with pytest.raises(ValueError, match="up_to_resolution=32"):
        instantiate({**config["freeze"], "up_to_resolution": 32}).select(model)
