#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/cache.h"
#include "kernels/attention.h"

namespace contexture {

/// Which of a model's sets of rotation frequencies a text's Q and K are rotated by: the same for all its tokens.
using RotationId = uint8_t;

/// Sees every attention of a pass as it was computed: traces and checks.
class AttentionObserver {
 public:
  virtual ~AttentionObserver() = default;
  /// q, the views and `out` as attention had them: rotated where the cache is (Rotation). They hold until this returns.
  virtual void on_attention(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences) = 0;
};

/// Computes the attention of a step in place of the forward pass's own, which knows this cache alone: ranks that share
/// a context (backends/ring).
class StepAttention {
 public:
  virtual ~StepAttention() = default;
  /// `sequences`: those that have tokens in the step, without views; the layer's K and V are stored. Called for every
  /// layer, also where the step has no tokens.
  virtual void attend(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences,
                      AttentionScratch& scratch, ThreadPool& pool) = 0;
};

/// What a forward pass computes: any mixture of prompt chunks and single tokens of many sequences. Tokens of one
/// sequence follow each other, by ascending position, and have been appended to the cache. All spans have one length.
struct Step {
  std::span<const int32_t> tokens;
  std::span<const int64_t> positions;  // absolute, from 0 in each sequence
  std::span<const SequenceId> sequences;
  std::span<const uint8_t> wants_logits;         // 1: the logits after this token are wanted
  std::span<const RotationId> rotations = {};    // none: 0 for all
  bool wants_hidden = false;                     // the last hidden states of all tokens are wanted, normed
  const std::atomic<bool>* cancelled = nullptr;  // looked at after every layer: once true the pass ends without logits
  AttentionObserver* observer = nullptr;
  StepAttention* attention = nullptr;  // null: over the views of the cache
};

/// The tokens of a step that is being put together.
class StepTokens {
 public:
  void reserve(size_t tokens);
  void clear();
  size_t size() const { return tokens_.size(); }
  std::span<const int64_t> positions() const { return positions_; }

  /// Tokens of a sequence that follow each other from position `first` on; the logits after all of them but the first
  /// `skipped` are wanted.
  void add(SequenceId sequence, size_t first, std::span<const int32_t> tokens, size_t skipped, RotationId rotation = 0);
  /// Holds until the tokens change.
  Step step(const std::atomic<bool>* cancelled = nullptr, AttentionObserver* observer = nullptr) const;

 private:
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  std::vector<SequenceId> sequences_;
  std::vector<uint8_t> wants_logits_;
  std::vector<RotationId> rotations_;
};

}  // namespace contexture
