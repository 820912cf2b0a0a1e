#pragma once

#include <vector>

#include "backends/ring/communicator.h"
#include "backends/ring/selector.h"
#include "backends/ring/sharding.h"
#include "base/aligned.h"
#include "kernels/attention.h"

namespace contexture {

/// What a rank has of one sequence of a step: its own new tokens, if any, and its part of the sequence's K and V.
struct RingSequence {
  std::span<const int64_t> positions;  // of its queries: (tokens), absolute, ascending
  CacheView view;                      // in one layer, its new tokens included
};

/// The largest step, for the memory of RingAttention.
struct RingSizes {
  size_t ranks = 1;
  Dealing dealing = Dealing::balanced;
  size_t sequences = 1;    // of a step
  size_t step_tokens = 0;  // of one rank
  size_t shard_bytes = 0;  // K and V of one rank in one layer, of all sequences: what travels
  size_t heads = 0, head_dim = 0;
};

/// Exact attention over a context that is spread over ranks (arXiv:2411.01783): every rank's queries against every
/// rank's K and V. Each rank computes what its queries make of one shard after another (or its shard of one rank's
/// queries after another); the states merge in a fixed order, the rank's own first and then against the ring's
/// direction, in f32. So both ways give the same bits, whatever threads and the rest of a step do.
///
/// Beside its own part a rank holds one visiting shard of one layer, and the memory where the next one arrives.
class RingAttention {
 public:
  RingAttention(Communicator& ranks, const RingSizes& sizes);
  /// What the constructor allocates.
  static size_t bytes_for(const RingSizes& sizes);

  /// Begins a step: the ranks tell each other which queries they have and how what they hold lies, which is alike in
  /// all layers. Collective; all ranks have the same sequences in the same order. Throws Error where they do not.
  void begin(std::span<const RingSequence> sequences, const AttentionShape& shape);

  /// Attention of one layer. q, out (tokens, heads, head_dim): of all this rank's queries, in the order of the
  /// sequences. Collective, as is the choice of what travels.
  void attend(RingPass pass, const AttentionShape& shape, std::span<const RingSequence> sequences, const float* q,
              float* out, AttentionScratch& scratch, ThreadPool& pool);

  /// New tokens and tokens held in the step, of all ranks and sequences: what the selectors want.
  size_t new_tokens() const { return new_tokens_; }
  size_t held_tokens() const { return held_tokens_; }
  /// Bytes that this rank sends in a layer, by the formulas: N - 1 shards of K and V; or N - 1 blocks of Q, and
  /// the states of all other ranks' queries.
  struct Bytes {
    uint64_t ring = 0, all_to_all = 0;
  };
  Bytes bytes_of(RingPass pass, const AttentionShape& shape) const;

 private:
  /// What a rank told of a sequence: its queries, and its spans without addresses.
  struct Part {
    std::vector<int64_t> positions;
    std::vector<TokenSpan> spans;
  };
  struct Rank {
    std::vector<Part> parts;  // (sequences)
    size_t tokens = 0;        // queries
    size_t shard_bytes = 0;
  };

  void pass_kv(const AttentionShape& shape, const float* q, float* out, AttentionScratch& scratch, ThreadPool& pool);
  void pass_q(const AttentionShape& shape, const float* q, float* out, AttentionScratch& scratch, ThreadPool& pool);
  /// Queries of rank `of` against these views, by sequence. Pumps the communicator.
  void attend_part(const Rank& of, const std::vector<CacheView>& views, const float* q, float* out,
                   AttentionState* states, const AttentionShape& shape, AttentionScratch& scratch, ThreadPool& pool);
  void place_arrived(Rank& rank, const std::byte* bytes, const AttentionShape& shape);
  /// Whose shard, or Q, is here in a step of the ring.
  int source(int step) const { return (ranks_.rank() - step + ranks_.ranks()) % ranks_.ranks(); }
  Rank& at(int rank) { return all_[static_cast<size_t>(rank)]; }

  /// Values and states of one rank's queries, one after the other: what travels back to it.
  struct Partial {
    float* values;           // (tokens, heads, head_dim), not divided by the sums
    AttentionState* states;  // (tokens, heads)
  };
  static size_t partial_bytes(size_t tokens, const AttentionShape& shape);
  static Partial partial(std::byte* memory, size_t tokens, const AttentionShape& shape);
  void merge_part(const Partial& part, float* out, const AttentionShape& shape, ThreadPool& pool);

  Communicator& ranks_;
  const RingSizes sizes_;
  std::vector<Rank> all_;  // (ranks)
  size_t new_tokens_ = 0, held_tokens_ = 0;
  AlignedArray<std::byte> visiting_[2];  // a shard's K and V, or a rank's Q
  AlignedArray<std::byte> partials_;     // (ranks, step tokens): made here of other ranks' queries
  AlignedArray<std::byte> returned_;     // (ranks, step tokens): made elsewhere of this rank's
  AlignedArray<AttentionState> states_;  // (step tokens, heads): of this rank's queries
  // Of one call; kept so that a layer allocates nothing.
  std::vector<AttentionQueries> queries_;
  std::vector<CacheView> own_, arrived_;             // (sequences)
  std::vector<std::span<const std::byte>> sent_to_;  // (ranks)
  std::vector<std::span<std::byte>> sent_from_;      // (ranks)
};

}  // namespace contexture
