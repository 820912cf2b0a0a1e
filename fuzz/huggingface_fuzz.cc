// Any text as config.json, as generation_config.json and as tokenizer_config.json, and every string in it as the name
// of a tensor: it becomes metadata, and a plan of weights that are not there, or it throws Error.

#include <cstdint>

#include "base/error.h"
#include "base/json.h"
#include "files/huggingface.h"
#include "files/huggingface_family.h"
#include "model/weights.h"

namespace {

using namespace contexture;

template <typename Work>
void try_to(Work work) {
  try {
    work();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try_to([&] {
    const JsonObject object(parse_json({reinterpret_cast<const char*>(data), size}, "fuzz"), "fuzz");
    ModelFile model;
    try_to([&] {
      read_huggingface_config(object, model);
      model.absent = AbsentWeights{Format::bf16, {}, "fuzz"};
      ModelConfig config = read_config(model.metadata);
      (void)check_weights(model, config);
    });
    try_to([&] { read_huggingface_tokens(object, object, model.metadata); });
    try_to([&] { read_huggingface_tokenizer_config(object, model.metadata); });
    const HuggingFaceFamily& family = huggingface_family(object);
    for (const auto& item : object.value().items()) {
      try_to([&] { (void)gguf_tensor_name(family, item.key(), size % 2 != 0, "fuzz"); });
    }
    for (const StoredTensor& tensor : model.tensors) {
      if (tensor.data.size() != static_cast<size_t>(tensor.shape[0]) * sizeof(float)) __builtin_trap();
    }
  });
  return 0;
}
