#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/runtime.h"
#include "engine/sampler.h"
#include "engine/shown_text.h"

namespace contexture {

/// What a generation tells while it runs.
struct GenerationCallbacks {
  std::function<bool(const GeneratedToken&)> on_token;        ///< false: stop
  std::function<void(size_t done, size_t total)> on_prefill;  ///< after each chunk of the prompt
  /// Looked at after every layer; after every step where the step carries others too, whose flag is another.
  const std::atomic<bool>* cancelled = nullptr;
  /// Sees every attention, of steps that carry nobody with another one or none.
  AttentionObserver* observer = nullptr;
};

/// What bounds a text, whatever runs it.
struct TextLimits {
  size_t context;                                    ///< tokens that can be held
  size_t vocabulary;                                 ///< logits
  std::string_view longer = "ask for more with -c";  ///< how to get a longer context, for errors
};

TextLimits limits_of(const MemoryPlan& plan);

/// Throws Error where a prompt cannot be completed: it is empty, does not fit the context, or has tokens that the model
/// does not know.
void check_prompt(const TextLimits& limits, std::span<const TokenId> prompt);
void check_prompt(const MemoryPlan& plan, std::span<const TokenId> prompt);

/// A prompt on its way to a text: the tokens so far, and what the next logits make of them. It knows no cache: whoever
/// runs it (Scheduler) sees to it that a sequence holds tokens(), hands in the logits after the last of them, and may
/// take the sequence away in between and compute it again.
class Completion {
 public:
  /// `tokenizer` must outlive this. Throws Error as check_prompt, and for options that mean nothing.
  Completion(const TextLimits& limits, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
             const GenerateOptions& options, const GenerationCallbacks& callbacks, std::optional<TokenId> also_end);

  /// The prompt and what was generated. The logits after the last one are what take() wants.
  std::span<const TokenId> tokens() const { return tokens_; }
  size_t prompt_tokens() const { return result_.prompt_tokens; }
  const GenerationCallbacks& callbacks() const { return callbacks_; }
  bool is_cancelled() const { return callbacks_.cancelled && *callbacks_.cancelled; }
  bool is_finished() const { return finished_; }

  /// It has a sequence, which holds some of the tokens. Its clock starts with the first.
  void begin(const PrefixReport& prefix);
  /// The sequence now holds the first `length` tokens, the last `count` of which were run.
  void ran(size_t count, size_t length);
  /// Chooses the next token, or ends. `candidates`: as Sampler::choose.
  void take(std::span<const float> logits, Sampler::Candidates& candidates);
  void finish(FinishReason reason);

  Generation result() && { return std::move(result_); }

 private:
  using Clock = std::chrono::steady_clock;
  double seconds_since_mark();
  void end_text(FinishReason reason);

  const Tokenizer& tokenizer_;
  const size_t max_tokens_;
  const bool resumable_;
  size_t most_ = 0;  // tokens that there is room for
  const std::optional<TokenId> also_end_;
  const GenerationCallbacks callbacks_;
  std::vector<TokenId> tokens_;
  Sampler sampler_;
  ShownText text_;
  Generation result_;
  std::optional<Clock::time_point> mark_;  // the beginning, then the first logits
  size_t furthest_ = 0;                    // tokens that a sequence has held at once
  bool prefilled_ = false, finished_ = false;
};

}  // namespace contexture
