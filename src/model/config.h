#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "files/metadata.h"
#include "kernels/attention.h"
#include "kernels/rope.h"

namespace contexture {

/// How positions turn into rotation.
struct RopeConfig {
  enum class Scaling : uint8_t {
    none,
    linear,  ///< positions divided by `factor` (arXiv:2306.15595)
    llama3,  ///< long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1)
  };
  RopeStyle style = RopeStyle::interleaved;
  size_t dim = 0;  // channels of a head that rotate; even
  double base = 10000;
  Scaling scaling = Scaling::none;
  double factor = 1;
  double low_frequency_factor = 1, high_frequency_factor = 4;  // llama3
  double original_context = 8192;                              // llama3, and the choice of LongRoPE's divisors
  double magnitude = 1;                                        // of cos and sin (LongRoPE, arXiv:2402.13753)
};

/// Radians a position for each pair of channels, (dim / 2). `divisors`: a model's own (rope_freqs.weight), or empty.
std::vector<double> rope_frequencies(const RopeConfig& rope, std::span<const float> divisors = {});

/// What may differ from layer to layer.
struct LayerConfig {
  static constexpr int no_rope = -1;
  int64_t window = 0;  // a token sees its own position and window - 1 before it; 0: all before it
  int rope = 0;        // place in ModelConfig::ropes, or no_rope
};

/// What a model is, whatever family it belongs to: the forward pass reads nothing else.
struct ModelConfig {
  std::string family;
  size_t layers = 0;
  size_t dim = 0;    // of the hidden state
  size_t heads = 0;  // query heads; a multiple of kv_heads
  size_t kv_heads = 0;
  size_t head_dim = 0;  // a multiple of 8
  size_t ffn_dim = 0;   // of an expert, where there are any
  size_t vocabulary = 0;
  size_t context = 0;  // tokens that the model was made for
  float norm_epsilon = 1e-5f;
  std::vector<RopeConfig> ropes;        // all with one dim and style
  std::vector<LayerConfig> each_layer;  // (layers)

  enum class Gate : uint8_t { silu, gelu };
  Gate gate = Gate::silu;       // of the feed-forward: gate(x · W_gate) · (x · W_up)
  bool qkv_bias = false;        // the file must hold them; where it does they are used by any family
  bool head_norms = false;      // RMSNorm of every query and key head, before rotation
  bool post_norms = false;      // RMSNorm of what attention and feed-forward add to the hidden state
  float embedding_scale = 1;    // of the hidden state at the start
  float residual_scale = 1;     // of what attention and feed-forward add
  float attention_scale = 0;    // of the scores
  float attention_softcap = 0;  // c: scores become c · tanh(score / c); 0: off
  float logit_scale = 1;        // of the logits
  float logit_softcap = 0;      // as attention_softcap, after logit_scale
  size_t experts = 0;           // 0: one dense feed-forward
  size_t experts_used = 0;      // by a token

  const RopeConfig& rope() const { return ropes.front(); }
  AttentionShape attention_shape(size_t layer = 0) const;
};

/// Reads the configuration of any known family (the list is in families.cc). Throws Error where the family is unknown
/// (it names itself) or a number is missing, absurd or contradicts another.
ModelConfig read_config(const Metadata& metadata);

}  // namespace contexture
