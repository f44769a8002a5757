"""`python -m stylegan_tl.convert in=… out=…`: any weights that are read, in portable form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from stylegan_tl.source.portable import SourceModel

__all__ = ["main", "table"]

_DTYPES = ("float32", "float16", "bfloat16")
_SUFFIXES = {"safetensors": ".safetensors", "rosinality": ".pt", "nvidia": ".pt", "onnx": ".onnx"}


def main() -> None:
    """Compose the configuration and convert."""
    from stylegan_tl.command import run_command

    run_command("convert", _run)


def table(model: SourceModel) -> list[str]:
    """The lines to print: what it is, where every tensor went, what was left and why."""
    from stylegan_tl.source.foreign.origin import licence_of

    network = ", ".join(f"{k}={v}" for k, v in model.network.items())
    lines = [f"{model.path.name}: {model.extra.get('format', 'a model of this project')}"]
    lines += [f"  {model.model.rpartition('.')[2]}: {network}"]
    lines += [f"  licence: {licence_of(model)}"]
    report = model.extra.get("report", {"taken": {}, "left": {}})
    width = max(map(len, [*report["taken"], *report["left"]]), default=0)
    for theirs, ours in report["taken"].items():
        lines.append(f"  {theirs:{width}}  {ours}  {tuple(model.tensors[ours].shape)}")
    lines += [f"  {theirs:{width}}  left: {why}" for theirs, why in report["left"].items()]
    return [*lines, *(_count(model, network) for network in ("G_ema", "D"))]


def _count(model: SourceModel, network: str) -> str:
    state = model.state(network)
    numbers = sum(tensor.numel() for tensor in state.values())
    return f"{network}: {len(state)} tensors, {numbers:,} numbers" if state else f"{network}: none"


def _run(cfg: DictConfig) -> None:
    from stylegan_tl.config import plain
    from stylegan_tl.errors import user_errors

    with user_errors():
        print("\n".join(_convert(plain(cfg))))


def _convert(config: dict[str, Any]) -> list[str]:
    """Read, say what was found, write; returns the lines."""
    from pathlib import Path

    if config["dtype"] not in _DTYPES:
        raise ValueError(f"dtype={config['dtype']}: use {', '.join(_DTYPES)}")
    source, out = Path(config["in"]).expanduser(), Path(config["out"]).expanduser()
    _check_out(config, out)
    from stylegan_tl.source.portable import read_model

    model = read_model(source, adapters=config["adapters"])
    model.dataset = config["name"] or model.dataset
    if config["licence"]:
        model.extra["licence"] = config["licence"]
    if config["kimg"] is not None:
        model.nimg = int(1000 * config["kimg"])
    model.lineage = model.lineage or {"dataset": model.dataset, "converted_from": model.record()}
    try:
        notes = _write(model, out, config)
    except OSError as error:
        raise _unwritable(out, error) from error
    size = f"{out}: {out.stat().st_size / 1e6:.2f} MB"
    return [*table(model), size, *(f"  {note}" for note in notes)]


def _check_out(config: dict[str, Any], out: Path) -> None:
    """ValueError before anything is read if the result could not be written."""
    form, kimg = config["format"], config["kimg"]
    if kimg is not None and not (isinstance(kimg, int | float) and 0 <= kimg < 1e9):
        raise ValueError(f"kimg={kimg}: give thousands of images, 0 or more, or null")
    if form not in _SUFFIXES:
        raise ValueError(f"format={form}: use {', '.join(_SUFFIXES)}")
    if out.suffix != _SUFFIXES[form]:
        raise ValueError(f"out={out}: format={form} is written; end it in {_SUFFIXES[form]}")
    if form != "safetensors" and config["dtype"] != "float32":
        raise ValueError(f"dtype={config['dtype']}: format={form} is written in float32 alone")
    if out.exists():
        raise ValueError(f"out={out} exists: remove it, or name another")
    _check_folder(out)
    if form == "onnx":
        from stylegan_tl.site.export import check_exporter

        check_exporter("format=onnx")


def _check_folder(out: Path) -> None:
    """ValueError unless the folder of `out` can be written in, or made."""
    import os

    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not there.is_dir():
        raise _unwritable(out, NotADirectoryError(0, f"{there} is no folder"))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(out, PermissionError(0, f"no permission to write in {there}"))


def _unwritable(out: Path, error: OSError) -> ValueError:
    why = error.strerror or type(error).__name__
    return ValueError(
        f"out={out} cannot be written ({why}): name another, or make room; no file was left"
    )


def _write(model: SourceModel, out: Path, config: dict[str, Any]) -> list[str]:
    """Write the file; returns what its user must know."""
    import torch

    from stylegan_tl.source import writers
    from stylegan_tl.source.portable import write_portable

    if config["format"] == "safetensors":
        write_portable(model, out, getattr(torch, config["dtype"]))
        return []
    if config["format"] == "onnx":
        return _write_onnx(model, out)
    own = {"rosinality": writers.write_rosinality, "nvidia": writers.write_nvidia}
    return own[config["format"]](model, out)


def _write_onnx(model: SourceModel, out: Path) -> list[str]:
    """The generator as a graph from z (and psi) to images, checked where onnxruntime is there."""
    import os
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from stylegan_tl.restore import rebuild
    from stylegan_tl.site.export import check_onnx, describe_onnx, export_onnx
    from stylegan_tl.source.foreign.origin import KEY, licence_of, origin

    rebuilt = rebuild(model)
    label = 0 if rebuilt.G.c_dim else None
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=out.parent) as folder:
        made = export_onnx(rebuilt, Path(folder) / out.name, label)
        describe_onnx(made, {KEY: origin(model), "licence": licence_of(model)})
        difference = check_onnx(made, rebuilt, label)
        os.replace(made, out)
    notes = [] if label is None else ["of class 0: a graph has one class"]
    return notes + ([] if difference is None else [f"differs from PyTorch by {difference:.1e}"])


if __name__ == "__main__":
    main()
