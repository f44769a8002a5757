"""The emulator of csrc/emulator.h against torch's conversions and literal formulas."""

from __future__ import annotations

import ctypes
import shutil

import pytest
import torch
from torch import Tensor

from cuda_ops import compile as building

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
KERNELS = r"""
#include "device.cuh"

// Mathematics of a float is done in float, as on a GPU: not more exactly.
static_assert(sizeof(expm1(1.f)) == 4 && sizeof(tanh(1.f)) == 4 && sizeof(floor(1.f)) == 4);

template <class T>
__global__ void convert(const uint16_t* in, float* wide, const float* from, uint16_t* bits, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n && in) {
    T value;
    std::memcpy(&value, &in[i], 2);
    wide[i] = widen(value);
  }
  if (i < n && from) {
    const T value = narrow<T>(from[i]);
    std::memcpy(&bits[i], &value, 2);
  }
}
extern "C" int conversions(const uint16_t* in, float* wide, const float* from, uint16_t* bits,
                           int n, int dtype) {
  const int64_t blocks = ceil_div(n, 256);
  if (dtype == FP16) LAUNCH(convert<__half>, blocks, 256, 0, nullptr, in, wide, from, bits, n);
  if (dtype == BF16)
    LAUNCH(convert<__nv_bfloat16>, blocks, 256, 0, nullptr, in, wide, from, bits, n);
  return launched();
}

// Sums of a block over a tree in shared memory: wrong if a barrier does not hold all threads.
__global__ void sum(const double* in, double* out) {
  DYNAMIC_SHARED(double, part);
  const int i = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int count = blockDim.x * blockDim.y * blockDim.z;
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  part[i] = in[block * count + i];
  for (int width = count / 2; width; width /= 2) {
    __syncthreads();
    if (i < width) part[i] += part[i + width];
  }
  __syncthreads();
  out[block * count + i] = part[0];
}
extern "C" int sums(const double* in, double* out) {
  LAUNCH(sum, dim3(3, 2, 2), dim3(8, 4, 2), 64 * sizeof(double), nullptr, in, out);
  return launched();
}

// What every thread gets from its warp, in 64, 32 and 16 bits.
template <class T>
__global__ void shuffle(const T* in, T* out, int n) {
  const int i = threadIdx.x;
  const T v = in[i];
  out[i] = __shfl_sync(~0u, v, 5);
  out[n + i] = __shfl_xor_sync(~0u, v, 12);
  out[2 * n + i] = __shfl_down_sync(~0u, v, 7);
  T sum = v;
  for (int by = 16; by; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
  out[3 * n + i] = sum;
}
extern "C" int shuffles(const void* in, void* out, int n, int bytes) {
  if (bytes == 8) LAUNCH(shuffle<int64_t>, 1, n, 0, nullptr, (const int64_t*)in, (int64_t*)out, n);
  if (bytes == 4) LAUNCH(shuffle<int>, 1, n, 0, nullptr, (const int*)in, (int*)out, n);
  return launched();
}

__global__ void fresh(float* out) {
  DYNAMIC_SHARED(float, memory);
  out[threadIdx.x] = memory[threadIdx.x];
}
extern "C" int fresh_shared(float* out) {
  LAUNCH(fresh, 1, 32, 32 * sizeof(float), nullptr, out);
  return launched();
}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("emulator")
    shutil.copytree(building.SOURCES, folder / "csrc", ignore=lambda *_: ["__pycache__"])
    for path in (folder / "csrc").glob("*.c*"):
        if path.suffix in (".cu", ".cpp"):
            path.unlink()
    (folder / "csrc" / "probe.cu").write_text(KERNELS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "SOURCES", folder / "csrc")
        patch.setenv("STYLEGAN_TL_KERNELS", str(folder / "kernels"))
        return ctypes.CDLL(str(building.build("emulated").path))


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _every_value() -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)


def _floats() -> Tensor:
    """Values that round in every way: all halves and bfloat16s, their neighbours and midpoints."""
    halves = _every_value().view(torch.float16).float()
    exact = torch.cat([halves, _every_value().view(torch.bfloat16).float()]).nan_to_num(0.0)
    bits = exact.view(torch.int32)
    near = [bits + by for by in (0, 1, -1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001)]
    generator = torch.Generator().manual_seed(0)
    anything = torch.randint(-(2**31), 2**31, (200_000,), generator=generator).to(torch.int32)
    values = torch.cat([*near, anything]).view(torch.float32)
    mantissa = (1024.5 + torch.arange(0, 1024)) / 1024  # midpoints of halves: ties
    ties = torch.cat([mantissa * 2.0**e for e in range(-26, 16)])
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 65504, 65519.996, 65520])
    return torch.cat([values, ties, -ties, special])


@pytest.mark.parametrize(("dtype", "code"), [(torch.float16, 2), (torch.bfloat16, 3)], ids=str)
def test_widening_every_value(kernels: ctypes.CDLL, dtype: torch.dtype, code: int) -> None:
    bits = _every_value()
    wide = torch.empty(len(bits))
    assert kernels.conversions(_at(bits), _at(wide), None, None, len(bits), code) == 0
    expected = bits.view(dtype).float()
    assert torch.equal(wide.isnan(), expected.isnan())
    whole = ~expected.isnan()
    assert torch.equal(wide[whole].view(torch.int32), expected[whole].view(torch.int32))


@pytest.mark.parametrize(("dtype", "code"), [(torch.float16, 2), (torch.bfloat16, 3)], ids=str)
def test_narrowing(kernels: ctypes.CDLL, dtype: torch.dtype, code: int) -> None:
    x = _floats()
    bits = torch.empty(len(x), dtype=torch.int16)
    assert kernels.conversions(None, None, _at(x), _at(bits), len(x), code) == 0
    expected = x.to(dtype)
    assert torch.equal(bits.view(dtype).isnan(), expected.isnan())
    whole = ~expected.isnan()
    assert torch.equal(bits[whole], expected[whole].view(torch.int16))
    assert whole.sum() > 1_000_000


def test_barriers_and_indices(kernels: ctypes.CDLL) -> None:
    x = torch.rand(12, 64, dtype=torch.float64)
    out = torch.empty_like(x)
    assert kernels.sums(_at(x), _at(out)) == 0
    torch.testing.assert_close(out, x.sum(1, keepdim=True).expand(12, 64))


@pytest.mark.parametrize("threads", [32, 96])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_shuffles(kernels: ctypes.CDLL, dtype: torch.dtype, threads: int) -> None:
    x = torch.arange(threads).to(dtype) * 1_000_003 + 17
    out = torch.empty(4, threads, dtype=dtype)
    assert kernels.shuffles(_at(x), _at(out), threads, x.element_size()) == 0
    thread = torch.arange(threads)
    warp, lane = thread // 32 * 32, thread % 32
    from_lanes = (5 + 0 * lane, lane ^ 12, torch.where(lane + 7 < 32, lane + 7, lane))
    for got, source in zip(out, from_lanes, strict=False):
        assert torch.equal(got, x[warp + source])
    sums = x.reshape(-1, 32).sum(1, dtype=dtype).repeat_interleave(32)
    assert torch.equal(out[3], sums)


def test_fresh_shared_memory_is_nan(kernels: ctypes.CDLL) -> None:
    out = torch.zeros(32)
    assert kernels.fresh_shared(_at(out)) == 0
    assert out.isnan().all()
