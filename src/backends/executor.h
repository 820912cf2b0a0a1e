#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/thread_pool.h"
#include "cache/cache.h"
#include "model/step.h"

namespace contexture {

/// The largest step that an executor takes, and what bounds a text in it.
struct Capacities {
  size_t context = 0;                                // tokens of a sequence
  size_t sequences = 1;                              // at once
  size_t vocabulary = 0;                             // logits of a token
  size_t hidden = 0;                                 // channels of a token's hidden state; 0: they are not given
  size_t step_tokens = 0;                            // of all sequences of a step
  size_t logit_rows = 1;                             // tokens of a step that want logits
  std::string_view longer = "ask for more with -c";  // how to get a longer context, for errors
};

/// What became of a step. The memory is the executor's, until the next step.
struct StepResult {
  bool cancelled = false;                 // nothing else is here, and what the step appended may not be held
  std::span<const float> logits = {};     // (tokens that want them, vocabulary), in the order of the step
  std::span<const float> hidden = {};     // (tokens, hidden): the last hidden states, normed, where the step wants them
  std::span<const uint8_t> damaged = {};  // (tokens): 1 where a token's hidden state is not a number; none: nowhere
};

/// Computes steps, and holds the context that they write and read: a processor, ranks that share a context, compiled
/// graphs. The engine knows no other way to run a model. One step at a time.
class Executor {
 public:
  virtual ~Executor() = default;

  const Capacities& capacities() const { return capacities_; }
  virtual Books& books() = 0;

  /// Runs a step, whose tokens have been appended to the books. Throws Error where it cannot.
  virtual StepResult forward(const Step& step) = 0;

  /// The cache whose rows can be saved and restored; null where there is none here.
  virtual Cache* cache_here() { return nullptr; }
  /// By which of the model's sets of frequencies a text is rotated that may grow to so many tokens.
  virtual RotationId rotation_of(size_t) const { return 0; }
  /// Appends tokens to a sequence whose K and V are random numbers, without a forward pass: for measurements at depth.
  /// Throws Error where there is no room, or where it cannot be done.
  virtual void fill(SequenceId sequence, size_t tokens);
  /// Threads that have nothing to do between steps; null where there are none.
  virtual ThreadPool* threads() { return nullptr; }

 protected:
  explicit Executor(const Capacities& capacities) : capacities_(capacities) {}
  Capacities capacities_;
};

/// A sequence in the books, freed when this goes.
class OwnedSequence {
 public:
  /// A new one. Throws Error where there is no room for another.
  explicit OwnedSequence(Books& books);
  /// One that is there.
  OwnedSequence(Books& books, SequenceId id) : books_(books), id_(id) {}
  ~OwnedSequence() { books_.free(id_); }
  OwnedSequence(const OwnedSequence&) = delete;
  OwnedSequence& operator=(const OwnedSequence&) = delete;
  SequenceId id() const { return id_; }

 private:
  Books& books_;
  SequenceId id_;
};

}  // namespace contexture
