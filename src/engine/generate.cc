#include "engine/generate.h"

#include "base/error.h"

namespace contexture {
namespace {

/// What becomes of a submission.
struct Outcome {
  std::optional<Generation> made;
  std::exception_ptr error;

  void watch(Submission& submission) {
    submission.callbacks.on_finished = [this](Generation&& generation) { made = std::move(generation); };
    submission.callbacks.on_failed = [this](std::exception_ptr what) { error = std::move(what); };
  }
  Generation take() {
    if (error) std::rethrow_exception(error);
    return std::move(*made);
  }
};

/// Until nothing is left to do. What breaks the executor ends all texts, and is thrown.
void run_all(Scheduler& scheduler) {
  try {
    while (scheduler.step()) {
    }
  } catch (...) {
    scheduler.fail_all(std::current_exception());
    throw;
  }
}

}  // namespace

Generation run_to_end(Scheduler& scheduler, Submission submission, const TextOptions& options) {
  Outcome outcome;
  outcome.watch(submission);
  scheduler.submit(submission, options);
  run_all(scheduler);
  return outcome.take();
}

Generation generate(Executor& executor, const Tokenizer& tokenizer, const Submission& submission) {
  Scheduler scheduler(executor, &tokenizer);
  return run_to_end(scheduler, submission);
}

Generation generate_in(Executor& executor, const Tokenizer& tokenizer, SequenceId sequence,
                       const Submission& submission, size_t planned_tokens) {
  Scheduler scheduler(executor, &tokenizer);
  const size_t held = executor.books().length(sequence);
  if (held >= submission.prompt.size()) fail("the sequence holds the whole prompt; its last token is to be run");
  const auto begin = submission.prompt.begin();
  const size_t own = std::min(submission.prompt.size() + submission.options.max_tokens, executor.capacities().context);
  const RotationId rotation = executor.rotation_of(std::max(planned_tokens, own));
  const KeptId kept = scheduler.kept().lend(sequence, {begin, begin + static_cast<ptrdiff_t>(held)}, rotation,
                                            scheduler.key_of({}, rotation));
  try {
    Generation made = run_to_end(scheduler, submission, {.kept = kept, .planned_tokens = planned_tokens});
    (void)scheduler.kept().take_back(kept);
    return made;
  } catch (...) {
    (void)scheduler.kept().take_back(kept);
    throw;
  }
}

std::vector<Generation> generate_all(Executor& executor, const Tokenizer& tokenizer,
                                     std::span<const Submission> submissions) {
  Scheduler scheduler(executor, &tokenizer);
  std::vector<Outcome> outcomes(submissions.size());
  for (size_t i = 0; i < submissions.size(); ++i) {
    Submission submission = submissions[i];
    outcomes[i].watch(submission);
    scheduler.submit(submission);
  }
  run_all(scheduler);
  std::vector<Generation> all;
  for (Outcome& outcome : outcomes) all.push_back(outcome.take());
  return all;
}

}  // namespace contexture
