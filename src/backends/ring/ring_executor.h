#pragma once

#include <memory>
#include <vector>

#include "backends/cpu/cpu_executor.h"
#include "backends/ring/ring_forward.h"

namespace contexture {

/// A context that ranks share, each with the whole model (arXiv:2411.01783). Rank 0 alone schedules: what it does to
/// its books, and every step, goes to the others as a message, and they do the same. They choose nothing, sample
/// nothing and look at no clock.
class RingExecutor final : public Executor {
 public:
  /// One rank. Collective; `sizes` are those of a rank, but for the cache's, which are the whole context's, and
  /// step_tokens, which are all ranks'. The communicator must outlive this.
  RingExecutor(std::shared_ptr<const Transformer> model, const CpuSizes& sizes, const RingSizes& ring,
               Communicator& ranks, const RingChoice& choice);
  /// At rank 0: lets the others go.
  ~RingExecutor() override;

  /// What the ranks beside 0 do: all that rank 0 says, until it lets go. They wait for as long as it has nothing to
  /// say. Throws Error where a rank has failed.
  void obey();

  Communicator& ranks() { return ranks_; }
  const RingChoice& choice() const { return forward_.choice(); }  ///< with the rates that were measured
  const Transformer& model() const { return *model_; }
  Cache& cache() { return cache_; }  ///< this rank's

  // At rank 0.
  Books& books() override { return books_; }
  StepResult forward(const Step& step) override;
  RotationId rotation_of(size_t tokens) const override { return model_->rotation_of(tokens); }
  void fill(SequenceId sequence, size_t tokens) override;
  ThreadPool* threads() override { return &pool_; }
  /// What all ranks hold of a sequence, and have sent.
  std::vector<RingReport> report(SequenceId sequence);

 private:
  /// What rank 0 says.
  enum class Order : uint32_t { create, fork, free, append, truncate, step, fill, report, end };
  struct Message;
  /// The books of rank 0, which tell the others what is done to them.
  class SharedBooks final : public Books {
   public:
    explicit SharedBooks(RingExecutor& ring) : ring_(ring) {}
    std::optional<SequenceId> create(uint64_t key) override;
    std::optional<SequenceId> fork(SequenceId sequence) override;
    void free(SequenceId sequence) override;
    bool append(SequenceId sequence, size_t tokens) override;
    size_t truncate(SequenceId sequence, size_t length) override;
    size_t length(SequenceId sequence) const override { return ring_.cache_.length(sequence); }

   private:
    RingExecutor& ring_;
  };

  void tell(Order order, SequenceId sequence = 0, size_t tokens = 0);
  void tell_step(const Step& step);
  void receive_step(const Message& message);
  void fill_here(SequenceId sequence, size_t tokens);

  ThreadPool pool_;
  const std::shared_ptr<const Transformer> model_;
  Communicator& ranks_;
  ShardedCache cache_;
  Workspace workspace_;
  RingForward forward_;
  SharedBooks books_{*this};
  std::vector<std::byte> numbers_;  // of a step, as they travel
  bool failed_ = false;             // what is left of the others will not come
};

}  // namespace contexture
