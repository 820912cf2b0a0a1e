#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/error.h"
#include "kernels/selection.h"
#include "sampling/fields.h"
#include "sampling/processor.h"

namespace contexture {
namespace {

constexpr float kBoundless = std::numeric_limits<float>::infinity();

/// What a difference of logits is multiplied with. A temperature next to nothing leaves the likeliest alone: its own
/// difference is 0, which no factor but infinity changes.
float slope_of(const Sampling& sampling) {
  return static_cast<float>(std::min(1 / static_cast<double>(sampling.temperature), 1e30));
}

/// The first of the largest.
size_t likeliest_index(Candidates& candidates) {
  const std::span<const float> logits = candidates.logits();
  return find_first(logits.data(), logits.size(), candidates.peak().largest);
}

/// What is more surprising than the bound is left out: llama_sampler_mirostat_v2. One token stays.
void cut_surprises(const Sampling& sampling, double bound, Candidates& candidates) {
  const float slope = slope_of(sampling), largest = candidates.peak().largest;
  const double surprise_of_largest = std::log2(candidates.weigh(slope));
  if (surprise_of_largest > bound) return candidates.keep_likeliest(candidates.likeliest_after(0.5));
  candidates.keep_at_least(
      static_cast<float>(largest - (bound - surprise_of_largest) * std::numbers::ln2 / static_cast<double>(slope)));
}

}  // namespace

Sampler::Sampler(const Sampling& sampling, uint64_t choices, std::vector<TokenId> banned, DryBreakers breakers)
    : sampling_(sampling),
      banned_(std::move(banned)),
      breakers_(std::move(breakers)),
      random_(sampling.seed),
      choices_(choices),
      surprise_bound_(2.0 * sampling.mirostat_tau) {
  check_sampling(sampling);
  random_.discard(choices);
}

Sampler::Choice Sampler::choose(std::span<const float> logits, std::span<const TokenId> history, Candidates& candidates,
                                std::span<const uint64_t> allowed) {
  const double log_sum = candidates.reset(logits);
  if (std::isnan(log_sum)) {
    fail_as(ErrorKind::internal, "the model's logits are not numbers; its weights are damaged or its numbers overflow");
  }
  cut({history, banned_, allowed, breakers_, choices_}, candidates);
  // 53 random bits make a double in [0, 1); std::uniform_real_distribution differs between libraries.
  const double number = static_cast<double>(random_() >> 11) * 0x1p-53;
  ++choices_;
  const size_t index = sampling_.temperature > 0 ? draw(candidates, number) : likeliest_index(candidates);
  const TokenId id = candidates.id(index);
  return {id, static_cast<float>(logits[static_cast<size_t>(id)] - log_sum), log_sum};
}

/// Applies the steps that have an effect. What cuts the tail has none on the likeliest token.
void Sampler::cut(const Occasion& occasion, Candidates& candidates) const {
  using enum Processor::Effect;
  const auto is_on = [&](const Processor* p) { return p->is_on(sampling_); };
  for (const Processor* p : processors()) {
    if (p->effect == changes && is_on(p)) p->apply(sampling_, occasion, candidates);
  }
  const RowPeak& peak = candidates.peak();
  if (peak.has_nan || peak.largest == kBoundless) fail("penalties and biases overflow a logit; choose smaller ones");
  if (peak.largest == -kBoundless) fail("every token is ruled out; allow more of them");
  if (sampling_.mirostat != 0) return;
  const bool is_greedy = sampling_.temperature <= 0;
  const bool head_stays =
      std::ranges::none_of(processors(), [&](const Processor* p) { return p->effect == cuts && is_on(p); });
  if (is_greedy && head_stays) return;
  for (const Processor* p : processors()) {
    if (p->effect != changes && is_on(p)) p->apply(sampling_, occasion, candidates);
  }
}

size_t Sampler::draw(Candidates& candidates, double number) {
  if (sampling_.mirostat != 0) cut_surprises(sampling_, surprise_bound_, candidates);
  const double total = candidates.weigh(slope_of(sampling_));
  const double mass = std::min(number * total, std::nextafter(total, 0.0));
  const size_t index = candidates.first_until(mass);
  if (sampling_.mirostat != 0) {
    const double surprise = std::log2(total / candidates.weights()[index]);
    surprise_bound_ -= sampling_.mirostat_eta * (surprise - sampling_.mirostat_tau);
  }
  return index;
}

std::vector<Alternative> likeliest(std::span<const float> logits, size_t count, double log_sum,
                                   Candidates& candidates) {
  if (count == 0) return {};
  candidates.take(logits);
  if (count < logits.size()) {
    candidates.keep_likeliest(candidates.likeliest_after(static_cast<double>(count) - 0.5));
  }
  std::vector<Alternative> found(candidates.size());
  for (size_t i = 0; i < found.size(); ++i) {
    found[i] = {candidates.id(i), static_cast<float>(candidates.logit(i) - log_sum)};
  }
  std::ranges::sort(found, [&](const Alternative& a, const Alternative& b) {
    const float x = logits[static_cast<size_t>(a.id)], y = logits[static_cast<size_t>(b.id)];
    return x != y ? x > y : a.id < b.id;
  });
  return found;
}

}  // namespace contexture
