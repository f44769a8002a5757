"""`python -m cuda_ops.bench`: how near the kernels are to the memory limit; with `--check`, right.

Every ratio is taken within one run: bytes per second over those of a large copy on the same device,
and times as fast as the reference and as the compiled reference, which take turns with the kernel.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cuda_ops.bench_cases import OPS, QUICK, SIZES, Bench
from cuda_ops.compile import emulating

__all__ = ["copy_bandwidth", "in_turn", "main", "work"]

DTYPES = ("float32", "bfloat16", "float16", "float64")
LAYOUTS = ("contiguous", "channels_last")
_COLUMNS = (
    "op", "pass", "shape", "dtype", "layout", "us", "of_copy", "x_ref", "x_chain", "x_compiled",
    "goal",
)  # fmt: skip
_WIDTHS = (16, 8, 19, 8, 13, 9, 7, 7, 7, 10, 0)


def in_turn(
    works: dict[str, Callable[[], object]], device: str, *, rounds: int, enough: float
) -> dict[str, float]:
    """Return the median seconds of each work; they take turns, what disturbs one disturbs all.

    A turn repeats a work for about `enough` seconds.
    """
    for warm in works.values():
        warm()
        warm()
    repeats = {
        name: math.ceil(enough / max(_seconds(w, 1, device), 1e-7)) for name, w in works.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, some in works.items():
            taken[name].append(_seconds(some, min(repeats[name], 10_000), device))
    return {name: statistics.median(times) for name, times in taken.items()}


def _seconds(some: Callable[[], object], repeat: int, device: str) -> float:
    """Time one call, the mean of `repeat`: by events on the GPU, by the wall clock on a CPU."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(repeat):
            some()
        return (time.perf_counter() - start) / repeat
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeat):
        some()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeat


def copy_bandwidth(device: str, *, rounds: int, gib: float) -> float:
    """Return the bytes per second, read and written, of a large copy of random numbers."""
    source = torch.randn(int(gib * 2**28), device=device)
    target = torch.empty_like(source)
    times = in_turn({"copy": lambda: target.copy_(source)}, device, rounds=rounds, enough=0.02)
    return 2 * source.numel() * 4 / times["copy"]


def work(
    case: Bench, step: str, impl: str, sets: list[list[Tensor]], device: str
) -> Callable[[], object]:
    """Return one pass of an implementation over every set of inputs, as a CUDA graph if it can be.

    `step` is "forward", "backward" or "double", `impl` also "compiled" (the reference through
    torch.compile) and "chain" (our separate kernels). More sets than the cache holds make it read
    memory; a graph leaves out the gaps between launches.
    """
    call = _call(case, impl)
    if device == "cpu":
        return _pass(call, step, sets)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        some = _pass(call, step, sets)
        for _ in range(3):
            some()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            some()
    except RuntimeError as error:
        print(f"{case.op} {step} {impl}: not in a CUDA graph: {_reason(error)}", file=sys.stderr)
        torch.cuda.synchronize()
        return _pass(call, step, sets)
    return graph.replay


def _call(case: Bench, impl: str) -> Callable[[list[Tensor]], Tensor]:
    if impl == "chain":
        return case.chain
    if impl != "compiled":
        return lambda inputs: case.call(inputs, impl)
    import torch._functorch.config

    torch._dynamo.reset()
    torch._functorch.config.donated_buffer = False  # the backward pass runs more than once
    compiled = torch.compile(lambda *inputs: case.call(list(inputs), "ref"), dynamic=False)

    def run(inputs: list[Tensor]) -> Tensor:
        with warnings.catch_warnings():  # the compiler's remarks would tear the table
            warnings.simplefilter("ignore")
            return compiled(*inputs)

    return run


def _pass(call: Callable, step: str, sets: list[list[Tensor]]) -> Callable[[], object]:
    if step == "forward":

        def forward() -> None:
            with torch.no_grad():
                for inputs in sets:
                    call(inputs)

        return forward
    ready = []
    for inputs in sets:
        leaves = [x.detach().requires_grad_() for x in inputs]
        y = call(leaves)
        cotangent = torch.randn_like(y).requires_grad_(step == "double")
        if step == "double":
            (gradient,) = torch.autograd.grad(y, leaves[0], cotangent, create_graph=True)
            y, cotangent = gradient, torch.randn_like(gradient)
        ready.append((y, leaves, cotangent))

    def backward() -> None:
        for y, leaves, cotangent in ready:
            torch.autograd.grad(y, leaves, cotangent, retain_graph=True, allow_unused=True)

    return backward


def rows(
    case: Bench, dtype: str, layout: str, bandwidth: float, args: argparse.Namespace
) -> list[dict]:
    """Time every pass of a case; a case without a kernel here gives a row that says so."""
    device, impl = args.device, _impl(args.device)
    first = case.inputs(getattr(torch, dtype), layout, device, 0)
    same = {"op": case.op, "shape": "x".join(map(str, case.shapes[0]))}
    same |= {"dtype": dtype, "layout": layout}
    try:
        with torch.no_grad():
            output = case.call(first, impl)
    except ValueError as error:
        return [same | {"pass": "-", "error": _reason(error)}]
    seeds = range(1, _sets(first, device))
    sets = [first, *(case.inputs(getattr(torch, dtype), layout, device, s) for s in seeds)]
    found = []
    for step in case.passes:
        row = same | {"pass": step}
        try:
            row |= _timed(case, step, sets, output, bandwidth, args)
            row["goal"] = "-" if args.quick else _goal(case, row, device)
        except RuntimeError as error:
            row["error"] = _reason(error)
        found.append(row)
    return found


def _timed(
    case: Bench,
    step: str,
    sets: list[list[Tensor]],
    output: Tensor,
    bandwidth: float,
    args: argparse.Namespace,
) -> dict:
    device, impl = args.device, _impl(args.device)
    kinds = [impl, "ref", *["chain"] * bool(case.chain), *["compiled"] * args.compiled]
    works, why = {}, {}
    for kind in kinds:
        try:
            works[kind] = work(case, step, kind, sets, device)
        except Exception as error:  # a compiler's failures are of many kinds
            if kind != "compiled":
                raise
            why = {"compiled_error": _reason(error)}
    options = dict(rounds=args.rounds, enough=0.001 if args.quick else 0.02)
    times = {k: t / len(sets) for k, t in in_turn(works, device, **options).items()}
    own = times[impl]
    row = {"us": 1e6 * own, "bytes": case.bytes(step, sets[0], output), "sets": len(sets), **why}
    row["of_copy"] = row["bytes"] / own / bandwidth
    row |= {f"x_{kind}": times[kind] / own for kind in kinds[1:] if kind in times}
    return row


def _sets(inputs: list[Tensor], device: str) -> int:
    """Say how many input sets are more than four times the cache, at least 2."""
    size = sum(x.numel() * x.element_size() for x in inputs)
    cache = 32 << 20 if device == "cpu" else torch.cuda.get_device_properties(0).L2_cache_size
    return min(max(2, -(-4 * cache // max(size, 1))), 4 if device == "cpu" else 16)


def _goal(case: Bench, row: dict, device: str) -> str:
    """Say which goals there are and whether they are met."""
    if device == "cpu":
        wanted = [("x_ref", 1.3)]
    else:
        wanted = [("x_compiled", 1.0)]
        wanted += [("of_copy", case.goal.copy)] * (row["dtype"] == "bfloat16")
        wanted += [("x_ref", case.goal.ref), ("x_chain", case.goal.chain)]
    wanted = [(key, least) for key, least in wanted if least and key in row]
    missed = [key for key, least in wanted if row[key] < least]
    text = ", ".join(f"{key} >= {least:g}" for key, least in wanted)
    return f"{text}: {'missed ' + ' '.join(missed) if missed else 'met'}" if wanted else "-"


def _impl(device: str) -> str:
    return "cuda" if device == "cuda" or emulating() else "cpu"


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def main(arguments: list[str] | None = None) -> None:
    """Parse, then check or time, print a table, write it as JSON."""
    args = _arguments(arguments)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    result = _machine(args.device, arguments)
    print(", ".join(f"{k} {v}" for k, v in result.items()))
    if args.check:
        from cuda_ops.bench_check import check_all

        found, good = check_all(args)
    else:
        found, good = _table(args), True
    if args.out:
        args.out.write_text(json.dumps({**result, "rows": found}, indent=2) + "\n")
    if not good:
        sys.exit(1)


def _table(args: argparse.Namespace) -> list[dict]:
    gib = 1 / 64 if args.quick else 0.125 if args.device == "cpu" else 2
    bandwidth = copy_bandwidth(args.device, rounds=args.rounds, gib=gib)
    print(f"copy: {bandwidth / 1e9:.4g} GB/s")
    found = [{"op": "copy", "bytes_per_s": bandwidth}]
    print(_line(dict(zip(_COLUMNS, _COLUMNS, strict=True))))
    for op in args.op or OPS:
        for size in QUICK if args.quick else SIZES[args.device]:
            for case in OPS[op](*size):
                for dtype in args.dtype:
                    for layout in args.layout:
                        some = rows(case, dtype, layout, bandwidth, args)
                        found += some
                        print("\n".join(map(_line, some)), flush=True)
    return found


def _line(row: dict) -> str:
    """Format one row of the table; one without numbers gives its reason."""
    if "error" in row:
        named = zip(_COLUMNS[:5], _WIDTHS[:5], strict=True)
        return "  ".join([*(str(row[k]).ljust(w) for k, w in named), row["error"]])
    cells = []
    for key, width in zip(_COLUMNS, _WIDTHS, strict=True):
        value = row.get(key, "-")
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        cells.append(text.ljust(width))
    return "  ".join(cells)


def _machine(device: str, arguments: list[str] | None) -> dict:
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:
        commit = None
    cuda = device == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU"
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "device": name, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "commit": commit,
        "command": " ".join(["python -m cuda_ops.bench", *given]),
    }  # fmt: skip


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cuda_ops.bench", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--check", action="store_true", help="hold every kernel against float64 instead of timing")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--op", nargs="+", help="operators, by the first word of their name; default: all")
    add("--dtype", nargs="+", choices=DTYPES, help="default: float32 bfloat16; --check: all")
    add("--layout", nargs="+", choices=(*LAYOUTS, "strided"), help="default: all that apply")
    add("--rounds", type=int, default=10, help="turns of which the median is taken")
    add("--no-compile", dest="compiled", action="store_false", help="not beside torch.compile")
    add("--seed", type=int, help="of --check's inputs; default: another each time")
    add("--quick", action="store_true", help="seconds: tiny sizes; numbers mean nothing")
    add("--out", type=Path, help="write the rows as JSON")
    return _completed(parser, parser.parse_args(arguments))


def _completed(parser: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on other arguments; say what is wrong before any work."""
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device; try --device cpu")
    if not args.check and (wrong := set(args.op or ()) - set(OPS)):
        parser.error(f"--op {' '.join(sorted(wrong))}: choose from {', '.join(OPS)}")
    if not args.check and "strided" in (args.layout or ()):
        parser.error("--layout strided is for --check")
    native = args.device == "cpu" and not emulating()
    short = ("float32",) if native else ("float32", "bfloat16")
    args.dtype = args.dtype or (DTYPES if args.check and not (native or args.quick) else short)
    args.layout = args.layout or ((*LAYOUTS, "strided") if args.check else LAYOUTS)
    args.rounds = 2 if args.quick else args.rounds
    return args


if __name__ == "__main__":
    main()
