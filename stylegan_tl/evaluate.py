"""`python -m stylegan_tl.evaluate checkpoint=… [metric=… target=…]`: measure a model or images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from omegaconf import DictConfig

    from stylegan_tl.assembly import Target
    from stylegan_tl.metrics.fakes import Fakes
    from stylegan_tl.models.adversarial import AdversarialModel
    from stylegan_tl.source.portable import SourceModel

__all__ = ["main", "table"]


def main() -> None:
    """Compose the configuration and measure."""
    from stylegan_tl.command import run_command

    run_command("evaluate", _run)


def table(records: list[dict[str, Any]]) -> str:
    """Records as lines for people: value, error or interval, direction, counts, then the notes."""
    lines = []
    for record in records:
        arrow = {"min": "↓", "max": "↑"}[record["better"]]
        value = "–" if record["value"] is None else f"{record['value']:.6g}"
        if record.get("interval"):
            value += " [{:.4g}, {:.4g}]".format(*record["interval"])
        elif record.get("stderr") is not None:
            value += f" ± {record['stderr']:.2g}"
        reals = f", {record['num_reals']} reals" if record["num_reals"] else ""
        counts = f"({record['num_fakes']} {_LEFT[record['of']]}{reals})"
        lines.append(f"{record['metric']:<28} {arrow} {value:<32} {counts}")
    notes = dict.fromkeys(f"{r['metric']}: {r['note']}" for r in records if r.get("note"))
    return "\n".join([*lines, *notes])


_LEFT = {"model": "fakes", "images": "images"}
_IDENTITY = ("model_sha256", "images_sha256", "target", "reference_hash")


def _run(cfg: DictConfig) -> None:
    from stylegan_tl.config import plain
    from stylegan_tl.errors import user_errors

    with user_errors():
        _evaluate(plain(cfg), lambda records, out: print(f"{table(records)}\nappended to {out}"))


def _evaluate(
    config: dict[str, Any], show: Callable[[list[dict[str, Any]], Path], None] | None = None
) -> list[dict[str, Any]]:
    """Measure as configured; append the records, `show` them and return them."""
    from pathlib import Path

    from stylegan_tl.assembly import cache_of
    from stylegan_tl.data.progress import Progress
    from stylegan_tl.measuring import device_of, extractors_of, reals_of
    from stylegan_tl.metrics.evaluate import evaluate
    from stylegan_tl.study.trial import write_records

    if (config["checkpoint"] is None) == (config["images"] is None):
        raise ValueError("name what is measured: checkpoint=MODEL or images=FOLDER, one of them")
    if config["images"] is not None:
        config = {**config, "images": str(Path(config["images"]).expanduser())}
    if not isinstance(config["batch_size"], int) or config["batch_size"] < 1:
        raise ValueError(f"batch_size={config['batch_size']}: use a whole number from 1")
    if not config["metric"]["names"]:
        raise ValueError("metric=none measures nothing: choose metric=small or metric=inception")
    device = device_of(config["device"])
    extractors = extractors_of(config["metric"], device)
    model, trained, config = _model(config, device)
    target = _target(config, device)
    fakes, described = _fakes(config, model, trained, target)
    beside = Path(config["images"]).absolute().parent if trained is None else trained.path.parent
    out = Path(config["out"] or beside / "evaluations.jsonl").expanduser()
    _check_writable(out)
    progress: list[Progress] = []

    def say(done: int, total: int) -> None:
        progress[:] = progress or [Progress("measuring", total)]
        progress[0](done)

    records = evaluate(
        config["metric"]["names"],
        fakes=fakes,
        reals=reals_of(config, target),
        extractors=extractors,
        cache=cache_of(config) / "statistics",
        batch_size=config["batch_size"],
        rounds=config["metric"]["rounds"],
        say=say,
        write=lambda records: write_records(out, [{**described, **r} for r in records]),
    )
    if show is not None:
        show(records, out)  # before the tracker, which may take its time
    _mirror(config, [{**described, **r} for r in records], out)
    return records


def _check_writable(out: Path) -> None:
    """Fail before any work if the records could not be written afterwards."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("ab").close()
    except OSError as error:
        raise ValueError(f"out={out} cannot be written ({error.strerror}): name another") from error


def _model(
    config: dict[str, Any], device: Any
) -> tuple[AdversarialModel | None, SourceModel | None, dict[str, Any]]:
    """The model to measure, and the configuration filled from its run."""
    from pathlib import Path

    from stylegan_tl.restore import restore

    if config["checkpoint"] is None:
        if config["resolution"] is None:
            raise ValueError("images= are compared at a size: name it by resolution=64")
        return None, None, _with_run_settings(config, Path(config["images"]))
    model, trained = restore(config["checkpoint"])
    own = trained.network["resolution"]
    if config["resolution"] not in (None, own):
        raise ValueError(f"resolution={config['resolution']}: the model draws {own} px, leave it")
    config = {**config, "resolution": own}
    return model.to(device), trained, _with_run_settings(config, trained.path.parent)


def _with_run_settings(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fill what was left open from the run's own record."""
    from stylegan_tl.study.trial import Trial

    record = folder / "trial.json"
    trial = Trial.load(record) if record.is_file() else None
    run = trial.config if trial else {}
    target, against = config.get("target"), config["against"]
    if target is None and against is None and not run:
        raise ValueError(f"{folder} has no trial.json: name the reals by target= or against=")
    if target is not None and against is not None:
        raise ValueError("the reals are named twice: leave out target= or against=")
    filled = {role: config.get(role) or run.get(role) for role in ("target", "source")}
    for key, default in (("held_out", 0.1), ("num_images", None), ("seed", 0)):
        filled[key] = run.get(key, default) if config[key] is None else config[key]
    began = trial.source.get("sha256") if trial else None
    if (run.get("logger") or {}).get("mode") == "disabled" and config["logger"]["mode"] is None:
        filled["logger"] = run["logger"]  # a run that no tracker was told of stays untold
    return {**config, **filled, "run": run, "run_source": began}


def _target(config: dict[str, Any], device: Any) -> Target:
    """What is compared with: the target's images, or those of the model `against`."""
    import numpy as np

    from stylegan_tl.assembly import Target, open_target
    from stylegan_tl.measuring import GeneratedImages
    from stylegan_tl.restore import restore

    if config["against"] is None:
        return open_target(config)
    other, source = restore(config["against"])
    if source.network["resolution"] != config["resolution"]:
        raise ValueError(
            f"against={config['against']} draws {source.network['resolution']} px, what is "
            f"measured has {config['resolution']} px: metrics compare images of one size"
        )
    images = GeneratedImages(other.to(device), source, config["num_against"])
    return Target(images, np.arange(images.num_images), np.arange(0))


def _fakes(
    config: dict[str, Any],
    model: AdversarialModel | None,
    trained: SourceModel | None,
    target: Target,
) -> tuple[Fakes, dict[str, Any]]:
    """What is measured, and how its records name it."""
    from stylegan_tl.measuring import fakes_of, images_as_fakes, source_model

    described = {"target": config["against"] or config["target"]["name"]}
    if model is None or trained is None:
        fakes, name = images_as_fakes(config)
        return fakes, {**described, "images": name, "images_sha256": fakes.identity}
    source = source_model(config, model.device)
    fakes = fakes_of(model, target, identity=trained.sha256, source=source)
    described |= {"model": str(trained.path), "model_sha256": trained.sha256}
    return fakes, {**described, "kimg": trained.nimg / 1000}


def _mirror(config: dict[str, Any], rows: list[dict[str, Any]], out: Path) -> None:
    """Show the values in the tracker, on W&B beside the runs of the same pair."""
    from stylegan_tl.tracking import About, mirror_of, run_id

    source = (config["source"] or {}).get("name", "images")
    about = About(
        project=config["logger"].get("project", ""),
        group=f"{source}->{rows[0]['target']}",
        job_type="evaluate",
        tags=(),
        name=f"evaluation of {config['checkpoint'] or config['images']}",
        id=run_id("evaluate", *(rows[0].get(k) for k in _IDENTITY)),
        config={key: config[key] for key in ("metric", "target", "seed", "num_images")},
    )
    with mirror_of(config["logger"]) as mirror:
        mirror.start(out.parent, about, mode=config["logger"]["mode"])
        mirror.records(rows, kimg=rows[0].get("kimg", 0))


if __name__ == "__main__":
    main()
