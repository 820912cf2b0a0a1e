// Locally typical sampling (arXiv:2202.00666): llama_sampler_typical. What has no weight has no part in the entropy.

#include "kernels/selection.h"
#include "sampling/processor.h"

namespace contexture {
namespace {

void apply_typical(const Sampling& s, const Occasion&, Candidates& candidates) {
  const float largest = candidates.peak().largest;
  const double total = candidates.weigh(1);
  // A token's surprise is log total - offset, its offset logit - largest; the entropy is the mean surprise. They differ
  // by how far the offset is from the mean offset.
  const std::span<const float> logits = candidates.logits();
  const double mean_offset =
      weighted_offset(logits.data(), candidates.weights().data(), logits.size(), largest) / total;
  const auto centre = static_cast<float>(largest + mean_offset);
  candidates.keep_nearest(centre, candidates.nearest_until(centre, total, s.typical_p * total));
}

}  // namespace

extern const Processor kTypicalP;
const Processor kTypicalP{"typical-p", Processor::Effect::cuts, [](const Sampling& s) { return s.typical_p < 1; },
                          apply_typical};

}  // namespace contexture
