#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/runtime.h"

namespace contexture {

/// What a needle model's file says of its tokens (models/needle.md). No token has two roles, or one twice.
struct NeedleTokens {
  std::vector<TokenId> keys, values, fillers;
};

/// Throws Error where the file holds no model of this kind, or contradicts itself.
NeedleTokens needle_tokens(const ModelFile& file);

/// A key with its value right behind it.
struct Needle {
  size_t position = 0;  // of the key
  TokenId key = 0, value = 0;
};

struct NeedleContext {
  std::vector<TokenId> tokens;  // needles among fillers
  std::vector<Needle> needles;  // by ascending position; all keys and all values differ
};

/// `count` needles in `depth` tokens, one in each of `count` equal parts: the first tokens and the last ones, and where
/// caches and kernels have borders (multiples of 8 to 256): just before one, across it, just behind it. The same for
/// the same numbers. Throws Error where so many do not fit, or the model has fewer keys or values.
NeedleContext hide_needles(const NeedleTokens& tokens, size_t depth, size_t count);

/// What the model says when it is asked for a needle.
struct NeedleAnswer {
  Needle needle;
  TokenId answer = 0;  // the token of the largest logit
  float lead = 0;      // of the value's logit over the largest other one
  bool is_right() const { return lead > 0; }
};

/// Makes `options` those of a run that asks for needles at a depth: room for the context and one question beside it.
RunOptions needle_options(RunOptions options, size_t depth);

/// Reads a context once, and asks for each needle in a fork of it that gets the key as its last token.
class NeedleAsker {
 public:
  /// `cancelled` is looked at after every layer. Throws Error where the cache has no room.
  explicit NeedleAsker(Executor& executor, const std::atomic<bool>* cancelled = nullptr);

  /// Adds tokens to the context; tells how many of them are done after each chunk. False where it was cancelled.
  [[nodiscard]] bool read(std::span<const TokenId> tokens, const std::function<void(size_t)>& on_chunk = {});

  /// Nothing where it was cancelled. The context stays as it is.
  [[nodiscard]] std::optional<NeedleAnswer> ask(const Needle& needle);

  SequenceId context() const { return context_.id(); }

 private:
  std::span<const float> feed(SequenceId sequence, std::span<const TokenId> tokens, bool wants_logits);
  bool is_cancelled() const { return cancelled_ && *cancelled_; }

  Executor& executor_;
  const RotationId rotation_;
  const std::atomic<bool>* cancelled_;
  OwnedSequence context_;
  StepTokens step_;
};

/// What the model says of every needle of a context; nothing where it was cancelled. `executor`: of needle_options.
[[nodiscard]] std::optional<std::vector<NeedleAnswer>> ask_all(Executor& executor, const NeedleContext& context,
                                                               const std::function<void(size_t)>& on_chunk = {},
                                                               const std::atomic<bool>* cancelled = nullptr);

size_t count_right(std::span<const NeedleAnswer> answers);

}  // namespace contexture
