#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/span.h"

namespace contexture {

/// Tokens are taken in tiles of this many absolute positions, [0, 128), [128, 256) …, and the tiles' states merge in
/// position order: so neither spans, chunks, threads nor company change a bit of the result.
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
  CacheView view;                      // the sequence's tokens in this layer, the queries' own included
};

/// Memory for attend, per thread.
class AttentionScratch {
 public:
  AttentionScratch(const AttentionShape& shape, int threads);
  static size_t bytes_for(const AttentionShape& shape, int threads);
  float* of_thread(int thread) { return memory_.data() + static_cast<size_t>(thread) * floats_; }

 private:
  size_t floats_;
  AlignedArray<float> memory_;
};

/// Whether this format of K or V can be read. A plan asks before it is made; nothing falls back in silence.
bool attention_reads(Format format);

/// Causal attention of every query over its sequence: a token at position p sees the tokens at positions ≤ p, wherever
/// they lie, within the window. A query that sees nothing gets zeros. f32 throughout. K and V are read once for all
/// query heads that share them and for up to 16 queries.
void attend(std::span<const AttentionQueries> sequences, const AttentionShape& shape, AttentionScratch& scratch,
            ThreadPool& pool);

/// The same for one query token in float64, softmax over all tokens at once: the oracle. out (heads, head_dim).
void attend_plain(const float* q, int64_t position, CacheView view, const AttentionShape& shape, double* out);

}  // namespace contexture
