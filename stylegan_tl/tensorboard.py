"""A mirror of the run for TensorBoard, a dashboard on one's own machine and without an account.

`tensorboard --logdir runs/<study>` shows all runs below. The step is nimg: steps are whole.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stylegan_tl.tracking import MODES, About, measured, scalars

__all__ = ["TensorBoardMirror"]

_MISSING = "the package tensorboard is missing: pip install 'stylegan_tl[tensorboard]'"


class TensorBoardMirror:
    """Event files under `run_dir/tensorboard` (a `Mirror`); the first error is printed."""

    def __init__(self, *, say: Callable[[str], None] = print) -> None:
        self._say = say
        self._folder: Path | None = None
        self._writer: Any = None
        self._texts: dict[str, str] = {}
        self._factors: dict[str, Any] = {}
        self._last = 0  # the step that was written last
        self._warned = False

    def __enter__(self) -> TensorBoardMirror:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(0 if kind is None else 1)

    @property
    def path(self) -> Path | None:
        """The folder of the event files."""
        return self._folder

    def start(self, run_dir: str | Path, about: About, *, mode: str | None) -> None:
        """Begin, or continue, the run. The HPARAMS page groups by the plain values of its `config`.

        ValueError if `mode` is misspelt. All modes but "disabled" mean the same here.
        """
        if mode not in (None, "auto", *MODES):
            raise ValueError(f"logger.mode={mode!r}: use null or disabled for TensorBoard")
        self.finish(0)
        self._folder, self._warned = None, False
        if mode == "disabled":
            return
        if find_spec("tensorboard") is None:
            self._complain(_MISSING)
            return
        self._folder = Path(run_dir) / "tensorboard"
        texts = {**asdict(about), "tags": ", ".join(about.tags)}
        config = texts.pop("config")
        self._texts = {"run": _listed(texts), "config": _code(config)}
        self._factors = {k: v for k, v in config.items() if isinstance(v, str | int | float)}

    def log(self, values: Mapping[str, Any], better: Mapping[str, str] | None = None) -> None:
        """Add one row of scalars at the step of its `kimg`."""
        self._guard(lambda: self._log(dict(values)))

    def row(self, row: Mapping[str, Any]) -> None:
        """Add the row of a tick; the evidence of a flag is a text."""
        self.log(*scalars(row))
        for flag in row.get("flags", ()):
            self._guard(lambda flag=flag: self._flag(flag))

    def records(self, records: Iterable[Mapping[str, Any]], *, kimg: float) -> None:
        """Add the records of one evaluation as one row."""
        self.log(*scalars(measured(records, kimg)))

    def image(
        self, path: str | Path, *, kimg: float, caption: str | None = None, key: str = "grid"
    ) -> None:
        """Add one picture; captions of TensorBoard are its steps."""
        self._guard(lambda: self._image(path, kimg, key))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Add the final values as a text at the last step."""
        self._guard(lambda: self._opened(self._last).add_text("summary", _code(values), self._last))

    def finish(self, exit_code: int = 0) -> None:
        """Write out and close the files."""
        if self._writer is not None:
            self._guard(self._writer.close)
        self._writer = None

    def _opened(self, step: int) -> Any:
        """The writer; hides what an earlier process wrote at `step` or after: it is made again."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            again = any(self._folder.glob("events.*"))
            self._writer = SummaryWriter(self._folder, purge_step=step if again else None)
            for key, text in self._texts.items():
                self._writer.add_text(key, text, step)
            for summary in hparams(self._factors, {}):
                self._writer.file_writer.add_summary(summary)
        self._last = max(self._last, step)
        return self._writer

    def _log(self, values: dict[str, Any]) -> None:
        if "kimg" not in values:
            raise ValueError(f"a row needs 'kimg', got only {sorted(values)}")
        step = _step(values["kimg"])
        writer = self._opened(step)
        for key, value in values.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    def _flag(self, flag: Mapping[str, Any]) -> None:
        step = _step(flag["kimg"])
        self._opened(step).add_text(f"flag/{flag['flag']}", flag["evidence"], step)

    def _image(self, path: str | Path, kimg: float, key: str) -> None:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._opened(_step(kimg)).add_image(key, pixels, _step(kimg), dataformats="HWC")

    def _guard(self, call: Callable[[], object]) -> None:
        """Call if there is a run; on any error print one line, once per run."""
        if self._folder is None:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call()
        except Exception as error:  # a mirror: whatever breaks in it, train on
            self._complain((str(error).strip() or type(error).__name__).splitlines()[0])

    def _complain(self, reason: str) -> None:
        if not self._warned:
            self._say(f"TensorBoard: {reason[:200]}; training and the local record go on.")
        self._warned = True


def _step(kimg: float) -> int:
    return round(kimg * 1000)


def _listed(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in values.items())


def _code(values: Mapping[str, Any]) -> str:
    """JSON as indented Markdown."""
    text = json.dumps(values, indent=2, default=str)
    return "\n".join(f"    {line}" for line in text.splitlines())
