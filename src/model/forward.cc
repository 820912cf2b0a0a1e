#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "kernels/elementwise.h"
#include "kernels/hadamard.h"
#include "model/families.h"
#include "model/transformer.h"

namespace contexture {
namespace {

/// One forward pass: what its parts share. Reads top to bottom like the model's paper.
class ForwardPass {
 public:
  ForwardPass(const ModelConfig& config, const Weights& weights, const Step& step, Cache& cache, Workspace& workspace,
              ThreadPool& pool)
      : c_(config),
        weights_(weights),
        step_(step),
        cache_(cache),
        ws_(workspace),
        pool_(pool),
        tokens_(step.tokens.size()) {
    assert(tokens_ <= ws_.size.tokens);
  }

  std::span<const float> run() {
    embed();
    find_views();
    for (size_t layer = 0; layer < c_.layers; ++layer) {
      if (step_.cancelled && *step_.cancelled) return {};
      const LayerWeights& w = weights_.layers[layer];

      norm(w.attention_norm);
      multiply({{&w.q, ws_.q.data()}, {&w.k, ws_.k.data()}, {&w.v, ws_.v.data()}}, ws_.normed.data(), tokens_);
      finish_qkv(w, c_.each_layer[layer].rope);
      cache_.store(layer, slots(), ws_.k.data(), ws_.v.data());
      attend_cache(layer);
      multiply({{&w.attention_output, ws_.projected.data()}}, ws_.attended.data(), tokens_);
      add_projected(w.attention_post_norm);

      norm(w.ffn_norm);
      if (c_.experts == 0) {
        feed_forward(w.ffn[0], ws_.normed.data(), tokens_, ws_.projected.data());
      } else {
        mixture_of_experts(w);
      }
      add_projected(w.ffn_post_norm);
    }
    find_damage();
    const std::span<const float> all = logits();
    if (step_.wants_hidden) norm(weights_.output_norm);
    return all;
  }

 private:
  template <class Body>
  void each_token(const Body& body) {
    pool_.run(tokens_, [&](size_t t, int) { body(t); });
  }

  std::span<const Slot> slots() const { return {ws_.slots.data(), tokens_}; }
  float* rope_table_of(size_t rope, size_t token) { return ws_.rope.data() + (rope * tokens_ + token) * c_.rope().dim; }

  void embed() {
    each_token([&](size_t t) {
      float* hidden = ws_.hidden.data() + t * c_.dim;
      decode_row(weights_.embedding, static_cast<size_t>(step_.tokens[t]), hidden);
      if (c_.embedding_scale != 1) multiply_by(hidden, c_.embedding_scale, c_.dim);
      const size_t rotation = step_.rotations.empty() ? 0 : step_.rotations[t];
      for (size_t r = 0; r < c_.ropes.size(); ++r) {
        rope_table(step_.positions.subspan(t, 1), weights_.rope_frequencies[rotation][r], rope_table_of(r, t),
                   c_.ropes[r].magnitude);
      }
      ws_.slots[t] = cache_.slot(step_.sequences[t], static_cast<size_t>(step_.positions[t]));
    });
  }

  void norm(const float* weight) {
    each_token([&](size_t t) {
      rms_norm(ws_.hidden.data() + t * c_.dim, weight, c_.norm_epsilon, c_.dim, ws_.normed.data() + t * c_.dim);
    });
  }

  void multiply(std::initializer_list<Product> products, const float* x, size_t rows) {
    matmul({products.begin(), products.size()}, x, rows, ws_.matmul, pool_);
  }

  void add_projected(const float* post_norm) {
    each_token([&](size_t t) {
      float* projected = ws_.projected.data() + t * c_.dim;
      if (post_norm) rms_norm(projected, post_norm, c_.norm_epsilon, c_.dim, projected);
      add_scaled(ws_.hidden.data() + t * c_.dim, projected, c_.residual_scale, c_.dim);
    });
  }

  /// What happens to Q, K and V between their products and the cache: biases, norms of heads, rotation.
  void finish_qkv(const LayerWeights& w, int rope) {
    const size_t q_dim = c_.heads * c_.head_dim, kv_dim = c_.kv_heads * c_.head_dim;
    each_token([&](size_t t) {
      float* q = ws_.q.data() + t * q_dim;
      float* k = ws_.k.data() + t * kv_dim;
      if (w.q_bias) {
        add_scaled(q, w.q_bias, 1, q_dim);
        add_scaled(k, w.k_bias, 1, kv_dim);
        add_scaled(ws_.v.data() + t * kv_dim, w.v_bias, 1, kv_dim);
      }
      finish_heads(q, c_.heads, w.q_norm, rope, t);
      finish_heads(k, c_.kv_heads, w.k_norm, rope, t);
      if (cache_.rotation().k) {
        hadamard(q, c_.heads, c_.head_dim);
        hadamard(k, c_.kv_heads, c_.head_dim);
      }
      if (cache_.rotation().v) hadamard(ws_.v.data() + t * kv_dim, c_.kv_heads, c_.head_dim);
    });
  }

  void finish_heads(float* x, size_t heads, const float* norm, int rope_index, size_t token) {
    for (size_t head = 0; norm && head < heads; ++head) {
      float* one = x + head * c_.head_dim;
      rms_norm(one, norm, c_.norm_epsilon, c_.head_dim, one);
    }
    if (rope_index == LayerConfig::no_rope) return;
    rope(x, heads, c_.head_dim, c_.rope().dim, c_.rope().style, rope_table_of(static_cast<size_t>(rope_index), token));
  }

  /// out = W_down · (gate(W_gate · x) · W_up · x) for `rows` rows of x (rows, dim).
  void feed_forward(const FeedForward& w, const float* x, size_t rows, float* out) {
    multiply({{&w.gate, ws_.gate.data()}, {&w.up, ws_.up.data()}}, x, rows);
    const auto gated = c_.gate == ModelConfig::Gate::silu ? swiglu : geglu;
    pool_.run(rows, [&](size_t r, int) {
      gated(ws_.gate.data() + r * c_.ffn_dim, ws_.up.data() + r * c_.ffn_dim, c_.ffn_dim);
    });
    multiply({{&w.down, out}}, ws_.gate.data(), rows);
  }

  /// Every token goes through the experts that its router scores highest; their outputs are added with the softmax of
  /// those scores (Mixtral, arXiv:2401.04088). Expert by expert, each over the tokens that chose it: a token's sum runs
  /// in the experts' order whatever company it has.
  void mixture_of_experts(const LayerWeights& w) {
    ExpertScratch& e = ws_.experts;
    multiply({{&w.router, e.scores.data()}}, ws_.normed.data(), tokens_);
    each_token([&](size_t t) {
      choose_experts({e.scores.data() + t * c_.experts, c_.experts},
                     {e.choices.data() + t * c_.experts_used, c_.experts_used});
    });
    std::fill_n(ws_.projected.data(), tokens_ * c_.dim, 0.f);
    for (size_t expert = 0; expert < c_.experts; ++expert) {
      const size_t rows = gather_rows(expert);
      if (rows == 0) continue;
      feed_forward(w.ffn[expert], e.in.data(), rows, e.out.data());
      for (size_t r = 0; r < rows; ++r) {
        const ExpertScratch::Choice* choice = e.choices.data() + e.rows[r] * c_.experts_used;
        while (choice->expert != expert) ++choice;
        add_scaled(ws_.projected.data() + e.rows[r] * c_.dim, e.out.data() + r * c_.dim, choice->weight, c_.dim);
      }
    }
  }

  /// The hidden states of the tokens that chose an expert, at the front of experts.in; how many.
  size_t gather_rows(size_t expert) {
    ExpertScratch& e = ws_.experts;
    size_t rows = 0;
    for (size_t t = 0; t < tokens_; ++t) {
      const auto chosen = std::span(e.choices.data() + t * c_.experts_used, c_.experts_used);
      if (std::none_of(chosen.begin(), chosen.end(), [&](const auto& c) { return c.expert == expert; })) continue;
      std::copy_n(ws_.normed.data() + t * c_.dim, c_.dim, e.in.data() + rows * c_.dim);
      e.rows[rows++] = t;
    }
    return rows;
  }

  /// The highest scores, the lower number where two are equal; weights are the softmax over those chosen. Overwrites
  /// the scores that it takes.
  static void choose_experts(std::span<float> scores, std::span<ExpertScratch::Choice> chosen) {
    for (auto& choice : chosen) {
      const auto highest = std::max_element(scores.begin(), scores.end());
      choice = {static_cast<size_t>(highest - scores.begin()), *highest};
      *highest = -std::numeric_limits<float>::infinity();
    }
    const float highest = chosen[0].weight;
    float total = 0;
    for (auto& choice : chosen) total += choice.weight = std::exp(choice.weight - highest);
    for (auto& choice : chosen) choice.weight /= total;
    std::sort(chosen.begin(), chosen.end(), [](const auto& a, const auto& b) { return a.expert < b.expert; });
  }

  /// What each run of one sequence's tokens attends to: that sequence's block table, the same in all layers.
  void find_views() {
    ws_.spans.clear();
    ws_.sequences.clear();
    for (size_t begin = 0, end = 0; begin < tokens_; begin = end) {
      const SequenceId sequence = step_.sequences[begin];
      while (end < tokens_ && step_.sequences[end] == sequence) ++end;
      const size_t first_span = ws_.spans.size();
      if (!step_.attention) cache_.view(sequence, ws_.spans);
      assert(ws_.spans.size() <= ws_.spans.capacity());
      const size_t at = begin * c_.heads * c_.head_dim;
      ws_.sequences.push_back({.q = ws_.q.data() + at,
                               .out = ws_.attended.data() + at,
                               .positions = step_.positions.subspan(begin, end - begin),
                               .view = std::span<const TokenSpan>(ws_.spans).subspan(first_span)});
    }
  }

  void attend_cache(size_t layer) {
    for (AttentionQueries& queries : ws_.sequences) queries.view = queries.view.in_layer(layer);
    const AttentionShape shape = c_.attention_shape(layer);
    if (step_.attention) {
      step_.attention->attend(layer, shape, ws_.sequences, ws_.attention, pool_);
    } else {
      attend(ws_.sequences, shape, ws_.attention, pool_);
    }
    if (step_.observer) step_.observer->on_attention(layer, shape, ws_.sequences);
    if (cache_.rotation().v) {
      each_token([&](size_t t) { hadamard(ws_.attended.data() + t * c_.heads * c_.head_dim, c_.heads, c_.head_dim); });
    }
  }

  /// Where the model's numbers overflowed, or its weights are damaged: K and V of such a token are of no use to anyone.
  void find_damage() {
    each_token([&](size_t t) {
      const float* hidden = ws_.hidden.data() + t * c_.dim;
      ws_.damaged[t] = !std::all_of(hidden, hidden + c_.dim, [](float x) { return std::isfinite(x); });
    });
  }

  /// Norm and output of the rows that want logits, gathered at the front.
  std::span<const float> logits() {
    size_t rows = 0;
    for (size_t t = 0; t < tokens_; ++t) {
      if (!step_.wants_logits[t]) continue;
      rms_norm(ws_.hidden.data() + t * c_.dim, weights_.output_norm, c_.norm_epsilon, c_.dim,
               ws_.normed.data() + rows++ * c_.dim);
    }
    assert(rows <= ws_.size.logit_rows);
    if (rows == 0) return {};
    const Product output{&weights_.output, ws_.logits.data()};
    matmul({&output, 1}, ws_.normed.data(), rows, ws_.matmul, pool_);
    if (c_.logit_scale != 1) multiply_by(ws_.logits.data(), c_.logit_scale, rows * c_.vocabulary);
    if (c_.logit_softcap != 0) softcap(ws_.logits.data(), c_.logit_softcap, rows * c_.vocabulary);
    return {ws_.logits.data(), rows * c_.vocabulary};
  }

  const ModelConfig& c_;
  const Weights& weights_;
  const Step& step_;
  Cache& cache_;
  Workspace& ws_;
  ThreadPool& pool_;
  const size_t tokens_;
};

}  // namespace

Transformer::Transformer(const ModelFile& file, ThreadPool& pool)
    : config_(read_config(file.metadata)),
      weights_(load_weights(file, config_, pool)),
      rotation_border_(contexture::rotation_border(file)) {}

Transformer::Transformer(const ModelFile& file) : Transformer(file, *std::make_unique<ThreadPool>(1)) {}

CacheShape Transformer::cache_shape(Format k, Format v) const {
  return {.layers = config_.layers,
          .kv_heads = config_.kv_heads,
          .head_dim = config_.head_dim,
          .k_format = k,
          .v_format = v};
}

size_t Transformer::bytes_per_token() const {
  size_t bytes = weights_.output.bytes() + weights_.embedding.panel_bytes() / PackedMatrix::panel_rows;
  for (const LayerWeights& w : weights_.layers) {
    for (const PackedMatrix* m : {&w.q, &w.k, &w.v, &w.attention_output, &w.router}) bytes += m->bytes();
    for (size_t i = 0; i < std::max<size_t>(1, config_.experts_used); ++i) {
      bytes += w.ffn[i].gate.bytes() + w.ffn[i].up.bytes() + w.ffn[i].down.bytes();
    }
  }
  return bytes;
}

std::span<const float> Transformer::forward(const Step& step, Cache& cache, Workspace& workspace,
                                            ThreadPool& pool) const {
  return ForwardPass(config_, weights_, step, cache, workspace, pool).run();
}

}  // namespace contexture
