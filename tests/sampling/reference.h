#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "kernels/selection.h"
#include "sampling/processor.h"
#include "sampling/random.h"

namespace contexture {

constexpr float kRuledOut = -std::numeric_limits<float>::infinity();

/// Candidates as they are easiest to think of: all of them, sorted.
struct SortedToken {
  TokenId id;
  float logit;
};
using Sorted = std::vector<SortedToken>;

inline Sorted sorted(const std::vector<float>& row) {
  Sorted tokens;
  for (size_t i = 0; i < row.size(); ++i) tokens.push_back({static_cast<TokenId>(i), row[i]});
  std::stable_sort(tokens.begin(), tokens.end(), [](auto& a, auto& b) { return a.logit > b.logit; });
  return tokens;
}

/// Weights of a sorted row, by the kernel that is tested for itself: a bit more or less would be another choice.
inline std::vector<float> weights_of(const Sorted& tokens, float slope = 1) {
  std::vector<float> logits, weights(tokens.size());
  for (const auto& t : tokens) logits.push_back(t.logit);
  weigh(logits.data(), logits.size(), logits.front(), slope, weights.data());
  return weights;
}

inline double total_of(const std::vector<float>& weights) {
  double total = 0;
  for (const float w : weights) total += w;
  return total;
}

inline void keep_top_n_sigma(Sorted& tokens, float n) {
  double count = 0, sum = 0, squares = 0;
  for (const auto& t : tokens) {
    if (t.logit > kRuledOut) ++count, sum += t.logit;
  }
  const double mean = sum / count;
  for (const auto& t : tokens) {
    if (t.logit > kRuledOut) squares += (t.logit - mean) * (t.logit - mean);
  }
  // A float as logits are: a bound between two of them is one of the two.
  const auto bound = static_cast<float>(tokens.front().logit - n * std::sqrt(squares / count));
  std::erase_if(tokens, [&](auto& t) { return t.logit < bound; });
}

inline void keep_top_k(Sorted& tokens, int k) {
  if (tokens.size() > static_cast<size_t>(k)) tokens.resize(static_cast<size_t>(k));
}

inline void keep_top_p(Sorted& tokens, float p) {
  const std::vector<float> weights = weights_of(tokens);
  double reached = 0;
  size_t kept = 0;
  do {
    reached += weights[kept++];
  } while (reached < p * total_of(weights));
  tokens.resize(kept);
}

inline void keep_min_p(Sorted& tokens, float p) {
  const double bound = tokens.front().logit + std::log(static_cast<double>(p));
  std::erase_if(tokens, [&](auto& t) { return t.logit < static_cast<float>(bound); });
}

inline void keep_typical(Sorted& tokens, float p) {
  const std::vector<float> weights = weights_of(tokens);
  const double total = total_of(weights);
  // As exact as the library's own: a mean of the last bit more would exchange two tokens that are equally far from it.
  std::vector<float> logits;
  for (const SortedToken& t : tokens) logits.push_back(t.logit);
  const double mean = weighted_offset(logits.data(), weights.data(), logits.size(), tokens[0].logit) / total;
  struct Scored {
    SortedToken token;
    float weight, distance;
  };
  std::vector<Scored> scored;
  const auto centre = static_cast<float>(tokens[0].logit + mean);
  for (size_t i = 0; i < tokens.size(); ++i) {
    scored.push_back({tokens[i], weights[i], std::fabs(tokens[i].logit - centre)});
  }
  std::sort(scored.begin(), scored.end(), [](auto& a, auto& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.token.id < b.token.id;
  });
  double reached = 0;
  Sorted kept;
  for (const Scored& s : scored) {
    kept.push_back(s.token);
    if ((reached += s.weight) > p * total) break;
  }
  std::sort(kept.begin(), kept.end(),
            [](auto& a, auto& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; });
  tokens = kept;
}

inline void leave_out_top_choices(Sorted& tokens, float threshold) {
  const std::vector<float> weights = weights_of(tokens);
  const auto least = static_cast<float>(threshold * total_of(weights));
  size_t reaching = 0;
  while (reaching < tokens.size() && weights[reaching] >= least) ++reaching;
  if (reaching >= 2) tokens.erase(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(reaching) - 1);
}

inline void penalise(std::vector<float>& row, std::span<const TokenId> last, const Sampling& s) {
  for (size_t id = 0; id < row.size(); ++id) {
    const auto count = static_cast<float>(std::ranges::count(last, static_cast<TokenId>(id)));
    if (count == 0) continue;
    row[id] = row[id] > 0 ? row[id] / s.repeat_penalty : row[id] * s.repeat_penalty;
    row[id] -= count * s.frequency_penalty + s.presence_penalty;
  }
}

/// For each token, the longest repetition that it would go on with: tokens before a place where it stood that are those
/// that the text ends with.
inline void penalise_repetitions(std::vector<float>& row, std::span<const TokenId> text, const Sampling& s,
                                 const std::vector<TokenId>& breakers) {
  const auto breaks = [&](TokenId id) { return std::ranges::find(breakers, id) != breakers.end(); };
  size_t limit = 0;
  while (limit < text.size() && !breaks(text[text.size() - 1 - limit])) ++limit;
  for (size_t id = 0; id < row.size(); ++id) {
    if (breaks(static_cast<TokenId>(id))) continue;
    std::optional<size_t> longest;
    for (size_t place = 1; place < text.size(); ++place) {
      if (text[place] != static_cast<TokenId>(id)) continue;
      size_t length = 0;
      while (length < std::min(limit, place) && text[place - 1 - length] == text[text.size() - 1 - length]) ++length;
      if (length >= static_cast<size_t>(s.dry_allowed_length)) longest = std::max(longest.value_or(0), length);
    }
    if (!longest || limit < static_cast<size_t>(s.dry_allowed_length)) continue;
    const double power = static_cast<double>(*longest) - s.dry_allowed_length;
    row[id] -= static_cast<float>(s.dry_multiplier * std::pow(static_cast<double>(s.dry_base), power));
  }
}

/// The choice of a sampler that sorts everything.
inline TokenId choose_sorted(std::vector<float> row, std::span<const TokenId> history, const Sampling& s,
                             uint64_t choice) {
  for (const LogitBias& b : s.logit_bias) row[static_cast<size_t>(b.id)] += b.bias;
  const auto last = [&](int32_t n) {
    return n < 0 ? history : history.last(std::min(history.size(), static_cast<size_t>(n)));
  };
  penalise(row, last(s.repeat_last_n), s);
  if (s.dry_multiplier > 0) penalise_repetitions(row, last(s.dry_penalty_last_n), s, {});
  Sorted tokens = sorted(row);
  if (s.top_n_sigma > 0) keep_top_n_sigma(tokens, s.top_n_sigma);
  if (s.top_k > 0) keep_top_k(tokens, s.top_k);
  if (s.typical_p < 1) keep_typical(tokens, s.typical_p);
  if (s.top_p < 1) keep_top_p(tokens, s.top_p);
  if (s.min_p > 0) keep_min_p(tokens, s.min_p);
  if (s.xtc_threshold <= 0.5f && random_number(s.seed, choice, Purpose::xtc) < s.xtc_probability) {
    leave_out_top_choices(tokens, s.xtc_threshold);
  }
  if (s.temperature <= 0) return tokens.front().id;
  std::mt19937_64 random(s.seed);
  random.discard(choice);
  const std::vector<float> weights = weights_of(tokens, 1 / s.temperature);
  double left = static_cast<double>(random() >> 11) * 0x1p-53 * total_of(weights);
  std::map<TokenId, float> by_id;
  for (size_t i = 0; i < tokens.size(); ++i) by_id[tokens[i].id] = weights[i];
  for (const auto& [id, weight] : by_id) {
    left -= weight;
    if (left < 0) return id;
  }
  return by_id.rbegin()->first;
}

}  // namespace contexture
