#include "model/common.h"
#include "model/families.h"

namespace contexture {

/// Mistral 7B v0.1 (arXiv:2310.06825) adds a window, which GGUF files do not name: our readers do. Mixtral
/// (arXiv:2401.04088) adds experts.
ModelConfig configure_llama(const Metadata& metadata) {
  const FamilyKeys keys(metadata);
  ModelConfig c = common_config(keys, RopeStyle::interleaved);
  set_windows(c, window_of(keys), [](size_t) { return true; });
  return c;
}

}  // namespace contexture
