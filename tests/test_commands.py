"""`generate` and `evaluate` on a trained run, and help that answers without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylegan_tl.evaluate import _evaluate
from stylegan_tl.generate import _generate, parse_seeds
from stylegan_tl.runner import run_trial

MODELS = ("stylegan2_small", "dcgan")


@pytest.fixture(scope="module")
def runs(compose, tiny_overrides, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    for model in MODELS:
        config = compose(tiny_overrides(model, source="scratch"))
        assert run_trial(config, root / model, choices={"model": model}) == 0
    return {model: root / model for model in MODELS}


@pytest.fixture
def generate(compose, runs, tmp_path):
    def make(model: str, *overrides: str, out: str = "out") -> list[Path]:
        config = compose(
            [f"checkpoint={runs[model]}", f"out={tmp_path / out}", *overrides], "generate"
        )
        return [Path(p) for p in _generate(config)]

    return make


@pytest.mark.parametrize("kind", ["images", "grid", "truncation", "interpolation"])
def test_pictures_are_not_written_over_unless_that_is_wished(generate, kind: str, tmp_path) -> None:
    words = [f"kind={kind}", "seeds=0-1", *(["frames=2"] if kind == "interpolation" else [])]
    generate("dcgan", *words)
    made = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for path in made:
        for other in made:
            other.unlink(missing_ok=True)
        path.write_text("mine")
        with pytest.raises(ValueError, match=f"{path.name} would be .* use overwrite=true"):
            generate("dcgan", *words)
        assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [path]
    generate("dcgan", *words, "overwrite=true")
    assert all(path.read_bytes() != b"mine" for path in made)


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_is_a_picture_in_images_and_in_grids(generate, model: str) -> None:
    images = generate(model, "kind=images", "seeds=[7,3]", "noise=none")
    (grid,) = generate(model, "kind=grid", "seeds=3-7", "columns=5", "noise=none")
    assert [p.name for p in images] == ["seed000007.png", "seed000003.png"]
    tiles = np.asarray(Image.open(grid))[2:34]
    for column, path in ((4, images[0]), (0, images[1])):
        left = 2 + 34 * column
        difference = tiles[:, left : left + 32].astype(int) - np.asarray(Image.open(path))
        assert np.abs(difference).max() <= 1  # another batch size, another order of summation


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("truncation=abc", "truncation=abc: use a number"),
        ("noise=loud", "noise=loud: use none, const or random"),
        ("label=3", "label=3: this model has no classes"),
        ("columns=0", "columns=0: use a whole number from 1"),
        ("kind=interpolation frames=0", "frames=0: use a whole number from 1"),
    ],
)
def test_what_no_model_draws_is_named_and_no_folder_made(
    generate, tmp_path, word: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        generate("stylegan2_small", *word.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["live=true"], "live=true belongs to page="),
        (["live=true", "ort=dist"], "live=true belongs to page=: "),
        (["page=site", "ort=dist"], "ort=dist belongs to live=true"),
        (["page_images=3", "page_name=x"], "page_images=3 .* page=; page_name=x belongs to page="),
        (["source.checkpoint=false"], "source.checkpoint=false belongs to page="),
        (["page=site", "columns=2"], "out=.* belongs to kind=images or .*columns=2 .* kind=grid"),
        (["kind=images", "columns=2"], "columns=2 belongs to kind=grid"),
        (["frames=2"], "frames=2 belongs to kind=interpolation or page="),
        (["kind=truncation", "truncation=0.5"], "truncation=0.5 belongs to kind=images or kind="),
    ],
)
def test_a_key_that_would_change_nothing_is_refused(generate, tmp_path, words, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        generate("stylegan2_small", *words)
    assert not (tmp_path / "out").exists()


def test_truncation_to_zero_is_the_average_image_for_every_seed(generate) -> None:
    (sheet,) = generate("stylegan2_small", "kind=truncation", "seeds=0-1")
    rows = np.asarray(Image.open(sheet)).astype(int)
    first, second = rows[2:34, 2:34], rows[36:68, 2:34]
    assert np.abs(first - second).max() <= 1


@pytest.mark.parametrize("model", MODELS)
def test_an_interpolation_starts_at_its_seeds(generate, model: str) -> None:
    strip, video = generate(model, "kind=interpolation", "seeds=[0,1]", "frames=3")
    assert len(list((strip.parent / "frames").glob("*.png"))) == 6
    with Image.open(video) as frames:  # Pillow joins frames that are equal
        assert 1 <= frames.n_frames <= 6
    frame = np.asarray(Image.open(strip.parent / "frames" / "frame00003.png")).astype(int)
    (image,) = generate(model, "kind=images", "seeds=1", out="images")
    assert np.abs(frame - np.asarray(Image.open(image))).max() <= 1


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [("0-2", [0, 1, 2]), ("3,1", [3, 1]), (7, [7]), ([4, "6-7"], [4, 6, 7])],
)
def test_seeds_are_read(seeds, expected: list[int]) -> None:
    assert parse_seeds(seeds) == expected


@pytest.mark.parametrize("seeds", ["a", "3-1", "-1", ""])
def test_bad_seeds_are_named(seeds: str) -> None:
    with pytest.raises(ValueError, match="seeds="):
        parse_seeds(seeds)


def test_evaluate_measures_against_the_runs_own_target_or_another(
    compose, runs, cache, tmp_path
) -> None:
    names = "metric.names=[kid16_train_small,fid16_train_small]"
    out = tmp_path / "evaluations.jsonl"
    base = [f"checkpoint={runs['dcgan']}", names, f"cache={cache}", f"out={out}"]
    own = _evaluate(compose(base, "evaluate"))
    other = _evaluate(compose([*base, "target=rooms/dining_room", "target.size=24"], "evaluate"))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["metric"] for r in rows] == ["kid16_train_small", "fid16_train_small"] * 2
    assert [r["target"] for r in rows] == ["rooms/kitchen"] * 2 + ["rooms/dining_room"] * 2
    assert own[1]["value"] != other[1]["value"]
    assert own[1]["reference_hash"] != other[1]["reference_hash"]
    assert rows[0]["kimg"] == 0.032


def test_a_model_is_portable_as_safetensors(compose, runs, tmp_path) -> None:
    import torch

    from stylegan_tl.restore import restore
    from stylegan_tl.source.portable import read_model, write_portable

    for model in MODELS:
        file = tmp_path / f"{model}.safetensors"
        write_portable(read_model(runs[model]), file)
        (a, source), (b, _) = restore(file), restore(runs[model])
        assert source.dataset == "rooms/kitchen"
        z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
        images = a.G_ema(z, **a.still)
        assert torch.equal(images, b.G_ema(z, **b.still))
        assert torch.equal(a.D(images), b.D(images))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.ckpt", b"not a checkpoint"), ("b.safetensors", b"\x00" * 64), ("c.ckpt", b"")],
)
def test_a_damaged_model_file_ends_in_one_clear_line(tmp_path, name: str, content: bytes) -> None:
    from stylegan_tl.source.portable import SourceError, read_model

    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=f"{name} is not a model of this project"):
        read_model(tmp_path / name)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path) -> None:
    import os

    import torch

    from stylegan_tl.source.portable import SourceError, read_model

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"state_dict": {}, "payload": Hostile()}, tmp_path / "evil.ckpt")
    with pytest.raises(SourceError, match="evil.ckpt"):
        read_model(tmp_path / "evil.ckpt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "generate", "prepare", "distance", "convert"]
)
def test_help_names_the_command_and_an_example(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"stylegan_tl.{command}", "--help"],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"python -m stylegan_tl.{command}" in done.stdout
    if command == "train":
        for option in ("freeze_d", "stylegan2_small", "dcgan", "rooms/bedroom, rooms/dining_room"):
            assert option in done.stdout


def _pictures(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def test_evaluate_takes_folders_on_either_side(compose, runs, cache, tmp_path) -> None:
    fakes = _pictures(tmp_path / "fakes", 20, 0)
    reals = _pictures(tmp_path / "reals", 40, 1)
    own = [f"cache={cache}", "logger=none", "target=folder", "resolution=32", "held_out=0"]
    names = "metric.names=[fid20_train_small,pr20_full_small,swd20_train]"
    config = compose(
        [*own, names, f"images={fakes}", f"target.path={reals}"], "evaluate"
    )  # fmt: skip
    records = _evaluate(config)
    assert [r["metric"] for r in records] == [
        "fid20_train_small", "precision20_full_small", "recall20_full_small", "swd20_train",
    ]  # fmt: skip
    assert {r["of"] for r in records} == {"images"}
    rows = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    assert {r["images"] for r in rows} == {str(fakes)}
    same = compose(
        [*own, "metric.names=[pr20_full_small,fid20_full_small]", f"images={fakes}",
         f"target.path={fakes}", f"out={tmp_path / 'same.jsonl'}"],
        "evaluate",
    )  # fmt: skip
    values = {r["metric"]: r["value"] for r in _evaluate(same)}
    assert values["precision20_full_small"] == values["recall20_full_small"] == 1
    assert values["fid20_full_small"] == pytest.approx(0, abs=1e-6)


def test_a_folder_that_repeats_itself_is_measured_as_it_is(compose, cache, tmp_path) -> None:
    fakes = _pictures(tmp_path / "fakes", 6, 0)
    for i in range(6, 24):  # a collapsed generator
        (fakes / f"{i}.png").write_bytes((fakes / f"{i % 6}.png").read_bytes())
    reals = _pictures(tmp_path / "reals", 40, 1)
    config = compose(
        [f"cache={cache}", "logger=none", "resolution=32", "held_out=0", f"images={fakes}",
         "target=folder", f"target.path={reals}", "metric.names=[recall24_train_small]"],
        "evaluate",
    )  # fmt: skip
    (record,) = _evaluate(config)
    assert record["num_fakes"] == 24


def test_evaluate_compares_two_models(compose, runs, cache, tmp_path) -> None:
    names = "metric.names=[kid32_full_small,fid32_full_small]"
    own = [names, f"cache={cache}", "logger=none", f"out={tmp_path / 'e.jsonl'}", "num_against=32"]
    pair = [f"checkpoint={runs['dcgan']}", f"against={runs['stylegan2_small']}"]
    other = {r["metric"]: r["value"] for r in _evaluate(compose([*own, *pair], "evaluate"))}
    pair[1] = f"against={runs['dcgan']}"
    itself = {r["metric"]: r["value"] for r in _evaluate(compose([*own, *pair], "evaluate"))}
    assert itself["fid32_full_small"] == pytest.approx(0, abs=1e-6)  # the very same latents
    assert other["fid32_full_small"] > 1
    assert other["kid32_full_small"] > itself["kid32_full_small"]


@pytest.mark.parametrize("model", MODELS)
def test_evaluate_measures_what_was_learned_and_what_is_left(
    compose, runs, cache, tmp_path, model: str
) -> None:
    """Memory, smoothness and all else that the bundled extractor serves, with intervals."""
    names = "kid32_heldout_small,fidinf64_full_small,dc32_full_small,nearer32_small"
    names += ",fidgap32_small,ppl32_zend_small,kid32_source_small,residue32_small,paired32_small"
    overrides = [
        f"checkpoint={runs[model]}", f"cache={cache}", f"metric.names=[{names}]", "logger=none",
        f"out={tmp_path / 'e.jsonl'}", "source=rooms/bedroom", "source.size=70",
        f"source.checkpoint={runs[model]}", "target=rooms/kitchen", "target.size=70",
        "metric.rounds=40", "held_out=0.4",
    ]  # fmt: skip
    records = {r["metric"]: r for r in _evaluate(compose(overrides, "evaluate"))}
    assert len(records) == 10
    assert records["paired32_small"]["value"] == 0  # its own source
    assert 0 <= records["nearer32_small"]["value"] <= 1
    for name, record in records.items():
        if record["value"] is not None:
            low, high = record["interval"]
            assert low <= record["value"] <= high, name


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["images=.", "checkpoint=."], "one of them"),
        ([], "one of them"),
        (["images=.", "target=rooms/kitchen"], "resolution"),
        (["checkpoint={run}", "metric=none"], "measures nothing"),
        (["checkpoint={run}", "device=cuda:9"], "device=cuda:9"),
        (["checkpoint={run}", "target=rooms/kitchen", "against={run}"], "named twice"),
        (["checkpoint={run}", "metric=nvidia"], "weights"),
        (["checkpoint={run}", "metric.names=[ppl10_wend_small]"], "no w"),
        (["checkpoint={run}", "resolution=64"], "draws 32 px"),
        (["checkpoint={run}", "batch_size=0"], "batch_size"),
        (["checkpoint={run}", "metric.rounds=10"], "at least 39"),
        (["checkpoint={run}", "metric.names=[paired16_small]"], "source.checkpoint=…"),
        (["checkpoint={run}", "out=/proc/no/such.jsonl"], "cannot be written"),
        (["checkpoint={run}", "metric.names=[fid8_train_small]", "metric.rounds=40"], "10 fakes"),
    ],
)
def test_evaluate_refuses_before_any_work(compose, runs, cache, overrides, reason: str) -> None:
    given = [o.format(run=runs["dcgan"]) for o in overrides]
    with pytest.raises(ValueError, match=reason):
        _evaluate(compose([*given, f"cache={cache}", "logger=none"], "evaluate"))


@pytest.mark.parametrize(("run", "asked", "expected"), [
    ("disabled", None, "disabled"),  # a run that no tracker was told of stays untold
    ("disabled", "offline", "offline"),
    ("offline", None, None),
])  # fmt: skip
def test_an_evaluation_is_told_to_nobody_if_its_run_was_not(
    compose, tmp_path, run, asked, expected
):
    from stylegan_tl.evaluate import _with_run_settings
    from stylegan_tl.study.trial import Trial

    config = compose(["target=rooms/kitchen"])
    config["logger"]["mode"] = run
    Trial("s", "n", 0, {}, config).save(tmp_path / "trial.json")
    mode = "null" if asked is None else asked
    given = compose(["checkpoint=x", f"logger.mode={mode}"], "evaluate")
    assert _with_run_settings(given, tmp_path)["logger"]["mode"] == expected
