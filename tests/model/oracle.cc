#include "model/oracle.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>

#include "base/error.h"
#include "model/oracle_llama.h"

// What each family changes of a Llama, and nothing else.

namespace contexture {
namespace {

using Row = LlamaOracle::Row;

double capped(double x, double cap) {
  return cap > 0 ? cap * std::tanh(x / cap) : x;
}

/// arXiv:2407.10671: Q, K and V have biases.
class Qwen2Oracle : public LlamaOracle {
 public:
  using LlamaOracle::LlamaOracle;

 protected:
  bool in_halves() const override { return true; }

  void project(size_t layer, const Row& x, Row& q, Row& k, Row& v) override {
    LlamaOracle::project(layer, x, q, k, v);
    const auto add_bias = [&](const char* name, Row& y) {
      const Row& bias = vector("blk." + std::to_string(layer) + "." + name + ".bias");
      for (size_t i = 0; i < y.size(); ++i) y[i] += bias[i];
    };
    add_bias("attn_q", q);
    add_bias("attn_k", k);
    add_bias("attn_v", v);
  }
};

/// arXiv:2505.09388: each head's query and key is normalised. The MoE has Mixtral's experts.
class Qwen3Oracle : public LlamaOracle {
 public:
  using LlamaOracle::LlamaOracle;

 protected:
  bool in_halves() const override { return true; }

  void project(size_t layer, const Row& x, Row& q, Row& k, Row& v) override {
    LlamaOracle::project(layer, x, q, k, v);
    for (size_t h = 0; h < heads_; ++h) norm_part(in_block(layer, "attn_q_norm"), q, h * head_);
    for (size_t h = 0; h < kv_heads_; ++h) norm_part(in_block(layer, "attn_k_norm"), k, h * head_);
  }
};

/// Hugging Face's smollm3: layers 3, 7, 11 ... do not rotate (arXiv:2501.18795).
class SmolLm3Oracle : public LlamaOracle {
 public:
  using LlamaOracle::LlamaOracle;

 protected:
  bool rotates(size_t layer) const override { return layer % 4 != 3; }
};

/// Hugging Face's granite: four multipliers, as maximal update parameterisation has them (arXiv:2203.03466).
class GraniteOracle : public LlamaOracle {
 public:
  using LlamaOracle::LlamaOracle;

 protected:
  Row embed(int32_t token) override {
    Row x = LlamaOracle::embed(token);
    const double scale = real("embedding_scale", 1);
    for (double& v : x) v *= scale;
    return x;
  }

  double score(double product) const override {
    const double scale = real("attention.scale", 0);
    return scale > 0 ? product * scale : LlamaOracle::score(product);
  }

  void add_residual(size_t, std::string_view, Row branch, Row& x) override {
    const double scale = real("residual_scale", 1);
    for (size_t i = 0; i < x.size(); ++i) x[i] += scale * branch[i];
  }

  Row logits(const Row& x) override {
    Row out = LlamaOracle::logits(x);
    const double scale = real("logit_scale", 1);
    for (double& v : out) v /= scale;
    return out;
  }
};

/// arXiv:2404.14219 and Hugging Face's phi3: joined projections; "longrope" (arXiv:2402.13753).
class Phi3Oracle : public LlamaOracle {
 public:
  using LlamaOracle::LlamaOracle;

 protected:
  bool in_halves() const override { return true; }

  void project(size_t layer, const Row& x, Row& q, Row& k, Row& v) override {
    const std::string qkv = in_block(layer, "attn_qkv");
    q = multiply(qkv, x, 0, heads_ * head_);
    k = multiply(qkv, x, heads_ * head_, kv_heads_ * head_);
    v = multiply(qkv, x, (heads_ + kv_heads_) * head_, kv_heads_ * head_);
  }

  Row feed_forward(size_t layer, const Row& x) override {
    const size_t wide = number("feed_forward_length", 0);
    const std::string both = in_block(layer, "ffn_up");
    return multiply(in_block(layer, "ffn_down"), gated(multiply(both, x, 0, wide), multiply(both, x, wide, wide)));
  }

  double frequency(size_t layer, size_t pair) override {
    const double f = LlamaOracle::frequency(layer, pair);
    if (!has("rope_factors_long.weight")) return f;
    const size_t context = number("context_length", 0);
    const bool is_long = context > number("rope.scaling.original_context_length", context);
    return f / vector(is_long ? "rope_factors_long.weight" : "rope_factors_short.weight")[pair];
  }

  double rotation_gain() const override { return real("rope.scaling.attn_factor", 1); }
};

/// arXiv:2403.08295: a scaled embedding, and GELU where Llama has SiLU.
class GemmaOracle : public LlamaOracle {
 public:
  using LlamaOracle::LlamaOracle;

 protected:
  bool in_halves() const override { return true; }

  Row embed(int32_t token) override {
    Row x = LlamaOracle::embed(token);
    for (double& v : x) v *= std::sqrt(static_cast<double>(dim_));
    return x;
  }

  double activation(double x) const override {  // GELU in its tanh form, arXiv:1606.08415
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  }

  /// 1 / sqrt(head), but for the 27B models, whose query_pre_attn_scalar is dim / heads and not the head's size.
  double attention_scale(size_t layers_of_27b) const {
    const bool is_27b = number("block_count", 0) == layers_of_27b;
    return real("attention.scale", 1 / std::sqrt(static_cast<double>(is_27b ? dim_ / heads_ : head_)));
  }

  void add_normalised(size_t layer, std::string_view post_norm, const Row& branch, Row& x) {
    LlamaOracle::add_residual(layer, post_norm, norm(in_block(layer, post_norm), branch), x);
  }
};

/// arXiv:2408.00118: norms after each half of a layer, soft-caps (50 and 30 where no key says otherwise; 0: none), a
/// window on every other layer.
class Gemma2Oracle : public GemmaOracle {
 public:
  using GemmaOracle::GemmaOracle;

 protected:
  size_t window(size_t layer) const override { return layer % 2 == 0 ? LlamaOracle::window(layer) : 0; }

  double score(double product) const override {
    return capped(product * attention_scale(46), real("attn_logit_softcapping", 50));
  }

  void add_residual(size_t layer, std::string_view post_norm, Row branch, Row& x) override {
    add_normalised(layer, post_norm, branch, x);
  }

  Row logits(const Row& x) override {
    Row out = LlamaOracle::logits(x);
    const double cap = real("final_logit_softcapping", 30);
    for (double& v : out) v = capped(v, cap);
    return out;
  }
};

/// arXiv:2503.19786: Gemma 2's norms without its soft-caps, Qwen 3's head norms; five windowed layers to one that sees
/// everything, and the windowed ones rotate with a base of their own, never scaled.
class Gemma3Oracle : public GemmaOracle {
 public:
  using GemmaOracle::GemmaOracle;

 protected:
  bool sees_all(size_t layer) const { return (layer + 1) % number("attention.sliding_window_pattern", 6) == 0; }

  size_t window(size_t layer) const override { return sees_all(layer) ? 0 : LlamaOracle::window(layer); }

  double frequency(size_t layer, size_t pair) override {
    if (sees_all(layer)) return LlamaOracle::frequency(layer, pair);
    return plain_frequency(real("rope.freq_base_swa", 10000), pair);
  }

  void project(size_t layer, const Row& x, Row& q, Row& k, Row& v) override {
    LlamaOracle::project(layer, x, q, k, v);
    for (size_t h = 0; h < heads_; ++h) norm_part(in_block(layer, "attn_q_norm"), q, h * head_);
    for (size_t h = 0; h < kv_heads_; ++h) norm_part(in_block(layer, "attn_k_norm"), k, h * head_);
  }

  double score(double product) const override { return product * attention_scale(62); }

  void add_residual(size_t layer, std::string_view post_norm, Row branch, Row& x) override {
    add_normalised(layer, post_norm, branch, x);
  }
};

std::unique_ptr<LlamaOracle> make_oracle(const ModelFile& file) {
  const std::string family = file.metadata.get_string("general.architecture");
  if (family == "llama") return std::make_unique<LlamaOracle>(file);
  if (family == "qwen2") return std::make_unique<Qwen2Oracle>(file);
  if (family == "qwen3" || family == "qwen3moe") return std::make_unique<Qwen3Oracle>(file);
  if (family == "smollm3") return std::make_unique<SmolLm3Oracle>(file);
  if (family == "granite") return std::make_unique<GraniteOracle>(file);
  if (family == "phi3") return std::make_unique<Phi3Oracle>(file);
  if (family == "gemma") return std::make_unique<GemmaOracle>(file);
  if (family == "gemma2") return std::make_unique<Gemma2Oracle>(file);
  if (family == "gemma3") return std::make_unique<Gemma3Oracle>(file);
  fail("no oracle of the family '{}'", family);
}

}  // namespace

std::vector<double> oracle_logits(const ModelFile& file, std::span<const int32_t> tokens, double* closest_choice) {
  const std::unique_ptr<LlamaOracle> oracle = make_oracle(file);
  std::vector<double> logits;
  for (const int32_t token : tokens) {
    const Row row = oracle->next(token);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  if (closest_choice) *closest_choice = oracle->closest_choice();
  return logits;
}

}  // namespace contexture
