#include "model/common.h"
#include "model/families.h"

namespace contexture {

/// Qwen 2 and 2.5 (arXiv:2407.10671): Llama with biases of Q, K and V.
ModelConfig configure_qwen2(const FamilyKeys& keys) {
  ModelConfig c = common_config(keys, RopeStyle::halves);
  c.qkv_bias = true;
  return c;
}

/// Qwen 3 (arXiv:2505.09388): no biases, but norms of the query and key heads. Its experts' weights are normalised over
/// those chosen, as Mixtral's are.
ModelConfig configure_qwen3(const FamilyKeys& keys) {
  ModelConfig c = common_config(keys, RopeStyle::halves);
  c.head_norms = true;
  return c;
}

}  // namespace contexture
