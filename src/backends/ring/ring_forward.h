#pragma once

#include <atomic>
#include <vector>

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

/// The forward pass of one rank: all ranks run each step together, each the tokens that are its own, and all get the
/// logits of all of them. Every rank is given the same steps.
class RingForward final : StepAttention {
 public:
  /// All of these must outlive this; `cache` is the rank's. Collective.
  RingForward(Communicator& ranks, const Transformer& model, ShardedCache& cache, Workspace& workspace,
              ThreadPool& pool, const RingSizes& sizes, const RingChoice& choice);

  /// As Transformer::forward; nobody observes it. Where any rank's step is cancelled when it begins, all ranks' are,
  /// and `cancelled()` is set. Throws Error where ranks are at different steps or one has failed.
  std::span<const float> run(const Step& step);

  /// Set at the same step at every rank: what a step's `cancelled` alone is not.
  const std::atomic<bool>& cancelled() const { return cancelled_; }
  /// For the next text.
  void forget_cancellation() { cancelled_ = false; }
  /// Whose flag cancels: this one's, at this rank. May be null.
  void watch(const std::atomic<bool>* flag) { watched_ = flag; }

  Communicator& ranks() { return ranks_; }
  /// With the rates that were measured.
  const RingChoice& choice() const { return choice_; }
  /// Of all ranks. Collective.
  std::vector<RingReport> report(SequenceId sequence);

 private:
  void attend(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences,
              AttentionScratch& scratch, ThreadPool& pool) override;
  bool agree_to_go_on(const Step& step);
  RingPass choose() const;
  void take_own_tokens(const Step& step);
  void find_views(size_t layer);
  std::span<const float> share_logits(const Step& step, std::span<const float> own);

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
  std::atomic<bool> cancelled_{false};
  const std::atomic<bool>* watched_ = nullptr;

  std::vector<Member> members_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::vector<SequenceId> sequences_;
  std::vector<uint8_t> wants_logits_;
  std::vector<size_t> logits_of_;              // rows that each rank has
  std::vector<std::vector<TokenSpan>> spans_;  // (members, at least) in one layer
  std::vector<RingSequence> ring_sequences_;   // (members)
  std::vector<float> logits_, of_rank_;        // (rows, vocabulary)
  RingPass pass_ = RingPass::kv;
  uint64_t steps_[2] = {};  // by RingPass
  RingTraffic before_;      // what was sent before the first step
};

}  // namespace contexture
