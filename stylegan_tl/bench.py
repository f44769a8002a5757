"""`python -m stylegan_tl.bench`: seconds per thousand images of the full training iteration.

Every mode at every resolution and precision runs the model's own `training_step` (G, D, lazy R1,
lazy path length, ADA at a fixed p, EMA; no data loading) in a process of its own. The processes of
one group take turns, round by round, so that what disturbs one disturbs all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["MODES", "PUBLISHED", "cell", "main"]

MODES = {
    "ref": "the reference operators, eager",
    "eager": "our kernels, eager",
    "compile": "our kernels, main steps through torch.compile",
    "graph": "our kernels, every step a CUDA graph",
}
PRECISIONS = ("fp32", "tf32", "bf16")
RESOLUTIONS = {"auto": (64, 128, 256, 512), "paper256": (256,), "small": (32, 64)}
PUBLISHED = {128: 6.79, 256: 12.53, 512: 41.06}
"""NVIDIA's s/kimg of config `auto` in mixed precision on one A100 (stylegan3, docs/configs.md)."""

_R1, _PATH = 16, 4  # iterations between lazy steps
_COLUMNS = (
    "resolution", "precision", "mode", "batch", "kernels", "s_per_kimg", "img_per_s",
    "cpu_s_per_kimg", "memory_gb", "x_ref", "x_baseline", "x_baseline_cpu", "a100", "goal",
)  # fmt: skip


def cell(config: str, resolution: int, **options: object) -> dict:
    """Return what a worker needs to know; `options`: mode, precision, device, ada, batch, …"""
    widths, plan = _CONFIGS[config](resolution)
    if options.pop("quick"):
        widths |= {"z_dim": 32, "w_dim": 32, "channel_base": 8 * resolution, "channel_max": 16}
    plan |= {"batch_size": options.pop("batch", None) or plan["batch_size"]}
    network = {"resolution": resolution, **widths}
    training = {
        "micro_batch": None, "betas": (0.0, 0.99), "r1_interval": _R1, "ema_rampup": None, **plan,
    }  # fmt: skip
    small = config == "small"
    ada = None if small else options.pop("ada")
    options.pop("ada", None)
    return dict(network=network, training=training, pl_weight=0 if small else 2, ada=ada, **options)


def _auto(resolution: int) -> tuple[dict, dict]:
    """NVIDIA's `auto` on one GPU."""
    batch = max(min(4096 // resolution, 32), 1)
    widths = _widths(512, 32768 if resolution >= 512 else 16384, mbstd=min(batch, 4))
    lr = 0.002 if resolution >= 1024 else 0.0025
    gamma = 0.0002 * resolution**2 / batch
    plan = dict(batch_size=batch, lr_G=lr, lr_D=lr, r1_gamma=gamma, ema_kimg=batch * 10 / 32)
    return widths, plan


def _paper256(resolution: int) -> tuple[dict, dict]:
    """The published 256 px configuration, its whole batch on one device."""
    widths = _widths(512, 16384, mapping=8, mbstd=8)
    return widths, dict(batch_size=64, lr_G=0.0025, lr_D=0.0025, r1_gamma=1.0, ema_kimg=20.0)


def _small(resolution: int) -> tuple[dict, dict]:
    """A network for CPUs, without path length and ADA; its ratio to the baseline is published."""
    plan = dict(batch_size=16, lr_G=0.002, lr_D=0.002, r1_gamma=1.0, ema_kimg=5.0)
    return _widths(128, 64 * resolution), plan


def _widths(most: int, base: int, *, mapping: int = 2, mbstd: int = 4) -> dict:
    return {
        "z_dim": most, "w_dim": most, "num_mapping_layers": mapping, "channel_base": base,
        "channel_max": most, "mbstd_group_size": mbstd,
    }  # fmt: skip


_CONFIGS = {"auto": _auto, "paper256": _paper256, "small": _small}


class Worker:
    """A process that serves one cell."""

    def __init__(self, what: dict) -> None:
        self.what, self.plugins_failed = what, False
        self.log = tempfile.TemporaryFile("w+")
        root = str(Path(__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        if what["threads"]:
            environment["OMP_NUM_THREADS"] = str(what["threads"])
        if what["mode"] == "ref":
            environment["STYLEGAN_TL_KERNELS"] = "off"
        command = [sys.executable, "-m", "stylegan_tl.bench_worker", json.dumps(what)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            text=True, env=environment,
        )  # fmt: skip
        self.ready: dict | None = None
        self.error: str | None = None

    def ask(self, command: str | None = None) -> dict:
        """Send a command, None to wait for readiness; return the answer, empty after a failure."""
        if self.error:
            return {}
        try:
            if command:
                print(command, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": self._last_words()}
        self.error = answer.get("error")
        return {} if self.error else answer

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.seek(0)
        self.plugins_failed = "Failed!" in self.log.read()
        self.log.close()

    def kernels(self) -> str:
        """Say which kernels ran; the baseline's plugins say themselves when they do not build."""
        if self.what["mode"] != "baseline" or self.what["device"] == "cpu":
            return self.ready["kernels"]
        return "failed" if self.plugins_failed else "own"

    def _last_words(self) -> str:
        code = self.process.wait()
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        return f"ended with {code}: {lines[-1] if lines else 'no word'}"[:300]


def measure(cells: dict[str, dict], args: argparse.Namespace) -> list[dict]:
    """Time the cells of one group, in turn unless `args.alone`; return a row for each."""
    rounds: list[dict] = [{} for _ in range(args.rounds)]
    done: dict[str, Worker] = {}
    for group in [[m] for m in cells] if args.alone else [list(cells)]:
        workers = {mode: Worker(cells[mode]) for mode in group}
        done |= workers
        try:
            _take_turns(workers, rounds, args)
        finally:
            for worker in workers.values():
                worker.close()
    return [_row(mode, cells[mode], done[mode], rounds, args) for mode in cells]


def _take_turns(workers: dict[str, Worker], rounds: list[dict], args: argparse.Namespace) -> None:
    for worker in workers.values():  # one by one: builds and autotuning would disturb each other
        worker.ready = worker.ask()
        worker.ask("time 1")
    for found in rounds:
        found |= {mode: worker.ask(f"time {args.iterations}") for mode, worker in workers.items()}
    if args.profile:
        for mode, worker in workers.items():
            _profile(mode, worker)


def _row(mode: str, what: dict, worker: Worker, rounds: list[dict], args: object) -> dict:
    size, batch = what["network"]["resolution"], what["training"]["batch_size"]
    row = {"resolution": size, "precision": what["precision"], "mode": mode, "batch": batch}
    if worker.error:
        return row | {"error": worker.error}
    images = batch * args.iterations
    wall, cpu = (statistics.median(r[mode][k] for r in rounds) for k in ("wall", "cpu"))
    row |= {"kernels": worker.kernels(), "s_per_kimg": 1e3 * wall / images}
    row |= {"img_per_s": images / wall, "cpu_s_per_kimg": 1e3 * cpu / images}
    row |= {"memory_gb": max(r[mode]["memory_gb"] for r in rounds), "ready": worker.ready}
    for other, key in (("ref", "x_ref"), ("baseline", "x_baseline")):
        if rounds[0].get(other) and mode != other:
            row[key] = _ratio(rounds, other, mode, "wall")
            row[f"{key}_cpu"] = _ratio(rounds, other, mode, "cpu")
    published = args.config == "auto" and args.batch is None and what["precision"] == "bf16"
    if published and size in PUBLISHED:
        row["a100"] = PUBLISHED[size]
    if "x_baseline" in row and mode != "ref" and not args.quick:
        goal = 2.5 if args.device == "cpu" else 2.0
        row["goal"] = f">= {goal} x: {'met' if row['x_baseline'] >= goal else 'missed'}"
    return row


def _ratio(rounds: list[dict], other: str, mode: str, key: str) -> float:
    """Median over the rounds of how many times as long the other takes."""
    return statistics.median(r[other][key] / r[mode][key] for r in rounds)


def _profile(mode: str, worker: Worker) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile"
        worker.ask(f"profile {file}")
        print(f"\n{mode}: one iteration with all lazy steps")
        print(file.read_text(encoding="utf-8") if file.exists() else worker.error)


def check(cells: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Largest relative error on the device of images, logits and both regularisers' gradients.

    Against the reference operators on the CPU; the device's reference operators show what its
    precision costs.
    """
    import torch

    found = {}
    workers = {mode: Worker(what) for mode, what in cells.items()}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for mode, worker in workers.items():
                file = Path(folder) / mode
                worker.ask()
                worker.ask(f"derivatives {file}")
                if worker.error:
                    raise SystemExit(f"error: the check of {mode} failed: {worker.error}")
                found[mode] = torch.load(file, weights_only=True)
    finally:
        for worker in workers.values():
            worker.close()
    truth = found.pop("truth")
    return {
        mode: {k: max(map(_error, values, truth[k])) for k, values in derivatives.items()}
        for mode, derivatives in found.items()
    }


def _error(got: object, truth: object) -> float:
    return float((got - truth).norm() / truth.norm().clamp_min(1e-12))


def main(arguments: list[str] | None = None) -> None:
    """Parse, measure, print a table, write it as JSON."""
    args = _arguments(arguments)
    given = ("device", "batch", "ada", "threads", "baseline", "quick")
    options = {k: getattr(args, k) for k in given}
    options["warm_up"] = 1 if args.quick else 3
    if args.check:
        _check(args, options)
        return
    modes = [*args.mode, *(["baseline"] if args.baseline else [])]
    result = {"command": _command(arguments), "rows": []}
    print(_line(dict(zip(_COLUMNS, _COLUMNS, strict=True))))
    for resolution in args.resolution:
        for precision in args.precision:
            same = dict(options, precision=precision)
            cells = {m: cell(args.config, resolution, mode=m, **same) for m in modes}
            for row in measure(cells, args):
                result["rows"].append(row)
                print(_line(row), flush=True)
    result |= _machine(result["rows"])
    print(f"{result['device']}, torch {result['torch']}, CUDA {result['cuda']}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if all("error" in row for row in result["rows"]):
        sys.exit(1)


def _check(args: argparse.Namespace, options: dict) -> None:
    for resolution in args.resolution:
        for precision in args.precision:
            same = dict(options, precision=precision)
            cells = {m: cell(args.config, resolution, mode=m, **same) for m in ("ref", "eager")}
            truth = dict(same, device="cpu", precision="fp32")
            cells["truth"] = cell(args.config, resolution, mode="ref", **truth)
            for mode, errors in check(cells).items():
                found = ", ".join(f"{k} {v:.2g}" for k, v in errors.items())
                print(f"{resolution} {precision} {mode}: relative error {found}", flush=True)


def _machine(rows: list[dict]) -> dict:
    from stylegan_tl.study.provenance import commit, hardware

    ready = next((row["ready"] for row in rows if "ready" in row), {})
    own = hardware(ready.get("device") or "cpu", threads=ready.get("threads"))
    name = ready.get("device") or f"{own['cpu']}, {own['cores']} cores, {own['threads']} threads"
    return {
        "device": name, "torch": ready.get("torch"), "cuda": ready.get("cuda"),
        "hardware": own, "commit": commit(),
    }  # fmt: skip


def _line(row: dict) -> str:
    """Format one row of the table; a failed cell gives its reason."""
    shown = _COLUMNS[:4] if "error" in row else _COLUMNS
    cells = [_text(row.get(key, "-")).rjust(max(len(key), 5)) for key in shown]
    return "  ".join(cells) + (f"  {row['error']}" if "error" in row else "")


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _command(arguments: list[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return " ".join(["python -m stylegan_tl.bench", *given])


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stylegan_tl.bench",
        description=__doc__.split("\n")[0],
        epilog="modes: " + "; ".join(f"{k}: {v}" for k, v in MODES.items()),
    )
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--config", choices=_CONFIGS, default="auto")
    add("--resolution", type=int, nargs="+", help="default: those that the config is published at")
    add("--batch", type=int, help="default: the config's")
    add("--precision", nargs="+", choices=PRECISIONS, help="default: fp32 bf16")
    add("--mode", nargs="+", choices=MODES, help="default: all; on a CPU ref and eager")
    add("--ada", type=float, default=0.2, help="p of ADA; negative: no ADA")
    add("--iterations", type=int, default=_R1, help="per round; R1 comes every 16th")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, help="of a CPU")
    add("--baseline", help="a checkout of stylegan2-ada-pytorch to run beside ours")
    add("--alone", action="store_true", help="one process after the other: where memory is short")
    add("--check", action="store_true", help="compare derivatives with a CPU's instead of timing")
    add("--profile", action="store_true", help="also print where the time of one iteration goes")
    add("--quick", action="store_true", help="seconds: does it run? Its numbers mean nothing")
    add("--out", type=Path, help="write the rows as JSON")
    return _completed(parser, parser.parse_args(arguments))


def _completed(parser: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on other arguments; say what is wrong before any work."""
    if args.quick:
        args.iterations, args.rounds = 1, 1
        args.resolution, args.batch = args.resolution or [16], args.batch or 4
        args.precision = args.precision or ["fp32"]
    args.precision = args.precision or ["fp32", "bf16"]
    args.resolution = args.resolution or list(RESOLUTIONS[args.config])
    args.mode = args.mode or (["ref", "eager"] if args.device == "cpu" else list(MODES))
    args.ada = None if args.ada < 0 else args.ada
    if args.iterations % _R1 and not args.quick:
        parser.error(f"--iterations {args.iterations}: a multiple of {_R1} has its share of R1")
    if args.config == "paper256" and args.resolution != [256]:
        parser.error("--config paper256 is a configuration of --resolution 256")
    if wrong := [r for r in args.resolution if r < 8 or r & (r - 1)]:
        parser.error(f"--resolution {wrong}: powers of two from 8")
    if args.baseline and not (Path(args.baseline) / "training" / "networks.py").is_file():
        parser.error(f"--baseline {args.baseline} is no checkout of stylegan2-ada-pytorch")
    if args.device == "cuda" and not _cuda():
        parser.error("--device cuda: torch finds no CUDA device; try --device cpu")
    args.baseline = args.baseline and str(Path(args.baseline).resolve())
    return args


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    main()
