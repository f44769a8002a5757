"""A study as one HTML page that opens from disk: no server, no network. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan_tl.study.opened import distances_of
from stylegan_tl.study.report.page import report

if TYPE_CHECKING:
    from stylegan_tl.study.opened import Opened

__all__ = ["command", "report"]


def command(opened: Opened, options: Mapping[str, str]) -> int:
    """The page of a command line's study; options: out= images= show= distances= verdict=.

    `verdict` is a text or a file that holds it. Without `out` the page lies in the study's folder.
    """
    study = opened.study
    folder = opened.runs / study.name
    distances = options.get("distances") or distances_of(opened)
    verdict = options.get("verdict")
    if verdict and len(verdict) < 250 and Path(verdict).is_file():
        verdict = Path(verdict).read_text(encoding="utf-8")
    out = report(
        folder,
        options.get("out") or folder / "report.html",
        title=study.name,
        question=study.question or None,
        verdict=verdict,
        metric=options.get("show") or study.metric,
        distances=[distances] if distances else [],
        baseline=study.baseline,
        factors=[f for f in study.factors if f not in ("source", "target", "freeze", "model")],
        cells=[{**cell.values, "source": cell.source} for cell in study.cells()],
        seeds=len(study.seeds),
        images=options.get("images", "auto"),
    )
    print(f"{out} ({out.stat().st_size / 2**20:.1f} MiB)")
    return 0
