#pragma once

#include <vector>

#include "backends/executor.h"
#include "backends/ring/ring_attention.h"
#include "backends/ring/sharded_cache.h"
#include "model/transformer.h"

namespace contexture {

/// What decides what travels. The rates are a rank's own attention and its connection to the next rank; the selectors
/// (Alg. 5) need their ratio alone. 0: measured at the beginning, of the slowest rank.
struct RingChoice {
  RingMode mode = {};
  double flops = 0;
  double bandwidth = 0;
};

/// What a rank has done in its steps and holds, for reports.
struct RingReport {
  uint64_t rank = 0, tokens = 0, k_bytes = 0, v_bytes = 0;  // held by one sequence
  uint64_t ring_bytes = 0, all_to_all_bytes = 0, small_bytes = 0;
  uint64_t kv_steps = 0, q_steps = 0;
  double wait_seconds = 0;
};

/// The forward pass of one rank: all ranks run each step together, each the tokens that are its own, and rank 0 gets
/// what became of all of them. Every rank is given the same steps.
class RingForward final : StepAttention {
 public:
  /// All of these must outlive this; `cache` is the rank's. Collective.
  RingForward(Communicator& ranks, const Transformer& model, ShardedCache& cache, Workspace& workspace,
              ThreadPool& pool, const RingSizes& sizes, const RingChoice& choice);

  /// As Transformer::forward, at rank 0; the others get nothing back. Nobody observes or cancels it. Collective. Throws
  /// Error where a rank has failed.
  StepResult run(const Step& step);

  /// With the rates that were measured.
  const RingChoice& choice() const { return choice_; }
  /// Of all ranks. Collective.
  std::vector<RingReport> report(SequenceId sequence);

 private:
  void attend(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences,
              AttentionScratch& scratch, ThreadPool& pool) override;
  RingPass choose() const;
  void take_own_tokens(const Step& step);
  void find_views();
  /// What a rank sends to rank 0: for each of its tokens whether it is damaged, then its rows of logits.
  struct Parcel {
    size_t tokens = 0, rows = 0;
    std::vector<std::byte> bytes = {};
    const std::byte *next_mark = nullptr, *next_row = nullptr;  // while it is unpacked
  };
  StepResult gather(const Step& step, std::span<const float> logits);
  /// Of the rank that has this token of the step.
  Parcel& parcel_of(const Step& step, size_t token);
  StepResult unpack(const Step& step);

  /// A sequence of the step, and which of this rank's tokens are of it.
  struct Member {
    SequenceId sequence;
    size_t begin = 0, end = 0;
  };

  Communicator& ranks_;
  const Transformer& model_;
  ShardedCache& cache_;
  Workspace& workspace_;
  ThreadPool& pool_;
  RingChoice choice_;
  RingAttention attention_;

  std::vector<Member> members_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::vector<SequenceId> sequences_;
  std::vector<uint8_t> wants_logits_;
  std::vector<RotationId> rotations_;
  std::vector<std::vector<TokenSpan>> spans_;  // (members, at least)
  std::vector<RingSequence> ring_sequences_;   // (members)
  std::vector<Parcel> parcels_;                // (ranks)
  std::vector<float> logits_;                  // (rows, vocabulary) of all ranks
  std::vector<uint8_t> damaged_;               // (tokens) of all ranks
  RingPass pass_ = RingPass::kv;
  uint64_t steps_[2] = {};  // by RingPass
  RingTraffic before_;      // what was sent before the first step
};

}  // namespace contexture
