#include "model/common.h"
#include "model/families.h"

namespace contexture {

/// Phi-3 (arXiv:2404.14219): Llama whose files join Q, K and V in one matrix, gate and up in another (weights.cc takes
/// them apart), with a window, and in its long versions with LongRoPE's divisors.
ModelConfig configure_phi3(const Metadata& metadata) {
  const FamilyKeys keys(metadata);
  ModelConfig c = common_config(keys, RopeStyle::halves);
  c.ropes[0].magnitude = keys.factor("rope.scaling.attn_factor", 1);
  if (!keys.has("rope.scaling.original_context_length")) c.ropes[0].original_context = static_cast<double>(c.context);
  set_windows(c, window_of(keys), [](size_t) { return true; });
  return c;
}

}  // namespace contexture
