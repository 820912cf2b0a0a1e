// Any bytes as a GGUF file: it opens or it throws Error. What opened is read: every key by every getter, the
// configuration of a model, and every tensor at both ends.

#include <cstdint>

#include "base/error.h"
#include "files/gguf.h"
#include "model/weights.h"

namespace {

using namespace contexture;

/// A getter may refuse a key; nothing else may happen.
template <typename Get>
void try_to(Get get) {
  try {
    (void)get();
  } catch (const Error&) {
  }
}

void read_all(const Metadata& metadata) {
  for (const auto& [key, value] : metadata.entries()) {
    const std::string_view k = key;
    try_to([&] { return metadata.get_int(k, 0, 1000); });
    try_to([&] { return metadata.get_int(k, INT64_MIN, INT64_MAX, 0); });
    try_to([&] { return metadata.get_one_or_each(k, 0, 1000).size(); });
    try_to([&] { return metadata.get_float(k); });
    try_to([&] { return metadata.get_float(k, 1.0); });
    try_to([&] { return metadata.get_bool(k, false); });
    try_to([&] { return metadata.get_string(k); });
    try_to([&] { return metadata.get_string(k, ""); });
    try_to([&] { return metadata.get_strings(k).size(); });
    try_to([&] { return metadata.get_ints(k).size(); });
    try_to([&] { return metadata.get_floats(k).size(); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const ModelFile model = read_gguf(std::as_bytes(std::span(data, size)), "fuzz.gguf");
    read_all(model.metadata);
    try_to([&] {
      ModelConfig config = read_config(model.metadata);
      return check_weights(model, config).total();
    });
    volatile std::byte sink;
    for (const StoredTensor& tensor : model.tensors) {
      sink = tensor.data.front();
      sink = tensor.data.back();
      if (model.find(tensor.name) != &tensor) __builtin_trap();
    }
    (void)sink;
  } catch (const Error&) {
  }
  return 0;
}
