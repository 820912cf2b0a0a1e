// Any bytes as a checkpoint of torch.save: it opens or it throws Error. Every tensor that can be presented is read at
// both ends; then the whole is taken for a Llama.

#include <cstdint>

#include "base/error.h"
#include "files/meta.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace contexture;
  volatile std::byte sink{};
  try {
    const TorchCheckpoint checkpoint(std::as_bytes(std::span(data, size)), "fuzz.pth");
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      try {
        const StoredTensor stored = checkpoint.stored(name, name);
        sink = stored.data.front() | stored.data.back();
      } catch (const Error&) {
      }
    }
    ModelFile model;
    read_meta(checkpoint, checkpoint.arguments(), model);
    for (const StoredTensor& tensor : model.tensors) sink = tensor.data.front() | tensor.data.back();
  } catch (const Error&) {
  }
  (void)sink;
  return 0;
}
