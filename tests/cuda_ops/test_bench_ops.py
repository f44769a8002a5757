"""The operators' benchmark runs without a GPU, counts what it says, and its check can fail."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from cuda_ops import bench, bench_cases, bench_check, check
from cuda_ops.compile import cpu_kernels

CASES = [case for make in bench_cases.OPS.values() for case in make(4, 8, 16)]
kernels = pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.op)
def test_a_case_runs_in_every_pass(case: bench_cases.Bench) -> None:
    sets = [case.inputs(torch.float32, "channels_last", "cpu", seed) for seed in range(2)]
    for step in case.passes:
        bench.work(case, step, "ref", sets, "cpu")()


def _literal_bytes() -> dict[tuple[str, str], int]:
    """Bytes by hand in float32 of [4, 8, 16, 16]: images 32768, a quarter of them 8192."""
    x, quarter, b, scale, noise = 32768, 8192, 32, 128, 4096
    return {
        ("bias_act lrelu", "forward"): x + b + x,
        ("bias_act lrelu", "backward"): x + x + x + b,  # g and x; dx and db
        ("upfirdn2d up 2", "forward"): quarter + x,
        ("upfirdn2d up 2", "backward"): x + quarter,
        ("upfirdn2d down 2", "forward"): x + quarter,
        ("upfirdn2d down 2", "backward"): quarter + x,
        ("scale_act tail", "forward"): x + scale + noise + b + x,
        ("scale_act tail", "backward"): x + 2 * (x + scale + noise + b),
    }


def test_bytes_are_those_counted_by_hand() -> None:
    found = {}
    for case in CASES:
        inputs = case.inputs(torch.float32, "contiguous", "cpu", 0)
        output = case.call(inputs, "ref")
        found |= {(case.op, step): case.bytes(step, inputs, output) for step in case.passes}
    assert {k: found[k] for k in _literal_bytes()} == _literal_bytes()


def test_parameters_stay_float32_under_half_precision() -> None:
    (case,) = bench_cases.OPS["scale_act"](2, 8, 8)
    dtypes = [x.dtype for x in case.inputs(torch.bfloat16, "channels_last", "cpu", 0)]
    assert dtypes == [torch.bfloat16] + [torch.float32] * 3


def test_huge_cases_have_more_elements_than_int32_counts() -> None:
    for case in bench_cases.huge():
        sizes = [torch.Size(s).numel() for s in case.shapes]
        assert max(sizes) * (4 if "up 2" in case.op else 1) > 2**31


def test_works_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_seconds", lambda work, repeat, device: work())
    fast, slow = iter([9.0, 9.0, 1.0, 5.0, 1.0, 2.0]), iter([9.0, 9.0, 1.0, 7.0, 3.0, 3.0])
    works = {"fast": lambda: next(fast), "slow": lambda: next(slow)}
    assert bench.in_turn(works, "cpu", rounds=3, enough=0.1) == {"fast": 2.0, "slow": 3.0}


@pytest.mark.parametrize(
    ("device", "dtype", "of_copy", "x_compiled", "missed"),
    [
        ("cuda", "bfloat16", 0.9, 1.2, ""),
        ("cuda", "bfloat16", 0.8, 1.2, "of_copy"),
        ("cuda", "bfloat16", 0.9, 0.9, "x_compiled"),
        ("cuda", "float32", 0.8, 1.2, ""),  # the share of bandwidth is asked for in bf16
        ("cpu", "float32", 0.1, 0.1, "x_ref"),
    ],
)
def test_goals(device: str, dtype: str, of_copy: float, x_compiled: float, missed: str) -> None:
    row = {"dtype": dtype, "of_copy": of_copy, "x_compiled": x_compiled, "x_ref": 1.2}
    goal = bench._goal(CASES[0], row, device)
    assert goal.endswith(f"missed {missed}" if missed else ": met")


@kernels
def test_the_table_has_every_operator(tmp_path, capsys) -> None:
    out = tmp_path / "rows.json"
    bench.main(["--device", "cpu", "--quick", "--no-compile", "--out", str(out)])
    result = json.loads(out.read_text())
    rows = result["rows"][1:]
    assert {r["op"] for r in rows} == {case.op for case in CASES}
    for row in rows:  # filtered_lrelu has no kernel on the CPU
        failed = "error" in row and not row["op"].startswith("filtered_lrelu")
        assert not failed, row
        assert "error" in row or (row["us"] > 0 and row["x_ref"] > 0 and row["of_copy"] > 0)
    assert "bias_act lrelu" in capsys.readouterr().out
    assert result["torch"] == torch.__version__


@kernels
def test_the_check_passes_and_says_how_to_look_for_memory_errors(capsys) -> None:
    bench.main(["--check", "--device", "cpu", "--quick", "--op", "scale_act", "--seed", "1"])
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert "compute-sanitizer --tool memcheck" in out


def _wrong_value(x: torch.Tensor, impl: str) -> torch.Tensor:
    return x * 2 + 1e-3 * (impl != "ref")


def _wrong_gradient(x: torch.Tensor, impl: str) -> torch.Tensor:
    return x * 2 if impl == "ref" else x + x.detach()


def _unwritten(x: torch.Tensor, impl: str) -> torch.Tensor:
    return x * 2 if impl == "ref" else x * 2 + torch.empty_like(x)


_WRONG = [_wrong_value, _wrong_gradient, _unwritten]


@pytest.mark.parametrize("function", _WRONG, ids=lambda f: f.__name__)
def test_the_check_fails_on_a_wrong_kernel(function, monkeypatch, capsys) -> None:
    case = check.Case("wrong", lambda i, impl: function(i[0], impl), ((2, 3),), ("cpu", "cuda"))
    monkeypatch.setattr(check, "CASES", (case,))
    with pytest.raises(SystemExit) as ended:
        bench.main(["--check", "--device", "cpu", "--quick"])
    assert ended.value.code == 1
    assert "FAIL" in capsys.readouterr().out


def test_unequal_repetition_is_found() -> None:
    inputs = [torch.randn(2, 3)]
    random = CASES[0]._replace(call=lambda i, impl: i[0] + torch.rand(3))
    assert bench_check._verdict(bench_check.repeated, random, inputs, "ref")["pass"] is False


def test_a_crash_on_a_batch_of_nothing_is_found_and_no_kernel_is_no_failure() -> None:
    inputs = [torch.randn(0, 3)]
    mean = CASES[0]._replace(call=lambda i, impl: i[0] / (1 / i[0].shape[0]))
    verdict = bench_check._verdict(bench_check.zero_size, mean, inputs, "ref")
    assert verdict == {"test": "zero_size", "pass": False, "error": "division by zero"}
    inputs = CASES[0].inputs(torch.float32, "contiguous", "cpu", 0)
    assert bench_check._verdict(bench_check.repeated, CASES[0], inputs, "cuda") is None


@pytest.mark.parametrize("case", CASES[:3], ids=lambda c: c.op)
def test_a_large_batch_is_held_against_its_ends(case: bench_cases.Bench) -> None:
    assert bench_check.large(case, "ref", "cpu", torch.float64)
    late = case._replace(call=lambda i, impl: _without_last(case.call(i, impl)))
    assert not bench_check.large(late, "ref", "cpu", torch.float64)


def _without_last(y: torch.Tensor) -> torch.Tensor:
    return y if y.shape[0] == 1 else torch.cat([y[:-1], 0 * y[-1:]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--op", "nothing"], "choose from bias_act"),
        (["--layout", "strided"], "--check"),
        (["--dtype", "int8"], "invalid choice"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(["--device", "cpu", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named(capsys) -> None:
    with pytest.raises(SystemExit):
        bench.main([])
    assert "try --device cpu" in capsys.readouterr().err


def test_arguments_have_defaults_for_the_device() -> None:
    args = bench._arguments(["--device", "cpu"])
    assert isinstance(args, argparse.Namespace)
    assert tuple(args.dtype) == ("float32",)
