#pragma once

// The tokens that attention reads at once, wherever a cache holds them.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "kernels/attention.h"

namespace contexture {

constexpr size_t kTile = static_cast<size_t>(kTilePositions);

inline size_t round_up_16(size_t n) {
  return (n + 15) / 16 * 16;
}

/// The first position that a query at `position` sees.
inline int64_t first_visible(int64_t position, const AttentionShape& shape) {
  return shape.window > 0 && position >= shape.window ? position - shape.window + 1 : 0;
}

/// The tokens of one tile, in runs of the spans.
struct Tile {
  struct Run {
    const TokenSpan* span;
    size_t token, count;
    int64_t first_position;

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

/// Walks a view tile by tile.
class TileReader {
 public:
  /// Begins at the tile that holds position `first`, and reads what a query at `query_position` sees of the view.
  TileReader(CacheView view, int64_t query_position, int64_t first) : view_(view), query_position_(query_position) {
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

  CacheView view_;
  int64_t query_position_;
  size_t span_ = 0, token_ = 0;
};

/// Asks for the rows of a tile before they are needed, some lines at a time between computations: pages end before
/// hardware has seen where a row of addresses leads, and a core has few reads in flight, so that a burst waits for
/// itself. A null tile has none.
class Ahead {
 public:
  /// Of `tile`, while another tile's `tokens` tokens are computed with.
  Ahead(const Tile* tile, bool is_k, size_t kv_head, size_t tokens) : tile_(tile), is_k_(is_k), kv_head_(kv_head) {
    if (!tile || tile->runs == 0) return;
    size_t lines = 0;
    for (size_t i = 0; i < tile->runs; ++i) lines += tile->run[i].count * stride(i) / 64 + 1;
    rate_ = (lines * kWhole + tokens - 1) / tokens;
    begin_run();
  }

  /// To be called when so many tokens more are being computed with.
  [[gnu::always_inline]] void step(size_t tokens) {
    for (due_ += rate_ * tokens; due_ >= kWhole && at_ < end_; due_ -= kWhole) {
      hwy::Prefetch(at_);
      at_ += 64;
      if (at_ >= end_ && ++run_ < tile_->runs) begin_run();
    }
  }

 private:
  static constexpr size_t kWhole = 1024;  // a line, in the parts that are counted

  size_t stride(size_t run) const {
    return is_k_ ? tile_->run[run].span->k_token_stride : tile_->run[run].span->v_token_stride;
  }
  void begin_run() {
    const auto& [span, token, count, first_position] = tile_->run[run_];
    at_ = is_k_ ? span->k_row(token, kv_head_) : span->v_row(token, kv_head_);
    end_ = at_ + count * stride(run_);
  }

  const Tile* tile_;
  bool is_k_;
  size_t kv_head_, run_ = 0, rate_ = 0, due_ = 0;
  const std::byte *at_ = nullptr, *end_ = nullptr;
};

}  // namespace contexture
