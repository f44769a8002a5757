// What an error code says, for the messages of _native.py.
#include "device.cuh"

extern "C" const char* cuda_ops_error(int code) {
  return cudaGetErrorString(static_cast<cudaError_t>(code));
}
