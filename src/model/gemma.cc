#include <cmath>

#include "model/common.h"
#include "model/families.h"

namespace contexture {
namespace {

/// What all of them share: GELU, and an embedding scaled by sqrt(dim). Their norms multiply by 1 + weight; files in
/// GGUF's vocabulary hold the sum.
ModelConfig gemma(const FamilyKeys& keys) {
  ModelConfig c = common_config(keys, RopeStyle::halves);
  c.gate = ModelConfig::Gate::gelu;
  c.embedding_scale = std::sqrt(static_cast<float>(c.dim));
  return c;
}

/// The 27B models alone scale scores by the width of all heads' share of the hidden state; GGUF files do not say it.
void set_27b_scale(const FamilyKeys& keys, size_t layers_of_27b, ModelConfig& c) {
  if (c.layers != layers_of_27b || keys.has("attention.scale")) return;
  c.attention_scale = 1 / std::sqrt(static_cast<float>(c.dim) / static_cast<float>(c.heads));
}

float softcap(const FamilyKeys& keys, const char* key, double usual) {
  return keys.number(key, usual) == 0 ? 0 : keys.factor(key, usual);
}

}  // namespace

/// arXiv:2403.08295.
ModelConfig configure_gemma(const FamilyKeys& keys) {
  return gemma(keys);
}

/// arXiv:2408.00118: norms after the blocks too, soft-caps, a window in every other layer.
ModelConfig configure_gemma2(const FamilyKeys& keys) {
  ModelConfig c = gemma(keys);
  c.post_norms = true;
  c.attention_softcap = softcap(keys, "attn_logit_softcapping", 50);
  c.logit_softcap = softcap(keys, "final_logit_softcapping", 30);
  set_27b_scale(keys, 46, c);
  set_windows(keys, c, /*window=*/4096, /*pattern=*/2);
  return c;
}

/// arXiv:2503.19786: head norms instead of soft-caps; five layers with a window and a rotation of their own to one
/// without.
ModelConfig configure_gemma3(const FamilyKeys& keys) {
  ModelConfig c = gemma(keys);
  c.post_norms = true;
  c.head_norms = true;
  c.logit_softcap = softcap(keys, "final_logit_softcapping", 0);
  set_27b_scale(keys, 62, c);
  const std::vector<bool> is_local = set_windows(keys, c, /*window=*/1024, /*pattern=*/6);
  RopeConfig local = c.ropes[0];
  local.base = keys.factor("rope.freq_base_swa", 10000);
  local.scaling = RopeConfig::Scaling::none;
  c.ropes.push_back(local);
  for (size_t layer = 0; layer < c.layers; ++layer) c.each_layer[layer].rope = is_local[layer] ? 1 : 0;
  return c;
}

}  // namespace contexture
