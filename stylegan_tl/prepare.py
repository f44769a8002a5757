"""`python -m stylegan_tl.prepare in=… out=… resolution=…`: images of any kind to a data set."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from stylegan_tl.errors import near, user_errors

if TYPE_CHECKING:
    from pathlib import Path

    from stylegan_tl.data.packed import PackedDataset
    from stylegan_tl.data.sources import Source

__all__ = ["main", "prepare"]

_HELP = """\
Make a data set for training out of images, once; training then reads it without decoding.

  python -m stylegan_tl.prepare in=photos/ out=data/photos64 resolution=64
  python -m stylegan_tl.train target=packed target.path=data/photos64

needed
  in=PATH          a folder of images (class sub-folders become labels), a zip of images,
                   an LSUN database (folder with data.mdb; pip install 'stylegan_tl[lmdb]'),
                   an NVIDIA zip or folder (labels from dataset.json), or a prepared folder
  out=PATH         the folder to make, or a name ending in .zip with format=nvidia
  resolution=N     width and height in pixels, a power of two from 4 to 4096

optional
  crop=center      center: the largest centred square
                   center-wide: the largest centred 4:3 part, black bars above and below
                   none: the images must be square already
  filter=lanczos   how to resize: lanczos bicubic hamming bilinear box nearest
  format=packed    packed: a folder with a memory-mapped array, fastest to train from
                   nvidia: a zip of PNG files with dataset.json, which NVIDIA's tools read
  subfolder=NAME   of a folder or a zip, only what lies below NAME
  labels=auto      none: drop the labels
  kind=auto        how to read `in`: folder zip nvidia lmdb packed
  name=NAME        what records call the data set (default: the name of `in`)
  max_images=N     only the first N images
  workers=N        processes (default: one per core)

What happens to images: turned upright by their EXIF tag; transparency is put on white; grey,
palette, CMYK and 16-bit become 8-bit RGB; equal images are kept once. Files that cannot be used
are left out; report.json names every one and says why. The output appears complete or not at
all, and an existing output that was made differently is never overwritten.
"""
_KEYS = "in out resolution crop filter format subfolder labels kind name max_images workers".split()
_NUMBERS = ("resolution", "max_images", "workers")


def main(argv: list[str] | None = None) -> None:
    """Run the command; exits with 2 after a wrong request, with 143 after SIGTERM."""
    words = sys.argv[1:] if argv is None else argv
    if not words or {"-h", "--help"} & set(words):
        print(_HELP, end="")
        return

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that half-written files go
    with user_errors():
        prepare(**parse(words))


def parse(words: list[str]) -> dict[str, Any]:
    """`key=value` words to arguments of `prepare`; a ValueError says all that is wrong."""
    options, wrong, given = {}, [], set()
    for word in words:
        key, equals, value = word.partition("=")
        given.add(key)
        if not equals or key not in _KEYS:
            wrong.append(_unknown(word, key))
        elif key in _NUMBERS and not value.isdecimal():
            wrong.append(f"{word}: {key} must be a whole number")
        elif value and value != "null":
            options[key] = int(value) if key in _NUMBERS else value
    wrong += [f"{k}=… is missing" for k in ("in", "out", "resolution") if k not in given]
    if wrong:
        raise ValueError("; ".join(wrong) + " (--help explains)")
    return {"source" if key == "in" else key: value for key, value in options.items()}


def prepare(
    source: str,
    out: str,
    resolution: int,
    *,
    crop: str | None = None,
    filter: str | None = None,
    format: str | None = None,
    subfolder: str | None = None,
    labels: str | None = None,
    kind: str | None = None,
    name: str | None = None,
    max_images: int | None = None,
    workers: int | None = None,
) -> Path:
    """Prepare `source` at `out`, saying on stdout what came of it; see `--help`."""
    from pathlib import Path

    from stylegan_tl.data.open import kind_of, source_of
    from stylegan_tl.data.pack import check_found

    target = Path(out).expanduser().absolute()
    format = _format(format, target)
    if kind in (None, "auto"):
        kind = kind_of(Path(source).expanduser(), subfolder)
    spec = {"kind": kind, "path": source, "name": name, "subfolder": subfolder, "labels": labels}
    spec |= {"crop": crop, "filter": filter}
    images, meta = source_of(spec, resolution, max_images)
    check_found(images, meta)
    print(f"{meta['path']}: {len(images.keys)} images ({kind})", flush=True)
    write = _write_packed if format == "packed" else _write_nvidia
    write(images, target, meta, workers)
    return target


def _unknown(word: str, key: str) -> str:
    return f"{word}: expected key=value; {near(key.lstrip('-'), _KEYS)}"


def _format(format: str | None, out: Path) -> str:
    zipped = out.suffix.lower() == ".zip"
    format = format or ("nvidia" if zipped else "packed")
    if format not in ("packed", "nvidia"):
        raise ValueError(f"format={format}: expected packed or nvidia")
    if zipped != (format == "nvidia"):
        raise ValueError(
            f"out={out}: format=nvidia writes a name ending in .zip, format=packed a folder"
        )
    return format


def _write_packed(images: Source, out: Path, meta: dict[str, Any], workers: int | None) -> None:
    from stylegan_tl.data.pack import locked
    from stylegan_tl.data.packed import PackedDataset, is_packed

    with locked(out, keep=False):
        if is_packed(out):
            _same_or_refuse(out, PackedDataset(out).meta.get("fingerprint"), meta)
            return
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(f"out={out}: exists and is no prepared data set; choose another name")
        data = _pack(images, out, meta, workers)
    _say(data, out, out / "report.json")
    print(f"use it: python -m stylegan_tl.train target=packed target.path={out}")


def _write_nvidia(images: Source, out: Path, meta: dict[str, Any], workers: int | None) -> None:
    import shutil

    from stylegan_tl.data.nvidia import fingerprint_of, write_nvidia_zip
    from stylegan_tl.data.pack import locked, replacing
    from stylegan_tl.data.progress import Progress

    with locked(out, keep=False):
        if out.exists():
            _same_or_refuse(out, fingerprint_of(out), meta)
            return
        folder, report = out.with_name(f".{out.name}.packed"), out.with_suffix(".report.json")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            data = _pack(images, folder, meta, workers)
            tick = Progress(f"writing {out.name}", data.num_images)
            with replacing(report) as partial:
                shutil.copy(folder / "report.json", partial)
            with replacing(out) as partial:
                write_nvidia_zip(data, partial, tick)
            _say(data, out, report)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _pack(images: Source, out: Path, meta: dict[str, Any], workers: int | None) -> PackedDataset:
    from stylegan_tl.data.pack import pack
    from stylegan_tl.data.progress import Progress

    tick = Progress(f"preparing at {images.resolution} px", len(images.keys))
    return pack(images, out, meta, workers=workers, tick=tick)


def _same_or_refuse(out: Path, found: str | None, meta: dict[str, Any]) -> None:
    if found != meta["fingerprint"]:
        raise ValueError(
            f"out={out}: holds a data set made from other images or with other settings; "
            "choose another name or remove it"
        )
    print(f"{out}: already prepared from the same images with the same settings, nothing to do")


def _say(data: PackedDataset, out: Path, report: Path) -> None:
    from stylegan_tl.data.open import read_report

    result = read_report(data)
    print(f"{out}: {result.summary()}")
    for skip in result.skipped[:5]:
        print(f"  skipped {skip.file}: {skip.reason}")
    if result.skipped or result.duplicates:
        print(f"  all that was left out: {report}")
    if data.label_dim:
        names = ", ".join(data.meta["classes"]) or "from the source"
        print(f"  labels: {data.label_dim} ({names})")
    print(f"  checksum: {data.content_hash}")


if __name__ == "__main__":
    main()
