#pragma once

// The tokens that attention reads at once, wherever a cache holds them.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "kernels/attention.h"
#include "tensor/kv_row.h"

namespace contexture {

constexpr size_t kTile = static_cast<size_t>(kTilePositions);

inline size_t round_up_16(size_t n) {
  return (n + 15) / 16 * 16;
}

/// The first position that a query at `position` sees.
inline int64_t first_visible(int64_t position, const AttentionShape& shape) {
  return shape.window > 0 && position >= shape.window ? position - shape.window + 1 : 0;
}

/// The tokens of one tile, in runs of the spans, and where their rows of one KV head lie.
struct Tile {
  struct Run {
    const TokenSpan* span;
    size_t token, count;
    int64_t first_position;
    const std::byte *k = nullptr, *v = nullptr;  // of its first token

    /// How many of its tokens lie before a position.
    size_t tokens_before(int64_t position) const {
      if (position <= first_position) return 0;
      const int64_t stride = span->position_stride;
      const int64_t before =
          stride == 1 ? position - first_position : (position - first_position + stride - 1) / stride;
      return std::min(count, static_cast<size_t>(before));
    }
  };
  size_t count = 0, runs = 0;
  Run run[kTile];
  const std::byte *k[kTile], *v[kTile];  // (count)

  size_t tokens_before(int64_t position) const {
    size_t before = 0;
    for (size_t i = 0; i < runs; ++i) before += run[i].tokens_before(position);
    return before;
  }
};

/// Which tokens of a tile a query sees.
struct Visible {
  size_t begin, end;
  bool operator==(const Visible&) const = default;
};

/// Walks a view tile by tile, for one KV head.
class TileReader {
 public:
  /// Begins at the tile that holds position `first`, and reads what a query at `query_position` sees of the view.
  TileReader(CacheView view, size_t kv_head, int64_t query_position, int64_t first)
      : view_(view.table()), layer_(view.layer()), kv_head_(kv_head), query_position_(query_position) {
    const int64_t begin = first / kTilePositions * kTilePositions;
    for (skip_finished(); span_ < view_.size() && position() < begin; skip_finished()) {
      const TokenSpan& span = view_[span_];
      const int64_t before = (begin - span.first_position + span.position_stride - 1) / span.position_stride;
      token_ = std::min(span.count, static_cast<size_t>(before));
    }
  }

  /// The next tile that holds tokens; false when none is left at positions ≤ last.
  bool next(int64_t last, Tile& tile) {
    skip_finished();
    if (span_ == view_.size() || position() > last) return false;
    const int64_t tile_end = (position() / kTilePositions + 1) * kTilePositions;
    const int64_t end = std::min(tile_end, last + 1);
    tile.count = tile.runs = 0;
    while (span_ < view_.size() && position() < end) {
      const TokenSpan& span = view_[span_];
      Tile::Run& run = tile.run[tile.runs++];
      run = {&span, token_, span.count - token_, position()};
      run.count = run.tokens_before(end);
      run.k = span.k_row(token_, kv_head_) + layer_ * span.k_layer_stride;
      run.v = span.v_row(token_, kv_head_) + layer_ * span.v_layer_stride;
      const std::byte *k = run.k, *v = run.v;
      for (size_t t = 0; t < run.count; ++t, k += span.k_token_stride, v += span.v_token_stride) {
        tile.k[tile.count + t] = k;
        tile.v[tile.count + t] = v;
      }
      tile.count += run.count;
      token_ += run.count;
      skip_finished();
    }
    return true;
  }

 private:
  int64_t position() const { return view_[span_].position(token_); }
  void skip_finished() {
    while (span_ < view_.size() && (token_ == view_[span_].count || !view_[span_].seen_from(query_position_))) {
      ++span_;
      token_ = 0;
    }
  }

  std::span<const TokenSpan> view_;
  size_t layer_, kv_head_;
  int64_t query_position_;
  size_t span_ = 0, token_ = 0;
};

/// Asks for rows before they are needed, a few whenever others are computed with: pages end before hardware has seen
/// where a row of addresses leads, and a core has few reads in flight, so that a burst waits for itself.
struct Ahead {
  const std::byte* const* rows = nullptr;
  size_t count = 0, lines = 0;  // lines of memory in a row

  HWY_INLINE void ask(size_t first, size_t tokens) const {
    for (size_t t = first; t < std::min(first + tokens, count); ++t) {
      for (size_t i = 0; i < lines; ++i) hwy::Prefetch(rows[t] + i * 64);
    }
  }
};

/// Of a tile's V, or of its K; of nothing where it is null.
inline Ahead values_ahead(const Tile& tile, size_t head_dim) {
  return {tile.v, tile.count, (kv_row_bytes(tile.run[0].span->v_format, head_dim) + 63) / 64};
}
inline Ahead keys_ahead(const Tile* tile, size_t head_dim) {
  if (!tile) return {};
  return {tile->k, tile->count, (kv_row_bytes(tile->run[0].span->k_format, head_dim) + 63) / 64};
}

}  // namespace contexture
