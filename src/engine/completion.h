#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "engine/generate_options.h"
#include "engine/shown_text.h"
#include "engine/text.h"
#include "sampling/sampler.h"

namespace contexture {

/// What a generation tells while it runs, on the thread that runs the scheduler. What they throw ends this text alone.
struct GenerationCallbacks {
  std::function<bool(const GeneratedToken&)> on_token = {};        ///< false: stop
  std::function<void(size_t done, size_t total)> on_prefill = {};  ///< after each chunk of the prompt
  /// Looked at after every layer; after every step where the step carries others too, whose flag is another.
  const std::atomic<bool>* cancelled = nullptr;
  /// Sees every attention, of steps that carry nobody with another one or none.
  AttentionObserver* observer = nullptr;
  /// One of the two comes last, once.
  std::function<void(Generation&&)> on_finished = {};
  std::function<void(std::exception_ptr)> on_failed = {};
};

/// A prompt to be completed.
struct Submission {
  std::vector<TokenId> prompt;
  GenerateOptions options = {};
  GenerationCallbacks callbacks = {};
  std::optional<TokenId> also_end = {};  ///< ends it beside the vocabulary's end tokens
};

/// A prompt on its way to a text: the sampler chooses tokens from logits, and their text flows out.
class Completion final : public Text {
 public:
  /// `tokenizer` must outlive this. Throws Error as check_prompt, and for options that mean nothing.
  Completion(const TextLimits& limits, const Tokenizer& tokenizer, const Submission& submission);

  size_t adoptable() const override { return tokens_.size() - 1; }
  size_t rows_wanted(size_t first, size_t count) const override { return first + count == tokens_.size() ? 1 : 0; }
  size_t most_tokens() const override { return most_tokens_; }
  void begin(const PrefixReport& prefix) override;
  void ran(size_t count, size_t length) override;
  void look(const Rows& rows, Candidates& scratch) override;
  void take() override;
  void finish(FinishReason reason) override;
  void deliver() override;
  void failed(std::exception_ptr error) noexcept override;

 private:
  using Clock = std::chrono::steady_clock;
  double seconds_since_mark();
  void end_text(FinishReason reason);

  const Tokenizer& tokenizer_;
  const size_t max_tokens_;
  const bool resumable_;
  size_t most_ = 0;         // generated tokens that there is room for
  size_t most_tokens_ = 0;  // prompt and answer, as far as they are held
  const std::optional<TokenId> also_end_;
  const GenerationCallbacks callbacks_;
  Sampler sampler_;
  ShownText text_;
  Generation result_;
  size_t alternatives_wanted_ = 0;
  std::optional<Sampler::Choice> choice_;  // that take() is to tell
  std::vector<Alternative> alternatives_;  // beside it
  std::optional<Clock::time_point> mark_;  // the beginning, then the first logits
  size_t furthest_ = 0;                    // tokens that a sequence has held at once
  bool prefilled_ = false;
};

/// Makes of a text one that ended after so many of its tokens, whose text had been shown so far: it was cancelled
/// there.
void cut_after(Generation& made, size_t tokens, std::string text);

}  // namespace contexture
