// XTC: llama_sampler_xtc.

#include <cmath>

#include "kernels/selection.h"
#include "sampling/processor.h"
#include "sampling/random.h"

namespace contexture {
namespace {

bool excludes(const Sampling& s) {
  return s.xtc_probability > 0 && s.xtc_threshold <= 0.5f;
}

void apply_xtc(const Sampling& s, const Occasion& occasion, Candidates& candidates) {
  if (random_number(s.seed, occasion.choice, Purpose::xtc) >= s.xtc_probability) return;
  const double total = candidates.weigh(1);
  const std::span<const float> logits = candidates.logits();
  const float below = std::nextafter(static_cast<float>(s.xtc_threshold * total), -1.f);
  const LeastHeavy last = least_heavy(logits.data(), candidates.weights().data(), logits.size(), below);
  if (last.count >= 2) candidates.keep_from({last.least, last.index, 0});
}

}  // namespace

extern const Processor kXtc;
const Processor kXtc{"XTC", Processor::Effect::cuts, excludes, apply_xtc};

}  // namespace contexture
