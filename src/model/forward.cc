#include <cassert>

#include "kernels/elementwise.h"
#include "model/families.h"
#include "model/model.h"

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
    for (size_t layer = 0; layer < c_.layers; ++layer) {
      if (step_.cancelled && *step_.cancelled) return {};
      const LayerWeights& w = weights_.layers[layer];

      norm(w.attention_norm);
      multiply({{&w.q, ws_.q.data()}, {&w.k, ws_.k.data()}, {&w.v, ws_.v.data()}}, ws_.normed.data());
      rotate();
      cache_.store(layer, slots(), ws_.k.data(), ws_.v.data());
      attend_cache(layer);
      multiply({{&w.attention_output, ws_.projected.data()}}, ws_.attended.data());
      add_projected();

      norm(w.ffn_norm);
      multiply({{&w.gate, ws_.gate.data()}, {&w.up, ws_.up.data()}}, ws_.normed.data());
      each_token(
          [&](size_t t) { swiglu(ws_.gate.data() + t * c_.ffn_dim, ws_.up.data() + t * c_.ffn_dim, c_.ffn_dim); });
      multiply({{&w.down, ws_.projected.data()}}, ws_.gate.data());
      add_projected();
    }
    return logits();
  }

 private:
  template <class Body>
  void each_token(const Body& body) {
    pool_.run(tokens_, [&](size_t t, int) { body(t); });
  }

  std::span<const Slot> slots() const { return {ws_.slots.data(), tokens_}; }

  void embed() {
    each_token([&](size_t t) {
      decode_row(weights_.embedding, static_cast<size_t>(step_.tokens[t]), ws_.hidden.data() + t * c_.dim);
      rope_table(step_.positions.subspan(t, 1), weights_.rope_frequencies, ws_.rope.data() + t * c_.rope.dim);
      ws_.slots[t] = cache_.slot(step_.sequences[t], static_cast<size_t>(step_.positions[t]));
    });
  }

  void norm(const float* weight) {
    each_token([&](size_t t) {
      rms_norm(ws_.hidden.data() + t * c_.dim, weight, c_.norm_epsilon, c_.dim, ws_.normed.data() + t * c_.dim);
    });
  }

  void multiply(std::initializer_list<Product> products, const float* x) {
    matmul({products.begin(), products.size()}, x, tokens_, ws_.matmul, pool_);
  }

  void add_projected() {
    each_token([&](size_t t) { add_to(ws_.hidden.data() + t * c_.dim, ws_.projected.data() + t * c_.dim, c_.dim); });
  }

  void rotate() {
    each_token([&](size_t t) {
      const float* table = ws_.rope.data() + t * c_.rope.dim;
      const size_t d = c_.head_dim;
      rope(ws_.q.data() + t * c_.heads * d, c_.heads, d, c_.rope.dim, c_.rope.style, table);
      rope(ws_.k.data() + t * c_.kv_heads * d, c_.kv_heads, d, c_.rope.dim, c_.rope.style, table);
    });
  }

  /// Each run of one sequence's tokens attends to that sequence's view.
  void attend_cache(size_t layer) {
    ws_.spans.clear();
    ws_.sequences.clear();
    for (size_t begin = 0, end = 0; begin < tokens_; begin = end) {
      const SequenceId sequence = step_.sequences[begin];
      while (end < tokens_ && step_.sequences[end] == sequence) ++end;
      const size_t first_span = ws_.spans.size();
      cache_.view(layer, sequence, ws_.spans);
      assert(ws_.spans.size() <= ws_.spans.capacity());
      const size_t at = begin * c_.heads * c_.head_dim;
      ws_.sequences.push_back({.q = ws_.q.data() + at,
                               .out = ws_.attended.data() + at,
                               .positions = step_.positions.subspan(begin, end - begin),
                               .view = CacheView(ws_.spans).subspan(first_span)});
    }
    attend(ws_.sequences, c_.attention_shape(), ws_.attention, pool_);
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

Model::Model(const ModelFile& file) : config_(read_config(file.metadata)), weights_(load_weights(file, config_)) {}

CacheShape Model::cache_shape(Format k, Format v) const {
  return {.layers = config_.layers,
          .kv_heads = config_.kv_heads,
          .head_dim = config_.head_dim,
          .k_format = k,
          .v_format = v};
}

size_t Model::bytes_per_token() const {
  size_t bytes = weights_.output.bytes() + weights_.embedding.row_bytes();
  for (const LayerWeights& w : weights_.layers) {
    for (const Matrix* m : {&w.q, &w.k, &w.v, &w.attention_output, &w.gate, &w.up, &w.down}) bytes += m->bytes();
  }
  return bytes;
}

std::span<const float> Model::forward(const Step& step, Cache& cache, Workspace& workspace, ThreadPool& pool) const {
  return ForwardPass(config_, weights_, step, cache, workspace, pool).run();
}

}  // namespace contexture
