// What an error code says, for _native.py; whether the driver takes these kernels, for compile.py;
// the emulator's order, for the tests.
#include "device.cuh"

extern "C" const char* cuda_ops_error(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}

#ifdef CUDA_OPS_EMULATE
extern "C" void emulator_reverse(int on) { emulator::machine.reversed = on; }
#else
__global__ void probe_kernel() {}

// Asks the driver for a kernel on the current device: an error if it is too old for the CUDA
// runtime linked here, or if no code for this GPU was built. Nothing is launched.
extern "C" int cuda_ops_probe() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();  // forget it
  return static_cast<int>(error);
}
#endif
