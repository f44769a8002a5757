from __future__ import annotations

import pytest

from cuda_ops.compile import emulated_kernels


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CUDA kernels serve CPU tensors; skips where no C++ compiler is."""
    monkeypatch.setenv("STYLEGAN_TL_KERNELS", "emulate")
    if emulated_kernels() is None:
        pytest.skip("the CUDA kernels cannot be compiled for the CPU here")
