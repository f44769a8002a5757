"""`python -m stylegan_tl.convert in=… out=…`: any weights that are read, in portable form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from stylegan_tl.source.portable import SourceModel

__all__ = ["main", "table"]

_DTYPES = ("float32", "float16", "bfloat16")


def main() -> None:
    """Compose the configuration and convert."""
    from stylegan_tl.command import run_command

    run_command("convert", _run)


def table(model: SourceModel) -> list[str]:
    """The lines to print: what it is, where every tensor went, what was left and why."""
    network = ", ".join(f"{k}={v}" for k, v in model.network.items())
    lines = [f"{model.path.name}: {model.extra.get('format', 'a model of this project')}"]
    lines += [f"  {model.model.rpartition('.')[2]}: {network}"]
    lines += [f"  licence: {model.extra['licence']}"] if "licence" in model.extra else []
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
    if out.suffix != ".safetensors":
        raise ValueError(f"out={out}: the portable form is written; end it in .safetensors")
    if out.exists():
        raise ValueError(f"out={out} exists: remove it, or name another")
    import torch

    from stylegan_tl.source.portable import read_model, write_portable

    model = read_model(source)
    model.dataset = config["name"] or model.dataset
    if config["licence"]:
        model.extra["licence"] = config["licence"]
    if config["kimg"] is not None:
        model.nimg = int(1000 * config["kimg"])
    model.lineage = model.lineage or {"dataset": model.dataset, "converted_from": model.record()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_portable(model, out, getattr(torch, config["dtype"]))
    return [*table(model), f"{out}: {out.stat().st_size / 1e6:.2f} MB"]


if __name__ == "__main__":
    main()
