"""A study as one HTML page that opens from disk: no server, no network. Imports no torch."""

from stylegan_tl.study.report.page import report

__all__ = ["report"]
