// Filters that keep the likelier tokens: whatever their bound, it is a place in the order of the logits.

#include <cmath>

#include "kernels/selection.h"
#include "sampling/processor.h"

namespace contexture {
namespace {

/// llama_sampler_top_n_sigma, of the logits that are not ruled out.
void apply_top_n_sigma(const Sampling& s, const Occasion&, Candidates& candidates) {
  const std::span<const float> logits = candidates.logits();
  const float largest = candidates.peak().largest;
  const double deviation = spread_of(logits.data(), logits.size(), largest).deviation;
  candidates.keep_at_least(static_cast<float>(largest - s.top_n_sigma * deviation));
}

/// llama_sampler_top_k.
void apply_top_k(const Sampling& s, const Occasion&, Candidates& candidates) {
  const auto k = static_cast<size_t>(s.top_k);
  if (k < candidates.size()) candidates.keep_likeliest(candidates.likeliest_after(static_cast<double>(k) - 0.5));
}

/// llama_sampler_top_p.
void apply_top_p(const Sampling& s, const Occasion&, Candidates& candidates) {
  const double total = candidates.weigh(1), mass = std::nextafter(s.top_p * total, -1.0);
  const Boundary last = candidates.likeliest_until(total, std::max(0.0, mass));
  candidates.keep_likeliest(last, last.reached);
}

/// llama_sampler_min_p.
void apply_min_p(const Sampling& s, const Occasion&, Candidates& candidates) {
  candidates.keep_at_least(static_cast<float>(candidates.peak().largest + std::log(static_cast<double>(s.min_p))));
}

}  // namespace

extern const Processor kTopNSigma, kTopK, kTopP, kMinP;
const Processor kTopNSigma{"top-n-sigma", Processor::Effect::cuts_tail,
                           [](const Sampling& s) { return s.top_n_sigma > 0; }, apply_top_n_sigma};
const Processor kTopK{"top-k", Processor::Effect::cuts_tail, [](const Sampling& s) { return s.top_k > 0; },
                      apply_top_k};
const Processor kTopP{"top-p", Processor::Effect::cuts_tail, [](const Sampling& s) { return s.top_p < 1; },
                      apply_top_p};
const Processor kMinP{"min-p", Processor::Effect::cuts_tail, [](const Sampling& s) { return s.min_p > 0; },
                      apply_min_p};

}  // namespace contexture
