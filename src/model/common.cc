#include "model/common.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace contexture {
namespace {

// No known model comes near these; beyond them a number is damage and not a size.
constexpr int64_t max_width = 1 << 20, max_heads = 65536, max_tokens = int64_t{1} << 31;

/// What stretches the rotation over longer contexts. A factor without a type is linear, as the tools that write such
/// files mean it.
void read_scaling(const FamilyKeys& keys, RopeConfig& rope) {
  rope.original_context =
      static_cast<double>(keys.size("rope.scaling.original_context_length", 1, max_tokens, size_t{8192}));
  rope.magnitude = keys.factor("rope.scaling.attn_factor", 1);
  // Both names of the factor; 0 means that there is none.
  const double old_factor = keys.number("rope.scale_linear", 1), named = keys.number("rope.scaling.factor", old_factor);
  rope.factor = named != 0 ? named : 1;
  if (!(rope.factor > 0 && rope.factor < 1e6)) keys.refuse("rope.scaling.factor", "that cannot be");

  const std::string type = keys.text("rope.scaling.type", "linear");
  if (type == "linear") {
    if (rope.factor != 1) rope.scaling = RopeConfig::Scaling::linear;
  } else if (type == "llama3") {
    rope.scaling = RopeConfig::Scaling::llama3;
    rope.low_frequency_factor = keys.number("rope.scaling.low_freq_factor", 1);
    rope.high_frequency_factor = keys.number("rope.scaling.high_freq_factor", 4);
    if (!(rope.low_frequency_factor > 0 && rope.high_frequency_factor > rope.low_frequency_factor)) {
      fail("{}: low_freq_factor must be above 0 and below high_freq_factor", keys.full("rope.scaling"));
    }
  } else if (type == "longrope") {  // its divisors are tensors
    if (rope.factor != 1) keys.refuse("rope.scaling.factor", "a factor beside LongRoPE's divisors is not supported");
  } else if (type != "none") {
    keys.refuse("rope.scaling.type", "this version knows none, linear, llama3 and longrope; use another model");
  }
}

RopeConfig rope_of(const FamilyKeys& keys, size_t head_dim, RopeStyle usual) {
  RopeConfig rope;
  const std::string style = keys.text("rope.style", usual == RopeStyle::interleaved ? "interleaved" : "halves");
  if (style != "interleaved" && style != "halves") keys.refuse("rope.style", "it is interleaved or halves");
  rope.style = style == "halves" ? RopeStyle::halves : RopeStyle::interleaved;
  rope.dim = keys.size("rope.dimension_count", 2, static_cast<int64_t>(head_dim), head_dim);
  if (rope.dim % 2 != 0) keys.refuse("rope.dimension_count", "it must be even");
  if (keys.size("rope.dimension_count_swa", 2, max_width, rope.dim) != rope.dim) {
    keys.refuse("rope.dimension_count_swa", "layers with a window that rotate other channels are not supported");
  }
  rope.base = keys.number("rope.freq_base", 10000);
  if (!(rope.base >= 1 && rope.base < 1e12)) keys.refuse("rope.freq_base", "that cannot be");
  read_scaling(keys, rope);
  return rope;
}

void read_heads(const FamilyKeys& keys, ModelConfig& c) {
  c.heads = keys.size("attention.head_count", max_heads);
  c.kv_heads = keys.size("attention.head_count_kv", 1, static_cast<int64_t>(c.heads), c.heads);
  if (c.heads % c.kv_heads != 0) {
    fail("{} query heads cannot share {} KV heads; {} must be a multiple of head_count_kv", c.heads, c.kv_heads,
         keys.full("attention.head_count"));
  }
  c.head_dim = keys.size("attention.key_length", 1, 65536, std::max<size_t>(1, c.dim / c.heads));
  for (const char* other : {"attention.value_length", "attention.key_length_swa", "attention.value_length_swa"}) {
    if (keys.size(other, 1, 65536, c.head_dim) != c.head_dim) {
      keys.refuse(other, fmt::format("K has heads of {} channels, and this version needs all alike", c.head_dim));
    }
  }
  if (c.head_dim % 8 != 0) fail("heads of {} channels; this version needs a multiple of 8", c.head_dim);
  c.attention_scale = keys.factor("attention.scale", 1 / std::sqrt(static_cast<double>(c.head_dim)));
}

void read_experts(const FamilyKeys& keys, ModelConfig& c) {
  c.experts = keys.size("expert_count", 0, max_heads, 0);
  if (c.experts == 0) {
    c.ffn_dim = keys.size("feed_forward_length", 4 * max_width);
    return;
  }
  c.experts_used = keys.size("expert_used_count", static_cast<int64_t>(c.experts));
  c.ffn_dim = keys.has("expert_feed_forward_length") ? keys.size("expert_feed_forward_length", 4 * max_width)
                                                     : keys.size("feed_forward_length", 4 * max_width);
}

}  // namespace

ModelConfig common_config(const FamilyKeys& keys, RopeStyle style) {
  ModelConfig c;
  c.family = keys.architecture();
  c.layers = keys.layers();
  c.dim = keys.size("embedding_length", max_width);
  c.context = keys.size("context_length", max_tokens);
  read_heads(keys, c);
  read_experts(keys, c);
  c.norm_epsilon = static_cast<float>(keys.number("attention.layer_norm_rms_epsilon", 1e-5));
  if (!(c.norm_epsilon >= 0 && c.norm_epsilon < 1)) {
    keys.refuse("attention.layer_norm_rms_epsilon", "that cannot be");
  }
  c.vocabulary = keys.size("vocab_size", 0, max_tokens, keys.metadata().get_strings("tokenizer.ggml.tokens").size());
  c.ropes = {rope_of(keys, c.head_dim, style)};
  c.each_layer.resize(c.layers);
  return c;
}

std::vector<bool> set_windows(const FamilyKeys& keys, ModelConfig& config, size_t window, size_t pattern) {
  const char* const window_key = "attention.sliding_window";
  const char* const pattern_key = "attention.sliding_window_pattern";
  bool each_said = false;
  const std::vector<int64_t> said = keys.each(pattern_key, 0, max_tokens, pattern, &each_said);
  const std::vector<int64_t> windows = keys.each(window_key, 0, max_tokens, window);
  const bool uniform = std::all_of(windows.begin(), windows.end(), [&](int64_t w) { return w == windows.front(); });
  std::vector<bool> has_window(config.layers);
  for (size_t layer = 0; layer < config.layers; ++layer) {
    const int64_t number = said[layer];
    has_window[layer] = each_said ? number != 0 : number == 0 || static_cast<int64_t>(layer + 1) % number != 0;
    if (has_window[layer]) config.each_layer[layer].window = windows[layer];
    if (!has_window[layer] && !uniform && windows[layer] != 0) {
      keys.refuse(window_key, fmt::format("layer {} has a window there and, by {}, none", layer, pattern_key));
    }
  }
  return has_window;
}

}  // namespace contexture
