#include "model/common.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace contexture {
namespace {

// No known model comes near these; beyond them a number is damage and not a size.
constexpr int64_t max_layers = 4096, max_width = 1 << 20, max_heads = 65536, max_tokens = int64_t{1} << 31;

RopeConfig rope_of(const FamilyKeys& keys, size_t head_dim, RopeStyle usual) {
  RopeConfig rope;
  const std::string style = keys.text("rope.style", usual == RopeStyle::interleaved ? "interleaved" : "halves");
  if (style != "interleaved" && style != "halves") fail("unknown rotation style '{}'", printable(style));
  rope.style = style == "halves" ? RopeStyle::halves : RopeStyle::interleaved;
  rope.dim = keys.size("rope.dimension_count", 2, static_cast<int64_t>(head_dim), head_dim);
  if (rope.dim % 2 != 0) fail("{} is {}; it must be even", keys.full("rope.dimension_count"), rope.dim);
  rope.base = keys.number("rope.freq_base", 10000);
  if (!(rope.base >= 1 && rope.base < 1e12)) fail("{} is {}; that cannot be", keys.full("rope.freq_base"), rope.base);
  rope.original_context =
      static_cast<double>(keys.size("rope.scaling.original_context_length", 1, max_tokens, size_t{8192}));

  const std::string scaling = keys.text("rope.scaling.type", "none");
  rope.factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1));
  if (!(rope.factor > 0 && rope.factor < 1e6)) {
    fail("{} is {}; that cannot be", keys.full("rope.scaling.factor"), rope.factor);
  }
  if (scaling == "linear" || (scaling == "none" && keys.has("rope.scale_linear"))) {
    rope.scaling = RopeConfig::Scaling::linear;
  } else if (scaling == "llama3") {
    rope.scaling = RopeConfig::Scaling::llama3;
    rope.low_frequency_factor = keys.number("rope.scaling.low_freq_factor", 1);
    rope.high_frequency_factor = keys.number("rope.scaling.high_freq_factor", 4);
    if (!(rope.low_frequency_factor > 0 && rope.high_frequency_factor > rope.low_frequency_factor)) {
      fail("{}: low_freq_factor must be above 0 and below high_freq_factor", keys.full("rope.scaling"));
    }
  } else if (scaling == "longrope") {
    rope.magnitude = keys.factor("rope.scaling.attn_factor", 1);  // the divisors are tensors
  } else if (scaling != "none") {
    fail("unknown rotation scaling '{}'; this version knows none, linear, llama3 and longrope", printable(scaling));
  }
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
  const size_t value_length = keys.size("attention.value_length", 1, 65536, c.head_dim);
  if (value_length != c.head_dim) {
    fail("heads of {} channels for K and {} for V; this version needs them equal", c.head_dim, value_length);
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

FamilyKeys::FamilyKeys(const Metadata& metadata)
    : metadata_(metadata), architecture_(metadata.get_string("general.architecture")) {}

size_t FamilyKeys::size(std::string_view key, int64_t high) const {
  return static_cast<size_t>(metadata_.get_int(full(key), 1, high));
}

size_t FamilyKeys::size(std::string_view key, int64_t low, int64_t high, size_t fallback) const {
  return static_cast<size_t>(metadata_.get_int(full(key), low, high, static_cast<int64_t>(fallback)));
}

double FamilyKeys::number(std::string_view key, double fallback) const {
  return metadata_.get_float(full(key), fallback);
}

float FamilyKeys::factor(std::string_view key, double fallback) const {
  const float value = static_cast<float>(number(key, fallback));
  if (!(value > 0) || std::isinf(value)) fail("{} is {}; it must be above 0", full(key), value);
  return value;
}

std::string FamilyKeys::text(std::string_view key, std::string_view fallback) const {
  return metadata_.get_string(full(key), fallback);
}

ModelConfig common_config(const FamilyKeys& keys, RopeStyle style) {
  ModelConfig c;
  c.family = keys.architecture();
  c.layers = keys.size("block_count", max_layers);
  c.dim = keys.size("embedding_length", max_width);
  c.context = keys.size("context_length", max_tokens);
  read_heads(keys, c);
  read_experts(keys, c);
  c.norm_epsilon = static_cast<float>(keys.number("attention.layer_norm_rms_epsilon", 1e-5));
  if (!(c.norm_epsilon >= 0 && c.norm_epsilon < 1)) {
    fail("{} cannot be {}", keys.full("attention.layer_norm_rms_epsilon"), c.norm_epsilon);
  }
  c.vocabulary = keys.size("vocab_size", 0, max_tokens, keys.metadata().get_strings("tokenizer.ggml.tokens").size());
  c.ropes = {rope_of(keys, c.head_dim, style)};
  c.each_layer.resize(c.layers);
  return c;
}

size_t window_of(const FamilyKeys& keys, size_t fallback) {
  return keys.size("attention.sliding_window", 0, max_tokens, fallback);
}

}  // namespace contexture
