// What an error code says, for the messages of _native.py; the emulator's order, for the tests.
#include "device.cuh"

extern "C" const char* cuda_ops_error(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}

#ifdef CUDA_OPS_EMULATE
extern "C" void emulator_reverse(int on) { emulator::machine.reversed = on; }
#endif
