"""Get or train a source model: a named file, the bundled ones, the cache, else train it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stylegan_tl.data.open import fingerprint_of
from stylegan_tl.source.portable import SourceModel, read_model
from stylegan_tl.study.trial import Trial, identity

__all__ = ["BUNDLED", "find_source", "obtain_source", "source_key"]

BUNDLED = Path(__file__).parent / "bundled"


def source_key(config: dict[str, Any]) -> str:
    """Name of the source model that the pre-training configuration `config` leads to.

    Files count by their listing, so another folder of the same name, or the same folder with
    other images, is another source.
    """
    keys = ("target", "model", "augment", "resolution", "kimg", "seed", "num_images", "held_out")
    chosen = {k: config[k] for k in keys}
    if config["target"]["kind"] != "procedural":
        spec = {k: v for k, v in config["target"].items() if k != "xflip"}
        chosen["data"] = fingerprint_of(spec, config["resolution"])
    return identity(chosen)[:16]


def find_source(config: dict[str, Any], cache: Path) -> Path | None:
    """Where the finished source model for `config` lies, bundled or cached, or None."""
    key = source_key(config)
    bundled = BUNDLED / f"{key}.safetensors"
    if bundled.is_file():
        return bundled
    record = cache / "sources" / key / "trial.json"
    if record.is_file() and Trial.load(record).is_complete:
        return record.with_name("last.ckpt")
    return None


def obtain_source(
    config: dict[str, Any],
    cache: Path,
    train: Callable[[dict[str, Any], Path], None],
    say: Callable[[str], None],
) -> SourceModel:
    """Find the source model for the pre-training configuration, or train it exactly once.

    `train(config, folder)` trains or resumes. Parallel trials wait on a file lock, and the
    lock of a dead process is free.
    """
    from filelock import FileLock, Timeout

    found = find_source(config, cache)
    if found is None:
        folder = cache / "sources" / source_key(config)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process trains the source model in {folder}; waiting for it")
            lock.acquire()
        try:
            if find_source(config, cache) is None:
                say(f"no source model for {config['target']['name']} yet: training it in {folder}")
                train(config, folder)
        finally:
            lock.release()
        found = find_source(config, cache)
        if found is None:
            raise RuntimeError(f"training the source model in {folder} did not complete")
    return read_model(found)
