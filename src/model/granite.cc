#include "model/common.h"
#include "model/families.h"

namespace contexture {

/// Granite 3: Llama with four factors of its training (muP, arXiv:2203.03466): of the embedding, of what each block
/// adds, of the scores (attention.scale, read for every family) and of the logits, which are divided by theirs.
ModelConfig configure_granite(const FamilyKeys& keys) {
  ModelConfig c = common_config(keys, RopeStyle::interleaved);
  c.embedding_scale = keys.factor("embedding_scale", 1);
  c.residual_scale = keys.factor("residual_scale", 1);
  c.logit_scale = 1 / keys.factor("logit_scale", 1);
  // Its GGUF files turn rotation off with this key (models without positions), and on by leaving it out.
  if (!keys.flag("rope.scaling.finetuned", true)) {
    for (LayerConfig& layer : c.each_layer) layer.rope = LayerConfig::no_rope;
  }
  return c;
}

}  // namespace contexture
