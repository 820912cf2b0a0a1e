#pragma once

#include <vector>

#include "engine/scheduler.h"

namespace contexture {

/// A scheduler whose texts are completions that are wanted all together.
class AllTogether {
 public:
  AllTogether(Executor& executor, const Tokenizer& tokenizer, const SchedulerOptions& options = {})
      : scheduler_(executor, &tokenizer, options) {}

  /// Also from within a callback.
  TextId submit(Submission submission, const TextOptions& options = {}) {
    const size_t number = made_.size();
    made_.emplace_back();
    submission.callbacks.on_finished = [this, number](Generation&& made) { made_[number] = std::move(made); };
    submission.callbacks.on_failed = [this](std::exception_ptr error) { error_ = std::move(error); };
    try {
      return scheduler_.submit(submission, options);
    } catch (...) {
      made_.pop_back();
      throw;
    }
  }

  /// Until all have ended: what was made of them, in the order in which they came. Throws what the last one threw that
  /// failed.
  std::vector<Generation> run() {
    while (scheduler_.step()) {
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return std::exchange(made_, {});
  }

  size_t preemptions() const { return scheduler_.counts().preemptions; }
  Scheduler& scheduler() { return scheduler_; }

 private:
  Scheduler scheduler_;
  std::vector<Generation> made_;
  std::exception_ptr error_;
};

}  // namespace contexture
