#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace contexture {
namespace {

constexpr size_t kPenaltyWindow = 64;
constexpr float kNever = -std::numeric_limits<float>::infinity();

/// log Σ exp(logits), in float64.
double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

// Likelier first; equal ones by id, so that no sort decides.
constexpr auto likelier = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
};

void penalise_repetitions(Sampler::Candidates& candidates, std::span<const TokenId> history, float penalty) {
  if (penalty == 1) return;
  std::vector<TokenId> recent(history.end() - static_cast<ptrdiff_t>(std::min(history.size(), kPenaltyWindow)),
                              history.end());
  std::sort(recent.begin(), recent.end());
  recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
  for (const TokenId id : recent) {
    float& logit = candidates[static_cast<size_t>(id)].logit;
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void keep_top_k(Sampler::Candidates& candidates, int top_k) {
  size_t k = top_k > 0 ? static_cast<size_t>(top_k) : candidates.size();
  k = std::min(k, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(k), candidates.end(), likelier);
  candidates.resize(k);
}

/// The fewest likeliest tokens whose probabilities reach top_p together.
void keep_top_p(Sampler::Candidates& candidates, float top_p) {
  if (top_p >= 1) return;
  double total = 0;
  for (const auto& c : candidates) total += c.weight;
  double reached = 0;
  size_t kept = 0;
  while (kept < candidates.size() && reached < top_p * total) reached += candidates[kept++].weight;
  candidates.resize(std::max<size_t>(1, kept));
}

/// Tokens at least min_p times as likely as the likeliest.
void keep_min_p(Sampler::Candidates& candidates, float min_p) {
  if (min_p <= 0) return;
  size_t kept = 1;
  while (kept < candidates.size() && candidates[kept].weight >= min_p) ++kept;
  candidates.resize(kept);
}

}  // namespace

Sampler::Sampler(const GenerateOptions& options, std::vector<TokenId> banned)
    : options_(options), banned_(std::move(banned)), random_(options.seed) {
  const auto within = [](float value, float low, float high) { return value >= low && value <= high; };  // NaN is not
  if (!within(options.temperature, 0, 1000) || !within(options.top_p, 0, 1) || !within(options.min_p, 0, 1) ||
      !within(options.repeat_penalty, 0.01f, 100) || options.top_k < 0) {
    fail(
        "sampling options out of range: temperature 0 to 1000, top-p and min-p 0 to 1, repetition penalty 0.01 to 100");
  }
  random_.discard(options.resume.draws);
}

Sampler::Choice Sampler::choose(std::span<const float> logits, std::span<const TokenId> history,
                                Candidates& candidates) {
  for (const float logit : logits) {
    if (std::isnan(logit)) fail("the model's logits are not numbers; its weights are damaged or its numbers overflow");
  }
  candidates.clear();
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates.push_back({static_cast<TokenId>(i), logits[i], 0});
  for (const TokenId id : banned_) candidates[static_cast<size_t>(id)].logit = kNever;
  penalise_repetitions(candidates, history, options_.repeat_penalty);

  if (options_.temperature <= 0) {
    std::iter_swap(candidates.begin(), std::min_element(candidates.begin(), candidates.end(), likelier));
  } else {
    keep_top_k(candidates, options_.top_k);
  }
  const float largest = candidates.front().logit;
  if (largest == kNever) fail("every token is ruled out; allow more of them");
  TokenId id = candidates.front().id;
  if (options_.temperature > 0) {
    for (Candidate& c : candidates) c.weight = std::exp(static_cast<double>(c.logit) - largest);
    keep_top_p(candidates, options_.top_p);
    keep_min_p(candidates, options_.min_p);
    id = draw(candidates);
  }
  return {id, static_cast<float>(logits[static_cast<size_t>(id)] - log_sum_exp(logits))};
}

TokenId Sampler::draw(Candidates& candidates) {
  const double largest = candidates.front().logit;
  double total = 0;
  for (Candidate& c : candidates) {
    c.weight = std::exp((c.logit - largest) / options_.temperature);
    total += c.weight;
  }
  // 53 random bits make a double in [0, 1); std::uniform_real_distribution differs between libraries.
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  for (const Candidate& c : candidates) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return candidates.front().id;
}

}  // namespace contexture
