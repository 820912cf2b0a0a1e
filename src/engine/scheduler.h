#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "engine/completion.h"

namespace contexture {

/// A prompt to be completed.
struct Submission {
  std::vector<TokenId> prompt;
  GenerateOptions options;
  GenerationCallbacks callbacks;
  std::optional<TokenId> also_end;  ///< ends it beside the vocabulary's end tokens
};

/// Completes many prompts over one Runtime (continuous batching, Orca, OSDI 2022): every step carries chunks of some
/// and single tokens of others, as many as the workspace takes; who ends makes place for who waits. First come, first
/// served. Each gets the text that it has alone.
///
/// Where the cache is full, the youngest that runs is preempted: its sequence is freed, and it waits until another has
/// ended. Then its tokens, the generated ones too, are run again like a prompt, but for those that the cache still
/// holds. The oldest is never preempted, so that all end. Who finds the cache too small when running alone ends with
/// FinishReason::context.
class Scheduler {
 public:
  /// Both must outlive this.
  Scheduler(Runtime& runtime, const Tokenizer& tokenizer);

  /// Queues a request, also while run() runs (from a callback). Throws Error as check_prompt.
  void submit(const Submission& request);
  /// Runs in a sequence of the caller's, which may hold the first tokens of the prompt, but not all; alone.
  void submit_in(SequenceId sequence, const Submission& request);

  /// Runs until all have ended; what was made of them, in the order in which they came. Throws what callbacks throw.
  std::vector<Generation> run();

  /// Times that one was preempted.
  size_t preemptions() const { return preemptions_; }

 private:
  struct Member {
    size_t number;  // in the order in which they came
    Completion completion;
    std::optional<OwnedSequence> owned = {};
    SequenceId sequence = -1;
  };
  /// What a step carries of one: tokens that follow each other.
  struct Part {
    Member* member;
    size_t count;
    bool wants_logits;
  };

  void step();
  void feed(Member& member);
  void admit();
  void forward();
  void preempt_youngest();
  void finish_cancelled();
  void collect_finished();
  std::unique_ptr<Member> make_member(const Submission& request);
  size_t room() const { return runtime_.plan().step_tokens - step_.size(); }

  Runtime& runtime_;
  const Tokenizer& tokenizer_;
  Sampler::Candidates candidates_;
  std::deque<std::unique_ptr<Member>> waiting_;  // both in the order in which they came: all that run before all that
  std::deque<std::unique_ptr<Member>> running_;  // wait
  bool full_ = false;                            // until one ends, nobody is admitted
  std::vector<Generation> results_;              // by number
  size_t submitted_ = 0, preemptions_ = 0;

  // The step that is being put together.
  std::vector<Part> parts_;
  StepTokens step_;
  size_t logit_rows_ = 0;
};

/// Completes a prompt in a sequence of its own, which is freed at the end. Throws Error as check_prompt.
Generation generate(Runtime& runtime, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                    const GenerateOptions& options, const GenerationCallbacks& callbacks);

/// The same in a sequence that already holds the first tokens of the prompt: only the others are run, at least one. One
/// that holds nothing first adopts what the cache has of the prompt. `also_end` ends it beside the vocabulary's end
/// tokens. Afterwards the sequence holds the tokens that were run: of the prompt and what was generated, all but
/// perhaps the last ones; after an exception it is of no further use.
Generation generate_in(Runtime& runtime, const Tokenizer& tokenizer, SequenceId sequence,
                       std::span<const TokenId> prompt, const GenerateOptions& options,
                       const GenerationCallbacks& callbacks, std::optional<TokenId> also_end = std::nullopt);

}  // namespace contexture
