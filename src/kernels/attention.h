#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/attention_state.h"
#include "kernels/span.h"

namespace contexture {

/// Tokens are taken in tiles of this many absolute positions, [0, 128), [128, 256) …, and the tiles' states merge in
/// position order, in an order of its own that depends on nothing else: so neither spans, chunks, threads nor company
/// change a bit of the result.
constexpr int64_t kTilePositions = 128;

struct AttentionShape {
  size_t heads = 0;  // query heads; a multiple of kv_heads
  size_t kv_heads = 0;
  size_t head_dim = 0;  // a multiple of 8
  float scale = 0;      // of the scores: 1 / sqrt(head_dim), mostly
  float softcap = 0;    // c: scaled scores become c · tanh(score / c); 0: off
  int64_t window = 0;   // a query at p sees positions above p - window only; 0: no window
};

/// The queries of one sequence in a step.
struct AttentionQueries {
  const float* q = nullptr;            // (tokens, heads, head_dim), rotated
  float* out = nullptr;                // (tokens, heads, head_dim)
  std::span<const int64_t> positions;  // (tokens), absolute
  CacheView view;                      // the sequence's tokens in one layer, the queries' own included
  // (tokens, heads): where states are wanted, they come here, and `out` holds their values, not divided by the sum: the
  // view is then a part of the context, and who asked merges the parts.
  AttentionState* states = nullptr;
};

/// Memory for attend: per thread, and for the parts of a sequence that are computed by different threads. Sequences of
/// up to `context` tokens are cut so; longer ones are computed all the same, each KV head by one thread.
class AttentionScratch {
 public:
  AttentionScratch(const AttentionShape& shape, int threads, size_t context = 0);
  static size_t bytes_for(const AttentionShape& shape, int threads, size_t context = 0);

  float* of_thread(int thread) { return memory_.data() + static_cast<size_t>(thread) * thread_floats_; }
  float* kept() { return kept_.data(); }
  /// Stretches of positions that there is room for; 0: sequences are never cut.
  size_t stretches() const { return stretches_; }

 private:
  static size_t stretches(const AttentionShape& shape, int threads, size_t context);
  static size_t kept_floats(const AttentionShape& shape, int threads, size_t context);

  size_t thread_floats_, stretches_;
  AlignedArray<float> memory_, kept_;
};

/// Causal attention of every query over its sequence: a token at position p sees the tokens at positions ≤ p, wherever
/// they lie, within the window. A query that sees nothing gets zeros. f32 throughout. K and V may be in any format that
/// kv_formats() has, and are read once for all query heads that share them and for up to 16 queries.
void attend(std::span<const AttentionQueries> sequences, const AttentionShape& shape, AttentionScratch& scratch,
            ThreadPool& pool);

/// The same for one query token in float64, softmax over all tokens at once: the oracle. out (heads, head_dim).
void attend_plain(const float* q, int64_t position, CacheView view, const AttentionShape& shape, double* out);

}  // namespace contexture
