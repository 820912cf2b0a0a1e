// Attention over spans. A unit of work is one KV head and up to 16 queries of one sequence: its rows are the query
// heads that share the KV head, of all its queries. It walks the tiles of positions: K of a tile becomes f32 once, a
// lane a token, every row takes its scores and its softmax from there, then V of the tile becomes f32 in the same
// memory and every row takes its weighted sum, which is merged into the row's state of the stretch of positions that
// the tile lies in; the stretches' states merge in their order. With few queries a unit is cut along the stretches
// (flash-decoding): each stretch's state is kept until all are there. The order of merging is the same either way, and
// so are the bits.

#include "kernels/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/attention_state.h"
#include "kernels/attention_tile.h"
#include "tensor/kv_row.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "hwy/contrib/math/math-inl.h"
#include "kernels/attention_rows-inl.h"
#include "kernels/kv_rows-inl.h"
#include "kernels/lanes-inl.h"

#ifndef CONTEXTURE_ATTENTION_COMMON
#define CONTEXTURE_ATTENTION_COMMON
namespace contexture {

constexpr size_t kQueryBlock = 16;
constexpr int64_t kStretchPositions = 4 * kTilePositions;
constexpr size_t kFewRows = 8;               // that are attended without a tile of floats
constexpr size_t kScoreStride = kTile + 16;  // of a row's scores

/// One thread's memory, laid out.
struct AttentionMemory {
  float* tile;                  // K (dim, kTile), then V (kTile, dim); dim is round_up_16(head_dim)
  float* rows;                  // (16, dim): K on its way
  float* q;                     // (rows, dim): the queries, padded with zeros
  float* scores;                // (rows, kScoreStride)
  float* values;                // (kFewRows, dim): weighted sums of one tile
  AttentionState* tile_states;  // (rows)
  float* states;                // (rows, state_floats): of the present stretch
  float* totals;                // the same: of the stretches before it

  static constexpr size_t kRowsAtOnce = 4;

  static size_t floats(const AttentionShape& shape) {
    const size_t dim = round_up_16(shape.head_dim), rows = kQueryBlock * (shape.heads / shape.kv_heads);
    return round_up_16((kTile + 16) * dim + rows * (dim + kScoreStride + 2) + kFewRows * dim +
                       2 * rows * state_floats(dim));
  }
  AttentionMemory(float* memory, const AttentionShape& shape) {
    const size_t dim = round_up_16(shape.head_dim), rows = kQueryBlock * (shape.heads / shape.kv_heads);
    tile = memory;
    this->rows = tile + kTile * dim;
    q = this->rows + 16 * dim;
    scores = q + rows * dim;
    values = scores + rows * kScoreStride;
    states = values + kFewRows * dim;
    totals = states + rows * state_floats(dim);
    tile_states = reinterpret_cast<AttentionState*>(totals + rows * state_floats(dim));
  }

  /// A state in memory: its maximum and sum in the first 16 floats, then its values.
  static size_t state_floats(size_t dim) { return 16 + dim; }
};

/// A unit of work: up to kQueryBlock queries of one sequence, one KV head, and the stretches to read.
struct AttentionUnit {
  const AttentionQueries* queries;
  size_t begin, end;  // tokens
  size_t kv_head;
  int64_t first_stretch = 0;
  int64_t last_stretch = std::numeric_limits<int64_t>::max();
  float* kept = nullptr;  // (stretches from first_stretch on, group, state_floats) for one query; null: merged into out
};

/// Queries from `begin` on, at most up to `end`, that see the same spans as the first.
inline size_t end_of_one_view(const AttentionQueries& queries, size_t begin, size_t end) {
  for (const TokenSpan& span : queries.view.table()) {
    const bool first_sees = span.seen_from(queries.positions[begin]);
    while (end > begin + 1 && span.seen_from(queries.positions[end - 1]) != first_sees) --end;
  }
  return end;
}

}  // namespace contexture
#endif

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// V of a tile's tokens as floats: to (tile.count, dim).
HWY_INLINE void unpack_values(const Tile& tile, const AttentionShape& shape, float* HWY_RESTRICT to) {
  const size_t dim = round_up_16(shape.head_dim);
  for (size_t i = 0; i < tile.runs; ++i) {
    const Tile::Run& run = tile.run[i];
    unpack_rows(run.span->v_format, run.v, run.span->v_token_stride, run.count, shape.head_dim, dim, to);
    to += run.count * dim;
  }
}

/// K of a tile's tokens as floats, a lane a token: to (dim, kTile); zeros up to a whole vector of tokens. `rows` is
/// memory for (16, dim).
HWY_INLINE void unpack_keys(const Tile& tile, const AttentionShape& shape, float* HWY_RESTRICT rows,
                            float* HWY_RESTRICT to) {
  const size_t dim = round_up_16(shape.head_dim);
  size_t run = 0, in_run = 0;
  for (size_t t = 0; t < tile.count; t += 16) {
    size_t filled = 0;
    while (filled < 16 && run < tile.runs) {
      const auto& [span, token, count, first_position, k, v] = tile.run[run];
      const size_t some = std::min(count - in_run, 16 - filled);
      unpack_rows(span->k_format, k + in_run * span->k_token_stride, span->k_token_stride, some, shape.head_dim, dim,
                  rows + filled * dim);
      filled += some;
      in_run += some;
      if (in_run == count) ++run, in_run = 0;
    }
    std::fill(rows + filled * dim, rows + 16 * dim, 0.f);
    for (size_t d = 0; d < dim; d += 16) transpose_16(rows + d, dim, to + d * kTile + t, kTile);
  }
}

/// sums[r] = Σ q[r][d] · k[d], a lane a token, over the channels d that are `channel` modulo kStep, in the order in
/// which sums_of_16 ends the same sum with a lane a channel: chains of channels 16 apart (kChains; 8 where there are no
/// more channels), then those 8 apart, 4, 2, 1 are added.
template <size_t kRows, size_t kChains, size_t kStep = 1>
HWY_INLINE void sums_over_channels(const float* HWY_RESTRICT q, size_t dim, size_t channel, const float* HWY_RESTRICT k,
                                   Floats* sums) {
  if constexpr (kStep == kChains) {
    for (size_t r = 0; r < kRows; ++r) sums[r] = zeros();
    for (size_t d = channel; d < (kChains == 8 ? 8 : dim); d += kChains) {
      const Floats kd = load(k + d * kTile);
      for (size_t r = 0; r < kRows; ++r) fma(splat(q[r * dim + d]), kd, sums[r]);
    }
  } else {
    Floats others[kRows];
    sums_over_channels<kRows, kChains, 2 * kStep>(q, dim, channel, k, sums);
    sums_over_channels<kRows, kChains, 2 * kStep>(q, dim, channel + kStep, k, others);
    for (size_t r = 0; r < kRows; ++r) sums[r] = add(sums[r], others[r]);
  }
}

/// scores[r][t] = scale · Σ_d q[r][d] · k[d][t] for the visible tokens of the tile, soft-capped: kRows rows that see
/// the same. Meanwhile what comes next is asked for.
template <size_t kRows>
HWY_INLINE void tile_scores(const float* HWY_RESTRICT q, const AttentionShape& shape, Visible visible,
                            const float* HWY_RESTRICT k, float* HWY_RESTRICT scores, const Ahead& ahead) {
  const size_t dim = round_up_16(shape.head_dim);
  for (size_t t = visible.begin / 16 * 16; t < visible.end; t += 16) {
    ahead.ask(t, 16);
    Floats sums[kRows];
    if (shape.head_dim == 8) {
      sums_over_channels<kRows, 8>(q, dim, 0, k + t, sums);
    } else {
      sums_over_channels<kRows, 16>(q, dim, 0, k + t, sums);
    }
    for (size_t r = 0; r < kRows; ++r) store(scores_of(sums[r], shape), scores + r * kScoreStride + t);
  }
}

/// -inf for what is not visible of one row, up to a whole vector; returns the largest score.
HWY_INLINE float mask_scores(Visible visible, float* HWY_RESTRICT scores) {
  const float lowest = -std::numeric_limits<float>::infinity();
  for (size_t t = 0; t < visible.begin; ++t) scores[t] = lowest;
  for (size_t t = visible.end; t < round_up_16(visible.end); ++t) scores[t] = lowest;
  Floats largest = splat(lowest);
  for (size_t t = visible.begin / 16 * 16; t < visible.end; t += 16) largest = larger(load(scores + t), largest);
  return max_of(largest);
}

/// Replaces the scores by exp(score - maximum) and returns their sum. NaN stays NaN: damaged numbers must not pass for
/// text.
HWY_INLINE float tile_softmax(float maximum, size_t count, float* HWY_RESTRICT scores) {
  Floats sums = zeros();
  const FloatTag d;
  for (size_t t = 0; t < count; t += 16) {
    Floats p = load(scores + t);
    for (size_t i = 0; i < kParts; ++i) p.part[i] = exp_of_negative(hn::Sub(p.part[i], hn::Set(d, maximum)));
    sums = add(sums, p);
    store(p, scores + t);
  }
  return sum(sums);
}

/// values[r][d] = Σ_t p[r][t] · v[t][d] over the visible tokens, in order of t, for kRows rows that see the same.
/// Meanwhile what comes next is asked for.
template <size_t kRows>
HWY_INLINE void tile_values(const float* HWY_RESTRICT p, Visible visible, size_t dim, const float* HWY_RESTRICT v,
                            float* HWY_RESTRICT values, const Ahead& ahead) {
  constexpr size_t kVectors = kParts == 1 ? 4 : 1;
  for (size_t d = 0; d < dim; d += kVectors * 16) {
    const size_t vectors = std::min(kVectors, (dim - d) / 16);
    Floats sums[kRows][kVectors];
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < kVectors; ++i) sums[r][i] = zeros();
    }
    const auto add_all = [&](auto count) HWY_ATTR {
      for (size_t begin = visible.begin; begin < visible.end; begin += 8) {
        if (d == 0) ahead.ask(begin, 8);
        for (size_t t = begin; t < std::min(visible.end, begin + 8); ++t) {
          Floats vt[kVectors];
          for (size_t i = 0; i < count; ++i) vt[i] = load(v + t * dim + d + i * 16);
          for (size_t r = 0; r < kRows; ++r) {
            const Floats weight = splat(p[r * kScoreStride + t]);
            for (size_t i = 0; i < count; ++i) fma(weight, vt[i], sums[r][i]);
          }
        }
      }
    };
    // A number that the compiler does not know would leave the sums in memory.
    switch (vectors) {
      case 1:
        add_all(std::integral_constant<size_t, 1>());
        break;
      case 2:
        add_all(std::integral_constant<size_t, (kVectors < 2 ? kVectors : 2)>());
        break;
      case 3:
        add_all(std::integral_constant<size_t, (kVectors < 3 ? kVectors : 3)>());
        break;
      default:
        add_all(std::integral_constant<size_t, kVectors>());
    }
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < vectors; ++i) store(sums[r][i], values + r * dim + d + i * 16);
    }
  }
}

/// Merges a state, its values at `from_values`, into the one at `into`.
HWY_INLINE void merge_states(const AttentionState& from, const float* HWY_RESTRICT from_values, size_t dim,
                             float* HWY_RESTRICT into) {
  AttentionState state{into[0], into[1]};
  const MergeFactors factors = merge(state, from);
  into[0] = state.maximum;
  into[1] = state.sum;
  float* values = into + 16;
  for (size_t d = 0; d < dim; d += 16) {
    Floats merged = mul(load(values + d), splat(factors.a));
    fma(load(from_values + d), splat(factors.b), merged);
    store(merged, values + d);
  }
}

HWY_INLINE void clear_states(float* states, size_t count, size_t dim) {
  const size_t floats = AttentionMemory::state_floats(dim);
  std::fill(states, states + count * floats, 0.f);
  for (size_t i = 0; i < count; ++i) states[i * floats] = AttentionState().maximum;
}

/// Merges `count` states into others; empty ones are nothing.
void merge_all(const float* from, size_t count, size_t dim, float* into) {
  const size_t floats = AttentionMemory::state_floats(dim);
  for (size_t i = 0; i < count; ++i, from += floats, into += floats) {
    if (from[1] != 0) merge_states({from[0], from[1]}, from + 16, dim, into);
  }
}

/// out = values / sum for the group's heads of each query; zeros where nothing was seen. Where states are wanted, those
/// and the values as they are.
void write_out(const float* states, const AttentionUnit& unit, const AttentionShape& shape) {
  const size_t dim = round_up_16(shape.head_dim), group = shape.heads / shape.kv_heads;
  for (size_t i = 0; i < (unit.end - unit.begin) * group; ++i) {
    const float* state = states + i * AttentionMemory::state_floats(dim);
    const size_t row = (unit.begin + i / group) * shape.heads + unit.kv_head * group + i % group;
    float scale = state[1] == 0 ? 0 : 1 / state[1];
    if (unit.queries->states) {
      unit.queries->states[row] = {state[0], state[1]};
      scale = 1;
    }
    float* out = unit.queries->out + row * shape.head_dim;
    for (size_t d = 0; d < shape.head_dim; ++d) out[d] = state[16 + d] * scale;
  }
}

/// What each query of the unit sees of a tile.
HWY_INLINE void find_visible(const AttentionUnit& unit, const Tile& tile, const AttentionShape& shape,
                             Visible* visible) {
  for (size_t t = unit.begin; t < unit.end; ++t) {
    const int64_t position = unit.queries->positions[t];
    *visible++ = {tile.tokens_before(first_visible(position, shape)), tile.tokens_before(position + 1)};
  }
}

/// Calls use(first row, rows, what they see), the second a compile-time constant, over the rows of a unit that see any
/// of a tile: 4, 2 or 1 that see the same.
template <class Use>
HWY_INLINE void for_rows(const Visible* visible, size_t rows, size_t group, const Use& use) {
  for (size_t row = 0, count; row < rows; row += count) {
    const Visible seen = visible[row / group];
    size_t same = 1;
    while (same < AttentionMemory::kRowsAtOnce && row + same < rows && visible[(row + same) / group] == seen) ++same;
    count = same == 3 ? 2 : same;
    if (seen.begin == seen.end) continue;
    if (count == 4) {
      use(row, std::integral_constant<size_t, 4>(), seen);
    } else if (count == 2) {
      use(row, std::integral_constant<size_t, 2>(), seen);
    } else {
      use(row, std::integral_constant<size_t, 1>(), seen);
    }
  }
}

/// A row's softmax over a tile, from its scores.
HWY_INLINE void finish_scores(Visible seen, float* scores, AttentionState& state) {
  state.maximum = mask_scores(seen, scores);
  state.sum = tile_softmax(state.maximum, seen.end, scores);
  if (std::isnan(state.sum)) state.maximum = state.sum;  // so that it survives the merge
}

/// Rows' weighted sums of a tile, merged into their states.
HWY_INLINE void merge_values(const AttentionMemory& memory, const float* values, size_t row, size_t count, size_t dim) {
  for (size_t i = 0; i < count; ++i) {
    merge_states(memory.tile_states[row + i], values + i * dim, dim,
                 memory.states + (row + i) * AttentionMemory::state_floats(dim));
  }
}

/// A few rows over one tile, merged into their states. `next` is the tile that follows, or null.
HWY_INLINE void attend_rows(const AttentionUnit& unit, const Tile& tile, const Tile* next, const Visible* visible,
                            const AttentionShape& shape, const AttentionMemory& memory) {
  const size_t group = shape.heads / shape.kv_heads, rows = (unit.end - unit.begin) * group, dim = shape.head_dim;
  Ahead ahead = values_ahead(tile, dim);
  for_row_runs<true>(tile, [&](const RowRun& run, auto kv) HWY_ATTR {
    for_rows(visible, rows, group, [&](size_t row, auto count, Visible) HWY_ATTR {
      row_scores<decltype(kv), count>(run, memory.q + row * dim, shape, memory.scores + row * kScoreStride,
                                      kScoreStride, row == 0 ? ahead : Ahead());
    });
  });
  for (size_t row = 0; row < rows; ++row) {
    const Visible seen = visible[row / group];
    if (seen.begin < seen.end) finish_scores(seen, memory.scores + row * kScoreStride, memory.tile_states[row]);
  }
  std::fill_n(memory.values, rows * dim, 0.f);
  ahead = keys_ahead(next, dim);
  for_row_runs<false>(tile, [&](const RowRun& run, auto kv) HWY_ATTR {
    for_rows(visible, rows, group, [&](size_t row, auto count, Visible seen) HWY_ATTR {
      row_values<decltype(kv), count>(run, std::max(seen.begin, run.first), std::min(seen.end, run.first + run.count),
                                      memory.scores + row * kScoreStride, kScoreStride, dim, memory.values + row * dim,
                                      row == 0 ? ahead : Ahead());
    });
  });
  for_rows(visible, rows, group, [&](size_t row, auto count, Visible) HWY_ATTR {
    merge_values(memory, memory.values + row * dim, row, count, dim);
  });
}

/// Many rows over one tile, of which K and then V become floats first, merged into their states.
HWY_INLINE void attend_floats(const AttentionUnit& unit, const Tile& tile, const Tile* next, const Visible* visible,
                              const AttentionShape& shape, const AttentionMemory& memory) {
  const size_t group = shape.heads / shape.kv_heads, rows = (unit.end - unit.begin) * group;
  const size_t dim = round_up_16(shape.head_dim);
  Ahead ahead = values_ahead(tile, shape.head_dim);
  unpack_keys(tile, shape, memory.rows, memory.tile);
  for_rows(visible, rows, group, [&](size_t row, auto count, Visible seen) HWY_ATTR {
    float* scores = memory.scores + row * kScoreStride;
    tile_scores<count>(memory.q + row * dim, shape, seen, memory.tile, scores, row == 0 ? ahead : Ahead());
    for (size_t i = 0; i < count; ++i) finish_scores(seen, scores + i * kScoreStride, memory.tile_states[row + i]);
  });
  unpack_values(tile, shape, memory.tile);
  ahead = keys_ahead(next, shape.head_dim);
  for_rows(visible, rows, group, [&](size_t row, auto count, Visible seen) HWY_ATTR {
    tile_values<count>(memory.scores + row * kScoreStride, seen, dim, memory.tile, memory.values,
                       row == 0 ? ahead : Ahead());
    merge_values(memory, memory.values, row, count, dim);
  });
}

/// Every row of the unit over one tile, merged into its state.
HWY_INLINE void attend_tile(const AttentionUnit& unit, const Tile& tile, const Tile* next, const AttentionShape& shape,
                            const AttentionMemory& memory) {
  Visible visible[kQueryBlock];
  find_visible(unit, tile, shape, visible);
  const size_t rows = (unit.end - unit.begin) * (shape.heads / shape.kv_heads);
  if (rows <= kFewRows && can_read_rows(shape.head_dim)) {
    attend_rows(unit, tile, next, visible, shape, memory);
  } else {
    attend_floats(unit, tile, next, visible, shape, memory);
  }
}

/// All queries of the unit see the same spans.
void attend_unit(const AttentionUnit& unit, const AttentionShape& shape, float* thread_memory) {
  const size_t dim = round_up_16(shape.head_dim), group = shape.heads / shape.kv_heads;
  const AttentionMemory memory(thread_memory, shape);
  const AttentionQueries& queries = *unit.queries;
  const size_t count = (unit.end - unit.begin) * group;
  int64_t first = std::numeric_limits<int64_t>::max(), last = std::numeric_limits<int64_t>::min();
  for (size_t t = unit.begin; t < unit.end; ++t) {
    first = std::min(first, first_visible(queries.positions[t], shape));
    last = std::max(last, queries.positions[t]);
  }
  first = std::max(first, unit.first_stretch * kStretchPositions);
  if (unit.last_stretch < last / kStretchPositions) last = (unit.last_stretch + 1) * kStretchPositions - 1;

  clear_states(memory.states, count, dim);
  clear_states(memory.totals, count, dim);
  for (size_t row = 0; row < count; ++row) {
    const size_t head = unit.kv_head * group + row % group;
    const float* q = queries.q + ((unit.begin + row / group) * shape.heads + head) * shape.head_dim;
    std::fill(std::copy_n(q, shape.head_dim, memory.q + row * dim), memory.q + (row + 1) * dim, 0.f);
  }
  int64_t stretch = -1;
  const auto finish_stretch = [&] {
    if (stretch < 0) return;
    float* to = memory.totals;
    if (unit.kept) {
      to = unit.kept + static_cast<size_t>(stretch - unit.first_stretch) * count * AttentionMemory::state_floats(dim);
    }
    merge_all(memory.states, count, dim, to);
    clear_states(memory.states, count, dim);
  };
  Tile tiles[2];
  TileReader reader(queries.view, unit.kv_head, queries.positions[unit.begin], first);
  bool more = reader.next(last, tiles[0]);
  for (size_t i = 0; more; ++i) {
    const Tile& tile = tiles[i % 2];
    Tile& next = tiles[(i + 1) % 2];
    more = reader.next(last, next);
    const int64_t here = tile.run[0].first_position / kStretchPositions;
    if (here != stretch) finish_stretch();
    stretch = here;
    attend_tile(unit, tile, more ? &next : nullptr, shape, memory);
  }
  finish_stretch();
  if (!unit.kept) write_out(memory.totals, unit, shape);
}

/// The states that one query's units kept, merged in order.
void merge_kept(const AttentionUnit& unit, size_t stretches, const AttentionShape& shape, float* thread_memory) {
  const size_t dim = round_up_16(shape.head_dim), group = shape.heads / shape.kv_heads;
  const AttentionMemory memory(thread_memory, shape);
  clear_states(memory.totals, group, dim);
  for (size_t i = 0; i < stretches; ++i) {
    merge_all(unit.kept + i * group * AttentionMemory::state_floats(dim), group, dim, memory.totals);
  }
  write_out(memory.totals, unit, shape);
}

void clear_kept(float* kept, size_t states, size_t dim) {
  clear_states(kept, states, dim);
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(attend_unit);
HWY_EXPORT(merge_kept);
HWY_EXPORT(clear_kept);

namespace {

/// Units of work that keep every thread busy to the end.
size_t wanted_units(int threads) {
  return 2 * static_cast<size_t>(threads);
}

size_t stretches_up_to(int64_t position) {
  return static_cast<size_t>(position / kStretchPositions) + 1;
}

}  // namespace

AttentionScratch::AttentionScratch(const AttentionShape& shape, int threads, size_t context)
    : thread_floats_(AttentionMemory::floats(shape)),
      stretches_(stretches(shape, threads, context)),
      memory_(static_cast<size_t>(threads) * thread_floats_),
      kept_(kept_floats(shape, threads, context)) {}

/// 0: one sequence alone makes units enough.
size_t AttentionScratch::stretches(const AttentionShape& shape, int threads, size_t context) {
  if (threads == 1 || shape.kv_heads >= wanted_units(threads) || context == 0) return 0;
  return stretches_up_to(static_cast<int64_t>(context) - 1);
}

size_t AttentionScratch::kept_floats(const AttentionShape& shape, int threads, size_t context) {
  const size_t states = wanted_units(threads) * (shape.heads / shape.kv_heads) * stretches(shape, threads, context);
  return states * AttentionMemory::state_floats(round_up_16(shape.head_dim));
}

size_t AttentionScratch::bytes_for(const AttentionShape& shape, int threads, size_t context) {
  return AlignedArray<float>::bytes_for(static_cast<size_t>(threads) * AttentionMemory::floats(shape)) +
         AlignedArray<float>::bytes_for(kept_floats(shape, threads, context));
}

/// One query a sequence, and fewer units than threads want: each is cut into pieces along its stretches.
static void attend_in_pieces(std::span<const AttentionQueries> sequences, const AttentionShape& shape,
                             AttentionScratch& scratch, ThreadPool& pool) {
  const size_t units = sequences.size() * shape.kv_heads, pieces = (wanted_units(pool.threads()) + units - 1) / units;
  const size_t dim = round_up_16(shape.head_dim), group = shape.heads / shape.kv_heads;
  const size_t stretch_floats = group * AttentionMemory::state_floats(dim);
  const size_t unit_floats = scratch.stretches() * stretch_floats;
  const auto unit_of = [&](size_t i) {
    return AttentionUnit{.queries = &sequences[i / shape.kv_heads],
                         .begin = 0,
                         .end = 1,
                         .kv_head = i % shape.kv_heads,
                         .kept = scratch.kept() + i * unit_floats};
  };
  pool.run(units * pieces, [&](size_t part, int thread) {
    AttentionUnit unit = unit_of(part / pieces);
    const size_t stretches = stretches_up_to(unit.queries->positions[0]), each = (stretches + pieces - 1) / pieces;
    const size_t first = std::min(part % pieces * each, stretches), last = std::min(first + each, stretches);
    if (first == last) return;
    unit.first_stretch = static_cast<int64_t>(first);
    unit.last_stretch = static_cast<int64_t>(last) - 1;
    unit.kept += first * stretch_floats;
    HWY_DYNAMIC_DISPATCH(clear_kept)(unit.kept, (last - first) * group, dim);
    HWY_DYNAMIC_DISPATCH(attend_unit)(unit, shape, scratch.of_thread(thread));
  });
  pool.run(units, [&](size_t i, int thread) {
    const AttentionUnit unit = unit_of(i);
    const size_t stretches = stretches_up_to(unit.queries->positions[0]);
    HWY_DYNAMIC_DISPATCH(merge_kept)(unit, stretches, shape, scratch.of_thread(thread));
  });
}

void attend(std::span<const AttentionQueries> sequences, const AttentionShape& shape, AttentionScratch& scratch,
            ThreadPool& pool) {
  size_t blocks = 0;
  bool pieces_fit = scratch.stretches() > 0;
  for (const AttentionQueries& s : sequences) {
    blocks += (s.positions.size() + kQueryBlock - 1) / kQueryBlock;
    pieces_fit &= s.positions.size() == 1 && stretches_up_to(s.positions[0]) <= scratch.stretches();
  }
  if (blocks == 0) return;
  if (pieces_fit && blocks * shape.kv_heads < wanted_units(pool.threads())) {
    return attend_in_pieces(sequences, shape, scratch, pool);
  }
  // Later blocks of a prompt see more tokens: taken first, so that the last part to be handed out is a short one.
  pool.run(blocks * shape.kv_heads, [&](size_t part, int thread) {
    size_t block = blocks - 1 - part / shape.kv_heads;
    for (const AttentionQueries& s : sequences) {
      const size_t blocks_here = (s.positions.size() + kQueryBlock - 1) / kQueryBlock;
      if (block >= blocks_here) {
        block -= blocks_here;
        continue;
      }
      const size_t end = std::min(s.positions.size(), (block + 1) * kQueryBlock);
      for (size_t begin = block * kQueryBlock, next; begin < end; begin = next) {
        next = end_of_one_view(s, begin, end);
        const AttentionUnit unit{.queries = &s, .begin = begin, .end = next, .kv_head = part % shape.kv_heads};
        HWY_DYNAMIC_DISPATCH(attend_unit)(unit, shape, scratch.of_thread(thread));
      }
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
      if (!span.seen_from(position)) continue;
      for (size_t t = 0; t < span.count; ++t) {
        const int64_t at = span.position(t);
        if (at > position || at < first_visible(position, shape)) continue;
        decode_kv_row(span.k_format, span.k_row(t, head / group), row.data(), dim);
        double score = 0;
        for (size_t d = 0; d < dim; ++d) score += static_cast<double>(q[head * dim + d]) * row[d];
        score *= shape.scale;
        if (shape.softcap != 0) score = shape.softcap * std::tanh(score / shape.softcap);
        scores.push_back(score);
        decode_kv_row(span.v_format, span.v_row(t, head / group), row.data(), dim);
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
