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
  const std::span<const float> weights = candidates.weights();
  const float below = std::nextafter(static_cast<float>(s.xtc_threshold * total), -1.f), bounds[2] = {below, below};
  const double reaching = weights_above(weights.data(), nullptr, weights.size(), bounds).sum[0];
  if (reaching >= 2) candidates.keep_from(candidates.likeliest_after(reaching - 0.5));
}

}  // namespace

extern const Processor kXtc;
const Processor kXtc{"XTC", Processor::Effect::cuts, excludes, apply_xtc};

}  // namespace contexture
