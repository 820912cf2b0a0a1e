// Any bytes as a llama2.c model: it opens or it throws Error. What opened is read: every tensor at both ends, which
// must have as many bytes as its shape says.

#include <cstdint>

#include "base/error.h"
#include "files/llama2c.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace contexture;
  try {
    const ModelFile model = read_llama2c(std::as_bytes(std::span(data, size)), "fuzz.bin");
    volatile std::byte sink;
    for (const StoredTensor& tensor : model.tensors) {
      sink = tensor.data.front();
      sink = tensor.data.back();
      size_t bytes = sizeof(float);
      for (const int64_t dimension : tensor.shape) bytes *= static_cast<size_t>(dimension);
      if (bytes != tensor.data.size()) __builtin_trap();
    }
    (void)sink;
  } catch (const Error&) {
  }
  return 0;
}
