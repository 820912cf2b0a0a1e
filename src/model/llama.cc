#include <algorithm>

#include "base/error.h"
#include "model/families.h"

namespace contexture {
namespace {

// No known model comes near these; beyond them a number is damage and not a size.
constexpr int64_t max_layers = 4096, max_width = 1 << 20, max_heads = 65536, max_tokens = int64_t{1} << 31;

RopeConfig rope_of(const Metadata& m, size_t head_dim) {
  RopeConfig rope;
  // GGUF files of this family hold Q and K for neighbouring pairs; readers of other files say when theirs differ.
  const std::string style = m.get_string("llama.rope.style", "interleaved");
  if (style != "interleaved" && style != "halves") fail("unknown rotation style '{}'", printable(style));
  rope.style = style == "halves" ? RopeStyle::halves : RopeStyle::interleaved;
  rope.dim = static_cast<size_t>(
      m.get_int("llama.rope.dimension_count", 2, static_cast<int64_t>(head_dim), static_cast<int64_t>(head_dim)));
  if (rope.dim % 2 != 0) fail("llama.rope.dimension_count is {}; it must be even", rope.dim);
  rope.base = m.get_float("llama.rope.freq_base", 10000);
  if (!(rope.base >= 1 && rope.base < 1e12)) fail("llama.rope.freq_base is {}; that cannot be", rope.base);

  const std::string scaling = m.get_string("llama.rope.scaling.type", "none");
  rope.factor = m.get_float("llama.rope.scaling.factor", m.get_float("llama.rope.scale_linear", 1));
  if (!(rope.factor > 0 && rope.factor < 1e6)) fail("llama.rope.scaling.factor is {}; that cannot be", rope.factor);
  if (scaling == "linear" || (scaling == "none" && m.has("llama.rope.scale_linear"))) {
    rope.scaling = RopeConfig::Scaling::linear;
  } else if (scaling == "llama3") {
    rope.scaling = RopeConfig::Scaling::llama3;
    rope.low_frequency_factor = m.get_float("llama.rope.scaling.low_freq_factor", 1);
    rope.high_frequency_factor = m.get_float("llama.rope.scaling.high_freq_factor", 4);
    rope.original_context =
        static_cast<double>(m.get_int("llama.rope.scaling.original_context_length", 1, max_tokens, 8192));
    if (!(rope.low_frequency_factor > 0 && rope.high_frequency_factor > rope.low_frequency_factor)) {
      fail("llama.rope.scaling: low_freq_factor must be above 0 and below high_freq_factor");
    }
  } else if (scaling != "none") {
    fail("unknown rotation scaling '{}'; this version knows none, linear and llama3", printable(scaling));
  }
  return rope;
}

}  // namespace

ModelConfig configure_llama(const Metadata& m) {
  ModelConfig c;
  c.family = "llama";
  const auto size = [&m](const char* key, int64_t high) { return static_cast<size_t>(m.get_int(key, 1, high)); };
  c.layers = size("llama.block_count", max_layers);
  c.dim = size("llama.embedding_length", max_width);
  c.ffn_dim = size("llama.feed_forward_length", 4 * max_width);
  c.heads = size("llama.attention.head_count", max_heads);
  c.context = size("llama.context_length", max_tokens);
  c.kv_heads = static_cast<size_t>(
      m.get_int("llama.attention.head_count_kv", 1, static_cast<int64_t>(c.heads), static_cast<int64_t>(c.heads)));
  if (c.heads % c.kv_heads != 0) {
    fail("{} query heads cannot share {} KV heads; llama.attention.head_count must be a multiple of head_count_kv",
         c.heads, c.kv_heads);
  }
  const int64_t default_head = static_cast<int64_t>(std::max<size_t>(1, c.dim / c.heads));
  c.head_dim = static_cast<size_t>(m.get_int("llama.attention.key_length", 1, 65536, default_head));
  const int64_t value_length = m.get_int("llama.attention.value_length", 1, 65536, static_cast<int64_t>(c.head_dim));
  if (value_length != static_cast<int64_t>(c.head_dim)) {
    fail("heads of {} channels for K and {} for V; this version needs them equal", c.head_dim, value_length);
  }
  if (c.head_dim % 8 != 0) fail("heads of {} channels; this version needs a multiple of 8", c.head_dim);
  if (m.get_int("llama.expert_count", 0, max_heads, 0) != 0) {
    fail("this llama model has experts (llama.expert_count); this version runs dense models only");
  }
  c.norm_epsilon = static_cast<float>(m.get_float("llama.attention.layer_norm_rms_epsilon", 1e-5));
  if (!(c.norm_epsilon >= 0 && c.norm_epsilon < 1)) fail("llama.attention.layer_norm_rms_epsilon cannot be that");
  c.vocabulary = static_cast<size_t>(m.get_int("llama.vocab_size", 0, max_tokens,
                                               static_cast<int64_t>(m.get_strings("tokenizer.ggml.tokens").size())));
  c.rope = rope_of(m, c.head_dim);
  return c;
}

}  // namespace contexture
