#pragma once

#include <atomic>
#include <exception>
#include <span>
#include <string_view>
#include <vector>

#include "backends/executor.h"
#include "contexture/generation.h"
#include "sampling/candidates.h"

namespace contexture {

/// What bounds a text, whatever runs it.
struct TextLimits {
  size_t context;                                    ///< tokens that can be held
  size_t vocabulary;                                 ///< logits
  std::string_view longer = "ask for more with -c";  ///< how to get a longer context, for errors
};

TextLimits limits_of(const Capacities& capacities);

/// Throws Error where a prompt cannot be run: it is empty, does not fit the context (ErrorKind::too_long), or has
/// tokens that the model does not know.
void check_prompt(const TextLimits& limits, std::span<const TokenId> prompt);

/// What a step made of the last tokens of a text.
struct Rows {
  size_t first = 0;                    // of the text's tokens: what the first row belongs to
  std::span<const float> logits = {};  // (rows, vocabulary): of those that it wanted them of
  std::span<const float> hidden = {};  // (tokens, width): of all that the step carried, where it wants them
  size_t width = 0;

  bool empty() const { return logits.empty() && hidden.empty(); }
};

/// Texts that look at their rows at once, each with memory of its own.
constexpr size_t texts_looking(size_t sequences, size_t threads) {
  return sequences > 1 ? threads : 1;
}

/// A text on its way through an executor: tokens that a sequence is to hold, and what becomes of them. It knows no
/// cache: whoever runs it (Scheduler) may take its sequence away in between and run the tokens again.
class Text {
 public:
  virtual ~Text() = default;

  /// The prompt, and what was generated.
  std::span<const TokenId> tokens() const { return tokens_; }
  /// How many at the front may be found in a cache and need not be run.
  virtual size_t adoptable() const = 0;
  /// Of `count` tokens from `first` on, how many at the end want logits.
  virtual size_t rows_wanted(size_t first, size_t count) const = 0;
  virtual bool wants_hidden() const { return false; }
  /// The tokens that it may grow to.
  virtual size_t most_tokens() const = 0;

  /// It has a sequence, which holds some of the tokens. Called anew after each preemption.
  virtual void begin(const PrefixReport& prefix) = 0;
  /// The sequence now holds the first `length` tokens, the last `count` of which were run.
  virtual void ran(size_t count, size_t length) = 0;
  /// Looks at what a step made. From any thread, several texts at once; whoever it tells is told by take().
  virtual void look(const Rows& rows, Candidates& scratch) = 0;
  /// What follows from that: it may have made a token, or be finished.
  virtual void take() = 0;

  /// Ends it: the context is full, it was cancelled.
  virtual void finish(FinishReason reason) = 0;
  bool is_finished() const { return finished_; }
  /// Hands over what it made, at its end.
  virtual void deliver() = 0;
  /// Ended by an error, and nothing of it is to be used.
  virtual void failed(std::exception_ptr error) noexcept = 0;

  /// Whose flag cancels it, and who watches its attention; null: nobody.
  const std::atomic<bool>* cancelled = nullptr;
  AttentionObserver* observer = nullptr;
  bool is_cancelled() const { return cancelled && *cancelled; }

 protected:
  std::vector<TokenId> tokens_;
  bool finished_ = false;
};

}  // namespace contexture
