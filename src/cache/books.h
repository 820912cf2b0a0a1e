#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace contexture {

using SequenceId = int32_t;

/// Which tokens each sequence holds, in numbers alone: all that a scheduler needs of a context, whatever computes it
/// and wherever it lies. Not thread-safe.
class Books {
 public:
  virtual ~Books() = default;

  /// A new, empty sequence; nothing where no more fit. Sequences of one key alone adopt what others of it remembered:
  /// whose rows are made otherwise, or who must not be seen by others, has a key of its own.
  [[nodiscard]] virtual std::optional<SequenceId> create(uint64_t key = 0) = 0;
  /// A new sequence that starts as a copy of this one; nothing where no more fit. Writing to one never shows in the
  /// other.
  [[nodiscard]] virtual std::optional<SequenceId> fork(SequenceId sequence) = 0;
  virtual void free(SequenceId sequence) = 0;

  /// Room for `tokens` more, or false with nothing changed.
  [[nodiscard]] virtual bool append(SequenceId sequence, size_t tokens) = 0;
  /// Forgets all but the first `length` tokens; how many are left. A layout that no longer holds what the next token
  /// would have to see leaves fewer: those that are gone must be run again.
  [[nodiscard]] virtual size_t truncate(SequenceId sequence, size_t length) = 0;
  /// Tokens, as appended.
  virtual size_t length(SequenceId sequence) const = 0;
  /// Tokens that could surely be appended now, to all sequences together. Where every sequence has room of its own,
  /// there is no such bound.
  virtual size_t free_tokens() const { return std::numeric_limits<size_t>::max(); }

  /// Tells the ids of the tokens after those told so far, once all layers hold them: sequences to come that begin alike
  /// may then adopt them. A layout that shares nothing ignores it.
  virtual void remember(SequenceId, std::span<const int32_t>) {}
  /// How many of a sequence's tokens have been told, or were adopted.
  virtual size_t remembered(SequenceId) const { return 0; }
  /// Nobody to come adopts what this sequence told, or will tell, as far as nobody else uses it now: of a text that
  /// failed.
  virtual void forget(SequenceId) {}
  /// Gives an empty sequence as many of these tokens, from the first on, as are held already; how many.
  virtual size_t adopt(SequenceId, std::span<const int32_t>) { return 0; }
  /// A token that follows these, from the first on, in what sequences of a key remembered: it tells where a prompt that
  /// was not adopted whole goes another way.
  virtual std::optional<int32_t> next_held(std::span<const int32_t>, uint64_t /*key*/ = 0) const {
    return std::nullopt;
  }
};

}  // namespace contexture
