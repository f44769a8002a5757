"""Measure a generator, or images, by several protocols: each image is made and featurised once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock

from stylegan_tl.files import write_atomic
from stylegan_tl.metrics.equivariance import takes_transform
from stylegan_tl.metrics.fakes import Fakes, make_rows, spool_folder
from stylegan_tl.metrics.features import Extractor
from stylegan_tl.metrics.interval import SMALLEST
from stylegan_tl.metrics.measure import FEW_REALS, Bank, Reals, measure, rows_of
from stylegan_tl.metrics.protocol import LEAST_ROUNDS, Protocol, expand
from stylegan_tl.metrics.reference import MAX_FEATURES, reference_hash
from stylegan_tl.processes import from_first, ranks

__all__ = ["check", "evaluate"]

_FOR_INTERVALS = " for intervals (metric.rounds)"


def evaluate(
    protocols: Iterable[str | Protocol],
    *,
    fakes: Fakes,
    reals: Reals,
    extractors: Mapping[str, Extractor],
    cache: str | Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    rounds: int = 0,
    say: Callable[[int, int], None] | None = None,
    write: Callable[[list[dict[str, Any]]], None] | None = None,
) -> list[dict[str, Any]]:
    """Return one JSON-able record per protocol; KID first where a split has under 5 000 reals.

    reals:      split → (dataset, indices); `source` is the training split of the source.
    extractors: name → extractor, for the names that the protocols use.
    cache:      folder for statistics of reals, and for the work of a killed call; None keeps
                nothing.
    seed:       of whatever is drawn: patches, projections, subsets, splits.
    rounds:     of half-sampling for 95 % intervals; 0 for none.
    say:        is told (done, total) while images are made.
    write:      gets the records before the work of a killed call would be forgotten.

    A record holds metric, value, better, of, num_fakes, num_reals, split, extractor,
    extractor_digest, precision, resize, reference_hash, estimator, seconds (this value) and
    shared_seconds (fakes and features, once for all records); what else there is: stderr,
    interval, levels, note, detail. FID uses all reals, KID and k-NN at most 10 000 evenly spaced
    (NVIDIA's presets more). SWD uses as many reals as fakes, at most 16 384.
    Raises ValueError, naming every problem, before any image is made.
    """
    parsed = expand(protocols)
    sizes = {split: len(indices) for split, (_, indices) in reals.items()}
    spaces = "" if fakes.G is None else "zw" if hasattr(fakes.G, "mapping") else "z"
    source = fakes.source is not None
    moves = fakes.G is not None and takes_transform(fakes.G)
    known = dict(count=fakes.count, spaces=spaces, source=source, moves=moves)
    check(parsed, sizes, **known, rounds=rounds)
    if not parsed:
        return []
    missing = sorted({p.extractor for p in parsed} - {None, *extractors})
    if missing:
        raise ValueError(f"extractors that the metrics need are not loaded: {', '.join(missing)}")
    used = {p.extractor: extractors[p.extractor] for p in parsed if p.extractor}
    spool = None if cache is None else spool_folder(Path(cache), fakes, used)
    first = ranks()[1] == 0
    with _locked(spool) if spool is not None and first else nullcontext():
        began = perf_counter()
        rows = make_rows(parsed, fakes, used, batch_size=batch_size, spool=spool, say=say)
        shared = round(perf_counter() - began, 3)
        folder = None if cache is None else Path(cache)
        bank = Bank(rows, fakes, reals, used, folder, batch_size, seed, rounds, _keeps(parsed))
        records = from_first(
            lambda: [{**_done(p, bank, spool), "shared_seconds": shared} for p in parsed]
        )
        few = any(len(reals[split][1]) < FEW_REALS for p in parsed for split in p.splits)
        records.sort(key=lambda r: few and not r["metric"].startswith("kid"))
        if write is not None and first:
            write(records)
        if spool is not None and first:
            shutil.rmtree(spool, ignore_errors=True)
    return records


def _keeps(protocols: list[Protocol]) -> dict[tuple[str, str | None], int]:
    """How many rows of features each reference keeps: one pass over the reals serves all."""
    keeps: dict[tuple[str, str | None], int] = {}
    for protocol in protocols:
        for split in protocol.splits:
            key = (split, protocol.extractor)
            keeps[key] = max(keeps.get(key, MAX_FEATURES), rows_of(protocol))
    return keeps


def check(
    protocols: Iterable[str | Protocol],
    sizes: Mapping[str, int],
    *,
    count: int | None = None,
    spaces: str = "zw",
    source: bool = True,
    moves: bool = True,
    rounds: int = 0,
) -> None:
    """Raise ValueError, naming every problem, for protocols that cannot be measured.

    sizes: split → number of its images. count: of the images that are measured, None for endless.
    spaces: of the generator's latents: "zw", "z" without a mapping network, "" for images.
    source: whether there is a generator of the source.
    moves: whether the input of the generator's synthesis can be moved.
    rounds: of half-sampling: both halves must be enough.
    """
    problems = [
        f"{protocol}: {problem}"
        for protocol in expand(protocols)
        for problem in (
            *_too_few(protocol, sizes, count, rounds),
            *_lacking(protocol, spaces, source, moves),
        )
    ]
    if rounds and rounds < LEAST_ROUNDS:
        problems.append(f"rounds={rounds}: 0 for no intervals, or at least {LEAST_ROUNDS}")
    if problems:
        raise ValueError("the metrics cannot be measured:\n  " + "\n  ".join(problems))


def _locked(spool: Path) -> FileLock:
    spool.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{spool}.lock")


def _done(protocol: Protocol, bank: Bank, spool: Path | None) -> dict[str, Any]:
    """The record of a protocol: measured now, or by a call that was killed after it."""
    identity = _identity(protocol, bank)
    asked = {**identity, "seed": bank.seed, "rounds": bank.rounds}
    path = None if spool is None else spool / f"{protocol}.json"
    if path is not None and path.is_file():
        kept = json.loads(path.read_text())
        if kept["asked"] == asked:
            return kept["record"]
    began = perf_counter()
    found = measure(protocol, bank)
    record = {"metric": str(protocol), **found, **identity}
    record["seconds"] = round(perf_counter() - began, 3)
    if path is not None:
        write_atomic(path, json.dumps({"asked": asked, "record": record}).encode())
    return record


def _identity(protocol: Protocol, bank: Bank) -> dict[str, Any]:
    extractor = bank.extractors[protocol.extractor] if protocol.extractor else None
    hashes = [reference_hash(*bank.reals[split]) for split in protocol.splits]
    if protocol.needs("G_source"):
        hashes.append(f"source model {bank.fakes.source_identity}")
    return {
        "better": protocol.better,
        "of": bank.fakes.of,
        "num_fakes": protocol.num_fakes,
        "split": "+".join(protocol.splits) or None,
        "extractor": protocol.extractor,
        "extractor_digest": extractor.digest if extractor else None,
        "precision": extractor.precision if extractor else None,
        "resize": extractor.resize if extractor else None,
        "reference_hash": "+".join(hashes) or None,
    }


def _too_few(
    protocol: Protocol, sizes: Mapping[str, int], count: int | None, rounds: int
) -> Iterable[str]:
    for split in protocol.splits:
        least = _least(protocol.least_reals, rounds)
        if split not in sizes:
            yield f"no {split} images were given (there is {', '.join(sizes) or 'nothing'})"
        elif protocol.kind == "intra" and not 1 <= sizes[split] <= protocol.num_fakes // 2:
            yield (
                f"the {split} split holds {sizes[split]} images, each the middle of a cluster: "
                f"{protocol.num_fakes} fakes can fill at most {protocol.num_fakes // 2}; it is for "
                "few-shot targets, such as num_images=10"
            )
        elif protocol.kind != "intra" and sizes[split] < least:
            yield (
                f"the {split} split holds {sizes[split]} images and at least {least} are needed"
                f"{_FOR_INTERVALS * bool(rounds)}: use more images or another split"
            )
    least = _least(protocol.least_fakes, rounds)
    if protocol.kind != "intra" and protocol.num_fakes < least:
        yield f"at least {least} fakes are needed{_FOR_INTERVALS * bool(rounds)}"
    if count is not None and count < protocol.num_fakes:
        example = str(replace(protocol, num_fakes=count, preset=None))
        yield f"there are only {count} images to measure: {example} takes so many"


def _least(alone: int, rounds: int) -> int:
    return max(2 * alone, SMALLEST) if rounds else alone


def _lacking(protocol: Protocol, spaces: str, source: bool, moves: bool) -> Iterable[str]:
    if protocol.needs("G") and not spaces:
        yield "paths and motions need a generator, not images"
    elif protocol.needs("transform") and not moves:
        yield "the input of this generator cannot be moved: only that of a StyleGAN3 can"
    elif protocol.space and protocol.space[0] not in spaces:
        yield "this generator has no w (no mapping network): use zend or zfull"
    if protocol.needs("G_source") and not source:
        yield "it needs the source model, and none is known: source=checkpoint source.checkpoint=…"
