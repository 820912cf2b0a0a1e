#include "model/common.h"
#include "model/families.h"

namespace contexture {

/// Phi-3 (arXiv:2404.14219): Llama whose files join Q, K and V in one matrix, gate and up in another (weights.cc takes
/// them apart), with a window, and in its long versions with LongRoPE's divisors.
ModelConfig configure_phi3(const FamilyKeys& keys) {
  ModelConfig c = common_config(keys, RopeStyle::halves);
  if (!keys.has("rope.scaling.original_context_length")) c.ropes[0].original_context = static_cast<double>(c.context);
  set_windows(keys, c, /*window=*/0, /*pattern=*/0);
  return c;
}

}  // namespace contexture
