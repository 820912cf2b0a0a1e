#include "model/common.h"
#include "model/families.h"

namespace contexture {

/// Mistral 7B v0.1 (arXiv:2310.06825) adds a window, which GGUF files do not name: our readers do. Mixtral
/// (arXiv:2401.04088) adds experts.
ModelConfig configure_llama(const FamilyKeys& keys) {
  ModelConfig c = common_config(keys, RopeStyle::interleaved);
  set_windows(keys, c, /*window=*/0, /*pattern=*/0);
  return c;
}

}  // namespace contexture
