#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "launch.h"

namespace bre::cuda {

void check(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error of a launch would be reported again by the next one
  std::string path(file);
  const auto root = path.rfind("csrc");
  if (root != std::string::npos) path.erase(0, root);
  throw std::runtime_error(std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error) + " (" + path + ":" +
                           std::to_string(line) + ": " + call + ")");
}

DeviceScope::DeviceScope(int device) : device_(device) {
  BRE_CHECK(cudaGetDevice(&before_));
  if (device_ != before_) BRE_CHECK(cudaSetDevice(device_));
}

DeviceScope::~DeviceScope() {
  if (device_ != before_) cudaSetDevice(before_);
}

int device_count() {
  int count = 0;
  BRE_CHECK(cudaGetDeviceCount(&count));
  return count;
}

int capability(int device) {
  int major = 0, minor = 0;
  BRE_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  BRE_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return 10 * major + minor;
}

}  // namespace bre::cuda
