"""The page of a study: what is in it, and that it works in a browser."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from chromium import Chromium, find
from PIL import Image, features
from scipy import stats

from stylegan_tl.pictures import save_grid
from stylegan_tl.study.predict_text import TWO_SOURCES
from stylegan_tl.study.report import command, report
from stylegan_tl.study.report.frames import choose_steps, grids_of, write_strip
from stylegan_tl.study.report.measures import predictors
from stylegan_tl.study.statistics import mean_interval
from stylegan_tl.study.trial import MetricsLog, Trial

pytestmark = pytest.mark.skipif(not features.check("webp"), reason="Pillow has no WebP")

SIZE = 16
SOURCES, TARGETS = ("rooms/bedroom", "rooms/office"), ("rooms/kitchen", "rooms/bath", "rooms/hall")
STRATEGIES = ("none", "freeze_d")
KIMG = (0.0, 0.5, 1.0, 2.0, 4.0)
FAILED = ("rooms/office", "rooms/hall", "freeze_d", 1)
MISSING = ("rooms/bedroom", "rooms/bath", "freeze_d")
METRIC = "kid1k_heldout_small"


def _colour(step: int, tile: int) -> tuple[int, int, int]:
    return (40 * step + 20, 7 * tile + 30, 120)


def _tiles(step: int, count: int = 12, size: int = SIZE) -> np.ndarray:
    """Every latent after every step has a colour of its own."""
    colours = np.array([_colour(step, tile) for tile in range(count)], np.uint8)
    return np.tile(colours[:, :, None, None], (1, 1, size, size))


def _value(source: str, target: str, freeze: str, seed: int, kimg: float) -> float:
    near = 4 + 3 * SOURCES.index(source) if source in SOURCES else 14
    near += 2 * TARGETS.index(target) + (freeze == "freeze_d")
    return near * (0.4 + 0.6 * math.exp(-kimg)) + 0.25 * seed


def make_trial(
    root: Path, source: str, target: str, freeze: str, seed: int, *, draw=_tiles, kimg=KIMG,
    failed: bool = False, grid=(4, 3), size: int = SIZE,
) -> Path:  # fmt: skip
    """A run folder as training leaves it, by the project's own writers."""
    scratch = source == "scratch"
    names = [name.replace("/", "-") for name in (source, target)]
    folder = root / f"freeze={freeze},source={names[0]},target={names[1]}" / f"seed={seed}"
    config = {
        "source": {"kind": "scratch" if scratch else "zip", "name": source},
        "target": {"kind": "zip", "name": target},
        "kimg": kimg[-1],
        "resolution": size,
        "grid": {"columns": grid[0], "rows": grid[1], "seed": 0},
        "freeze": {"k": 2},
        "seed": seed,
    }
    choices = {"source": source, "target": target, "freeze": freeze, "model": "dcgan"}
    trial = Trial("rooms", f"{source} to {target}", seed, {**choices, "augment": "none"}, config)
    trial.command = ["/here/stylegan_tl/train.py", f"source={source}", f"target={target}"]
    trial.commit = {"sha": "0123456789abcdef", "dirty": seed == 1}
    trial.freeze = {"init": {"G": "source"}, "G": {"share": 0.0}, "D": {"share": 0.6}}
    if not scratch:
        lineage = {"content_hash": "ab" * 32, "source": None}
        digest = source.encode().hex().ljust(64, "0")
        known = {"name": source, "sha256": digest, "kimg": 10.0, "model": "x.DCGAN"}
        trial.source = {**known, "lineage": lineage}
    log = MetricsLog(folder / "metrics.jsonl")
    for step, k in enumerate(kimg[:3] if failed else kimg):
        value = _value(source, target, freeze, seed, k)
        for name, number in ((METRIC, value), ("fid1k_heldout_small", 20 * value)):
            trial.observe({**_PROTOCOL, "metric": name, "value": number}, kimg=k)
        row = {"kimg": k, "nimg": int(1000 * k), "tick": step, "loss_G": 1 + k / 10}
        log.append(row, sync=False)
        save_grid(folder / "grids" / f"kimg{k:010.3f}.png", draw(step), f"{k:.3f} kimg")
    trial.kimg, trial.wall_seconds, trial.s_per_kimg = k, 30.0 * k, 30.0
    trial.close(*(("failed", "TrainingDiverged: loss_G") if failed else ("complete",)))
    trial.save(folder / "trial.json")
    return folder


_PROTOCOL = {
    "of": "model", "num_fakes": 1000, "num_reals": 60, "split": "heldout", "extractor": "small",
    "extractor_digest": "4edee7f0", "precision": "fp32", "resize": "64 px", "estimator": "MMD",
    "reference_hash": "80aced09",
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 x 3 pairs x 2 strategies x 2 seeds, scratch beside them; one failed, one cell missing."""
    root = tmp_path_factory.mktemp("study") / "runs" / "rooms"
    for target in TARGETS:
        for seed in (0, 1):
            make_trial(root, "scratch", target, "none", seed)
            for source in SOURCES:
                for freeze in STRATEGIES:
                    if (source, target, freeze) != MISSING:
                        failed = (source, target, freeze, seed) == FAILED
                        make_trial(root, source, target, freeze, seed, failed=failed)
    odd = root / "freeze=none,source=rooms-bedroom,target=rooms-hall/seed=1/trial.json"
    record = json.loads(odd.read_text())
    record["config"]["freeze"]["k"] = 3
    odd.write_text(json.dumps(record))
    same = {"metric": "fid1k", "kind": "fid", "better": "min", "of": "images"}
    records = [
        {**same, "source": s, "target": t, "name": s, "value": 10.0 * i + j}
        for i, s in enumerate(SOURCES)
        for j, t in enumerate(TARGETS)
    ]
    (root.parent / "distances.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return root


@pytest.fixture(scope="module")
def page(study: Path) -> Path:
    """The page of the study, pictures inside."""
    return report(
        study,
        study.parent.parent / "page.html",
        question="Which room <b>helps</b> which?",
        verdict="The bedroom.\n\n</script><script>window.broken = 1</script>",
        metric=METRIC,
        distances=[study.parent / "distances.jsonl"],
        cells=[
            {"source": s, "target": t, "freeze": f, "model": "dcgan"}
            for s in SOURCES for t in TARGETS for f in STRATEGIES
        ],
        seeds=3,
    )  # fmt: skip


def _data(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    return json.loads(found[1])


def test_the_page_holds_every_trial_and_where_it_comes_from(page, study):
    data = _data(page)
    assert len(data["trials"]) == 2 * 3 * 2 * 2 - 2 + 6
    pair = (SOURCES[1], "rooms/bath")
    trial = next(t for t in data["trials"] if (t["source"], t["target"]) == pair)
    assert trial["command"].startswith("python -m stylegan_tl.train source=rooms/office")
    assert trial["commit"]["sha"] == "0123456789abcdef"
    assert (page.parent / trial["path"] / "trial.json").is_file()
    values = [_value(*pair, trial["freeze"], trial["seed"], k) for k in KIMG]
    assert [row[0] for row in trial["metrics"][METRIC]] == list(KIMG)
    assert [row[1] for row in trial["metrics"][METRIC]] == pytest.approx(values, rel=1e-5)
    assert trial["logs"]["loss_G"][-1] == [4.0, 1.4]
    assert data["sources"][trial["parent"]]["name"] == SOURCES[1]


def test_failures_differences_and_scratch_are_told(page):
    data = _data(page)
    failed = [t for t in data["trials"] if t["state"] == "failed"]
    assert [(t["source"], t["target"], t["freeze"], t["seed"]) for t in failed] == [FAILED]
    assert failed[0]["reason"] == "TrainingDiverged: loss_G"
    (cell, differing), = data["differences"].items()  # fmt: skip
    assert cell.startswith("rooms/bedroom|rooms/hall|none|dcgan")
    assert [value for _, value in differing["freeze.k"]] == [2, 3]
    assert {t["source"] for t in data["trials"] if t["scratch"]} == {"scratch"}
    (predictor,) = data["predictors"]
    assert (predictor["name"], predictor["of"], predictor["model"]) == (
        "fid source", "images", "dcgan"
    )  # fmt: skip
    assert predictor["values"]["rooms/office|rooms/hall"] == 12.0


def test_strips_show_the_same_latents_at_every_step(study, tmp_path):
    (folder,) = study.glob("freeze=none,source=rooms-office,target=rooms-bath/seed=0")
    config = json.loads((folder / "trial.json").read_text())["config"]
    strip = write_strip(tmp_path, grids_of(folder), KIMG, config, samples=8)
    assert strip.kimg == KIMG
    assert (strip.width, strip.height) == (4 * SIZE, 2 * SIZE)
    with Image.open(tmp_path / strip.file) as picture:
        assert picture.size == (4 * SIZE, 2 * SIZE * len(KIMG))
        for step in range(len(KIMG)):
            for tile in range(8):
                y, x = divmod(tile, 4)
                seen = picture.getpixel((x * SIZE + 8, step * 2 * SIZE + y * SIZE + 8))
                assert np.abs(np.subtract(seen[:3], _colour(step, tile))).max() <= 6


@pytest.mark.parametrize(
    ("count", "size", "caption"),
    [(1, 8, "0.0 kimg"), (6, 8, "0.0 kimg"), (32, 64, "12.0 kimg"), (12, 32, None), (5, 16, "x")],
)
def test_the_grid_is_found_below_any_caption(tmp_path, count, size, caption):
    for step in (0, 1):
        path = tmp_path / f"grids/kimg{step:010.3f}.png"
        save_grid(path, _tiles(step, count, size), caption)
    config = {"resolution": size, "grid": {"columns": count, "rows": 1}}
    strip = write_strip(tmp_path, grids_of(tmp_path), [0, 1], config, samples=count)
    with Image.open(tmp_path / strip.file) as picture:
        for tile in range(count):
            y, x = divmod(tile, min(4, count))
            seen = picture.getpixel((x * size + size // 2, strip.height + y * size + size // 2))
            assert np.abs(np.subtract(seen[:3], _colour(1, tile))).max() <= 8


def test_few_steps_are_kept_even_in_log_kimg():
    assert choose_steps([3, 1, 0], 5) == [0, 1, 3]
    chosen = choose_steps([0, *range(1, 129)], 9)
    assert chosen == [0, 1, 2, 5, 10, 20, 40, 80, 128]  # what all runs keep, and the end
    fine = [0, *(0.125 * i for i in range(1, 200)), 0.128, 5.008]  # two runs, other batches
    assert {0.128, 0.25, 0.5, 1.0, 2.0, 5.008, 10.0, 20.0} < set(choose_steps(fine, 16))
    assert len(choose_steps(fine, 16)) == 16
    few = choose_steps(range(3, 1000, 7), 6)
    assert (few[0], few[-1], len(few) <= 6) == (3, 997, True)
    assert choose_steps([], 4) == []


def test_pictures_lie_beside_when_asked_and_old_ones_go(study, tmp_path):
    out = report(study, tmp_path / "page.html", images="folder")
    beside = tmp_path / "page_files"
    files = {t["strip"]["file"] for t in _data(out)["trials"]}
    assert files == {path.name for path in beside.iterdir()}
    assert _data(out)["pictures"] == "page_files/"
    assert "text/plain" not in out.read_text()
    (beside / "0123456789abcdef.webp").write_bytes(b"old")
    made = {path: path.stat().st_mtime_ns for path in beside.iterdir() if path.name in files}
    report(study, out, images="folder")
    assert {path: path.stat().st_mtime_ns for path in beside.iterdir()} == made
    report(study, out, images="none")
    assert not beside.exists()
    beside.mkdir()
    (beside / "somebody's.webp").write_bytes(b"kept")
    report(study, out, images="embed")
    assert [path.name for path in beside.iterdir()] == ["somebody's.webp"]
    report(study, out, images="none")
    assert _data(out)["steps"] == []


def test_what_cannot_be_read_is_said(study, tmp_path):
    make_trial(tmp_path / "runs", "scratch", TARGETS[0], "none", 0)
    torn = tmp_path / "runs/torn/trial.json"
    torn.parent.mkdir()
    torn.write_text("{")
    grid = next((tmp_path / "runs").rglob("kimg000004.000.png"))
    grid.write_bytes(grid.read_bytes()[:60])
    data = _data(report(tmp_path / "runs", tmp_path / "page.html"))
    assert len(data["trials"]) == 1
    assert "torn/trial.json" in data["problems"][0]
    with pytest.raises(ValueError, match="no trial to report"):
        report(torn.parent, tmp_path / "page.html")
    with pytest.raises(ValueError, match="allowed: auto"):
        report(study, tmp_path / "page.html", images="all")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    data = _data(report(study, tmp_path / "page.html", distances=[tmp_path / "bad.jsonl"]))
    assert "bad.jsonl: no line with source, target, kind and value" in data["problems"][-1]


def test_unequal_protocols_are_a_warning_on_the_page(tmp_path):
    make_trial(tmp_path, "scratch", TARGETS[0], "none", 0)
    path = make_trial(tmp_path, "scratch", TARGETS[0], "none", 1) / "trial.json"
    path.write_text(path.read_text().replace('"num_fakes": 1000', '"num_fakes": 500'))
    problems = _data(report(tmp_path, tmp_path / "page.html"))["problems"]
    assert f"{METRIC} was not measured alike in all trials: num_fakes is 1000 and 500" in problems


def test_a_chain_is_a_source_of_its_own(tmp_path):
    path = make_trial(tmp_path, SOURCES[0], TARGETS[0], "none", 0) / "trial.json"
    record = json.loads(path.read_text())
    cellar = {"name": "rooms/cellar", "sha256": "c" * 64, "lineage": {}}
    record["source"]["lineage"]["source"] = cellar
    path.write_text(json.dumps(record))
    data = _data(report(tmp_path, tmp_path / "page.html"))
    assert data["trials"][0]["source"] == "rooms/cellar->rooms/bedroom"
    assert data["sources"][data["trials"][0]["parent"]]["parent"] == "c" * 64


def test_scratch_with_augmentation_is_a_baseline_and_other_choices_are_variants(tmp_path):
    def change(seed: int, source: str, **choices: str) -> None:
        path = make_trial(tmp_path / f"{seed}", source, TARGETS[0], "none", seed) / "trial.json"
        record = json.loads(path.read_text())
        record["choices"] |= choices
        path.write_text(json.dumps(record))

    change(0, "scratch")
    change(1, "scratch", augment="ada")
    change(2, SOURCES[0])
    data = _data(report(tmp_path, tmp_path / "page.html"))
    assert [(t["source"], t["variant"]) for t in data["trials"]] == [
        ("scratch", ""), ("scratch + ada", ""), (SOURCES[0], "")
    ]  # fmt: skip
    change(3, SOURCES[0], augment="ada")
    data = _data(report(tmp_path, tmp_path / "page.html"))
    assert [t["variant"] for t in data["trials"][2:]] == ["augment none", "augment ada"]


def test_further_factors_of_a_study_tell_cells_apart(tmp_path):
    for seed, count in ((0, 10), (1, 100)):
        path = make_trial(tmp_path, SOURCES[0], TARGETS[0], "none", seed) / "trial.json"
        record = json.loads(path.read_text())
        record["config"]["num_images"] = count
        path.write_text(json.dumps(record))
    data = _data(report(tmp_path, tmp_path / "page.html", factors=["freeze.k", "num_images"]))
    assert [t["variant"] for t in data["trials"]] == ["num_images 10", "num_images 100"]
    assert data["differences"] == {}


def test_the_verb_reads_a_study_and_its_options(study, tmp_path, capsys):
    cell = SimpleNamespace(values={"source": "scratch", "target": TARGETS[0]}, source="scratch")
    plan = SimpleNamespace(
        name="rooms",
        question="Which?",
        metric=METRIC,
        factors=["source"],
        seeds=(0, 1, 2),
        cells=lambda: [cell],
        baseline="scratch",
    )
    (tmp_path / "verdict.txt").write_text("The bedroom.")
    options = {"out": str(tmp_path / "page.html"), "verdict": str(tmp_path / "verdict.txt")}
    assert command(SimpleNamespace(study=plan, runs=study.parent), options) == 0
    data = _data(tmp_path / "page.html")
    assert (data["question"], data["verdict"]) == ("Which?", ["The bedroom."])
    assert len(data["predictors"]) == 1
    assert data["cells"][0]["source"] == "scratch"
    assert (data["seeds"], data["asked"]) == (3, 3)
    assert "page.html" in capsys.readouterr().out


def test_predictors_average_seeds_and_pass_over_a_torn_line(tmp_path):
    record = {"source": "a", "target": "b", "metric": "fid1k", "kind": "fid", "value": 1.0}
    lines = [record, {**record, "value": 3.0}, {**record, "target": "c"}]
    path = tmp_path / "distances.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"source": "a", "ta')
    (found,) = predictors(path, [{"model": "dcgan", "parent": None}], None)
    assert found["values"] == {"a|b": 2.0, "a|c": 1.0}


def test_what_was_measured_of_a_source_model_is_shown_with_its_own_trials(tmp_path):
    trials = [{"model": "dcgan", "parent": "d0"}, {"model": "stylegan2", "parent": "s0"}]
    of, same = {"d0": 1.0, "s0": 2.0, "old": 3.0}, {"source": "a", "kind": "dauc"}
    path = tmp_path / "distances.jsonl"
    path.write_text("".join(
        json.dumps({**same, "target": t, "value": v, "source_model": m}) + "\n"
        for m, v in of.items() for t in "bc"
    ))  # fmt: skip
    found = {p["model"]: p["values"]["a|b"] for p in predictors(path, trials, None)}
    assert found == {"dcgan": 1.0, "stylegan2": 2.0}


def test_the_package_carries_its_files_and_needs_no_torch():
    from importlib.resources import files

    names = {f.name for f in files("stylegan_tl.study.report").iterdir()}
    scripts = {"base.js", "charts.js", "sections.js", "page.js"}
    assert {"template.html", "report.css", *scripts} <= names
    code = "import sys, stylegan_tl.study.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_memory_stays_flat_in_the_number_of_images(tmp_path):
    def noise(step: int) -> np.ndarray:
        return np.random.default_rng(step).integers(0, 256, (16, 3, 64, 64), np.uint8)

    def peak(name: str, kimg: tuple[float, ...]) -> int:
        for seed in range(4):
            make_trial(tmp_path / name, "scratch", TARGETS[0], "none", seed, draw=noise, kimg=kimg,
                       grid=(4, 4), size=64)  # fmt: skip
        tracemalloc.start()
        report(tmp_path / name, tmp_path / f"{name}.html", images="embed", frames=4)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few, many = peak("few", (0.0, 1.0)), peak("many", tuple(float(k) for k in range(24)))
    assert many < 2 * few + 2**20


# ---- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for all tests."""
    program = find()
    if program is None:
        pytest.skip("no Chromium on this machine")
    with Chromium(program) as running:
        yield running


def _shifts(browser: Chromium) -> dict[str, str]:
    cards = "[...document.querySelectorAll('#gallery .card[data-trial]')]"
    shift = "c.querySelector('img').style.transform"
    return browser.run(f"Object.fromEntries({cards}.map(c => [c.dataset.trial, {shift}]))")


def test_it_loads_without_errors_and_asks_for_nothing(browser, page):
    seconds = browser.open(page)
    assert browser.errors == []
    assert browser.run("window.broken") is None
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert seconds < 10  # a shared machine; the bench states the time
    heading = browser.run("document.querySelector('h1').textContent")
    assert heading == "Which room <b>helps</b> which?"
    tables = browser.run("[...document.querySelectorAll('.matrix')].map(t => t.dataset.panel)")
    assert tables == [*STRATEGIES, "controls"]  # these once, and no strategy's frozen share
    assert "frozen" not in browser.run("document.querySelector('[data-panel=controls]').innerText")
    text = browser.run("document.querySelector('.matrix[data-panel=freeze_d]').textContent")
    assert "missing" in text
    assert "1 failed" in text


def test_cells_hold_the_mean_of_the_seeds_and_the_gain_over_scratch(browser, page):
    browser.open(page)
    cell = f"[data-cell^='{SOURCES[1]}|{TARGETS[0]}|none|']"
    runs = [_value(SOURCES[1], TARGETS[0], "none", s, 4.0) for s in (0, 1)]
    ours, half = np.mean(runs), mean_interval(runs)[1] - np.mean(runs)
    scratch = np.mean([_value("scratch", TARGETS[0], "none", s, 4.0) for s in (0, 1)])
    read = f'document.querySelector(".matrix {cell} b").textContent'
    assert browser.run(read) == f"{ours:.2f}"
    small = f'document.querySelector(".matrix {cell} small").textContent'
    assert browser.run(small) == f"± {half:.2f} · n 2/3"
    browser.run("(() => { const s = document.querySelector('#matrix [data-key=show]');"
                "s.selectedIndex = 2; s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert browser.run(read) == f"+{100 * (scratch - ours) / scratch:.1f}"


def _predictor_notes(browser, page) -> tuple[str, str]:
    """What stands over the first scatter plot, and the text of the whole section."""
    browser.open(page)
    note = browser.run("document.querySelector('#predictors .chart .note').textContent")
    return note, browser.run("document.querySelector('#predictors').textContent")


def test_with_two_sources_a_rank_correlation_within_a_target_is_a_hint_only(browser, page):
    note, text = _predictor_notes(browser, page)
    pairs = [(i, j) for i in range(len(SOURCES)) for j in range(len(TARGETS))]
    own = [_value(SOURCES[i], TARGETS[j], "none", 0, 4.0) for i, j in pairs]  # a seed shifts all
    rho = stats.spearmanr([10 * i + j for i, j in pairs], own)[0]
    assert note == f"Spearman over all 6 pairs: {rho:+.2f}; within a target: none has three sources"
    assert TWO_SOURCES in text


def test_the_two_rank_correlations_of_a_predictor_are_told_apart(browser, tmp_path):
    """Both against SciPy: the sources are ordered alike in both targets, the targets reversed."""
    sources, rows, x, y = ("a", "b", "c"), [], [], []
    for j, target in enumerate(TARGETS[:2]):
        for i, source in enumerate(sources):
            make_trial(tmp_path / "runs", source, target, "none", i)  # a seed adds to the value
            x.append(i - 10.0 * j)
            y.append(_value(source, target, "none", i, 4.0))
            row = {"metric": "fid1k", "kind": "fid", "better": "min", "value": x[-1]}
            rows.append({**row, "source": source, "target": target})
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    made = report(tmp_path / "runs", tmp_path / "p.html", metric=METRIC,
                  distances=[tmp_path / "d.jsonl"])  # fmt: skip
    note, text = _predictor_notes(browser, made)
    within = np.mean([stats.spearmanr(x[k : k + 3], y[k : k + 3])[0] for k in (0, 3)])
    over_all = f"{stats.spearmanr(x, y)[0]:+.2f}".replace("-", "\N{MINUS SIGN}")
    assert (
        note == f"Spearman over all 6 pairs: {over_all}; within a target: {within:+.2f} (mean of 2)"
    )
    assert TWO_SOURCES not in text


def test_one_slider_moves_every_picture(browser, page):
    browser.open(page, height=5000)
    last = _shifts(browser)
    assert len(last) == 2 * 3 + 3  # each pair once, and scratch
    assert set(last.values()) == {"translateY(-80%)"}
    images = "[...document.querySelectorAll('#gallery img')]"
    assert browser.soon(f"{images}.every(i => i.complete && i.naturalWidth)")
    browser.run("document.querySelector('.slider input').focus()")
    browser.key("Home")
    assert set(_shifts(browser).values()) == {"translateY(0%)"}
    assert "source" in browser.run("document.querySelector('.slider output').textContent")
    browser.key("ArrowRight", 2)
    assert set(_shifts(browser).values()) == {"translateY(-40%)"}
    assert browser.run("document.querySelector('.slider input').ariaValueText") == "1 kimg"
    browser.run("document.getElementById('tab-all').click()")
    shifts = _shifts(browser)
    assert len(shifts) == 28
    assert len(set(shifts.values())) == 2


def test_a_click_opens_the_trials_of_a_cell(browser, page):
    browser.open(page)
    browser.click(f".matrix [data-cell^='{FAILED[0]}|{FAILED[1]}|freeze_d|']")
    assert browser.run("document.getElementById('cell').open") is True
    text = browser.run("document.getElementById('cell').textContent")
    for said in ("office → hall", "TrainingDiverged: loss_G", "-m stylegan_tl.train", "0123456"):
        assert said in text
    link = browser.run("document.querySelector('#cell a').href")
    assert link.startswith(page.parent.as_uri())
    browser.key("Escape")
    assert browser.run("document.getElementById('cell').open") is False
    browser.click(f".matrix [data-cell^='{SOURCES[0]}|{TARGETS[2]}|none|']")
    text = browser.run("document.getElementById('cell').textContent")
    assert "differ in more than their seed" in text


def test_the_keyboard_is_enough(browser, page):
    browser.open(page)
    browser.run("document.querySelector('.matrix .heat').focus()")
    browser.key("ArrowRight")
    browser.key("ArrowDown")
    where = browser.run("document.activeElement.dataset.cell")
    assert where.startswith(f"{SOURCES[1]}|{TARGETS[1]}|none|")
    browser.key("Enter")
    assert browser.run("document.getElementById('cell').open") is True
    browser.key("Escape")
    assert browser.run("document.activeElement.dataset.cell") == where
    browser.run("document.getElementById('tab-pairs').focus()")
    browser.key("ArrowRight")
    chosen = "document.querySelector('[role=tab][aria-selected=true]').id"
    assert browser.run(chosen) == "tab-freeze" == browser.run("document.activeElement.id")
    assert len(_shifts(browser)) == len(STRATEGIES) + 1


def test_pictures_beside_the_page_load_when_they_come_into_view(browser, study, tmp_path):
    nearest = next(study.rglob("trial.json")).parent / "nearest.png"
    Image.new("RGB", (40, 20), "red").save(nearest)
    out = report(study, tmp_path / "page.html", images="folder")
    nearest.unlink()
    browser.open(out, height=700)
    images = "[...document.querySelectorAll('#gallery img')]"
    assert browser.run(f"{images}.filter(i => i.getAttribute('src')).length") == 0
    browser.run("document.getElementById('gallery').scrollIntoView({behavior: 'instant'})")
    assert browser.soon(f"{images}.some(i => i.complete && i.naturalWidth)")
    cell = next(t["cell"] for t in _data(out)["trials"] if "nearest" in t)
    browser.run(f"openCell({json.dumps(cell)})")
    browser.run("document.querySelector('#cell img.nearest').scrollIntoView()")
    assert browser.soon("document.querySelector('#cell img.nearest').naturalWidth === 40")
    assert browser.errors == []
    beside = [url for url in browser.requests if not url.startswith("data:")]
    assert all(url.startswith(tmp_path.as_uri()) for url in beside)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_follows_the_colours_of_the_system(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    browser.run("localStorage.clear()")
    browser.open(page, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is dark
    browser.run("document.getElementById('theme').click()")  # auto -> light
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 248)"
    assert browser.errors == []


_CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d');
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const own = (n) => getComputedStyle(n);
  const paper = light(own(document.body).backgroundColor);
  const cells = [...document.querySelectorAll('.heat:not(.broken)')];
  const texts = [...document.querySelectorAll('p, th, label, .gap, .ticks span, .tab')];
  return Math.min(
    ...cells.map((n) => ratio(light(own(n).backgroundColor), light(own(n).color))),
    ...texts.filter((n) => n.ariaSelected !== 'true').map((n) => ratio(paper, light(own(n).color))),
  );
})()"""


@pytest.mark.parametrize("show", [0, 1, 2])
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_as_wcag_asks(browser, page, dark, show):
    browser.open(page, dark=dark)
    browser.run("document.documentElement.dataset.theme = 'auto'")
    browser.run(f"(() => {{ state.show = Object.keys(SHOW)[{show}]; draw(); }})()")
    browser.settle()
    assert browser.run(_CONTRAST) >= 4.5


def test_kimg_until_x_and_the_area_are_those_of_the_table(study, page):
    """Held against `study table`, a naive mean, and a naive bootstrap of three seeds."""
    from stylegan_tl.study.collect import collect
    from stylegan_tl.study.scores import scores

    shown = {t["path"].partition("rooms/")[2]: t["measures"] for t in _data(page)["trials"]}
    for score in scores(collect(study), [METRIC], "scratch"):
        own = shown[score.outcome.run][METRIC]
        assert own["final"] == pytest.approx(score.final, rel=1e-5)
        if score.outcome.is_complete:
            assert own["area"] == pytest.approx(score.area, rel=1e-5)
            reached = math.isfinite(score.kimg_to_reach)
            never = pytest.approx(score.kimg_to_reach, rel=1e-5) if reached else "never"
            assert own["kimg_to_reach"] == never


def test_the_interval_of_a_strategy_is_a_bootstrap_over_seeds_within_pairs(tmp_path):
    from stylegan_tl.study.report.measures import intervals

    values = {("a", "b"): [1.0, 2.0, 6.0], ("b", "a"): [4.0, 4.5, 9.0]}
    values["scratch"] = [10.0, 12.0, 20.0]
    trials = [
        {"source": pair[0] if pair != "scratch" else "scratch", "target": target, "freeze": "none",
         "model": "m", "variant": "", "state": "complete", "scratch": pair == "scratch",
         "measures": {"fid": {"final": v}}}
        for pair, own in values.items() for v in own
        for target in (("a", "b") if pair == "scratch" else pair[1:])
    ]  # fmt: skip
    found = intervals(trials, {"fid": {"better": "min"}}, ["scratch"])
    generator = np.random.default_rng(1)

    def draw(runs):
        return generator.choice(runs, (20000, 3)).mean(1)

    pairs = [v for k, v in values.items() if k != "scratch"]
    naive = np.mean([draw(p) for p in pairs], axis=0)
    gain = np.mean([draw(values["scratch"]) - draw(p) for p in pairs], axis=0)
    for shown, drawn in (("value|", naive), ("gain|scratch", gain)):
        key = f"fid|final|{shown}|m||none"
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert found[key] == pytest.approx([low, high], abs=0.35)
    assert not any("best" in key for key in found)  # what nobody measured has no interval
