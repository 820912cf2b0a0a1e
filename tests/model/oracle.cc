#include "model/oracle.h"

#include <cmath>
#include <map>
#include <numbers>

#include "kernels/quantise.h"

namespace contexture {
namespace {

using Row = std::vector<double>;

class Oracle {
 public:
  explicit Oracle(const ModelFile& file) : file_(file) {
    const auto number = [&](const char* key) { return static_cast<size_t>(file.metadata.get_int(key, 1, 1 << 30)); };
    layers_ = number("llama.block_count");
    dim_ = number("llama.embedding_length");
    heads_ = number("llama.attention.head_count");
    kv_heads_ = number("llama.attention.head_count_kv");
    head_ = static_cast<size_t>(
        file.metadata.get_int("llama.attention.key_length", 1, 1 << 20, static_cast<int64_t>(dim_ / heads_)));
    rope_dim_ = static_cast<size_t>(
        file.metadata.get_int("llama.rope.dimension_count", 1, 1 << 20, static_cast<int64_t>(head_)));
    halves_ = file.metadata.get_string("llama.rope.style", "interleaved") == "halves";
    k_.resize(layers_);
    v_.resize(layers_);
  }

  Row next(int32_t token) {
    Row x = weights("token_embd.weight").rows[static_cast<size_t>(token)];
    for (size_t l = 0; l < layers_; ++l) {
      const std::string block = "blk." + std::to_string(l) + ".";
      const Row normed = norm(x, block + "attn_norm.weight");
      Row q = multiply(block + "attn_q.weight", normed);
      Row k = multiply(block + "attn_k.weight", normed);
      rotate(q, heads_);
      rotate(k, kv_heads_);
      k_[l].push_back(k);
      v_[l].push_back(multiply(block + "attn_v.weight", normed));
      add(x, multiply(block + "attn_output.weight", attention(q, k_[l], v_[l])));
      const Row f = norm(x, block + "ffn_norm.weight");
      Row gate = multiply(block + "ffn_gate.weight", f);
      const Row up = multiply(block + "ffn_up.weight", f);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      add(x, multiply(block + "ffn_down.weight", gate));
    }
    ++position_;
    return multiply(file_.find("output.weight") ? "output.weight" : "token_embd.weight", norm(x, "output_norm.weight"));
  }

 private:
  struct Decoded {
    std::vector<Row> rows;
    bool quantised;
  };

  const Decoded& weights(const std::string& name) {
    auto [at, fresh] = decoded_.try_emplace(name);
    if (fresh) {
      const StoredTensor& t = *file_.find(name);
      const size_t columns = static_cast<size_t>(t.shape.back()),
                   rows = t.shape.size() > 1 ? static_cast<size_t>(t.shape[0]) : 1;
      std::vector<float> all(rows * columns);
      info(t.format).decode(t.data.data(), all.data(), all.size());
      for (size_t r = 0; r < rows; ++r) {
        at->second.rows.emplace_back(all.begin() + static_cast<ptrdiff_t>(r * columns),
                                     all.begin() + static_cast<ptrdiff_t>((r + 1) * columns));
      }
      at->second.quantised = info(t.format).block > 1;
    }
    return at->second;
  }

  Row multiply(const std::string& name, Row x) {
    const Decoded& w = weights(name);
    if (w.quantised) {
      const std::vector<float> narrow(x.begin(), x.end());
      std::vector<ActivationPair> pairs(pairs_of(x.size()));
      quantise_row_plain(narrow.data(), narrow.size(), pairs.data());
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<double>(pairs[i / 64].scales[i % 64 / 4]) * pairs[i / 64].quants[i % 64];
      }
    }
    Row out;
    for (const Row& row : w.rows) {
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) sum += row[i] * x[i];
      out.push_back(sum);
    }
    return out;
  }

  Row norm(const Row& x, const std::string& name) {
    double squares = 0;
    for (const double v : x) squares += v * v;
    Row out(x);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
    for (size_t i = 0; i < x.size(); ++i) out[i] *= scale * weights(name).rows[0][i];
    return out;
  }

  double frequency(size_t pair) {
    double f = 1 / std::pow(10000.0, 2.0 * static_cast<double>(pair) / static_cast<double>(rope_dim_));
    if (file_.find("rope_freqs.weight")) f /= weights("rope_freqs.weight").rows[0][pair];
    const std::string scaling = file_.metadata.get_string("llama.rope.scaling.type", "none");
    if (scaling == "linear") return f / 8;
    if (scaling != "llama3") return f;
    // As in Meta's llama3 reference: by wavelength, factor 8, low 1, high 4, original context 64 (random_model.cc).
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < 64.0 / 4) return f;
    if (wavelength > 64.0 / 1) return f / 8;
    const double smooth = (64.0 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * f / 8 + smooth * f;
  }

  void rotate(Row& x, size_t heads) {
    for (size_t h = 0; h < heads; ++h) {
      for (size_t i = 0; i < rope_dim_ / 2; ++i) {
        double& a = x[h * head_ + (halves_ ? i : 2 * i)];
        double& b = x[h * head_ + (halves_ ? i + rope_dim_ / 2 : 2 * i + 1)];
        const double angle = static_cast<double>(position_) * frequency(i);
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = turned;
      }
    }
  }

  Row attention(const Row& q, const std::vector<Row>& k, const std::vector<Row>& v) const {
    Row out(heads_ * head_, 0);
    for (size_t h = 0; h < heads_; ++h) {
      const size_t kv = h / (heads_ / kv_heads_) * head_;
      std::vector<double> p;
      double total = 0;
      for (const Row& key : k) {
        double score = 0;
        for (size_t d = 0; d < head_; ++d) score += q[h * head_ + d] * key[kv + d];
        p.push_back(std::exp(score / std::sqrt(static_cast<double>(head_))));
        total += p.back();
      }
      for (size_t t = 0; t < k.size(); ++t) {
        for (size_t d = 0; d < head_; ++d) out[h * head_ + d] += p[t] / total * v[t][kv + d];
      }
    }
    return out;
  }

  static void add(Row& x, const Row& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  const ModelFile& file_;
  size_t layers_, dim_, heads_, kv_heads_, head_, rope_dim_;
  bool halves_;
  int64_t position_ = 0;
  std::vector<std::vector<Row>> k_, v_;  // (layer, token)
  std::map<std::string, Decoded> decoded_;
};

}  // namespace

std::vector<double> oracle_logits(const ModelFile& file, std::span<const int32_t> tokens) {
  Oracle oracle(file);
  std::vector<double> logits;
  for (const int32_t token : tokens) {
    const Row row = oracle.next(token);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

}  // namespace contexture
