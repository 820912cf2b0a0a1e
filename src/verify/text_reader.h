#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/runtime.h"

namespace contexture {

/// Reads tokens into a sequence of its own and gives the logits after them.
class TextReader {
 public:
  /// `cancelled` is looked at after every layer. Throws Error where the cache has no room for a sequence.
  explicit TextReader(Runtime& runtime, const std::atomic<bool>* cancelled = nullptr);

  /// Logits (tokens - skipped, vocabulary) after each of these tokens but the first `skipped`, in memory that the next
  /// call overwrites; nothing where it was cancelled. They must fit a step. Throws Error where the context is full.
  [[nodiscard]] std::optional<std::span<const float>> feed(std::span<const TokenId> tokens, size_t skipped = 0);

  /// Forgets all that was read.
  void restart() { (void)runtime_.cache().truncate(sequence_.id(), 0); }

 private:
  Runtime& runtime_;
  const std::atomic<bool>* cancelled_;
  OwnedSequence sequence_;
  StepTokens step_;
};

/// How a text is read to see how well it is predicted: in windows that follow each other, each from an empty context.
struct TextWindows {
  size_t tokens = 0;        // of a window; the last one may be shorter
  size_t scored_from = 1;   // tokens of a window before this one are read, but nobody asks how likely they were
  bool whole_only = false;  // what fills no window at the end is left out
  std::optional<TokenId> begin = {};  // stands in place of every window's first token

  /// Tokens of a text of so many that are scored.
  size_t scored_of(size_t text_tokens) const;
};

struct TextProgress {
  std::function<void(size_t done, size_t total)> on_chunk = {};  // tokens read
  const std::atomic<bool>* cancelled = nullptr;
};

/// Sees a token of the text and the logits that foretold it, of each run.
using OnPrediction = std::function<void(TokenId token, std::span<const std::span<const float>> logits)>;

/// Takes a text through several runs in step, as many tokens at a time as fit a step of all of them, so that no more
/// logits than that are ever held. Each run must hold a window and as many rows of logits as tokens of a step. False
/// where it was cancelled. Throws Error where nothing would be scored, or a token is none of the model's.
[[nodiscard]] bool predict_text(std::span<const TokenId> text, const TextWindows& windows,
                                std::span<Runtime* const> runs, const OnPrediction& on_prediction,
                                const TextProgress& progress = {});

}  // namespace contexture
