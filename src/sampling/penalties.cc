// Penalties for what is among the last tokens: llama_sampler_penalties.

#include <utility>

#include "sampling/processor.h"
#include "sampling/window.h"

namespace contexture {
namespace {

bool penalises(const Sampling& s) {
  return s.repeat_last_n != 0 && (s.repeat_penalty != 1 || s.presence_penalty != 0 || s.frequency_penalty != 0);
}

void apply_penalties(const Sampling& s, const Occasion& occasion, Candidates& candidates) {
  const std::span<int32_t> counts = candidates.tally();
  const std::span<const TokenId> last = last_tokens(occasion.history, s.repeat_last_n);
  for (const TokenId id : last) counts[static_cast<size_t>(id)] = 0;
  for (const TokenId id : last) ++counts[static_cast<size_t>(id)];
  for (const TokenId id : last) {
    const int32_t count = std::exchange(counts[static_cast<size_t>(id)], 0);
    if (count == 0) continue;  // it was there before, and has had its turn
    const float present = candidates.logit(static_cast<size_t>(id));
    const float divided = present > 0 ? present / s.repeat_penalty : present * s.repeat_penalty;
    candidates.change(id, divided - (static_cast<float>(count) * s.frequency_penalty + s.presence_penalty));
  }
}

}  // namespace

extern const Processor kPenalties;
const Processor kPenalties{"penalties", Processor::Effect::changes, penalises, apply_penalties};

}  // namespace contexture
