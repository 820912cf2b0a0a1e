#pragma once

#include <vector>

#include "backends/executor.h"
#include "backends/static_graph/static_runner.h"

namespace contexture {

/// Compiled graphs as an executor: one sequence, in the runner's fixed buffers. What the last text left there is found
/// by the next one that begins alike.
class StaticExecutor final : public Executor {
 public:
  /// `runner` must outlive this.
  explicit StaticExecutor(StaticRunner& runner);

  Books& books() override { return books_; }
  /// The step's tokens are one sequence's, and at most the last wants logits.
  StepResult forward(const Step& step) override;

  const StaticRunner& runner() const { return runner_; }

 private:
  class RunnerBooks final : public Books {
   public:
    explicit RunnerBooks(StaticRunner& runner) : runner_(runner) {}
    std::optional<SequenceId> create(uint64_t key) override;
    std::optional<SequenceId> fork(SequenceId) override { return std::nullopt; }
    void free(SequenceId) override { used_ = false; }
    bool append(SequenceId, size_t tokens) override;
    size_t truncate(SequenceId, size_t length) override;
    size_t length(SequenceId) const override { return length_; }
    size_t adopt(SequenceId, std::span<const int32_t> tokens) override;
    std::optional<int32_t> next_held(std::span<const int32_t> tokens, uint64_t key) const override;

   private:
    StaticRunner& runner_;
    bool used_ = false;
    size_t length_ = 0;  // tokens of the sequence: the runner's first ones, or more that are about to be run
  };

  StaticRunner& runner_;
  RunnerBooks books_;
};

}  // namespace contexture
