"""Classes of a source in a target with others: matched by name, none silently drawn anew."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from stylegan_tl.assembly import build
from stylegan_tl.freeze.base import freeze_of
from stylegan_tl.freeze.selectors import NotApplicable
from stylegan_tl.networks.classes import class_axis
from stylegan_tl.restore import rebuild
from stylegan_tl.source.classes import match_classes
from stylegan_tl.source.portable import SourceError, SourceModel

MODELS = ("stylegan2_small", "stylegan_small_fixed", "dcgan", "gangogh_small")
OLD = ["dog", "eel"]


def _source(config: dict, classes: list[str], names: bool = True) -> SourceModel:
    network = {**config["model"]["network"], "c_dim": len(classes)}
    model = instantiate({**config["model"], "network": network}, seed=5, _convert_="all")
    tensors = {k: v.clone() for k, v in model.state_dict().items() if k[:2] != "G."}
    lineage = {"classes": classes} if names else {}
    name = config["model"]["_target_"]
    return SourceModel(name, network, 0, "d", lineage, tensors, Path("source.ckpt"), "0")


def _dataset(classes: list[str], names: bool = True) -> SimpleNamespace:
    meta = {"classes": classes} if names else {}
    return SimpleNamespace(label_dim=len(classes), meta=meta, content_hash="h")


def _child(compose, tiny_overrides, name: str, classes: list[str], *more: str):
    config = compose(tiny_overrides(name, *more))
    source, freeze = _source(config, OLD), freeze_of(config["freeze"])
    model, reports = build(config, _dataset(classes), source, freeze.strategy)
    return model, reports, source, freeze


def _axis(model: pl.LightningModule, key: str) -> int | None:
    network, _, name = key.partition(".")
    return class_axis(getattr(model, network), name) if network in ("G", "G_ema", "D") else None


def _rows(model: pl.LightningModule, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Class tables, classes first."""
    axes = {k: _axis(model, k) for k in tensors if not k.startswith("G.")}
    return {k: tensors[k].movedim(a, 0) for k, a in axes.items() if a is not None}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("init", "wanted"), [("mean", None), ("eel", 1), ("0", 0)])
def test_rows_go_by_name_and_a_new_one_starts_as_told(
    compose, tiny_overrides, name: str, init: str, wanted: int | None
) -> None:
    more = ["freeze=add_category", f"freeze.init={init}"]
    model, reports, source, _ = _child(compose, tiny_overrides, name, ["ant", "dog", "eel"], *more)
    before, after = _rows(model, source.tensors), _rows(model, model.state_dict())
    assert before.keys() == after.keys()
    assert {k.split(".")[0] for k in after} == {"G_ema", "D"}
    for key, table in after.items():
        equalised = name == "stylegan2_small" and ".mapping.embed." in key  # divided by sqrt(c_dim)
        given = before[key] * (math.sqrt(3 / 2) if equalised else 1)
        assert torch.equal(table[1:], given)
        start = given.mean(0) if wanted is None else given[wanted]
        torch.testing.assert_close(table[0], start)
    words = "the mean of the source's 2" if wanted is None else f"as {OLD[wanted]}"
    for network in ("G", "G_ema", "D"):
        report = reports[network].record()
        assert report["classes"] == {"ant": f"new, {words}", "dog": "dog", "eel": "eel"}
        assert report["missing"] == []
        assert {*report["reinitialised"]} <= {"lod", "synthesis.lod"}  # how far it has grown
    assert model.lineage["classes"] == ["ant", "dog", "eel"]
    assert "ant: new" in str(reports["D"])


@pytest.mark.parametrize("name", MODELS)
def test_old_classes_are_drawn_and_judged_as_by_the_source(
    compose, tiny_overrides, name: str
) -> None:
    config = compose(tiny_overrides(name, "freeze=add_category"))
    source, generator = _source(config, OLD), torch.Generator().manual_seed(0)
    for key, tensor in source.tensors.items():  # what begins at zero too
        if tensor.is_floating_point() and not key.endswith("lod"):
            tensor.add_(torch.rand(tensor.shape, generator=generator), alpha=0.3)
    model, _ = build(config, _dataset(["ant", *OLD]), source, freeze_of(config["freeze"]).strategy)
    parent, z = rebuild(source), torch.randn(4, model.G.z_dim, generator=generator)
    theirs, ours = torch.eye(2)[[0, 1, 1, 0]], torch.eye(3)[[1, 2, 2, 1]]
    near = dict(rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        wanted = parent.G_ema(z, theirs, **parent.still)
        for G in (model.G_ema, model.G.eval()):
            torch.testing.assert_close(G(z, ours, **model.still), wanted, **near)
        judged = parent.D.eval()(wanted, theirs)
        torch.testing.assert_close(model.D.eval()(wanted, ours), judged, **near)


class _Images(torch.utils.data.IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for i in range(3):
            image = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
            label = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
            yield {"image": image, "label": label, "index": torch.arange(4) + 4 * i}


def _fit(model: pl.LightningModule, freeze: pl.Callback) -> None:
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[freeze], enable_model_summary=False, **quiet
    )
    trainer.fit(model.train(), torch.utils.data.DataLoader(_Images(), batch_size=None))


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("stylegan2_small", "freeze_mapping"), ("stylegan_small_fixed", "freeze_g"),
        ("dcgan", "affine_only"), ("gangogh_small", "freeze_g"),
    ],
)  # fmt: skip
def test_old_rows_of_a_frozen_table_stay_to_the_bit(
    compose, tiny_overrides, name: str, strategy: str
) -> None:
    classes, more = ["ant", "dog", "eel"], f"freeze={strategy}"
    model, _, _, freeze = _child(compose, tiny_overrides, name, classes, more)
    kept = freeze.apply(model)["kept_moving"]
    before = {key: model.get_parameter(key).detach().clone() for key in kept}
    assert before
    _fit(model, freeze)
    for key, table in before.items():
        axis = _axis(model, key)
        was, now = table.movedim(axis, 0), model.get_parameter(key).movedim(axis, 0)
        assert torch.equal(was[1:], now[1:]), key
        assert not torch.equal(was[0], now[0]), key


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*in eval mode.*")
@pytest.mark.parametrize("name", MODELS)
def test_with_the_rest_kept_only_new_rows_move_and_old_pictures_stay_to_the_bit(
    compose, tiny_overrides, name: str
) -> None:
    more = ["freeze=add_category", "freeze.keep_rest=true"]
    model, _, source, freeze = _child(compose, tiny_overrides, name, ["ant", "dog", "eel"], *more)
    freeze.apply(model)
    before = copy.deepcopy(model.state_dict())
    z, labels = torch.randn(3, model.G.z_dim), torch.eye(3)
    how = model.still
    pictures = model.eval().sample(z, labels, **how)
    _fit(model, freeze)
    after = model.state_dict()
    for key, value in before.items():
        axis = _axis(model, key)
        if axis is None:
            assert key.endswith(("pl_mean", "lod")) or torch.equal(value, after[key]), key
            continue
        was, now = value.movedim(axis, 0), after[key].movedim(axis, 0)
        assert torch.equal(was[1:], now[1:]), key
        assert not torch.equal(was[0], now[0]), key
    again = model.eval().sample(z, labels, **how)
    assert torch.equal(pictures[1:], again[1:])


def test_a_new_row_in_a_frozen_table_trains_all_the_same_and_the_record_says_so(
    compose, tiny_overrides
) -> None:
    def record(classes: list[str], name: str, *more: str) -> tuple[dict, torch.nn.Module]:
        model, _, _, freeze = _child(compose, tiny_overrides, name, classes, *more)
        return freeze.apply(model), model

    for name, strategy, table in (
        ("stylegan2_small", "freeze_mapping", "G.mapping.embed.weight"),
        ("stylegan2_small", "freeze_g", "G.mapping.embed.weight"),
        ("gangogh_small", "freeze_g", "G.gates.b4.weight"),
        ("dcgan", "affine_only", "G.embed.weight"),
    ):
        found, model = record(["dog", "fox"], name, f"freeze={strategy}")
        assert model.get_parameter(table).requires_grad
        assert table in found["kept_moving"]
        found, model = record(["dog", "eel"], name, f"freeze={strategy}")
        assert not model.get_parameter(table).requires_grad  # every row is the source's
        assert found["kept_moving"] == []


def _matched(classes: list[str], names: bool = True, theirs: bool = True, **how):
    lineage = {"classes": OLD} if theirs else {}
    source = SourceModel("m", {"c_dim": 2}, 0, "d", lineage, {}, Path("source.ckpt"), "0")
    return match_classes(source, len(classes), classes if names else [], **how)


def test_classes_without_names_go_by_number_or_start_as_the_mean() -> None:
    assert _matched(["a", "b"], names=False).rows == ((0,), (1,))
    assert "by number" in _matched(["a", "b"], theirs=False).origin["a"]
    assert _matched(["a", "b", "c"], names=False).rows == ((0, 1),) * 3
    added = _matched(["a", "b", "c"], theirs=False, adding=True)
    assert added.rows == ((0,), (1,), (0, 1))
    assert added.new == (2,)


def test_equal_counts_of_other_names_are_not_mistaken_for_the_same_classes() -> None:
    found = _matched(["eel", "fox"])
    assert found.rows == ((1,), (0, 1))
    assert found.dropped == ("dog",)
    assert _matched(["eel", "fox"], new="fresh").rows == ((1,), ())


@pytest.mark.parametrize(
    ("classes", "how", "message"),
    [
        (["ant", "dog"], {}, "no images of eel"),
        (["dog", "eel"], {}, "no class that source.ckpt does not have"),
        (["ant", "dog", "eel"], {"new": "owl"}, "freeze.init=owl: .*classes dog, eel"),
        (["ant", "dog", "eel"], {"new": 2}, "freeze.init=2"),
    ],
)
def test_what_cannot_be_added_is_refused(classes: list[str], how: dict, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        _matched(classes, adding=True, **how)


def test_a_model_or_a_target_without_classes_is_told(compose, tiny_overrides) -> None:
    config = compose(tiny_overrides("dcgan", "freeze=add_category"))
    freeze = freeze_of(config["freeze"])
    with pytest.raises(NotApplicable, match="G has no classes"):
        freeze.select(instantiate(config["model"], _convert_="all"))
    with pytest.raises(SourceError, match="has 2 classes and the target has none"):
        build(config, _dataset([]), _source(config, OLD), freeze.strategy)
