#pragma once

#include <span>
#include <vector>

#include "engine/scheduler.h"

namespace contexture {

/// Completes a prompt over an executor that nobody else uses. Throws Error as Completion's constructor, and what
/// callbacks throw.
Generation generate(Executor& executor, const Tokenizer& tokenizer, const Submission& submission);

/// The same in a sequence of the caller's that already holds the first tokens of the prompt, but not all: only the
/// others are run. One that holds nothing first adopts what the cache has of the prompt. Afterwards the sequence holds
/// the tokens that were run: of the prompt and what was generated, all but perhaps the last ones; after an exception it
/// holds none. `planned_tokens` as of TextOptions.
Generation generate_in(Executor& executor, const Tokenizer& tokenizer, SequenceId sequence,
                       const Submission& submission, size_t planned_tokens = 0);

/// Completes prompts side by side, in the order given; what they throw is thrown when all have ended.
std::vector<Generation> generate_all(Executor& executor, const Tokenizer& tokenizer,
                                     std::span<const Submission> submissions);

/// Runs a scheduler until this text has ended: `submission` goes to it, and what is made of it comes back. Throws what
/// it fails with.
Generation run_to_end(Scheduler& scheduler, Submission submission, const TextOptions& options = {});

}  // namespace contexture
