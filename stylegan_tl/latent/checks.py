"""What a tool checks of its settings before any work: the key, what came, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_tl.files import check_free

__all__ = ["choice", "numbers", "open_out", "seeds", "whole"]


def seeds(config: dict[str, Any], key: str = "seeds", least: int = 1) -> list[int]:
    """The seeds of `key`, at least `least` of them; ValueError names the key."""
    from stylegan_tl.generate import parse_seeds

    try:
        found = parse_seeds(config[key])
    except ValueError as error:
        raise ValueError(str(error).replace("seeds=", f"{key}=", 1)) from None
    if len(found) < least:
        raise ValueError(f"{key}={config[key]}: use {least} seeds or more, such as {key}=[1,5,9]")
    return found


def whole(config: dict[str, Any], key: str, least: int) -> int:
    """The whole number of `key`, from `least`."""
    value = config[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key}={value}: use a whole number from {least}")
    return value


def choice(config: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    """The value of `key`, one of `allowed`."""
    if config[key] not in allowed:
        raise ValueError(f"{key}={config[key]}: use {', '.join(allowed)}")
    return config[key]


def numbers(config: dict[str, Any], key: str, low: float = -1e6, high: float = 1e6) -> list[float]:
    """The numbers of `key`, a list or one, each in [low, high]."""
    values = config[key] if isinstance(config[key], list) else [config[key]]
    right = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    if not values or not all(right) or not all(low <= v <= high for v in values):
        raise ValueError(f"{key}={config[key]}: use numbers from {low:g} to {high:g}")
    return [float(value) for value in values]


def open_out(config: dict[str, Any], *names: str) -> Path:
    """Make the folder `out`; ValueError if nothing can be written there.

    Neither these files nor the tool's record may be there, unless `overwrite` is set.
    """
    out = Path(config["out"]).expanduser()
    check_free([out / name for name in (*names, f"{config['tool']}.json")], config["overwrite"])
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"out={out} cannot be written ({error.strerror}): name another") from error
    return out
