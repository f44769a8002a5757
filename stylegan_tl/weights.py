"""`python -m stylegan_tl.weights list | verify | fetch NAME`: public weights, by name.

Those of the metrics' networks, and pretrained source models (`source=pretrained/NAME`).

The one place that downloads, and only when told to. A file gets its name after its SHA-256 was
checked and the reader of its kind has read it, which runs nothing: a broken, a wrong or a hostile
download is never used. Without a network, copy the file to the folder that `list` names, or fetch
from a path: `fetch inception --url /media/stick/file.pth`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan_tl.errors import near, user_errors

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from stylegan_tl.metrics.catalogue import Entry
    from stylegan_tl.source.catalogue import File, Pretrained

__all__ = ["fetch", "main"]

BLOCK = 1 << 20
_COMMANDS = ("list", "verify", "fetch")
_FOLDERS = """\
lpips reads vgg16's file; its linear heads come with torchmetrics. small is bundled.
dinov2 and clip are a folder with config.json and model.safetensors: give it as path=, with the
sha256 of the latter."""


def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 if all is well, 1 if an address fails or `verify` finds a file wanting.

    A mistake to mend ends it with 2, and so does a file that is not the one asked for.
    """
    words = sys.argv[1:] if argv is None else argv
    with user_errors():
        if words and not words[0].startswith("-") and words[0] not in _COMMANDS:
            raise ValueError(f"{words[0]}: no such command; {near(words[0], _COMMANDS)}")
        given = _parser().parse_args(words)
        try:
            return given.run(given)
        except OSError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1


def fetch(
    url: str,
    out: str | Path,
    *,
    sha256: str,
    timeout: float = 60.0,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Copy `url` (http, https, file, or a path) to `out` if its SHA-256 begins with `sha256`.

    Returns at once if `out` is already that file. A download that was cut short lies in
    `<out>.part`, and the next call goes on from there where the server can; without a digest,
    which alone tells a whole file, it begins anew. Two processes take turns. `timeout`: seconds
    without a byte. `check` reads what came, before it is in its place, and raises ValueError for
    what cannot be used. ValueError and no file for other content, OSError if the address does not
    answer or ends early.
    """
    from filelock import FileLock

    from stylegan_tl.files import file_sha256

    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_name(f".{out.name}.lock")):
        if out.is_file() and file_sha256(out).startswith(sha256.lower()):
            return out
        part = out.with_name(out.name + ".part")
        if not sha256:
            part.unlink(missing_ok=True)
        if not (part.is_file() and file_sha256(part).startswith(sha256.lower())):
            _download(_address(url), part, timeout)  # else killed after the last byte
        found = file_sha256(part)
        if not found.startswith(sha256.lower()):
            part.unlink()
            raise ValueError(
                f"{url} is not the file that was asked for: its sha256 is {found}, not {sha256}; "
                "nothing was kept"
            )
        if check is not None:
            _check_or(part.unlink, check, part, url)
        os.replace(part, out)
    return out


def _check_or(
    remove: Callable[[], object], check: Callable[[Path], object], path: Path, url: str
) -> None:
    """Read a file that came from `url`; if that fails, `remove` it and say so in one line."""
    try:
        check(path)
    except ValueError as error:
        remove()
        why = " ".join(str(error).replace(str(path), url).split())
        raise ValueError(f"{why}; nothing was kept") from error


def _download(url: str, part: Path, timeout: float) -> None:
    """Bring all bytes of `url` into `part`, after those that are there if the server agrees."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=timeout) as answer:
            _receive(answer, part, have)
    except HTTPError as error:
        if error.code != 416:  # 416: `part` is no beginning of the file there
            raise OSError(f"{url} answers {error.code} {error.reason}") from error
        part.unlink()
        _download(url, part, timeout)
    except (OSError, HTTPException) as error:
        kept = part.stat().st_size if part.is_file() else 0
        again = f"; run it again to go on after {kept / 1e6:.1f} MB" if kept else ""
        raise OSError(f"{url}: {error or type(error).__name__}{again}") from error


def _receive(answer: HTTPResponse, part: Path, have: int) -> None:
    resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    resumed = resumed and getattr(answer, "status", None) == 206
    start = have if resumed else 0
    length = answer.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    show = _Progress(part.name.removesuffix(".part"), total)
    with open(part, "ab" if resumed else "wb") as file:
        done = start
        while block := answer.read(BLOCK):
            file.write(block)
            done += len(block)
            show(done)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise OSError(f"the answer ended after {done} of {total} bytes")
    show(done, last=True)


def _address(url: str) -> str:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if not scheme and Path(url).is_file():
        return Path(url).resolve().as_uri()
    if scheme not in ("http", "https", "file"):
        raise ValueError(f"{url!r} is neither a file nor an http, https or file address")
    return url


class _Progress:
    """Megabytes so far: a line that redraws itself on a terminal, one now and then in a log."""

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.live = what, total, sys.stderr.isatty()
        self.shown = time.monotonic()

    def __call__(self, done: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self.shown < (0.2 if self.live else 10):
            return
        self.shown = now
        share = f" of {self.total / 1e6:.1f}" if self.total else ""
        text = f"{self.what}: {done / 1e6:.1f}{share} MB"
        end = "\n" if last or not self.live else ""
        print(("\r\x1b[K" if self.live else "") + text, end=end, file=sys.stderr, flush=True)


def _list(given: argparse.Namespace) -> int:
    from stylegan_tl.metrics.catalogue import CATALOGUE, default_folder
    from stylegan_tl.source.catalogue import PRETRAINED, folder

    print(f"in {default_folder()}:")
    for one in CATALOGUE:
        there = "there" if (default_folder() / one.file).is_file() else "not there"
        print(f"\n{one.name} ({there}): {one.purpose}")
        print(f"  {one.file}, {one.megabytes} MB, {one.licence}, sha256 {one.sha256}…")
        print(f"  {one.url}")
    print(f"\n{_FOLDERS}\n\nsource models, for source=pretrained/NAME, in {folder()}:")
    print("\n\n".join("\n".join(_described(one)) for one in PRETRAINED))
    return 0


def _described(one: Pretrained) -> list[str]:
    """What a person wants to know of a source model before fetching it."""
    from stylegan_tl.source.catalogue import folder

    there = "there" if all((folder() / f.name).is_file() for f in one.files) else "not there"
    size = f"{one.resolution} px" if one.resolution else "size not stated"
    lines = [f"{one.name} ({there}): {one.domain}, {size}, model={one.model}, {one.format}"]
    lines += [f"  licence: {one.licence}"]
    for file in one.files:
        digest = f"sha256 {file.sha256}…" if file.sha256 else "sha256 not published"
        lines.append(f"  {file.name}, {digest}, {file.url}")
    return [*lines, f"  from {one.found_in}{f'; {one.note}' if one.note else ''}"]


def _verify(given: argparse.Namespace) -> int:
    from stylegan_tl.metrics.catalogue import verified

    wrong = there = 0
    for name, one, path in _places(given.name):
        try:
            if not path.is_file():
                wrong += bool(given.name)
                print(f"{name}: {path} is not there")
                continue
            there += 1
            print(f"{name}: {path} is whole, sha256={verified(one, path)}")
        except ValueError as error:
            wrong += 1
            print(f"{name}: {error}")
    return int(wrong > 0 or not there)  # of none there is nothing to say that it is whole


def _places(name: str | None) -> list[tuple[str, Entry | File, Path]]:
    """Every file of `name`, or all: what it is called, its digest, where it belongs."""
    from stylegan_tl.metrics.catalogue import CATALOGUE, default_folder
    from stylegan_tl.source.catalogue import PRETRAINED, folder

    if name and (source := _source(name)):
        return [(f"{source.name}: {f.name}", f, folder() / f.name) for f in source.files]
    own = [_entry(name)] if name else CATALOGUE
    found = [(one.name, one, default_folder() / one.file) for one in own]
    more = () if name else PRETRAINED
    there = [(one.name, f, folder() / f.name) for one in more for f in one.files]
    return [*found, *(place for place in there if place[2].is_file())]


def _source(name: str) -> Pretrained | None:
    """The source model of that name, or None for weights of another kind."""
    from stylegan_tl.source.catalogue import PREFIX, PRETRAINED

    short = name.removeprefix(PREFIX)
    return next((one for one in PRETRAINED if one.name == short), None)


def _entry(name: str) -> Entry:
    """The metrics' weights of that name; ValueError with all names, source models' among them."""
    from stylegan_tl.metrics.catalogue import CATALOGUE, entry
    from stylegan_tl.source.catalogue import PRETRAINED

    own = dict.fromkeys(n for one in CATALOGUE for n in (one.name, *one.extractors))
    if name in own:
        return entry(name)
    every = [*own, *(one.name for one in PRETRAINED)]
    raise ValueError(f"no public weights are known as {name}; {near(name, every)}")


def _fetch_source(one: Pretrained, given: argparse.Namespace) -> int:
    """Bring the files of a source model into the cache; `--url` names the first, or their folder.

    They come into a folder of their own, are read there, and go to their places together.
    """
    from filelock import FileLock

    from stylegan_tl.metrics.catalogue import verified
    from stylegan_tl.restore import examine
    from stylegan_tl.source.catalogue import folder

    if given.out is not None or given.sha256 is not None:
        raise ValueError("--out and --sha256 are for other weights: a source model has its place")
    print(f"{one.name}: {one.licence}")
    folder().mkdir(parents=True, exist_ok=True)
    coming = folder() / f".{one.name}"
    with FileLock(f"{coming}.lock"):
        urls = [_bring(file, coming, one, given) for file in one.files]
        first, remove = coming / one.files[0].name, partial(shutil.rmtree, coming)
        _check_or(remove, examine, first, urls[0])
        for file in one.files:
            os.replace(coming / file.name, folder() / file.name)
        remove()
    for file in one.files:
        out = folder() / file.name
        print(f"{out} ({out.stat().st_size / 1e6:.1f} MB), sha256={verified(file, out)}")
    print(f"use it: source=pretrained/{one.name} model={one.model} resolution={one.resolution}")
    return 0


def _bring(file: File, coming: Path, one: Pretrained, given: argparse.Namespace) -> str:
    """Fetch one file of a source model into `coming`, or copy it from its place; its address.

    A web page or another text (an error, a pointer of Git LFS) is thrown away: where no digest is
    published, nothing else tells it from the file.
    """
    from stylegan_tl.files import file_sha256
    from stylegan_tl.metrics.catalogue import recorded
    from stylegan_tl.source.catalogue import folder

    out, staged = folder() / file.name, coming / file.name
    wanted = recorded(out) or file.sha256
    there = out.is_file() and file_sha256(out).startswith(wanted)
    url = str(out) if there else _from(given.url, file, alone=len(one.files) == 1)
    if not wanted:  # what is left of another fetch may be of another address
        staged.unlink(missing_ok=True)
    fetch(url, staged, sha256=wanted, timeout=given.timeout)
    if _is_text(staged):
        staged.unlink()
        raise ValueError(
            f"{url} answers with a web page or other text: open it in a browser, save the "
            f"file, and give it with --url {file.name}"
        )
    return url


def _is_text(path: Path) -> bool:
    """Whether a file begins with text, as no weights do: their first bytes are numbers."""
    with open(path, "rb") as file:
        head = file.read(64)
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head)


def _from(url: str | None, file: File, *, alone: bool) -> str:
    """Where a file comes from: its public address, `url`, or its name in the folder `url`."""
    if url is None:
        return file.url
    if Path(url).is_dir() or (not alone and url.endswith("/")):
        return f"{url.rstrip('/')}/{file.name}"
    if not alone:
        raise ValueError(f"--url {url}: name the folder that has both files of the pair, with a /")
    return url


def _fetch(given: argparse.Namespace) -> int:
    from stylegan_tl.files import file_sha256
    from stylegan_tl.metrics.catalogue import default_folder, verified
    from stylegan_tl.metrics.features import check_weights

    if source := _source(given.name):
        return _fetch_source(source, given)
    one = _entry(given.name)
    out = given.out or default_folder() / one.file
    wanted = _wanted(one, given.sha256, out, own_place=given.out is None)
    try:
        check = partial(check_weights, one.name)
        fetch(given.url or one.url, out, sha256=wanted, timeout=given.timeout, check=check)
    except OSError as error:
        raise OSError(
            f"{error}\nfrom another address or a file: --url ADDRESS; or put the file at {out} "
            "yourself (STYLEGAN_TL_CACHE moves the cache folder)"
        ) from error
    digest = verified(one, out) if given.out is None else file_sha256(out)
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB), sha256={digest}")
    return 0


def _wanted(one: Entry, given: str | None, out: Path, *, own_place: bool) -> str:
    """Return the digest to demand: what was given, else that of the first use, else published."""
    from stylegan_tl.metrics.catalogue import recorded

    if given is not None and not 8 <= len(given) <= 64:
        raise ValueError(f"--sha256 {given}: give 8 to 64 hex digits")
    if not own_place:
        return given or one.sha256
    if given is not None and not given.lower().startswith(one.sha256):
        raise ValueError(
            f"--sha256 {given} is another file than {one.file} ({one.sha256}…): give it a place of "
            "its own with --out, and use it with path= and sha256="
        )
    first = recorded(out)
    if given is not None and first is not None and not first.startswith(given.lower()):
        raise ValueError(
            f"--sha256 {given} is not the file that was used here first ({first}): delete "
            f"{out.name} and {out.name}.json if you mean to replace it"
        )
    return max((given, first, one.sha256), key=lambda digits: len(digits or ""))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stylegan_tl.weights",
        description=__doc__.partition("\n\n")[2],
    )
    commands = parser.add_subparsers(required=True, metavar=" | ".join(_COMMANDS))
    one = commands.add_parser("list", help="what there is, where it belongs, what is there")
    one.set_defaults(run=_list)
    one = commands.add_parser("verify", help="check the files in the cache against their digests")
    one.add_argument("name", nargs="?", help="one of them (default: all that are there)")
    one.set_defaults(run=_verify)
    one = commands.add_parser("fetch", help="download one file")
    one.add_argument("name", help="inception, vgg16, or a source model: lsun_church_256, …")
    one.add_argument("--url", help="another address or a path (default: the public one)")
    one.add_argument("--sha256", help="its SHA-256, 8 to 64 hex digits (default: as published)")
    one.add_argument("--out", type=Path, help="where to put it (default: the cache)")
    one.add_argument("--timeout", type=float, default=60.0, help="seconds without a byte")
    one.set_defaults(run=_fetch)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
