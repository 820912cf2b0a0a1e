#include "model/step.h"

namespace contexture {

void StepTokens::reserve(size_t tokens) {
  tokens_.reserve(tokens);
  positions_.reserve(tokens);
  sequences_.reserve(tokens);
  wants_logits_.reserve(tokens);
  rotations_.reserve(tokens);
}

void StepTokens::clear() {
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  wants_logits_.clear();
  rotations_.clear();
}

void StepTokens::add(SequenceId sequence, size_t first, std::span<const int32_t> tokens, size_t skipped,
                     RotationId rotation) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens_.push_back(tokens[i]);
    positions_.push_back(static_cast<int64_t>(first + i));
    sequences_.push_back(sequence);
    wants_logits_.push_back(i >= skipped);
    rotations_.push_back(rotation);
  }
}

Step StepTokens::step(const std::atomic<bool>* cancelled, AttentionObserver* observer) const {
  return {.tokens = tokens_,
          .positions = positions_,
          .sequences = sequences_,
          .wants_logits = wants_logits_,
          .rotations = rotations_,
          .cancelled = cancelled,
          .observer = observer};
}

}  // namespace contexture
