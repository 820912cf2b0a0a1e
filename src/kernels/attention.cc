// Attention over spans. A unit of work is one KV head and up to 16 queries of one sequence. It walks the tiles of
// positions: K and V of a tile are unpacked to f32 once (K transposed: a lane is a token, so scores need no horizontal
// sums; V as it is: a lane is a channel), then every query head of the group takes its scores, its softmax and its
// weighted sum from there, and merges the tile's state into its own.

#include "kernels/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/attention_state.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "hwy/contrib/math/math-inl.h"
#include "kernels/lanes-inl.h"
#include "kernels/unpack-inl.h"

#ifndef CONTEXTURE_ATTENTION_COMMON
#define CONTEXTURE_ATTENTION_COMMON
namespace contexture {

constexpr size_t kQueryBlock = 16;
constexpr size_t kTile = static_cast<size_t>(kTilePositions);

inline size_t round_up_16(size_t n) {
  return (n + 15) / 16 * 16;
}

/// One thread's memory, laid out.
struct AttentionMemory {
  float* k;       // (round_up_16(head_dim), kTile): transposed
  float* v;       // (kTile, round_up_16(head_dim))
  float* scores;  // (kTile)
  float* row;     // (round_up_16(head_dim)): one K row before it is transposed, one tile's weighted sum
  float* states;  // (kQueryBlock · group, 16 + round_up_16(head_dim)): maximum and sum, then values

  static size_t floats(const AttentionShape& shape) {
    const size_t dim = round_up_16(shape.head_dim), group = shape.heads / shape.kv_heads;
    return round_up_16(dim * kTile * 2 + kTile + dim + kQueryBlock * group * (16 + dim)) + 16;
  }
  AttentionMemory(float* memory, size_t dim) {
    k = memory;
    v = k + dim * kTile;
    scores = v + dim * kTile;
    row = scores + kTile;
    states = row + dim;
  }
};

/// The tokens of one tile, gathered from the spans: how many, and where each is in the sequence.
struct Tile {
  size_t count = 0;
  int64_t positions[kTile];
};

/// The first position that a query at `position` sees.
inline int64_t first_visible(int64_t position, const AttentionShape& shape) {
  return shape.window > 0 && position >= shape.window ? position - shape.window + 1 : 0;
}

/// Up to kQueryBlock queries of one sequence.
struct QueryBlock {
  const AttentionQueries* queries;
  size_t begin, end;  // tokens
};

}  // namespace contexture
#endif

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// Walks a view tile by tile.
class TileReader {
 public:
  /// Begins at the tile that holds position `first`.
  TileReader(CacheView view, size_t kv_head, size_t head_dim, int64_t first, const AttentionMemory& memory)
      : view_(view), kv_head_(kv_head), head_dim_(head_dim), memory_(memory) {
    const int64_t begin = first / kTilePositions * kTilePositions;
    for (skip_finished(); span_ < view_.size() && position() < begin; skip_finished()) {
      const TokenSpan& span = view_[span_];
      const int64_t before = (begin - span.first_position + span.position_stride - 1) / span.position_stride;
      token_ = std::min(span.count, static_cast<size_t>(before));
    }
  }

  /// Unpacks the next tile that holds tokens; false when none is left at positions ≤ last.
  HWY_INLINE bool next(int64_t last, Tile& tile) {
    skip_finished();
    if (span_ == view_.size() || position() > last) return false;
    const int64_t tile_end = (position() / kTilePositions + 1) * kTilePositions;
    tile.count = 0;
    while (span_ < view_.size() && position() < tile_end && position() <= last) {
      const TokenSpan& span = view_[span_];
      unpack_token(span, tile.count);
      tile.positions[tile.count++] = position();
      ++token_;
      skip_finished();
    }
    return true;
  }

 private:
  int64_t position() const {
    const TokenSpan& span = view_[span_];
    return span.first_position + static_cast<int64_t>(token_) * span.position_stride;
  }
  void skip_finished() {
    while (span_ < view_.size() && token_ == view_[span_].count) {
      ++span_;
      token_ = 0;
    }
  }
  HWY_INLINE void unpack_token(const TokenSpan& span, size_t at) {
    const std::byte* k = span.k + token_ * span.k_token_stride + kv_head_ * span.k_head_stride;
    const std::byte* v = span.v + token_ * span.v_token_stride + kv_head_ * span.v_head_stride;
    unpack_floats(span.k_format, k, head_dim_, memory_.row);
    for (size_t d = 0; d < head_dim_; ++d) memory_.k[d * kTile + at] = memory_.row[d];
    const size_t dim = round_up_16(head_dim_);
    float* to = memory_.v + at * dim;
    unpack_floats(span.v_format, v, head_dim_, to);
    for (size_t d = head_dim_; d < dim; ++d) to[d] = 0;
  }

  CacheView view_;
  size_t kv_head_, head_dim_;
  const AttentionMemory& memory_;
  size_t span_ = 0, token_ = 0;
};

/// Which tokens of a tile a query sees.
struct Visible {
  size_t begin, end;
};

/// scores[t] = scale · Σ_d q[d] · k[d][t] for the visible tokens of the tile, in order of d, soft-capped; -inf for
/// those beside them. Returns the largest.
HWY_INLINE float tile_scores(const float* HWY_RESTRICT q, const AttentionShape& shape, Visible visible,
                             const AttentionMemory& memory) {
  const size_t head_dim = shape.head_dim;
  const float scale = shape.scale;
  for (size_t t = visible.begin / 32 * 32; t < visible.end; t += 32) {
    Floats a = zeros(), b = zeros();
    for (size_t d = 0; d < head_dim; ++d) {
      const Floats qd = splat(q[d]);
      fma(qd, load(memory.k + d * kTile + t), a);
      fma(qd, load(memory.k + d * kTile + t + 16), b);
    }
    a = mul(a, splat(scale));
    b = mul(b, splat(scale));
    if (shape.softcap != 0) {
      a = soft_capped(a, shape.softcap);
      b = soft_capped(b, shape.softcap);
    }
    store(a, memory.scores + t);
    store(b, memory.scores + t + 16);
  }
  const float lowest = -std::numeric_limits<float>::infinity();
  for (size_t t = 0; t < visible.begin; ++t) memory.scores[t] = lowest;
  for (size_t t = visible.end; t < round_up_16(visible.end); ++t) memory.scores[t] = lowest;
  float maximum = lowest;
  for (size_t t = visible.begin; t < visible.end; ++t) maximum = std::max(maximum, memory.scores[t]);
  return maximum;
}

/// Replaces the scores by exp(score - maximum) and returns their sum.
HWY_INLINE float tile_softmax(float maximum, size_t count, const AttentionMemory& memory) {
  Floats sums = zeros();
  const FloatTag d;
  for (size_t t = 0; t < count; t += 16) {
    Floats p = load(memory.scores + t);
    for (size_t i = 0; i < kParts; ++i) {
      // hn::Exp is undefined far below its range; what is masked or negligible becomes an exact zero.
      const auto x = hn::Sub(p.part[i], hn::Set(d, maximum));
      // NaN stays NaN: damaged numbers must not pass for text.
      const auto clamped = hn::Max(x, hn::Set(d, -104.f));
      const auto weight = hn::IfThenElseZero(hn::Gt(x, hn::Set(d, -104.f)), hn::Exp(d, clamped));
      p.part[i] = hn::IfThenElse(hn::IsNaN(x), x, weight);
    }
    sums = add(sums, p);
    store(p, memory.scores + t);
  }
  return sum(sums);
}

/// row[d] = Σ_t p[t] · v[t][d] over the visible tokens, in order of t.
HWY_INLINE void tile_values(Visible visible, size_t dim, const AttentionMemory& memory) {
  for (size_t d = 0; d < dim; d += 64) {
    const size_t vectors = std::min<size_t>(4, (dim - d) / 16);
    Floats sums[4] = {zeros(), zeros(), zeros(), zeros()};
    for (size_t t = visible.begin; t < visible.end; ++t) {
      const Floats p = splat(memory.scores[t]);
      for (size_t i = 0; i < vectors; ++i) fma(p, load(memory.v + t * dim + d + i * 16), sums[i]);
    }
    for (size_t i = 0; i < vectors; ++i) store(sums[i], memory.row + d + i * 16);
  }
}

/// One query head over one tile, merged into its state.
HWY_INLINE void attend_tile(const float* q, const AttentionShape& shape, Visible visible, const AttentionMemory& memory,
                            float* state_floats) {
  const size_t dim = round_up_16(shape.head_dim);
  AttentionState tile;
  tile.maximum = tile_scores(q, shape, visible, memory);
  tile.sum = tile_softmax(tile.maximum, visible.end, memory);
  if (std::isnan(tile.sum)) tile.maximum = tile.sum;  // so that it survives the merge
  tile_values(visible, dim, memory);
  AttentionState state{state_floats[0], state_floats[1]};
  const MergeFactors factors = merge(state, tile);
  state_floats[0] = state.maximum;
  state_floats[1] = state.sum;
  float* values = state_floats + 16;
  for (size_t d = 0; d < dim; d += 16) {
    Floats merged = mul(load(values + d), splat(factors.a));
    fma(load(memory.row + d), splat(factors.b), merged);
    store(merged, values + d);
  }
}

void attend_block(const QueryBlock& block, size_t kv_head, const AttentionShape& shape, float* thread_memory) {
  const size_t dim = round_up_16(shape.head_dim), group = shape.heads / shape.kv_heads;
  const AttentionMemory memory(thread_memory, dim);
  const AttentionQueries& queries = *block.queries;
  const size_t tokens = block.end - block.begin, state_size = 16 + dim;
  int64_t first = std::numeric_limits<int64_t>::max(), last = std::numeric_limits<int64_t>::min();
  for (size_t t = block.begin; t < block.end; ++t) {
    first = std::min(first, first_visible(queries.positions[t], shape));
    last = std::max(last, queries.positions[t]);
  }
  for (size_t i = 0; i < tokens * group; ++i) {
    float* state = memory.states + i * state_size;
    std::fill(state, state + state_size, 0.f);
    state[0] = AttentionState().maximum;
  }
  Tile tile;
  TileReader reader(queries.view, kv_head, shape.head_dim, first, memory);
  while (reader.next(last, tile)) {
    for (size_t t = 0; t < tokens; ++t) {
      const int64_t position = queries.positions[block.begin + t];
      const int64_t* tile_end = tile.positions + tile.count;
      const int64_t* begin = std::lower_bound<const int64_t*>(tile.positions, tile_end, first_visible(position, shape));
      const int64_t* end = std::upper_bound(begin, tile_end, position);
      if (begin == end) continue;
      const Visible visible{static_cast<size_t>(begin - tile.positions), static_cast<size_t>(end - tile.positions)};
      const float* q = queries.q + ((block.begin + t) * shape.heads + kv_head * group) * shape.head_dim;
      for (size_t h = 0; h < group; ++h) {
        attend_tile(q + h * shape.head_dim, shape, visible, memory, memory.states + (t * group + h) * state_size);
      }
    }
  }
  for (size_t i = 0; i < tokens * group; ++i) {
    const float* state = memory.states + i * state_size;
    const float scale = state[1] == 0 ? 0 : 1 / state[1];
    float* out = queries.out + ((block.begin + i / group) * shape.heads + kv_head * group + i % group) * shape.head_dim;
    for (size_t d = 0; d < shape.head_dim; ++d) out[d] = state[16 + d] * scale;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(attend_block);

AttentionScratch::AttentionScratch(const AttentionShape& shape, int threads)
    : floats_(AttentionMemory::floats(shape)), memory_(static_cast<size_t>(threads) * floats_) {}

size_t AttentionScratch::bytes_for(const AttentionShape& shape, int threads) {
  return AlignedArray<float>::bytes_for(static_cast<size_t>(threads) * AttentionMemory::floats(shape));
}

bool attention_reads(Format format) {
  return format == Format::f32 || format == Format::f16 || format == Format::bf16;
}

void attend(std::span<const AttentionQueries> sequences, const AttentionShape& shape, AttentionScratch& scratch,
            ThreadPool& pool) {
  size_t blocks = 0;
  for (const AttentionQueries& s : sequences) blocks += (s.positions.size() + kQueryBlock - 1) / kQueryBlock;
  // Later blocks of a prompt see more tokens: taken first, so that the last part to be handed out is a short one.
  pool.run(blocks * shape.kv_heads, [&](size_t part, int thread) {
    size_t block = blocks - 1 - part / shape.kv_heads;
    for (const AttentionQueries& s : sequences) {
      const size_t blocks_here = (s.positions.size() + kQueryBlock - 1) / kQueryBlock;
      if (block >= blocks_here) {
        block -= blocks_here;
        continue;
      }
      const size_t begin = block * kQueryBlock;
      const QueryBlock queries{&s, begin, std::min(s.positions.size(), begin + kQueryBlock)};
      HWY_DYNAMIC_DISPATCH(attend_block)(queries, part % shape.kv_heads, shape, scratch.of_thread(thread));
      return;
    }
  });
}

void attend_plain(const float* q, int64_t position, CacheView view, const AttentionShape& shape, double* out) {
  const size_t dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  for (size_t head = 0; head < shape.heads; ++head) {
    std::vector<double> scores, values;
    std::vector<float> row(dim);
    for (const TokenSpan& span : view) {
      for (size_t t = 0; t < span.count; ++t) {
        const int64_t at = span.first_position + static_cast<int64_t>(t) * span.position_stride;
        if (at > position || at < first_visible(position, shape)) continue;
        info(span.k_format)
            .decode(span.k + t * span.k_token_stride + head / group * span.k_head_stride, row.data(), dim);
        double score = 0;
        for (size_t d = 0; d < dim; ++d) score += static_cast<double>(q[head * dim + d]) * row[d];
        score *= shape.scale;
        if (shape.softcap != 0) score = shape.softcap * std::tanh(score / shape.softcap);
        scores.push_back(score);
        info(span.v_format)
            .decode(span.v + t * span.v_token_stride + head / group * span.v_head_stride, row.data(), dim);
        values.insert(values.end(), row.begin(), row.end());
      }
    }
    double* o = out + head * dim;
    std::fill(o, o + dim, 0.0);
    if (scores.empty()) continue;
    const double maximum = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (size_t t = 0; t < scores.size(); ++t) {
      const double p = std::exp(scores[t] - maximum);
      total += p;
      for (size_t d = 0; d < dim; ++d) o[d] += p * values[t * dim + d];
    }
    for (size_t d = 0; d < dim; ++d) o[d] /= total;
  }
}

}  // namespace contexture
#endif
