"""Made-up trials for the tests of the study package."""

from __future__ import annotations

from pathlib import Path

from stylegan_tl.config import readable
from stylegan_tl.study.trial import Trial

PROTOCOL = {
    "of": "model",
    "num_fakes": 1000,
    "num_reals": 900,
    "split": "train",
    "extractor": "small",
    "extractor_digest": "aa",
    "precision": "fp32",
    "resize": "to 64",
    "estimator": "plain",
}


def write_trial(
    root: Path,
    at: dict[float, float] | None = None,
    *,
    source: str = "bedroom",
    target: str = "kitchen",
    freeze: str = "none",
    model: str = "dcgan",
    augment: str = "none",
    seed: int = 0,
    metric: str = "fid1k_train_small",
    better: str = "min",
    state: str = "complete",
    reason: str | None = None,
    config: dict | None = None,
    protocol: dict | None = None,
    record: dict | None = None,
    **choices: str,
) -> Path:
    """Save a trial whose curve is {kimg: value}; return its run folder."""
    chosen = {"source": source, "target": target, "freeze": freeze, "model": model}
    chosen |= {"augment": augment, **choices}
    kind = "scratch" if source == "scratch" else "folder"
    whole = {
        "source": {"kind": kind, "name": source, "checkpoint": None},
        "target": {"kind": "folder", "name": target},
        "seed": seed,
        "choices": chosen,  # so that no two of these are the same configuration
        **(config or {}),
    }
    trial = Trial(root.name, f"{source} to {target}", seed, chosen, whole)
    trial.freeze = {n: {"parameters": 100, "frozen": 25, "share": 0.25} for n in "GD"}
    for kimg, value in (at or {}).items():
        own = {**PROTOCOL, "reference_hash": target, "better": better, **(protocol or {})}
        trial.observe({"metric": metric, "value": value, **own}, kimg=kimg)
    trial.kimg = max(at or {0.0: 0.0})
    for key, value in (record or {}).items():
        setattr(trial, key, value)
    trial.close(state, reason)
    extra = [f"{k}={v}" for k, v in (config or {}).items() if not isinstance(v, dict)]
    name = readable([f"{k}={v}" for k, v in chosen.items()] + extra)
    folder = root / name / f"seed={seed}"
    folder.mkdir(parents=True)
    trial.save(folder / "trial.json")
    return folder
