"""`cuda_ops.bench --check`: every kernel right, repeatable, on any stream, in graphs, at any size.

`check.CASES` under the one rule of `check`, and what one call cannot show.
"""

import argparse
import random
import warnings
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from cuda_ops import check
from cuda_ops.bench import _impl, _reason
from cuda_ops.bench_cases import OPS, Bench, huge

__all__ = ["check_all", "in_graph", "large", "on_stream", "repeated", "zero_size"]

_SIZE = (3, 32, 32)
_SANITIZER = "compute-sanitizer --tool memcheck python -m cuda_ops.bench --check --quick"


def check_all(args: argparse.Namespace) -> tuple[list[dict], bool]:
    """Print a table of the worst ratios and what else failed; return the rows and the verdict."""
    seed = random.SystemRandom().randrange(2**31) if args.seed is None else args.seed
    impl = _impl(args.device)
    cases = [c for c in check.CASES if impl in c.kernels]
    cases = [c for c in cases if not args.op or c.name.split()[0] in args.op]
    print(f"inputs of seed {seed}; a ratio of at most 1 passes (error / (2 x reference + floor))")
    if not cases:
        print(f"no case has a kernel for impl={impl!r}")
        return [], False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # poisoning memory makes torch name its own operators
        found = list(_ratios(cases, impl, seed, args)) + list(_others(impl, seed, args))
    failed = [row for row in found if not row["pass"]]
    for row in failed:
        print("FAIL", {k: v for k, v in row.items() if k != "pass"})
    print(f"{len(found) - len(failed)} of {len(found)} pass: {'FAIL' if failed else 'PASS'}")
    print(f"memory errors: {_SANITIZER}")
    return found, not failed


def _ratios(
    cases: list[check.Case], impl: str, seed: int, args: argparse.Namespace
) -> Iterator[dict]:
    """Yield the worst ratio of each operator in each dtype and layout."""
    for op in dict.fromkeys(case.name.split()[0] for case in cases):
        for dtype in args.dtype:
            line = []
            for layout in args.layout:
                row = {"op": op, "dtype": dtype, "layout": layout, "ratio": -1.0}
                for case in (c for c in cases if c.name.split()[0] == op):
                    ratio, what = _worst(case, impl, seed, dtype, layout, args.device)
                    if not ratio <= row["ratio"]:  # NaN is the worst
                        row |= {"ratio": ratio, "case": case.name, "what": what}
                row["pass"] = row["ratio"] <= 1
                line.append(f"{layout} {row['ratio']:.2f} {'PASS' if row['pass'] else 'FAIL'}")
                yield row
            print(f"{op.ljust(16)}  {dtype.ljust(8)}  {'  '.join(line)}", flush=True)


def _worst(
    case: check.Case, impl: str, seed: int, dtype: str, layout: str, device: str
) -> tuple[float, str]:
    """Return the largest ratio of a case and where it is; infinity if it fails."""
    worst, where = 0.0, "value"
    options = dict(dtype=getattr(torch, dtype), layout=layout, device=device, seed=seed)
    try:
        for e in check.errors(case, impl, **options):
            if not e.ratio <= worst:
                worst, where = e.ratio, e.what
            if e.ratio != e.ratio:
                break
    except Exception as error:  # whatever it is, the others are still checked
        return float("inf"), _reason(error)
    return worst, where


def _others(impl: str, seed: int, args: argparse.Namespace) -> Iterator[dict]:
    """Yield what the cases of the benchmark give, whose parameters all live on the device."""
    tests: list[Callable[..., bool]] = [repeated]
    if args.device == "cuda":
        tests += [on_stream, in_graph]
    layouts = [some for some in args.layout if some != "strided"]
    for test, size in [(test, _SIZE) for test in tests] + [(zero_size, (0, *_SIZE[1:]))]:
        cases = [c for op, make in OPS.items() if op in (args.op or OPS) for c in make(*size)]
        some = []
        for case, dtype, layout in product(cases, args.dtype, layouts):
            inputs = case.inputs(getattr(torch, dtype), layout, args.device, seed)
            verdict = _verdict(test, case, inputs, impl)
            if verdict is not None:
                some.append({"op": case.op, "dtype": dtype, "layout": layout} | verdict)
        yield from some
        print(f"{test.__name__}: {sum(r['pass'] for r in some)} of {len(some)} pass", flush=True)
    if args.device == "cuda" and not args.quick:
        yield from _large_rows(impl)


def _verdict(test: Callable[..., bool], case: Bench, *rest: object) -> dict | None:
    """Return whether it passes; None where the operator has no kernel."""
    try:
        return {"test": test.__name__, "pass": test(case, *rest)}
    except Exception as error:  # whatever it is, the others are still checked
        if isinstance(error, ValueError) and str(error).startswith("impl="):
            return None
        return {"test": test.__name__, "pass": False, "error": _reason(error)}


def derivatives(case: Bench, inputs: list[Tensor], impl: str) -> list[Tensor]:
    """Return the value and the gradients of half its sum of squares."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = case.call(leaves, impl)
    grads = torch.autograd.grad(y, leaves, y.detach().clone(), allow_unused=True)
    return [y.detach(), *(g for g in grads if g is not None)]


def repeated(case: Bench, inputs: list[Tensor], impl: str) -> bool:
    """Say whether the same call gives the same bits again."""
    return _same(*(derivatives(case, inputs, impl) for _ in range(2)))


def zero_size(case: Bench, inputs: list[Tensor], impl: str) -> bool:
    """Say whether a batch of no images gives what the reference gives."""
    return _same(derivatives(case, inputs, impl), derivatives(case, inputs, "ref"))


def on_stream(case: Bench, inputs: list[Tensor], impl: str) -> bool:
    """Say whether another stream than the default one gives the same bits."""
    expected = derivatives(case, inputs, impl)
    late = [torch.full_like(x, float("nan")) for x in inputs]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # a kernel on the default stream would come too early
        for x, original in zip(late, inputs, strict=True):
            x.copy_(original)
        found = derivatives(case, late, impl)
    stream.synchronize()
    return _same(found, expected)


def in_graph(case: Bench, inputs: list[Tensor], impl: str) -> bool:
    """Say whether a CUDA graph, replayed on new inputs, gives the bits of an eager call."""
    held = [x.clone() for x in inputs]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            derivatives(case, held, impl)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        found = derivatives(case, held, impl)
    for x in held:
        x.copy_(torch.randn_like(x))
    graph.replay()
    torch.cuda.synchronize()
    return _same(found, derivatives(case, held, impl))


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def _large_rows(impl: str) -> Iterator[dict]:
    free, _ = torch.cuda.mem_get_info()
    for case in huge():
        row = {"op": case.op, "test": "large", "dtype": "bfloat16"}
        if free < 40e9:
            print(f"large {case.op}: not run, it takes 40 GB of free memory")
            continue
        try:
            row["pass"] = large(case, impl)
        except (RuntimeError, ValueError) as error:
            row |= {"pass": False, "error": _reason(error)}
        torch.cuda.empty_cache()
        print(f"large {case.op}: {'PASS' if row['pass'] else 'FAIL'}", flush=True)
        yield row


def large(
    case: Bench,
    impl: str,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
) -> bool:
    """Say whether the first and the last image of a huge batch come out as they do alone."""
    inputs = case.inputs(dtype, "channels_last", device, 0)
    x, rest = inputs[0].requires_grad_(), inputs[1:]
    y = case.call([x, *rest], impl)
    (g,) = torch.autograd.grad(y, x, y.detach())
    for index in (slice(0, 1), slice(-1, None)):
        alone = x.detach()[index].clone(memory_format=torch.preserve_format).requires_grad_()
        own = [t[index] if t.ndim > 1 and t.shape[0] == x.shape[0] else t for t in rest]
        expected = case.call([alone, *own], impl)
        (gradient,) = torch.autograd.grad(expected, alone, expected.detach())
        if not (torch.equal(y[index], expected) and torch.equal(g[index], gradient)):
            return False
    return True
