"""The "does not exist" page: what is in it, that it works in a browser, and that its G is ours."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from stylegan_tl.assembly import model_of
from stylegan_tl.generate import _generate
from stylegan_tl.models.adversarial import to_uint8
from stylegan_tl.restore import restore
from stylegan_tl.runner import run_trial
from stylegan_tl.sampling import Look, latents, sample
from stylegan_tl.site.export import Whole, check_onnx, export_onnx, reference_ops
from stylegan_tl.site.page import page_name
from stylegan_tl.site.render import PSIS, make_plan, render
from stylegan_tl.site.runtime import HOW, MODULE, WASM, find_runtime
from stylegan_tl.site.sheets import columns_of, sheet_of, write_sheets

sys.path.append(str(Path(__file__).parent / "study"))
from chromium import Chromium, find  # noqa: E402

pytestmark = pytest.mark.skipif(not features.check("webp"), reason="Pillow has no WebP")
MODELS = ("stylegan2_small", "dcgan")
exporter = pytest.mark.skipif(
    not (find_spec("onnx") and find_spec("onnxscript")), reason="torch's exporter is not installed"
)
browser = pytest.mark.skipif(find() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def runs(compose, tiny_overrides, cache, tmp_path_factory) -> dict[str, Path]:
    """A transfer of each family, with its source model in the cache."""
    root = tmp_path_factory.mktemp("runs")
    for model in MODELS:
        config = compose(tiny_overrides(model))
        assert run_trial(config, root / model, choices={"model": model}) == 0
    return {model: root / model for model in MODELS}


@pytest.fixture(scope="module")
def make(compose, runs, cache):
    def make_page(model: str, out: Path, *overrides: str) -> Path:
        own = [f"checkpoint={runs[model]}", f"page={out}", f"cache={cache}", "page_images=20"]
        return Path(_generate(compose([*own, "frames=2", *overrides], "generate"))[0])

    return make_page


@pytest.fixture(scope="module")
def pages(make, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    return {model: make(model, root / model) for model in MODELS}


@pytest.fixture(scope="module")
def chromium():
    with Chromium(find()) as page:
        yield page


@pytest.fixture(scope="module")
def ort(tmp_path_factory) -> Path:
    """onnxruntime-web as the documented line fetches it."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    folder = tmp_path_factory.mktemp("ort")
    try:
        subprocess.run(["bash", "-c", HOW], cwd=folder, check=True, capture_output=True, timeout=90)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm does not give onnxruntime-web")
    return folder / "package" / "dist"


def _data(page: Path) -> dict:
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


# ---- the plan, the sheets ---------------------------------------------------------------------


def test_every_tile_of_a_plan_has_one_place() -> None:
    plan = make_plan(5, 30, truncation=0.8, resolution=1024, frames=3)
    assert (plan.psis[plan.base], plan.full) == (0.75, 5)  # 2**24 pixels are 16 images: 3 psis x 5
    found = {(p, i): plan.tile(p, i) for p in range(30) for i in range(len(PSIS))}
    assert {found[p, 0] for p in range(30)} == {30}  # the average image, once
    assert all((found[p, 1] is None) == (p >= 5) for p in range(30))
    places = sorted({tile for tile in found.values() if tile is not None})
    assert places == list(range(30 + 1 + 3 * 5))
    assert plan.walks == ((5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16))
    assert plan.tiles == len(places) + 3 * 4 * 3


def test_a_plan_without_truncation_is_the_seeds_and_the_walks() -> None:
    plan = make_plan(0, 1, truncation=None, resolution=64, frames=3)
    assert (plan.psis, plan.walks, plan.tiles) == ((), (), 1)
    with pytest.raises(ValueError, match="page_images=0"):
        make_plan(0, 0, truncation=None, resolution=64, frames=3)


def test_rendering_follows_the_plan(runs) -> None:
    model, _ = restore(runs["stylegan2_small"])
    plan = make_plan(3, 6, truncation=1.0, resolution=32, frames=2)
    tiles = np.concatenate(list(render(model, plan, Look())))
    assert len(tiles) == plan.tiles
    z = latents(model, range(3, 9))
    for i, psi in enumerate(PSIS):
        expected = sample(model, z, replace(Look(), truncation=psi)).astype(int)
        found = tiles[[plan.tile(p, i) for p in range(6)]]
        assert np.abs(found - expected).max() <= 1  # other batches, another order of summation
    first = tiles[plan.tiles - 12].astype(int)  # a walk begins at its seed
    assert np.abs(first - tiles[0]).max() <= 1


def test_sheets_keep_every_image_in_its_place(tmp_path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (300, 3, 1, 1), np.uint8)
    images = np.broadcast_to(colours, (300, 3, 32, 32))
    names = write_sheets(tmp_path, (images[i : i + 70] for i in range(0, 300, 70)))
    assert columns_of(32) == 16
    assert len(names) == 2
    for i in (0, 15, 16, 255, 256, 299):
        place = i % 256
        with Image.open(tmp_path / names[i // 256]) as sheet:
            pixel = sheet.convert("RGB").getpixel((place % 16 * 32 + 16, place // 16 * 32 + 16))
        assert np.abs(np.array(pixel) - colours[i, :, 0, 0]).max() <= 8  # WebP is lossy
    assert sheet_of(images[:3]).size == (512, 32)


# ---- the page ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_page_is_one_file_that_knows_its_source(pages, model: str) -> None:
    page, data = pages[model], _data(pages[model])
    assert page.name == "index.html"
    assert [p.name for p in page.parent.iterdir()] == ["index.html"]
    assert (data["name"], data["source"]) == ("kitchen", "bedroom")
    assert len(data["sheets"]["source"]) == len(data["sheets"]["target"]) == 1
    assert bool(data["psis"]) == (model == "stylegan2_small")
    text = page.read_text(encoding="utf-8")
    assert "<title>This kitchen does not exist</title>" in text
    assert not re.findall(r'(?:src|href)="https?:', text)
    assert str(page.parent.parent) not in text


def test_a_name_cannot_break_the_page(make, tmp_path) -> None:
    odd = "page_name='</script><b>x'"
    page = make("dcgan", tmp_path / "a.html", odd, "source.checkpoint=false")
    text, data = page.read_text(encoding="utf-8"), _data(page)
    assert data["name"] == "</script><b>x"
    assert data["source"] is None
    assert "<b>x" not in text


def test_large_sets_lie_beside_the_page_and_leave_with_it(make, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("stylegan_tl.site.build.MOST_BYTES", 100)
    page = make("dcgan", tmp_path / "p.html")
    beside = tmp_path / "p_files"
    named = {name for names in _data(page)["sheets"].values() for name in names}
    assert {p.name for p in beside.iterdir()} == named
    (beside / "mine.txt").write_text("stays")
    (beside / "target.onnx").write_bytes(b"of an earlier live page")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="p.html and 3 more .* overwrite=true"):
        make("dcgan", tmp_path / "p.html")
    make("dcgan", tmp_path / "p.html", "overwrite=true")
    (tmp_path / "q_files").mkdir()
    (tmp_path / "q_files/target.onnx").write_bytes(b"of a page that was moved")
    with pytest.raises(ValueError, match="target.onnx would be written over"):
        make("dcgan", tmp_path / "q.html")
    assert [p.name for p in beside.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["live=true"], "npm pack onnxruntime-web"),
        (["live=true", "ort=/nowhere"], "ort=/nowhere"),
        (["live=true", "noise=const"], "noise=none"),
        (["page_images=0"], "page_images=0"),
        (["source.checkpoint={other}"], "another family|z_dim|resolution"),
        (["source.checkpoint=/nowhere"], "does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(make, runs, tmp_path, overrides, reason) -> None:
    given = [o.format(other=runs["dcgan"]) for o in overrides]
    with pytest.raises(ValueError, match=reason):
        make("stylegan2_small", tmp_path / "x", *given)
    assert not list(tmp_path.iterdir())


def test_names_of_datasets() -> None:
    assert page_name("rooms/dining_room") == "dining room"
    assert page_name("my_photos/") == "my photos"


def test_the_runtime_is_found_in_its_package(tmp_path) -> None:
    dist = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    (dist / MODULE).write_text("")
    with pytest.raises(ValueError, match=WASM):
        find_runtime(tmp_path)
    (dist / WASM).write_bytes(b"")
    (dist.parent / "package.json").write_text('{"version": "1.2.3"}')
    assert find_runtime(tmp_path) == (dist, "1.2.3")


# ---- the generator as ONNX --------------------------------------------------------------------


@exporter
@pytest.mark.parametrize("model", MODELS)
def test_the_graph_draws_what_pytorch_draws(runs, tmp_path, model: str) -> None:
    restored, _ = restore(runs[model])
    z = latents(restored, range(3))
    before = sample(restored, z, Look(truncation=0.7)).astype(int)
    path = export_onnx(restored, tmp_path / "g.onnx")
    whole = Whole(restored)
    with torch.no_grad():
        own = to_uint8(whole(z, torch.tensor(0.7))).numpy()
    assert np.abs(own - before).max() <= 1
    assert np.abs(sample(restored, z, Look(truncation=0.7)) - before).max() <= 1  # kernels are back
    difference = check_onnx(path, restored)
    if difference is None:
        pytest.skip("no onnxruntime")
    assert 0 <= difference <= 1e-4
    other, _ = restore(runs[model])
    with torch.no_grad():
        for p in other.G_ema.parameters():
            p.mul_(1.5)
    with pytest.raises(RuntimeError, match="differs from PyTorch"):
        check_onnx(path, other)


@exporter
@pytest.mark.parametrize("model", ["stylegan_small_fixed", "stylegan3_small"])
def test_graphs_of_other_families_draw_what_pytorch_draws(
    compose, tiny_overrides, tmp_path, model: str
) -> None:
    config = compose(tiny_overrides(model))
    made = model_of(config, config["model"]["network"]).eval()
    difference = check_onnx(export_onnx(made, tmp_path / "g.onnx"), made)
    if difference is None:
        pytest.skip("no onnxruntime")
    assert 0 <= difference <= 1e-4


def test_the_graph_of_a_class_is_that_of_its_label() -> None:
    """Held against the generators called with one-hot labels."""
    from dataclasses import asdict

    from stylegan_tl.models.adversarial import Training
    from stylegan_tl.models.dcgan import DCGAN
    from stylegan_tl.models.stylegan2 import StyleGAN2

    both = {"resolution": 32, "z_dim": 8, "c_dim": 3}
    style = {"w_dim": 8, "num_mapping_layers": 2, "channel_base": 256, "channel_max": 16}
    plan = asdict(Training())
    for model in (
        StyleGAN2(
            network={**both, **style, "mbstd_group_size": 4}, training=plan, precision="fp32"
        ),
        DCGAN(network={**both, "width": 4}, training=plan),
    ):
        z, c = torch.randn(4, 8), torch.eye(3)[[1]].expand(4, -1)
        with torch.no_grad(), reference_ops():
            expected = model.G_ema(z, c, **model.still)
            found = Whole(model.eval(), label=1)(z, torch.tensor(1.0))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match="label=None"):
            Whole(model)


def test_reference_ops_leave_the_switch_as_it_was(monkeypatch) -> None:
    from cuda_ops.compile import switched_off

    for value in ("emulate", None):
        if value is None:
            monkeypatch.delenv("STYLEGAN_TL_KERNELS", raising=False)
        else:
            monkeypatch.setenv("STYLEGAN_TL_KERNELS", value)
        before = switched_off()
        with reference_ops():
            assert switched_off()
        assert switched_off() == before


# ---- in a browser -----------------------------------------------------------------------------


@browser
@pytest.mark.parametrize("count", [1, 8, 15, 16, 100, 128])
def test_a_seed_is_the_same_latent_in_a_browser(chromium, count: int) -> None:
    """Held against torch's own generator."""
    script = (Path(__file__).parent.parent / "stylegan_tl/site/random.js").read_text()
    for seed in (0, 7, 2**32 - 1):
        z = torch.randn(1, count, generator=torch.Generator().manual_seed(seed))[0]
        found = chromium.run(f"(() => {{ {script}; return [...latent({seed}, {count})]; }})()")
        np.testing.assert_allclose(found, z.numpy(), rtol=0, atol=2e-6)


def _shown(chromium, model: str = "target") -> np.ndarray:
    """Mean colour of what the page shows large."""
    pixels = chromium.run(
        f"(() => {{ const c = frames.{model}, o = new OffscreenCanvas(c.width, c.height);"
        " const pen = o.getContext('2d'); pen.drawImage(c, 0, 0);"
        " return [...pen.getImageData(0, 0, c.width, c.height).data]; })()"
    )
    return np.array(pixels).reshape(-1, 4)[:, :3].mean(0)


def _expected(run: Path, seed: int, psi: float = 1.0) -> np.ndarray:
    model, _ = restore(run)
    return sample(model, latents(model, [seed]), Look(truncation=psi))[0].mean((1, 2))


@browser
@pytest.mark.parametrize("model", MODELS)
def test_seeds_truncation_walks_and_links_in_a_browser(
    chromium, pages, runs, model: str, tmp_path
) -> None:
    for width in (1280, 390):
        chromium.open(pages[model], width=width)
        assert chromium.soon("frames.target.dataset.shown === 'target 0'")
        assert chromium.run("document.documentElement.scrollWidth") == width
        assert chromium.run("document.querySelectorAll('#wall button').length") == 20
    chromium.key("ArrowRight", 3)
    assert chromium.soon("frames.target.dataset.shown === 'target 3'")
    assert chromium.run("frames.source.dataset.shown") == "source 3"
    assert chromium.run("location.hash") == "#seed=3"
    assert np.abs(_shown(chromium) - _expected(runs[model], 3)).max() < 4
    chromium.key("ArrowLeft", 4)
    assert chromium.run("state.seed") == 19  # round and round
    if model == "stylegan2_small":
        chromium.run("$('psi').value = 1; $('psi').oninput(); 0")
        assert chromium.soon("location.hash === '#seed=19&psi=0.25'")
        assert chromium.soon("frames.target.dataset.shown === 'target 40'")  # 20 + 1 + 19
        assert np.abs(_shown(chromium) - _expected(runs[model], 19, 0.25)).max() < 4
    else:
        assert chromium.run("$('truncation').hidden")
    chromium.run("location.hash = '#seed=5'")
    assert chromium.soon("frames.target.dataset.shown === 'target 5'")
    chromium.click("#another")
    chromium.click("#back")
    assert chromium.run("state.seed") == 5
    seen = chromium.run("(() => { const s = new Set(); for (let i = 0; i < 19; i++) { another();"
                        " s.add(state.seed); } return s.size; })()")  # fmt: skip
    assert seen >= 18
    chromium.run("$('walk').value = 3; $('walk').oninput(); 0")
    assert chromium.soon("walk.frames.target.dataset.shown === `target ${walksAt + 3}`")
    chromium.click("#wall button:nth-child(8)")
    assert chromium.run("state.seed") == 7
    chromium.click("#theme")
    assert chromium.run("document.documentElement.dataset.theme") == "dark"
    assert chromium.errors == []
    assert not [url for url in chromium.requests if not url.startswith(("file:", "blob:", "data:"))]


@pytest.fixture(scope="module")
def live(make, ort, tmp_path_factory):
    """Live pages, each exported once."""

    @functools.cache
    def page_of(model: str) -> Path:
        return make(model, tmp_path_factory.mktemp("live"), "live=true", f"ort={ort}")

    return page_of


@browser
@exporter
@pytest.mark.parametrize("model", MODELS)
def test_the_generator_draws_pytorchs_pixels_in_a_browser(chromium, live, runs, model: str) -> None:
    page = live(model)
    names = {p.name for p in (page.parent / "index_files").iterdir()}
    both = {"target.js", "target.onnx", "source.js", "source.onnx"}
    assert names == {"onnxruntime.js", *both}
    chromium.open(page)
    assert chromium.soon("live.ready || live.failed", 60)
    assert chromium.run("live.ready"), chromium.run("$('status').textContent")
    restored, _ = restore(runs[model])
    whole = Whole(restored)
    for seed, psi in ((3, 1.0), (4294967295, 0.3)):
        answer = f"generated('target', {seed}, {psi}).then((a) => [...a.pixels])"
        pixels = np.array(chromium.run(answer)).reshape(32, 32, 4)
        with torch.no_grad():
            expected = to_uint8(whole(latents(restored, [seed]), torch.tensor(psi)))[0]
        difference = pixels[..., :3] - expected.permute(1, 2, 0).numpy().astype(int)
        assert np.abs(difference).max() <= 1
    chromium.run("location.hash = '#seed=123456'")
    assert chromium.soon("(frames.target.dataset.shown || '').startsWith('target live 123456')")
    assert chromium.errors == []


@browser
@exporter
def test_a_live_page_without_its_files_shows_its_set(chromium, live, tmp_path) -> None:
    shutil.copytree(live("dcgan").parent, tmp_path / "live")
    (tmp_path / "live" / "index_files" / "onnxruntime.js").unlink()
    chromium.open(tmp_path / "live" / "index.html")
    assert chromium.soon("live.failed")
    assert "onnxruntime.js is missing" in chromium.run("$('status').textContent")
    chromium.click("#more")
    assert chromium.soon("frames.target.dataset.shown === 'target 1'")
