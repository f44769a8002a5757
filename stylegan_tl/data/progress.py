"""One line that says how far a long piece of work is and how long it will take."""

import sys
import time
from typing import TextIO

__all__ = ["Progress"]


class Progress:
    """A bar that redraws itself on a terminal, and a line now and then in a log file."""

    def __init__(
        self,
        what: str,
        total: int,
        stream: TextIO | None = None,
        *,
        unit: tuple[str, str] = ("images", "img"),
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.begun = self.shown = time.monotonic()

    def __call__(self, done: int) -> None:
        """Show that `done` of `total` are ready."""
        now = time.monotonic()
        last = done >= self.total
        if not last and now - self.shown < (0.2 if self.live else 10):
            return
        self.shown = now
        text = self._text(done, max(now - self.begun, 1e-6))
        end = "\n" if last or not self.live else ""
        print(("\r\x1b[K" if self.live else "") + text, end=end, file=self.stream, flush=True)

    def _text(self, done: int, seconds: float) -> str:
        share = done / max(self.total, 1)
        rate = done / seconds
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        left = f"{_clock((self.total - done) / max(rate, 1e-9))} left"
        if done >= self.total:
            left = f"in {_clock(seconds)}"
        many, one = self.unit
        return f"{self.what} {bar} {done}/{self.total} {many}, {rate:.0f} {one}/s, {left}"


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
