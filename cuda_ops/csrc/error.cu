// What an error code says, and whether the driver takes these kernels, for compile.py.
#include "device.cuh"

__global__ void probe_kernel() {}

extern "C" const char* cuda_ops_error(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}

// Asks the driver for a kernel on the current device: an error if it is too old for the CUDA
// runtime linked here, or if no code for this GPU was built. Nothing is launched.
extern "C" int cuda_ops_probe() {
#ifndef CUDA_OPS_EMULATE
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();  // forget it
  return static_cast<int>(error);
#else
  return 0;
#endif
}
