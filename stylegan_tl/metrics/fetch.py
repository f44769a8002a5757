"""Fetch weights once, on request: `python -m stylegan_tl.metrics.fetch inception --url URL …`.

The file is checked against its SHA-256 before it gets its name: a broken transfer leaves nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

__all__ = ["fetch", "main"]

HELP = """\
Weights of the 2015 Inception network as a state dict. The public port of the TensorFlow graph is
named pt_inception-2015-12-05-6726825d.pth (the last eight digits begin its SHA-256); give the
address of a copy you trust, or copy the file by hand. Nothing else in this package downloads."""


def fetch(url: str, out: str | Path, *, sha256: str) -> Path:
    """Copy `url` to `out` if its SHA-256 begins with `sha256`; ValueError and no file otherwise."""
    from stylegan_tl.metrics.features import verify_sha256

    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=out.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as answer:
            while block := answer.read(1 << 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        verify_sha256(Path(temporary), sha256)
        os.replace(temporary, out)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 if the file is in place."""
    parser = argparse.ArgumentParser(prog="python -m stylegan_tl.metrics.fetch", description=HELP)
    parser.add_argument("extractor", choices=["inception"])
    parser.add_argument("--url", required=True, help="address of the state dict")
    parser.add_argument("--sha256", required=True, help="its SHA-256: 8 to 64 hex digits")
    parser.add_argument("--out", required=True, type=Path, help="where to put it")
    given = parser.parse_args(argv)
    try:
        path = fetch(given.url, given.out, sha256=given.sha256)
    except (OSError, ValueError) as error:
        print(f"not fetched: {error}", file=sys.stderr)
        return 1
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB), SHA-256 as given")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
