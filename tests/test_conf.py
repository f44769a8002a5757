"""Every option composes and instantiates; the messages for mistakes name key and fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate

from stylegan_tl.config import (
    ConfigError,
    conf_dir,
    freeze_name,
    pretrain_config,
    readable,
    validate,
)
from stylegan_tl.freeze.base import freeze_of

CONF = Path(conf_dir())
DATASETS = sorted(
    f.relative_to(CONF / "dataset").with_suffix("").as_posix()
    for f in (CONF / "dataset").rglob("*.yaml")
)
NEEDS = {"folder", "zip", "nvidia", "packed"}


def _options(group: str) -> list[str]:
    return sorted(f.stem for f in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_dataset_is_a_source_and_a_target(compose, dataset: str) -> None:
    paths = ["source.path=somewhere", "target.path=somewhere"] if dataset in NEEDS else []
    config = compose([f"source={dataset}", f"target={dataset}", *paths])
    expected = "somewhere" if dataset in NEEDS else dataset
    assert config["source"]["name"] == config["target"]["name"] == expected
    assert config["source"].pop("checkpoint") is None
    assert {**config["source"], "path": 0} == {**config["target"], "path": 0}


@pytest.mark.parametrize("group", ["freeze", "augment", "trainer", "logger", "metric"])
def test_every_option_composes(compose, group: str) -> None:
    for option in _options(group):
        needs = (
            ["metric.extractors.inception.path=x", "metric.extractors.inception.sha256=y"]
            if option == "inception"
            else []
        )
        needs += ["freeze.freeze=[G.mapping]"] if option == "selectors" else []
        needs += ["num_images=10"] if option == "bsa" else []
        config = compose([f"{group}={option}", *needs])
        if group == "freeze":
            freeze_of(config[group])
        elif config[group].get("_target_"):
            instantiate(config[group])


@pytest.mark.parametrize("option", _options("model"))
def test_every_model_instantiates_on_no_device(compose, option: str) -> None:
    import torch

    config = compose([f"model={option}"])
    with torch.device("meta"):
        model = instantiate(config["model"], _convert_="all")
    assert model.G.resolution == config["resolution"] == 64


def test_paper256_has_the_published_number_of_parameters(compose) -> None:
    import torch

    config = compose(["model=stylegan2_paper256", "resolution=256"])
    with torch.device("meta"):
        model = instantiate(config["model"], _convert_="all")
    count = [sum(p.numel() for p in net.parameters()) for net in (model.G, model.D)]
    assert count == [24_767_458, 24_001_089]  # stylegan2-ada-pytorch, paper256


def test_the_default_configuration_is_valid(compose) -> None:
    config = compose([])
    validate(config)
    assert (config["source"]["name"], config["target"]["name"]) == (
        "rooms/bedroom",
        "rooms/kitchen",
    )


def test_all_mistakes_are_told_at_once(compose) -> None:
    wrong = ["resolution=60", "kimg=0", "seed=-1", "num_images=0", "source=scratch", "held_out=1"]
    wrong += [
        "freeze=freeze_d",
        "metric.names=[fid_train]",
        "target=folder",
        "target.path=/no/where",
    ]
    with pytest.raises(ConfigError) as caught:
        validate(compose(wrong))
    for key in (
        "resolution=60",
        "kimg=0",
        "seed=-1",
        "num_images=0",
        "held_out=1",
        "source=scratch",
        "metric.names",
        "target.path=/no/where",
    ):
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=gangogh_small", "kimg=1"], "kimg=1 ends within model.pretrain_kimg=1"),
        (["model=stylegan_small", "model.growth.start_resolution=8"], "lod_initial_resolution"),
    ],
)
def test_phases_that_make_no_sense_from_scratch_are_refused(compose, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(compose(["source=scratch", *overrides]))
    validate(compose([*overrides, "resolution=64"]))


@pytest.mark.parametrize(
    "override",
    ["metric.every_ticks=0", "grid.columns=0", "pretrain.kimg=0", "trainer.devices=0"],
)
def test_a_number_that_cannot_work_is_named(compose, override: str) -> None:
    with pytest.raises(ConfigError, match=override):
        validate(compose([override]))


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("gangogh", ["pretrain_kimg=-1", "class_weight=nan", "pretrain_class_weight=-50"]),
        ("gangogh", ["pretrain_kimg=inf", "class_weight=-1", "pretrain_class_weight=much"]),
        ("stylegan2", ["style_mixing=1.1", "pl_weight=-2", "pl_interval=-1"]),
        ("dcgan", ["training.lr_G=-0.1", "training.ema_kimg=-1", "training.r1_gamma=-1"]),
    ],
)
def test_weights_of_a_model_that_cannot_work_are_named(compose, model: str, overrides) -> None:
    """Of the model that transfers and of the one that is trained first."""
    wrong = [f"{which}.{o}" for which in ("model", "pretrain.model") for o in overrides]
    with pytest.raises(ConfigError) as caught:
        validate(compose([f"model={model}", *wrong]))
    assert all(f"  {override}: use a number" in str(caught.value) for override in wrong)


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("magnitude_kimg=null", "use a number of 0 or more"),
        ("blur_init_sigma=abc", "use a number from 0 to 1000"),
        ("blur_fade_kimg=-1", "use a number of 0 or more"),
        ("network.output_scale=abc", "use a number from 0.001 to 1000"),
        ("network.clamp=-1", "use a number of 0.001 or more"),
        ("network.first_cutoff=null", "use a number above 0 and below 1e6"),
        ("network.last_stopband_rel=inf", "use a number above 0 and below 1e6"),
        ("network.radial=some", "use true or false"),
        ("network.filter_size=900", "use a whole number from 2 to 64"),
        ("network.num_layers=65", "use a whole number from 2 to 64"),
        ("network.first_cutoff=40", "a stopband begins above its cutoff"),
        ("network.first_stopband=50", "resolution=64 ends at 32"),
    ],
)
def test_numbers_of_a_stylegan3_that_cannot_work_are_named(compose, override, allowed) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(compose(["model=stylegan3", "resolution=64", f"model.{override}", "kimg=0"]))
    key = override.rpartition("network.")[2].replace("null", "None")
    (said,) = [line for line in str(caught.value).splitlines() if key in line]
    assert said.startswith("  model.")
    assert allowed in said
    assert "  kimg=0: " in str(caught.value)


def test_adams_betas_are_checked(compose) -> None:
    with pytest.raises(ConfigError, match=r"model.training.betas=1.0: .* from 0 to 0.99999"):
        validate(compose(["model=dcgan", "model.training.betas=[0.5,1.0]"]))
    validate(compose(["model=gangogh", "model.pretrain_class_weight=null"]))


@pytest.mark.parametrize("names", ["kid100_train_small", "null", "[[kid100_train_small]]"])
def test_names_that_are_no_list_are_told_how_to_write_one(compose, names: str) -> None:
    wanted = r"metric.names=.*: names is a list: metric.names=\["
    with pytest.raises(ConfigError, match=wanted) as error:
        validate(compose([f"metric.names={names}", "metric.rounds=7"]))
    assert len(str(error.value).splitlines()) == 3  # the other mistake as well, and no more
    if names == "kid100_train_small":
        assert "metric.names=[kid100_train_small]" in str(error.value)


def test_a_held_out_metric_needs_held_out_images(compose) -> None:
    names = "metric.names=[kid1k_heldout_small]"
    with pytest.raises(ConfigError, match="needs held_out above 0"):
        validate(compose([names, "metric.best=null", "held_out=0"]))


def test_the_targets_held_out_share_does_not_ask_for_another_source(compose) -> None:
    assert pretrain_config(compose(["held_out=0.3"])) == pretrain_config(compose([]))


def test_a_missing_value_is_named(compose) -> None:
    with pytest.raises(ConfigError, match="target.path=…"):
        compose(["target=folder"])


def test_pretraining_ignores_what_only_the_transfer_changes(compose) -> None:
    plain = pretrain_config(compose([]))
    changed = compose(["model.training.lr_G=1", "augment=ada", "seed=5", "num_images=10", "kimg=1"])
    assert pretrain_config(changed) == plain


def test_run_folders_are_readable_and_leave_out_what_is_not_science() -> None:
    overrides = ["target=folder", "target.path=/a/b/my photos", "seed=3", "trainer=cpu", "kimg=2"]
    assert readable(overrides) == "kimg=2,target.path=b-my-photos,target=folder"
    assert readable(["logger=none"]) == "default"
    assert readable(["freeze/anchor=[l2_sp,cdc]"]) == "freeze.anchor=-l2_sp-cdc-"
    long = [[f"model.training.some_long_key_{i}={j}" for i in range(9)] for j in (0, 1)]
    assert readable(long[0]) != readable(long[1])
    assert len(readable(long[0])) < 160


def test_a_strategy_with_additions_has_a_name_of_its_own() -> None:
    assert freeze_name("freeze_d", "none", []) == "freeze_d"
    assert freeze_name("l2_sp", "none", ["l2_sp"]) == "l2_sp"
    assert freeze_name("none", "head_warmup", ["l2_sp", "cdc"]) == "none+l2_sp+cdc+head_warmup"


def test_options_of_a_config_dir_are_sources_and_targets(tmp_path) -> None:
    import subprocess
    import sys

    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("kind: folder\nname: mine\npath: here\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "stylegan_tl.train",
            "--config-dir",
            str(tmp_path),
            "target=mine",
            "--cfg",
            "job",
            "--package",
            "target",
        ],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "name: mine" in done.stdout
