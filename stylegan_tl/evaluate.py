"""`python -m stylegan_tl.evaluate checkpoint=… [metric=… target=…]`: measure a trained model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["main"]


def main() -> None:
    """Compose the configuration and measure."""
    import hydra

    from stylegan_tl.config import conf_dir, quote_paths
    from stylegan_tl.dataset_options import register

    register()
    sys.argv[1:] = quote_paths(sys.argv[1:])
    hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluate")(_run)()


def _run(cfg: DictConfig) -> None:
    from stylegan_tl.config import plain
    from stylegan_tl.errors import user_errors

    with user_errors():
        for record in _evaluate(plain(cfg)):
            error = f" ± {record['stderr']:.2g}" if record.get("stderr") is not None else ""
            print(
                f"{record['metric']:<28} {record['value']:.6g}{error}  "
                f"({record['num_fakes']} fakes, {record['num_reals']} reals)"
            )


def _evaluate(config: dict[str, Any]) -> list[dict[str, Any]]:
    from pathlib import Path

    from stylegan_tl.assembly import evaluation_of, open_target
    from stylegan_tl.restore import restore
    from stylegan_tl.study.trial import write_lines

    model, source = restore(config["checkpoint"])
    config = _with_run_settings(config, source.path.parent, source.network["resolution"])
    target = open_target(config)
    evaluation = evaluation_of(config, target, model)
    if evaluation is None:
        raise ValueError("metric=none measures nothing: choose metric=small or metric=inception")
    records = evaluation(model)
    described = {
        "model": str(source.path),
        "model_sha256": source.sha256,
        "kimg": source.nimg / 1000,
        "target": config["target"]["name"],
    }
    out = Path(config["out"] or source.path.parent / "evaluations.jsonl")
    write_lines(out, [{**described, **record} for record in records])
    return records


def _with_run_settings(config: dict[str, Any], folder: Any, resolution: int) -> dict[str, Any]:
    """Fill what was left open from the run's own record."""
    from stylegan_tl.study.trial import Trial

    record = folder / "trial.json"
    run = Trial.load(record).config if record.is_file() else {}
    if config.get("target") is None and not run:
        raise ValueError(f"{config['checkpoint']} has no trial.json beside it: name a target=")
    filled = {"target": config.get("target") or run["target"], "resolution": resolution}
    for key, default in (("held_out", 0.1), ("num_images", None), ("seed", 0)):
        filled[key] = run.get(key, default) if config[key] is None else config[key]
    return {**config, **filled}


if __name__ == "__main__":
    main()
