#include "model/oracle_llama.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "kernels/quantise.h"

// Llama: arXiv:2302.13971, arXiv:2307.09288; norm arXiv:1910.07467, rotation arXiv:2104.09864, gated feed-forward
// arXiv:2002.05202, shared K and V heads arXiv:2305.13245. Mistral's window: arXiv:2310.06825. Mixtral's experts:
// arXiv:2401.04088.

namespace contexture {

using Row = LlamaOracle::Row;

namespace {

size_t size_key(const ModelFile& file, const std::string& key, int64_t fallback) {
  return static_cast<size_t>(file.metadata.get_int(key, 0, 1 << 30, fallback));
}

}  // namespace

LlamaOracle::LlamaOracle(const ModelFile& file)
    : file_(file),
      family_(file.metadata.get_string("general.architecture")),
      dim_(number("embedding_length", 0)),
      heads_(number("attention.head_count", 0)),
      kv_heads_(number("attention.head_count_kv", heads_)),
      head_(number("attention.key_length", dim_ / heads_)),
      rotated_(number("rope.dimension_count", head_)),
      k_(number("block_count", 0)),
      v_(k_.size()) {}

Row LlamaOracle::next(int32_t token) {
  Row x = embed(token);
  for (size_t l = 0; l < k_.size(); ++l) {
    Row q, k, v;
    project(l, norm(in_block(l, "attn_norm"), x), q, k, v);
    if (rotates(l)) {
      rotate(l, heads_, q);
      rotate(l, kv_heads_, k);
    }
    k_[l].push_back(k);
    v_[l].push_back(v);
    add_residual(l, "post_attention_norm", multiply(in_block(l, "attn_output"), attention(l, q)), x);
    add_residual(l, "post_ffw_norm", feed_forward(l, norm(in_block(l, "ffn_norm"), x)), x);
  }
  ++position_;
  return logits(norm("output_norm.weight", x));
}

Row LlamaOracle::embed(int32_t token) {
  return weights("token_embd.weight").rows[static_cast<size_t>(token)];
}

void LlamaOracle::project(size_t layer, const Row& x, Row& q, Row& k, Row& v) {
  q = multiply(in_block(layer, "attn_q"), x);
  k = multiply(in_block(layer, "attn_k"), x);
  v = multiply(in_block(layer, "attn_v"), x);
}

bool LlamaOracle::in_halves() const {
  return file_.metadata.get_string(family_ + ".rope.style", "interleaved") == "halves";
}

double LlamaOracle::plain_frequency(double base, size_t pair) const {
  return 1 / std::pow(base, 2.0 * static_cast<double>(pair) / static_cast<double>(rotated_));
}

double LlamaOracle::frequency(size_t, size_t pair) {
  double f = plain_frequency(real("rope.freq_base", 10000), pair);
  if (has("rope_freqs.weight")) f /= vector("rope_freqs.weight")[pair];
  const std::string scaling = file_.metadata.get_string(family_ + ".rope.scaling.type", "none");
  const double factor = real("rope.scaling.factor", 1);
  if (scaling == "linear") return f / factor;
  if (scaling != "llama3") return f;
  // As in Meta's reference: by wavelength.
  const double wavelength = 2 * std::numbers::pi / f;
  const double original = static_cast<double>(number("rope.scaling.original_context_length", 8192));
  const double low = real("rope.scaling.low_freq_factor", 1), high = real("rope.scaling.high_freq_factor", 4);
  if (wavelength < original / high) return f;
  if (wavelength > original / low) return f / factor;
  const double smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * f / factor + smooth * f;
}

void LlamaOracle::rotate(size_t layer, size_t heads, Row& x) {
  const size_t step = in_halves() ? 1 : 2, apart = in_halves() ? rotated_ / 2 : 1;
  for (size_t i = 0; i < rotated_ / 2; ++i) {
    const double angle = static_cast<double>(position_) * frequency(layer, i);
    const double cosine = rotation_gain() * std::cos(angle), sine = rotation_gain() * std::sin(angle);
    for (size_t h = 0; h < heads; ++h) {
      double& a = x[h * head_ + i * step];
      double& b = x[h * head_ + i * step + apart];
      const double turned = a * cosine - b * sine;
      b = a * sine + b * cosine;
      a = turned;
    }
  }
}

double LlamaOracle::score(double product) const {
  return product / std::sqrt(static_cast<double>(head_));
}

Row LlamaOracle::attention(size_t layer, const Row& q) const {
  const std::vector<Row>&k = k_[layer], &v = v_[layer];
  const size_t seen = window(layer) ? std::min(window(layer), k.size()) : k.size(), first = k.size() - seen;
  Row out(heads_ * head_, 0);
  for (size_t h = 0; h < heads_; ++h) {
    const size_t kv = h / (heads_ / kv_heads_) * head_;
    Row scores;
    for (size_t t = first; t < k.size(); ++t) {
      double product = 0;
      for (size_t d = 0; d < head_; ++d) product += q[h * head_ + d] * k[t][kv + d];
      scores.push_back(score(product));
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& s : scores) total += s = std::exp(s - most);
    for (size_t t = first; t < k.size(); ++t) {
      for (size_t d = 0; d < head_; ++d) out[h * head_ + d] += scores[t - first] / total * v[t][kv + d];
    }
  }
  return out;
}

double LlamaOracle::activation(double x) const {
  return x / (1 + std::exp(-x));  // SiLU
}

Row LlamaOracle::gated(const Row& gate, const Row& up) const {
  Row out;
  for (size_t i = 0; i < gate.size(); ++i) out.push_back(activation(gate[i]) * up[i]);
  return out;
}

Row LlamaOracle::feed_forward(size_t layer, const Row& x) {
  if (number("expert_count", 0)) return experts(layer, x);
  return multiply(in_block(layer, "ffn_down"),
                  gated(multiply(in_block(layer, "ffn_gate"), x), multiply(in_block(layer, "ffn_up"), x)));
}

/// The sum of the experts of the highest router logits, weighted by a softmax over those.
Row LlamaOracle::experts(size_t layer, const Row& x) {
  const Row router = multiply(in_block(layer, "ffn_gate_inp"), x);
  std::vector<size_t> order(router.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return router[a] > router[b]; });
  const size_t used = number("expert_used_count", 0);
  if (used < order.size()) closest_choice_ = std::min(closest_choice_, router[order[used - 1]] - router[order[used]]);
  double total = 0;
  for (size_t i = 0; i < used; ++i) total += std::exp(router[order[i]]);
  Row sum(dim_, 0);
  for (size_t i = 0; i < used; ++i) {
    const Row given = expert(layer, order[i], x);
    for (size_t d = 0; d < dim_; ++d) sum[d] += std::exp(router[order[i]]) / total * given[d];
  }
  return sum;
}

Row LlamaOracle::expert(size_t layer, size_t index, const Row& x) {
  if (has(in_block(layer, "ffn_gate_exps"))) {
    const size_t wide = number("expert_feed_forward_length", number("feed_forward_length", 0));
    const Row gate = multiply(in_block(layer, "ffn_gate_exps"), x, index * wide, wide);
    const Row up = multiply(in_block(layer, "ffn_up_exps"), x, index * wide, wide);
    return multiply(in_block(layer, "ffn_down_exps"), gated(gate, up), index * dim_, dim_);
  }
  const auto own = [&](const char* name) { return in_block(layer, fmt::format("{}.{}", name, index)); };
  return multiply(own("ffn_down"), gated(multiply(own("ffn_gate"), x), multiply(own("ffn_up"), x)));
}

void LlamaOracle::add_residual(size_t, std::string_view, Row branch, Row& x) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += branch[i];
}

Row LlamaOracle::logits(const Row& x) {
  return multiply(has("output.weight") ? "output.weight" : "token_embd.weight", x);
}

size_t LlamaOracle::number(std::string_view key, size_t fallback) const {
  return size_key(file_, fmt::format("{}.{}", family_, key), static_cast<int64_t>(fallback));
}

double LlamaOracle::real(std::string_view key, double fallback) const {
  return file_.metadata.get_float(fmt::format("{}.{}", family_, key), fallback);
}

std::string LlamaOracle::in_block(size_t layer, std::string_view name) {
  return fmt::format("blk.{}.{}.weight", layer, name);
}

const LlamaOracle::Decoded& LlamaOracle::weights(const std::string& tensor) {
  auto [at, fresh] = decoded_.try_emplace(tensor);
  if (fresh) {
    const StoredTensor& t = *file_.find(tensor);
    const auto columns = static_cast<ptrdiff_t>(t.shape.back());
    std::vector<float> all(
        static_cast<size_t>(std::accumulate(t.shape.begin(), t.shape.end(), int64_t{1}, std::multiplies<>())));
    info(t.format).decode(t.data.data(), all.data(), all.size());
    for (auto row = all.begin(); row != all.end(); row += columns) at->second.rows.emplace_back(row, row + columns);
    at->second.quantised = info(t.format).block > 1;
  }
  return at->second;
}

Row LlamaOracle::multiply(const std::string& tensor, Row x, size_t first, size_t count) {
  const Decoded& w = weights(tensor);
  if (w.quantised) {
    const std::vector<float> narrow(x.begin(), x.end());
    std::vector<ActivationBlock> blocks(blocks_of(x.size()));
    quantise_row_plain(narrow.data(), narrow.size(), blocks.data());
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<double>(blocks[i / 32].scale) * blocks[i / 32].quants[i % 32];
  }
  Row out;
  for (size_t r = first; r < first + (count ? count : w.rows.size()); ++r) {
    out.push_back(std::inner_product(x.begin(), x.end(), w.rows[r].begin(), 0.0));
  }
  return out;
}

void LlamaOracle::norm_part(const std::string& tensor, Row& x, size_t from) {
  const Row& weight = vector(tensor);
  double squares = 0;
  for (size_t i = 0; i < weight.size(); ++i) squares += x[from + i] * x[from + i];
  const double mean = squares / static_cast<double>(weight.size());
  const double scale = 1 / std::sqrt(mean + real("attention.layer_norm_rms_epsilon", 1e-5));
  for (size_t i = 0; i < weight.size(); ++i) x[from + i] *= scale * weight[i];
}

Row LlamaOracle::norm(const std::string& tensor, Row x) {
  norm_part(tensor, x, 0);
  return x;
}

}  // namespace contexture
