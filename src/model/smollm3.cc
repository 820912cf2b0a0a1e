#include "model/common.h"
#include "model/families.h"

namespace contexture {

/// SmolLM 3: Llama, but every fourth layer knows no positions (NoPE, arXiv:2501.18795).
ModelConfig configure_smollm3(const FamilyKeys& keys) {
  ModelConfig c = common_config(keys, RopeStyle::interleaved);
  for (size_t layer = 3; layer < c.layers; layer += 4) c.each_layer[layer].rope = LayerConfig::no_rope;
  return c;
}

}  // namespace contexture
