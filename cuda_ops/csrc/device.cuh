// What every CUDA kernel here builds on: element types, indices, launches. Free of torch headers.
//
// The same sources also compile for the CPU with -DCUDA_OPS_EMULATE (emulator.h), where each CUDA
// thread is a fiber: so the kernels can be run and tested on a machine without a GPU.
#pragma once
#include <cstdint>

#ifdef CUDA_OPS_EMULATE
#include "emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define LAUNCH(kernel, grid, block, shared, stream, ...) \
  kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#define DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

// The codes of element types, as in _native.py.
enum DType { FP32 = 0, FP64 = 1, FP16 = 2, BF16 = 3 };

// Arithmetic is in float, and in double for double.
template <class T>
struct Math {
  using type = float;
};
template <>
struct Math<double> {
  using type = double;
};
template <class T>
using math_t = typename Math<T>::type;

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T narrow(math_t<T> v) {
  return v;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

// N neighbouring elements, read and written with as few instructions as their size allows; the
// address must be a multiple of sizeof(Pack) (at most 16 bytes).
template <class T, int N>
struct alignas(sizeof(T) * N <= 16 ? sizeof(T) * N : 16) Pack {
  T at[N];
};

// Calls f.template operator()<T>() with the element type of a code.
template <class F>
inline int dispatch(int dtype, F f) {
  switch (dtype) {
    case FP32: return f(float{});
    case FP64: return f(double{});
    case FP16: return f(__half{});
    case BF16: return f(__nv_bfloat16{});
  }
  return static_cast<int>(cudaErrorInvalidValue);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The error of the launch just made, 0 if none.
inline int launched() { return static_cast<int>(cudaGetLastError()); }
