// CUDA's execution model on one CPU thread, for testing the kernels without a GPU.
//
// A block's threads are fibers that run in turn and hand over at barriers and warp exchanges;
// blocks run one after the other, so __shared__ is plain static memory. Values are those of the
// GPU up to rounding; alignment and speed are not seen. With `reversed` blocks and threads run in
// the opposite order: a kernel that lacks a barrier, or whose blocks meet, then gives another result.
#pragma once
#include <math.h>  // the float overloads without std::, as in CUDA
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) alignas(n)
#define __constant__ static
#define __grid_constant__

using std::max;
using std::min;

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

// -- half precision: storage with conversions, as the kernels use it ------------------------------

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 v) {
  const uint32_t bits = uint32_t(v.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (f != f) return {0x7fff};
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
struct __half {
  uint16_t bits;
};
inline float __half2float(__half v) {
  const int exponent = v.bits >> 10 & 31, mantissa = v.bits & 1023;
  const float sign = v.bits >> 15 ? -1.f : 1.f;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024.f + mantissa, exponent - 25)
                          : std::ldexp(float(mantissa), -24));
}
inline __half __float2half_rn(float f) {
  const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
  if (f != f) return {0x7fff};
  const float a = std::fabs(f);
  if (a >= 65520.f) return {uint16_t(sign | 0x7c00)};
  if (a < 6.103515625e-05f)  // subnormal: a whole number of 2^-24 (nearest, ties to even)
    return {uint16_t(sign | uint16_t(std::nearbyint(std::ldexp(a, 24))))};
  int exponent;
  const float fraction = std::frexp(a, &exponent);  // [0.5, 1)
  const int mantissa = int(std::nearbyint(std::ldexp(fraction, 11)));  // [1024, 2048]
  return {uint16_t(sign | ((exponent + 14 - 1) << 10) + mantissa)};
}

// -- runtime --------------------------------------------------------------------------------------

typedef void* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t e) { return e ? "invalid value" : "no error"; }
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class F>
cudaError_t cudaFuncSetAttribute(F*, cudaFuncAttribute, int) { return cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = 99 * 1024, cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}

namespace emulator {

constexpr int WARP = 32;
constexpr size_t STACK = 1 << 17;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  bool done;
  uint64_t mail;  // what this thread shows to its warp
};

struct Machine {
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  std::function<void()> body;
  dim3 grid, block;
  uint3 block_at, thread_at;
  int current, count;
  std::vector<char> shared;
  bool reversed = false;
};
inline Machine machine;

inline void entry() {
  machine.body();
  machine.fibers[machine.current].done = true;
}

// Hands over to the next thread; comes back when all others have come this far or ended.
inline void barrier() {
  Fiber& self = machine.fibers[machine.current];
  swapcontext(&self.context, &machine.scheduler);
}

inline void run_block() {
  const dim3 b = machine.block;
  machine.count = int(b.x * b.y * b.z);
  if (int(machine.fibers.size()) < machine.count) machine.fibers.resize(machine.count);
  for (int i = 0; i < machine.count; i++) {
    Fiber& f = machine.fibers[i];
    f.done = false;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = &machine.scheduler;
    makecontext(&f.context, reinterpret_cast<void (*)()>(entry), 0);
  }
  for (int left = machine.count; left > 0;)
    for (int turn = 0; turn < machine.count; turn++) {
      const int i = machine.reversed ? machine.count - 1 - turn : turn;
      if (machine.fibers[i].done) continue;
      machine.current = i;
      machine.thread_at = {unsigned(i) % b.x, unsigned(i) / b.x % b.y, unsigned(i) / (b.x * b.y)};
      swapcontext(&machine.scheduler, &machine.fibers[i].context);
      left -= machine.fibers[i].done;
    }
}

template <class Kernel, class... Args>
void launch(Kernel kernel, dim3 grid, dim3 block, size_t shared, Args... args) {
  if (!block.x || block.x * block.y * block.z > 1024 || grid.y > 65535 || grid.z > 65535) {
    std::fprintf(stderr, "emulator: impossible launch\n");
    std::abort();
  }
  machine.body = [=] { kernel(args...); };
  machine.grid = grid;
  machine.block = block;
  machine.shared.assign(shared + 16, char(0xff));  // a NaN in every type, like fresh memory
  const int64_t blocks = int64_t(grid.x) * grid.y * grid.z;
  for (int64_t turn = 0; turn < blocks; turn++) {
    const int64_t i = machine.reversed ? blocks - 1 - turn : turn;
    machine.block_at = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y),
                        unsigned(i / grid.x / grid.y)};
    run_block();
  }
}

template <class T>
T exchange(T value, int lane_from) {
  static_assert(sizeof(T) <= 8, "a warp exchanges at most 8 bytes");
  const int self = machine.current;
  std::memcpy(&machine.fibers[self].mail, &value, sizeof(T));
  barrier();
  const int from = self / WARP * WARP + lane_from;
  T got = value;
  if (lane_from >= 0 && lane_from < WARP && from < machine.count)
    std::memcpy(&got, &machine.fibers[from].mail, sizeof(T));
  machine.current = self;
  barrier();
  return got;
}

}  // namespace emulator

#define gridDim (emulator::machine.grid)
#define blockDim (emulator::machine.block)
#define blockIdx (emulator::machine.block_at)
#define threadIdx (emulator::machine.thread_at)
#define warpSize 32
#define LAUNCH(kernel, grid, block, shared, stream, ...) \
  emulator::launch(kernel, grid, block, shared, __VA_ARGS__)
#define DYNAMIC_SHARED(type, name)                                                    \
  type* name = reinterpret_cast<type*>(                                               \
      (reinterpret_cast<uintptr_t>(emulator::machine.shared.data()) + 15) / 16 * 16)

inline void __syncthreads() { emulator::barrier(); }
inline void __syncwarp(unsigned = ~0u) { emulator::barrier(); }
template <class T>
T __shfl_sync(unsigned, T v, int lane) { return emulator::exchange(v, lane & 31); }
template <class T>
T __shfl_xor_sync(unsigned, T v, int mask) {
  return emulator::exchange(v, (emulator::machine.current & 31) ^ mask);
}
template <class T>
T __shfl_down_sync(unsigned, T v, unsigned by) {
  return emulator::exchange(v, (emulator::machine.current & 31) + int(by));
}
template <class T>
T __ldg(const T* p) { return *p; }
template <class T>
T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
inline unsigned atomicOr(unsigned* p, unsigned v) { unsigned old = *p; *p |= v; return old; }
inline float __expf(float v) { return std::exp(v); }
inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
inline float __fdividef(float a, float b) { return a / b; }
