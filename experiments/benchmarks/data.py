"""How fast images are prepared and read, against what bare Pillow and a bare copy do.

    python experiments/benchmarks/data.py [--images 1500] [--zip photos.zip]

Each pair runs in turn on the same machine, several rounds; the medians and their ratio are printed.
"""

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from stylegan_tl.data.open import source_of
from stylegan_tl.data.pack import pack
from stylegan_tl.data.packed import PackedDataset


def main() -> None:
    """Measure and print."""
    args = _arguments()
    workers = len(os.sched_getaffinity(0))
    print(f"{workers} cores, medians of {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "made.zip")
        write_jpegs(made, args.images, args.size)
        for file in (made, *([args.zip] if args.zip else [])):
            compare_prepare(file, args.resolution, workers, args.rounds)
        compare_reading(made, Path(scratch), args.resolution, args.batch, args.rounds)


def compare_prepare(file: Path, resolution: int, workers: int, rounds: int) -> None:
    """Packing a zip against the same zip decoded and resized by Pillow and thrown away."""
    with zipfile.ZipFile(file) as archive:
        names = [n for n in archive.namelist() if n.endswith((".jpg", ".png"))]
    bare, ours = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for index in range(rounds):
            bare.append(len(names) / bare_pillow(file, names, resolution, workers))
            out = Path(scratch, str(index))
            ours.append(len(names) / _seconds(lambda o=out: _pack(file, o, resolution)))
            shutil.rmtree(out)
    _say(f"prepare {file.name} ({len(names)} images) to {resolution} px", ours, "Pillow", bare)


def compare_reading(file: Path, scratch: Path, resolution: int, batch: int, rounds: int) -> None:
    """Shuffled training batches from the memory map against the same copy in memory."""
    from stylegan_tl.data.module import ImageData

    _pack(file, scratch / "packed", resolution)
    dataset = PackedDataset(scratch / "packed")
    array = dataset.images(range(dataset.num_images))
    indices = np.arange(dataset.num_images)
    data = ImageData(dataset, indices, batch_size=batch, seed=0, xflip=True)
    steps = max(20_000 // batch, 1)
    chosen = np.random.default_rng(0).integers(0, len(array), (steps, batch))
    bare, ours = [], []
    for _ in range(rounds):
        bare.append(steps * batch / _seconds(lambda: [array[i].size for i in chosen]))
        ours.append(steps * batch / _seconds(lambda: _read(data, steps)))
    _say(f"training batches of {batch} at {resolution} px", ours, "copy in memory", bare)


def bare_pillow(file: Path, names: list[str], resolution: int, workers: int) -> float:
    """Seconds that `workers` processes need, counted from when all of them are ready."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    parts = [(str(file), names[i::workers], resolution, barrier) for i in range(workers)]
    processes = [context.Process(target=_decode_all, args=part) for part in parts]
    for process in processes:
        process.start()
    barrier.wait()
    return _seconds(lambda: [process.join() for process in processes])


def write_jpegs(file: Path, count: int, size: int) -> None:
    """A zip of `count` JPEGs (quality 95) with the spectrum of photographs (1/f amplitude)."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    frequency[0, 0] = np.inf
    with zipfile.ZipFile(file, "w") as archive:
        for index in range(count):
            noise = np.fft.rfft2(rng.standard_normal((3, size, size))) / frequency
            pixels = np.fft.irfft2(noise, s=(size, size))
            pixels = 128 + 50 * pixels / pixels.std() + rng.normal(0, 3, pixels.shape)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=95)
            archive.writestr(f"{index:06d}.jpg", buffer.getvalue())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1500, help="number of made JPEGs")
    parser.add_argument("--size", type=int, default=512, help="width and height of made JPEGs")
    parser.add_argument("--resolution", type=int, default=256, help="width and height prepared")
    parser.add_argument("--batch", type=int, default=32, help="images per training batch")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--zip", type=Path, help="also prepare this (large) zip")
    return parser.parse_args()


def _decode_all(file: str, names: list[str], resolution: int, barrier: object) -> None:
    with zipfile.ZipFile(file) as archive:
        barrier.wait()
        for name in names:
            image = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            if side < max(image.size):
                image = image.crop((left, top, left + side, top + side))
            image.resize((resolution, resolution), Image.Resampling.LANCZOS)


def _pack(file: Path, out: Path, resolution: int) -> None:
    source, meta = source_of({"kind": "zip", "path": str(file)}, resolution)
    pack(source, out, meta)


def _read(data: object, steps: int) -> None:
    for _, _ in zip(range(steps), data.train_dataloader(), strict=False):
        pass


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _say(what: str, ours: list[float], other: str, theirs: list[float]) -> None:
    mine, their = statistics.median(ours), statistics.median(theirs)
    rates = f"{mine:.0f} img/s; {other} {their:.0f} img/s"
    print(f"{what}: {rates}; ratio {mine / their:.2f}", flush=True)


if __name__ == "__main__":
    main()
