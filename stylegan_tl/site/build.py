"""`site`: a checkpoint and perhaps its source -> a page, and what has to lie beside it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_tl import __version__
from stylegan_tl.files import check_free, file_sha256, write_atomic
from stylegan_tl.models.adversarial import AdversarialModel
from stylegan_tl.restore import rebuild, restore
from stylegan_tl.sampling import Look, has_truncation, labels
from stylegan_tl.site.export import check_exporter, check_onnx, export_onnx
from stylegan_tl.site.page import html, page_name
from stylegan_tl.site.render import make_plan, render
from stylegan_tl.site.runtime import find_runtime, pack, write_runtime
from stylegan_tl.site.sheets import OURS, columns_of, write_sheets
from stylegan_tl.source.obtain import BUNDLED
from stylegan_tl.source.portable import SourceModel, read_model

__all__ = ["find_lineage", "site"]

MOST_BYTES = 8 * 2**20
"""Of pictures in the page; more lie beside it."""
_LIVE = ("onnxruntime.js", "target.js", "source.js", "target.onnx", "source.onnx")


def site(config: Mapping[str, Any], first: int, look: Look) -> list[Path]:
    """Write the page that `config` (of generate.yaml) asks for; the page and what is beside it.

    `page` is a `.html`, or a folder for `index.html`. Everything that can be wrong is told before
    an image is drawn. ValueError for a source that does not share z, a missing class, a live page
    without onnxruntime-web or torch's exporter.
    """
    live, out = bool(config["live"]), _place(config["page"])
    beside = out.with_name(f"{out.stem}_files")
    check_free([out, *_ours(beside)], config["overwrite"])
    if live and look.noise != "none":
        raise ValueError(f"noise={look.noise}: a live page draws without noise, use noise=none")
    runtime = find_runtime(config["ort"]) if live else None
    if live:
        check_exporter()
    model, trained = restore(config["checkpoint"])
    labels(model, 1, look.label)
    source, parent = _source(config, model, trained)
    plan = make_plan(
        first,
        config["page_images"],
        truncation=look.truncation if has_truncation(model) else None,
        resolution=trained.network["resolution"],
        frames=config["frames"],
    )
    beside.mkdir(parents=True, exist_ok=True)
    models = {"target": model} | ({"source": source} if source else {})
    exported = _export(models, beside, look.label, runtime) if runtime else None
    sheets = {key: write_sheets(beside, render(m, plan, look)) for key, m in models.items()}
    used = list(dict.fromkeys(name for names in sheets.values() for name in names))
    embed = sum((beside / name).stat().st_size for name in used) <= MOST_BYTES
    data = {
        "name": config["page_name"] or page_name(trained.dataset),
        "source": page_name(parent.dataset) if parent else None,
        "resolution": trained.network["resolution"],
        "z": model.G_ema.z_dim,
        "columns": columns_of(trained.network["resolution"]),
        "sheets": sheets,
        "files": f"{beside.name}/",
        "first": plan.first,
        "count": plan.count,
        "psis": plan.psis,
        "base": plan.base,
        "full": plan.full,
        "walks": plan.walks,
        "frames": plan.frames,
        "live": exported,
        "about": _about(trained, parent, model),
        "command": _command(trained, look),
        "version": __version__,
    }
    page = html(data, [beside / name for name in used] if embed else ())
    write_atomic(out, page.encode())
    _tidy(beside, keep=set(() if embed else used) | set(exported["files"] if exported else ()))
    return [path for path in (out, beside) if path.exists()]


def find_lineage(trained: SourceModel, cache: Path) -> SourceModel | None:
    """The model that `trained` was transferred from, if it is still on this machine.

    Looked for where its run named it, among the bundled models and in the cache, and known by its
    digest.
    """
    parent = trained.lineage.get("source")
    if not parent:
        return None
    places = [*BUNDLED.glob("*.safetensors"), *sorted((cache / "sources").glob("*/last.ckpt"))]
    for path in [*_named(trained), *places]:
        if path.is_file() and file_sha256(path) == parent["sha256"]:
            return read_model(path)
    return None


def _named(trained: SourceModel) -> list[Path]:
    from stylegan_tl.study.trial import Trial

    record = trained.path.parent / "trial.json"
    source = Trial.load(record).config.get("source") if record.is_file() else None
    named = (source or {}).get("checkpoint")
    path = Path(named).expanduser() if named else None
    return [] if path is None else [path / "last.ckpt" if path.is_dir() else path]


def _source(
    config: Mapping[str, Any], model: AdversarialModel, trained: SourceModel
) -> tuple[AdversarialModel | None, SourceModel | None]:
    """The model to show beside: the one named, else the one it comes from; it must share z."""
    named = config["source"]["checkpoint"]
    if named is False:
        return None, None
    cache = Path(config["cache"]).expanduser()
    parent = read_model(Path(named)) if named else find_lineage(trained, cache)
    if parent is None:
        return None, None
    source = rebuild(parent)
    for key in ("z_dim", "resolution", "c_dim"):
        ours, theirs = getattr(model.G_ema, key), getattr(source.G_ema, key)
        if ours != theirs and named:
            raise ValueError(
                f"source.checkpoint={named}: its {key} is {theirs}, that of the model is {ours}"
            )
        if ours != theirs:
            return None, None
    if has_truncation(source) != has_truncation(model):
        raise ValueError(f"source.checkpoint={named}: {parent.model} is of another family")
    return source, parent


def _place(page: str) -> Path:
    path = Path(page).expanduser().resolve()
    return path if path.suffix.lower() in (".html", ".htm") else path / "index.html"


def _export(
    models: Mapping[str, AdversarialModel],
    beside: Path,
    label: int | str | None,
    runtime: tuple[Path, str],
) -> dict[str, Any]:
    """Generators and the runtime as scripts in `beside`; what the page says of them."""
    differences = []
    for key, model in models.items():
        path = export_onnx(model, beside / f"{key}.onnx", label)
        differences.append(check_onnx(path, model, label))
        write_atomic(beside / f"{key}.js", pack(key, {"model": path.read_bytes()}))
    write_runtime(*runtime, beside)
    scripts = [f"{key}.js" for key in ("onnxruntime", *models)]
    size = sum((beside / name).stat().st_size for name in scripts)
    return {
        "files": scripts + [f"{key}.onnx" for key in models],
        "version": runtime[1],
        "bytes": size,
        "difference": max(d for d in differences) if None not in differences else None,
    }


def _about(
    trained: SourceModel, parent: SourceModel | None, model: AdversarialModel
) -> list[tuple[str, str]]:
    family = trained.model.rpartition(".")[2]
    side = trained.network["resolution"]
    parameters = sum(p.numel() for p in model.G_ema.parameters())
    facts = [
        ("Model", f"{family}, {side} × {side} pixels"),
        ("Generator", f"{parameters / 1e6:.2f} million parameters"),
        ("Trained on", f"{trained.dataset}, {trained.nimg / 1000:g} thousand images shown"),
    ]
    if parent:
        shown = f"{parent.nimg / 1000:g} thousand images shown"
        facts.append(("Started from", f"{parent.dataset}, {shown}, {parent.sha256[:12]}"))
    return [*facts, ("Weights", trained.sha256[:12])]


def _command(trained: SourceModel, look: Look) -> str:
    """What draws the same image here, but for the seed.

    Below the working folder the whole path from there; elsewhere the last part alone: the page
    names no folder of its maker.
    """
    path = trained.path.parent if trained.path.name == "last.ckpt" else trained.path
    inside = path.resolve().is_relative_to(Path.cwd())
    name = path.resolve().relative_to(Path.cwd()).as_posix() if inside else path.name
    options = [f"checkpoint={name}", "kind=images", f"noise={look.noise}"]
    options += [] if look.label is None else [f"label={look.label}"]
    return shlex.join(["python", "-m", "stylegan_tl.generate", *options])


def _ours(beside: Path) -> list[Path]:
    """The files of a page in the folder beside it, by their names."""
    return [p for p in beside.glob("*") if OURS.fullmatch(p.name) or p.name in _LIVE]


def _tidy(beside: Path, keep: set[str]) -> None:
    """Remove what an earlier page left, ours alone; and the folder if nothing is in it."""
    for path in _ours(beside):
        if path.name not in keep:
            path.unlink()
    if not any(beside.iterdir()):
        shutil.rmtree(beside)
