"""One test over all strategies and models: frozen is bit-identical, the rest moves."""

from __future__ import annotations

import copy
import re

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.freeze.groups import GROUPS, parts_of
from stylegan_tl.freeze.selectors import NotApplicable

# option -> {model: pattern of the frozen tensors' names, None where it does not apply}, overrides
NOTHING = r"$^"
LOW = r"(b4|b8|b16)\."
BUT_ADAPTERS_AND_HEAD = (
    r"(G|D)\.(?!b4\.(conv|fc|out|fromrgb|weight|bias)|.*\.0\.(delta|gamma|beta)$)"
)
MASKED = r".*parametrizations\.weight\.original"
BUT_ADAPTERS = r"G\.(?!.*parametrizations\.\w+\.0\.)"
STRATEGIES = {
    "none": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "scratch": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "init_g": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "init_d": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "freeze_d": {
        "stylegan2_small": r"D\.(b32|b16)\.",
        "stylegan_small_fixed": r"D\.(b32|b16)\.",
        "dcgan": r"D\.(b32|b16)\.",
    },
    "freeze_d_1": {
        "stylegan2_small": r"D\.b32\.",
        "stylegan_small_fixed": r"D\.b32\.",
        "dcgan": r"D\.b32\.",
    },
    "freeze_d_3": {
        "stylegan2_small": r"D\.(b32|b16|b8)\.",
        "stylegan_small_fixed": r"D\.(b32|b16|b8)\.",
        "dcgan": r"D\.(b32|b16|b8)\.",
    },
    "freeze_g": {
        "stylegan2_small": rf"G\.(mapping|synthesis\.{LOW})",
        "stylegan_small_fixed": rf"G\.(mapping|synthesis\.{LOW})",
        "dcgan": rf"G\.{LOW}",
    },
    "freeze_g_high": {
        "stylegan2_small": r"G\.synthesis\.b32\.",
        "stylegan_small_fixed": r"G\.synthesis\.b32\.",
        "dcgan": r"G\.b32\.",
    },
    "freeze_mapping": {
        "stylegan2_small": r"G\.mapping\.",
        "stylegan_small_fixed": r"G\.mapping\.",
        "dcgan": None,
    },
    "mapping_only": {
        "stylegan2_small": r"G\.synthesis\.",
        "stylegan_small_fixed": r"G\.synthesis\.",
        "dcgan": None,
    },
    "conv_only": {
        "stylegan2_small": r"G\.(mapping\.|.*\.affine\.)",
        "stylegan_small_fixed": r"G\.(mapping\.|.*\.affine\.)",
        "dcgan": r"G\.b\d+\.1\.",
    },
    "affine_only": {
        "stylegan2_small": r"G\.(?!.*\.affine\.)",
        "stylegan_small_fixed": r"G\.(?!.*\.affine\.)",
        "dcgan": r"G\.b\d+\.0\.",
    },
    "freeze_conv": {
        "stylegan2_small": r"G\.synthesis\.b\d+\.conv[01]\.(weight|bias)",
        "stylegan_small_fixed": r"G\.synthesis\.b\d+\.(conv[01]\.weight|epilogue[01]\.bias)",
        "dcgan": r"G\.b(4|8|16)\.0\.(weight|bias)",
    },
    "freeze_affine": {
        "stylegan2_small": r"G\..*\.affine\.",
        "stylegan_small_fixed": r"G\..*\.affine\.",
        "dcgan": r"G\.b\d+\.1\.",
    },
    "lora": {
        "stylegan2_small": BUT_ADAPTERS,
        "stylegan_small_fixed": BUT_ADAPTERS,
        "dcgan": BUT_ADAPTERS,
    },
    "kml": {
        "stylegan2_small": BUT_ADAPTERS,
        "stylegan_small_fixed": BUT_ADAPTERS,
        "dcgan": BUT_ADAPTERS,
    },
    "style_offset": {
        "stylegan2_small": BUT_ADAPTERS,
        "stylegan_small_fixed": BUT_ADAPTERS,
        "dcgan": None,
    },
    "adafm": {
        "stylegan2_small": r"(G\.synthesis\.b(16|32)\.(conv[01]\.param.*original|torgb)"
        r"|D\.b(32|16)\.)",
        "stylegan_small_fixed": r"(G\.synthesis\.b(16|32)\.(conv[01]\.param.*original|torgb)"
        r"|D\.b(32|16)\.)",
        "dcgan": r"(G\.b16\.0\.param.*original|G\.b32\.|D\.b(32|16)\.)",
    },
    "adafm_all": {
        "stylegan2_small": BUT_ADAPTERS_AND_HEAD,
        "stylegan_small_fixed": BUT_ADAPTERS_AND_HEAD,
        "dcgan": BUT_ADAPTERS_AND_HEAD,
    },
    "svd": {
        "stylegan2_small": BUT_ADAPTERS_AND_HEAD,
        "stylegan_small_fixed": BUT_ADAPTERS_AND_HEAD,
        "dcgan": BUT_ADAPTERS_AND_HEAD,
    },
    "scale_shift": {
        "stylegan2_small": r"G\.(?!.*\.conv\d\.affine\.)",
        "stylegan_small_fixed": r"G\.(?!.*\.affine\.)",
        "dcgan": r"G\.b\d+\.0\.",
    },
    "bsa": {
        "stylegan2_small": r"D\.|G\.(?!.*\.conv\d\.affine\.)|objective\.source",
        "stylegan_small_fixed": r"D\.|G\.(?!.*\.affine\.)|objective\.source",
        "dcgan": r"D\.|G\.(?!b\d+\.1\.(weight|bias))|objective\.source",
    },
    "adam": {"stylegan2_small": MASKED, "stylegan_small_fixed": MASKED, "dcgan": MASKED},
    "rick": {"stylegan2_small": MASKED, "stylegan_small_fixed": MASKED, "dcgan": MASKED},
    "l2_sp": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "ewc": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "feature_distillation": {
        "stylegan2_small": NOTHING,
        "stylegan_small_fixed": NOTHING,
        "dcgan": NOTHING,
    },
    "fix_noise": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": None},
    "cdc": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "structure": {"stylegan2_small": NOTHING, "stylegan_small_fixed": None, "dcgan": None},
    "miner": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "minegan": {"stylegan2_small": NOTHING, "stylegan_small_fixed": NOTHING, "dcgan": NOTHING},
    "selectors": {
        "stylegan2_small": r"(G\.synthesis\.b(4|8)\.|D\.b32\.fromrgb\.|D\.b4\.fc\.)",
        "stylegan_small_fixed": r"(G\.synthesis\.b(4|8)\.|D\.b32\.fromrgb\.|D\.b4\.fc\.)",
        "dcgan": r"(G\.b(4|8)\.|D\.b32\.0\.)",
    },
}
NOT_AS_STYLEGAN2 = {  # StyleGAN3: layers L<i> in blocks from 16 px, beside them magnitudes
    "freeze_g": r"G\.(mapping|synthesis\.b16\.)",
    "affine_only": r"G\.(?!.*\.affine\.)",
    "conv_only": r"G\.(mapping\.|.*\.affine\.)",
    "freeze_conv": r"G\.synthesis\.b\d+\.L\d\.(weight|bias)",
    "adafm": r"(G\.synthesis\.b(16|32)\.(L\d\.param.*original|torgb)|D\.b(32|16)\.)",
    "scale_shift": r"G\.(?!.*\.(L\d|input)\.affine\.)",
    "bsa": r"D\.|G\.(?!.*\.(L\d|input)\.affine\.)|objective\.source",
    "fix_noise": None,
    "structure": None,
    "selectors": r"(G\.synthesis\.b16\.(input|L\d)\.|D\.b32\.fromrgb\.|D\.b4\.fc\.)",
}
for option, by_model in STRATEGIES.items():
    by_model["stylegan3_small"] = NOT_AS_STYLEGAN2.get(option, by_model["stylegan2_small"])
NONE_HAS_CLASSES = dict.fromkeys(STRATEGIES["none"])
STRATEGIES["add_category"] = NONE_HAS_CLASSES  # with classes: test_add_category.py
for by_model in STRATEGIES.values():  # relatives of the DCGAN, their tensors named as its
    by_model |= dict.fromkeys(("dcgan_tf_small", "gangogh_small"), by_model["dcgan"])
MODELS = tuple(STRATEGIES["none"])
MORE = {
    **{("bsa", m): "num_images=8" for m in MODELS},
    **{("adam", m): "freeze.probe_kimg=0.008 freeze.quantile=0.95" for m in MODELS},
    **{("rick", m): "freeze.every_kimg=0.004 freeze.quantile=0.95" for m in MODELS},
    **{("minegan", m): "freeze.schedule.kimg=0.004" for m in MODELS},
    **{("ewc", m): "freeze.anchor.ewc.samples=3" for m in MODELS},
    ("cdc", "gangogh_small"): "model.training.batch_size=4 model.training.D_steps=1",
    **{("selectors", m): "freeze.freeze=[G.block@res:4..8,D.fromrgb]" for m in MODELS},
    ("selectors", "stylegan3_small"): "freeze.freeze=[G.block@res:..16,D.fromrgb,'D:b4.fc.*']",
    ("selectors", "stylegan2_small"): "freeze.freeze=[G.block@res:..8,D.fromrgb,'D:b4.fc.*']",
    (
        "selectors",
        "stylegan_small_fixed",
    ): "freeze.freeze=[G.block@res:..8,'D:b32.fromrgb.*','D:b4.fc.*']",
}
FIXED = ("noise_const", ".keep", ".mask", "lod", "input.freqs", "input.phases")  # always
CASES = [(s, m) for s, by_model in STRATEGIES.items() for m in by_model]


class _Images(torch.utils.data.IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for i in range(4):
            image = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
            yield {"image": image, "label": torch.zeros(4, 0), "index": torch.arange(4) + 4 * i}


def _fit(model: pl.LightningModule, freeze: pl.Callback) -> set[str]:
    """Train for four iterations; the parameters that the optimizers keep a state of."""
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
    with_state = {id(p) for optimizer in trainer.optimizers for p in optimizer.state}
    return {name for name, p in model.named_parameters() if id(p) in with_state}


def test_every_option_has_its_row(compose) -> None:
    from pathlib import Path

    from stylegan_tl.config import conf_dir

    assert {f.stem for f in (Path(conf_dir()) / "freeze").glob("*.yaml")} == set(STRATEGIES) | {
        "freeze_d_4"  # needs 64 px
    }


def _build(compose, tiny_overrides, strategy: str, name: str, *more: str):
    overrides = [f"freeze={strategy}", *more]
    if (strategy, name) in MORE:
        overrides += MORE[strategy, name].split()
    config = compose(tiny_overrides(name, *overrides))
    freeze = freeze_of(config["freeze"])
    network = {**config["model"]["network"], **freeze.strategy.network}
    return instantiate(config["model"], network=network, seed=0, _convert_="all"), freeze


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
@pytest.mark.parametrize(("strategy", "name"), CASES)
def test_frozen_is_bit_identical_and_the_rest_moves(
    compose, tiny_overrides, strategy: str, name: str
) -> None:
    expected = STRATEGIES[strategy][name]
    model, freeze = _build(compose, tiny_overrides, strategy, name)
    if expected is None:
        with pytest.raises(NotApplicable, match="has no (mapping|style|classes)|G has none"):
            freeze.select(model)
        return
    record = freeze.apply(model)
    before = copy.deepcopy(model.state_dict())
    with_state = _fit(model, freeze)
    training = {k for k, p in model.named_parameters() if p.requires_grad}
    used = {k for k in with_state if not _rests(model, k)}  # penalties of weights reach the rest
    assert used == {k for k in training if not _rests(model, k)}
    after = model.state_dict()
    for key, value in before.items():
        if key == "pl_mean" or key.endswith(FIXED):
            continue
        if name == "gangogh_small" and key == "D.b4.bias":  # cancels in a Wasserstein loss
            continue
        frozen = re.match(expected, key.replace("G_ema.", "G.", 1)) is not None
        same = torch.equal(value, after[key])
        frozen |= _rests(model, key)
        assert same == frozen, f"{key}: frozen={frozen}, stood still={same}"
    for network in "GD":
        module = getattr(model, network)
        names = {k: p.numel() for k, p in module.named_parameters()}
        count = sum(n for k, n in names.items() if re.match(expected, f"{network}.{k}"))
        assert record[network]["frozen"] == count
        assert record[network]["share"] == count / sum(names.values())


def _rests(model: pl.LightningModule, name: str) -> bool:
    """ToRGB and FromRGB below the resolution that a StyleGAN has grown to: in no image."""
    network, _, own = name.partition(".")
    return hasattr(model, "growth") and network != "objective" and not model.in_use(own)


def _published(compose, strategy: str, resolution: int, *more: str) -> dict:
    """The record at the widths of StyleGAN2-ADA: no weights are made."""
    base = 16384 if resolution <= 256 else 32768
    size = [f"resolution={resolution}", f"model.network.channel_base={base}"]
    config = compose(["model=stylegan2_paper256", f"freeze={strategy}", *size, *more])
    with torch.device("meta"):
        model = instantiate(config["model"], _convert_="all")
    return freeze_of(config["freeze"]).apply(model)


@pytest.mark.parametrize(
    ("resolution", "G", "shares"),
    [
        (64, 23.8, [8.1, 29.4, 50.7, 72.0]),
        (128, 24.5, [2.0, 10.0, 30.8, 51.7, 72.5]),
        (256, 24.8, [0.5, 2.5, 10.4, 31.2, 51.9]),
        (512, 30.3, [0.4, 2.1, 8.6, 25.8, 43.0]),
        (1024, 30.4, [0.1, 0.5, 2.2, 8.7, 25.9]),
    ],
)
def test_freeze_d_freezes_the_share_of_nvidias_networks(
    compose, resolution: int, G: float, shares: list[float]
) -> None:
    """Per cent of D's parameters that `--freezed` 4, 7, 10, 13, 16 freeze in StyleGAN2-ADA."""
    records = [
        _published(compose, "freeze_d", resolution, f"freeze.blocks={k}")
        for k in range(1, len(shares) + 1)
    ]
    assert [r["nvidia_freezed"] for r in records] == [4, 7, 10, 13, 16][: len(shares)]
    assert [round(100 * r["D"]["share"], 1) for r in records] == shares
    assert round(records[0]["G"]["parameters"] / 1e6, 1) == G


@pytest.mark.parametrize(
    ("strategy", "trained"),
    [("affine_only", 15.4), ("mapping_only", 8.5), ("conv_only", 76.1)],
)
def test_shares_of_g_at_256_px(compose, strategy: str, trained: float) -> None:
    """The shares that StyleDomain's parameterisations train (of G at 256 px, 24.8 M)."""
    share = 100 * (1 - _published(compose, strategy, 256)["G"]["share"])
    assert share == pytest.approx(trained, abs=0.1)


# (input, output) filters of StyleGAN2's 3 x 3 convolutions at 256 px, and the input of its ToRGB
_CONVS = [(512, 512)] * 7 + [(512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
_RGB = [512, 512, 512, 512, 256, 128, 64]


@pytest.mark.parametrize(
    ("strategy", "trained"),
    [
        ("kml", sum(i + o for i, o in _CONVS)),
        ("style_offset", sum(i for i, _ in _CONVS) + sum(_RGB)),
        (
            "lora",
            4 * sum(9 * i + o for i, o in _CONVS)
            + 4 * sum(512 + i for i in [*(i for i, _ in _CONVS), *_RGB]),
        ),
        ("svd", sum(min(9 * i, o) for i, o in _CONVS)),
        ("adafm_all", 2 * sum(i * o for i, o in _CONVS)),
        ("scale_shift", sum(513 * i for i, _ in _CONVS)),
    ],
)
def test_adapters_train_the_numbers_of_their_formulas(compose, strategy: str, trained: int) -> None:
    G = _published(compose, strategy, 256)["G"]
    assert G["parameters"] - G["frozen"] == trained


def test_style_offsets_are_the_dimensions_of_stylespace(compose) -> None:
    """9088 style channels at 1024 px (Wu et al. 2021, arXiv:2011.12799, section 3)."""
    G = _published(compose, "style_offset", 1024)["G"]
    assert G["parameters"] - G["frozen"] == 9088


@pytest.mark.parametrize(
    ("strategy", "override", "message"),
    [
        ("freeze_d", "freeze.blocks=5", "'D.block@image:5' matches nothing.*blocks at 8, 16, 32"),
        ("freeze_d", "freeze.blocks=0", "freeze.blocks=0"),
        ("freeze_g", "freeze.up_to_resolution=2", "matches nothing"),
        ("freeze_g", "freeze.up_to_resolution=20", "nothing at 20 px; .*blocks at 4, 8, 16, 32"),
        ("freeze_g", "freeze.up_to_resolution=64", "nothing at 64 px; .*blocks at 4, 8, 16, 32"),
        ("freeze_g_high", "freeze.from_resolution=12", "nothing at 12 px; .*blocks at 4, 8"),
        ("adafm", "freeze.from_resolution=24", "nothing at 24 px; .*blocks at 4, 8, 16, 32"),
        ("selectors", "freeze.freeze=['D.conv@res:7..9']", "nothing at 7 and 9 px; .* 8, 16, 32"),
        ("freeze_mapping", "freeze.layers=9", "2 mapping layers"),
        ("selectors", "freeze.freeze=[G.blok]", "groups are mapping, embed"),
        ("selectors", "freeze.freeze=[X.conv]", "not a selector"),
        ("selectors", "freeze.freeze=['G.conv@res:a']", "write 16, ..16"),
        ("selectors", "freeze.freeze=['G:synthesis.b8.conv']", "matches nothing"),
        ("selectors", "freeze.freeze=[D]", "nothing of D is left"),
        ("none", "freeze.policy.frozen_bn=off", "use one of eval, train, adapt"),
        ("none", "+freeze.policy.lr.G=0", "use a factor above 0"),
    ],
)
def test_a_wrong_strategy_says_what_there_is(
    compose, tiny_overrides, strategy: str, override: str, message: str
) -> None:
    config = compose(tiny_overrides("stylegan2_small", f"freeze={strategy}", override))
    model = instantiate(config["model"], _convert_="all")
    with pytest.raises(ValueError, match=message):
        freeze_of(config["freeze"]).select(model)


def test_freezing_all_of_g_is_refused(compose, tiny_overrides) -> None:
    model, freeze = _build(
        compose, tiny_overrides, "freeze_g", "dcgan", "freeze.up_to_resolution=32"
    )
    with pytest.raises(ValueError, match="nothing of G is left"):
        freeze.select(model)


def test_every_tensor_of_every_network_is_in_a_group(compose, tiny_overrides) -> None:
    for name in MODELS:
        config = compose(tiny_overrides(name))
        for c_dim in (0, 3):
            network = {**config["model"]["network"], "c_dim": c_dim}
            model = instantiate({**config["model"], "network": network}, _convert_="all")
            parts = parts_of(model)
            names = {k for k in model.state_dict() if k.startswith(("G.", "D."))}
            assert {p.name for p in parts} == names
            assert all(p.groups <= set(GROUPS) for p in parts)


def test_a_new_class_table_is_not_frozen(compose, tiny_overrides) -> None:
    """What no source model gave cannot stay: it would be random for ever."""
    config = compose(tiny_overrides("stylegan2_small", "freeze=freeze_mapping"))
    network = {**config["model"]["network"], "c_dim": 3}
    model = instantiate({**config["model"], "network": network}, _convert_="all")
    model.reinitialised = ("G.mapping.embed", "G_ema.mapping.embed", "D.mapping.embed")
    freeze_of(config["freeze"]).apply(model)
    assert model.G.mapping.embed.weight.requires_grad
    assert not model.G.mapping.fc0.weight.requires_grad


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
@pytest.mark.parametrize("policy", ["eval", "train", "adapt"])
def test_frozen_batch_normalisation_follows_the_policy(
    compose, tiny_overrides, policy: str
) -> None:
    override = f"freeze.policy.frozen_bn={policy}"
    model, freeze = _build(compose, tiny_overrides, "freeze_g", "dcgan", override)
    freeze.apply(model)
    before = copy.deepcopy(model.G.b4[1].state_dict())
    _fit(model, freeze)
    after = model.G.b4[1].state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert moved == (statistics if policy == "adapt" else set())
    normal = model.G.b4[1]
    x = torch.randn(64, normal.num_features, 4, 4) * 3 + 5
    shifted = normal(x).mean() - normal.bias.mean()
    assert (shifted.abs() < 1e-3) == (policy != "eval")  # by the batch: the mean is taken away


def test_learning_rates_by_group_and_no_path_length(compose, tiny_overrides) -> None:
    policy = ["freeze.policy.path_length=false", "+freeze.policy.lr={G.mapping: 0.01, D.head: 2}"]
    model, freeze = _build(compose, tiny_overrides, "none", "stylegan2_small", *policy)
    assert model.G_interval == 2
    freeze.apply(model)
    assert model.G_interval == 0
    opt_G, opt_D = model.configure_optimizers()
    rates = {id(p): g["lr"] for o in (opt_G, opt_D) for g in o.param_groups for p in g["params"]}
    plan = model.training_plan
    lazy = plan.r1_interval / (plan.r1_interval + 1)
    for name, parameter in model.named_parameters():
        if name.startswith("G_ema"):
            continue
        lr = plan.lr_G if name.startswith("G") else plan.lr_D * lazy
        factor = 0.01 if name.startswith("G.mapping") else 2 if name.startswith("D.b4.") else 1
        assert rates[id(parameter)] == pytest.approx(lr * factor)
