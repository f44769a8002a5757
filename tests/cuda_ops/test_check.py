"""Every kernel within twice the reference's own error: on the CPU, and CUDA's emulated on it."""

from __future__ import annotations

import pytest
import torch

from cuda_ops import check
from cuda_ops.compile import cpu_kernels, emulated_kernels

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CPU = [c for c in check.CASES if "cpu" in c.kernels]
CUDA = [c for c in check.CASES if "cuda" in c.kernels]


def _hold(case: check.Case, impl: str, dtype: torch.dtype, layout: str) -> None:
    for error in check.errors(case, impl, dtype=dtype, layout=layout, device="cpu"):
        assert check.holds(error), error


@pytest.mark.skipif(cpu_kernels() is None, reason="kernels are off")
@pytest.mark.parametrize("layout", check.LAYOUTS)
@pytest.mark.parametrize("case", CPU, ids=lambda c: c.name)
def test_cpu(case: check.Case, layout: str) -> None:
    _hold(case, "cpu", torch.float32, layout)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("layout", check.LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CUDA, ids=lambda c: c.name)
def test_cuda_emulated(case: check.Case, dtype: torch.dtype, layout: str) -> None:
    _hold(case, "cuda", dtype, layout)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("layout", check.LAYOUTS[:2])
@pytest.mark.parametrize("case", CUDA, ids=lambda c: c.name)
def test_cuda_does_not_depend_on_the_order_of_threads(case: check.Case, layout: str) -> None:
    """A missing barrier, or blocks that meet, would show: threads run once backwards."""
    kernels, runs = emulated_kernels(), []
    for backwards in (0, 1):
        kernels.emulator_reverse(backwards)
        try:
            how = dict(dtype=torch.float32, layout=layout, device="cpu")
            runs.append(check.outputs(case, "cuda", **how))
        finally:
            kernels.emulator_reverse(0)
    for forward, backward in zip(*runs, strict=True):
        assert torch.equal(forward, backward)
