// Any bytes as a safetensors file: it opens or it throws Error. What opened is read: every tensor at both ends, and
// those that become weights as their shape says.

#include <cstdint>

#include "base/error.h"
#include "files/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace contexture;
  const auto bytes = std::as_bytes(std::span(data, size));
  volatile std::byte sink{};
  try {
    for (const auto& [name, tensor] : read_safetensors(bytes, "fuzz.safetensors")) {
      if (!tensor.data.empty()) sink = tensor.data.front() | tensor.data.back();
      try {
        const StoredTensor stored = to_stored(tensor, name, "fuzz");
        size_t expected = info(stored.format).block_bytes;
        for (const int64_t dimension : stored.shape) expected *= static_cast<size_t>(dimension);
        if (expected != stored.data.size()) __builtin_trap();
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
  (void)sink;
  return 0;
}
