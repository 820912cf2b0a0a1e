#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backends/ring/sharding.h"
#include "cache/cache.h"

namespace contexture {

/// A rank's share of a context, as a cache: any of the engine's caches holds the rank's tokens, and this gives them
/// their absolute positions. Sequences, lengths and positions are those of the whole context, the same at every rank;
/// slots and views are of this rank's tokens alone.
///
/// A mixed cache has sinks and hot tokens at every rank: of the tokens there, the first and the last so many.
/// Truncated, it begins anew, as all that do not truncate anywhere. Nothing is adopted or saved: prefixes are not
/// shared.
class ShardedCache final : public Cache {
 public:
  /// `plan` is of the whole context.
  ShardedCache(const CachePlan& plan, int rank, int ranks, Dealing dealing = Dealing::balanced);
  /// What one rank's cache is to hold.
  static CachePlan share_of(CachePlan plan, size_t ranks, Dealing dealing = Dealing::balanced);

  size_t clamped_values() const override { return cache_->clamped_values(); }
  std::optional<SequenceId> create(uint64_t key = 0) override;
  std::optional<SequenceId> fork(SequenceId sequence) override;
  void free(SequenceId sequence) override;
  bool append(SequenceId sequence, size_t tokens) override;
  size_t truncate(SequenceId sequence, size_t length) override;
  size_t length(SequenceId sequence) const override { return at(sequence).ownership.length(); }
  Slot slot(SequenceId sequence, size_t position) const override;  ///< of a token that is this rank's
  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    cache_->store(layer, slots, k, v);
  }
  void view(SequenceId sequence, std::vector<TokenSpan>& spans) const override;
  void restore(size_t layer, SequenceId sequence, const HeldRows& held) override;  ///< Throws Error.

  const Ownership& ownership(SequenceId sequence) const { return at(sequence).ownership; }
  int rank() const { return rank_; }

 private:
  /// Tokens of this rank that follow each other in its cache and lie evenly in the context.
  struct Run {
    size_t local = 0, count = 0;  // tokens of the rank's cache
    int64_t first = 0, stride = 1;
    int64_t position(size_t token) const { return first + static_cast<int64_t>(token - local) * stride; }
  };
  struct Sequence {
    Ownership ownership;
    std::vector<Run> runs = {};
    size_t held = 0;  // tokens of this rank

    void add(int64_t first, size_t count);
    int64_t position(size_t local) const { return run_of(local)->position(local); }
    std::vector<Run>::const_iterator run_of(size_t local) const;
    int64_t first_query(int64_t local) const;
  };
  const Sequence& at(SequenceId id) const { return *sequences_.at(static_cast<size_t>(id)); }
  Sequence& at(SequenceId id) { return *sequences_.at(static_cast<size_t>(id)); }

  const int rank_;
  const size_t ranks_, context_;
  const Dealing dealing_;
  const bool truncates_anywhere_;
  const std::unique_ptr<Cache> cache_;
  std::vector<std::optional<Sequence>> sequences_;
  mutable std::vector<TokenSpan> local_;  // of one view: kept, so that it allocates nothing
};

}  // namespace contexture
