"""The arguments that a foreign network was built with, asked for one by one until none is left."""

from __future__ import annotations

from typing import Any

from stylegan_tl.source.foreign.values import short
from stylegan_tl.source.portable import SourceError

__all__ = ["Options"]

_LARGEST = 1 << 20


class Options:
    """Arguments by name; whatever nobody asked for is an error, for it might change the network."""

    def __init__(self, of: str, values: Any) -> None:
        if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
            raise SourceError(f"{of} has no arguments that can be read")
        self.of, self.values, self.asked = of, values, set[str]()

    def get(self, key: str, default: Any = None) -> Any:
        """The argument as it is."""
        self.asked.add(key)
        return self.values.get(key, default)

    def whole(
        self, key: str, default: int | None = None, *, least: int = 0, most: int = _LARGEST
    ) -> int:
        """A whole number within bounds that a network can be built in."""
        value = self.get(key, default)
        if type(value) is not int or not least <= value <= most:
            was = "missing" if value is None else short(value)
            raise SourceError(f"{self.of}: {key} is {was}, not a whole number {least} to {most}")
        return value

    def only(self, key: str, *allowed: Any, default: Any = None) -> None:
        """An argument that this project has fixed: the first of `allowed` unless told otherwise."""
        value = self.get(key, default if default is not None else allowed[0])
        value = list(value) if isinstance(value, tuple) else value
        if not any(type(value) is type(a) and value == a for a in allowed if _plain(value)):
            names = " or ".join(map(str, allowed))
            raise SourceError(f"{self.of} was built with {key}={short(value)}, here it is {names}")

    def ignore(self, *keys: str) -> None:
        """Arguments that change nothing of what a network computes in float32."""
        self.asked.update(keys)

    def part(self, key: str) -> Options:
        """The arguments of a part."""
        return Options(f"{self.of}.{key}", self.get(key, {}))

    def end(self) -> None:
        """Raise SourceError if an argument was not asked for."""
        rest = sorted(self.values.keys() - self.asked)
        if rest:
            raise SourceError(f"{self.of} was built with {rest[0][:60]}, which is not known here")


def _plain(value: Any) -> bool:
    """Whether comparing costs nothing."""
    if isinstance(value, list):
        return len(value) <= 16 and all(isinstance(v, int | float) for v in value)
    return isinstance(value, int | float | str | None)
