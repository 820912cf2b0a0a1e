// DRY: llama_sampler_dry. From a token that would make a repetition longer, the more is subtracted the longer it is.

#include "sampling/dry.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>

#include "sampling/processor.h"
#include "sampling/window.h"

namespace contexture {
namespace {

// Breakers longer than this are cut, as in llama.cpp.
constexpr size_t kLongestBreaker = 40;  // bytes
constexpr size_t kLongestTail = 20;     // tokens

constexpr double kLargestFloat = std::numeric_limits<float>::max();

/// lengths[i]: how many tokens before position i and at it are those that the history ends with, at most `limit`. (The
/// Z algorithm, from the end.)
void find_repetitions(std::span<const TokenId> history, size_t limit, std::span<int32_t> lengths) {
  const size_t count = history.size();
  const auto back = [&](size_t i) { return history[count - 1 - i]; };  // from the end, 0 the last
  const auto length = [&](size_t i) -> int32_t& { return lengths[count - 1 - i]; };
  size_t box_begin = 0, box_end = 0;  // the match that reaches furthest
  length(0) = 0;
  for (size_t i = 1; i < count; ++i) {
    size_t known = 0;
    if (i < box_end) known = std::min(static_cast<size_t>(length(i - box_begin)), box_end - i);
    if (i + known >= box_end) {
      while (known < limit && i + known < count && back(known) == back(i + known)) ++known;
      if (i + known > box_end) box_begin = i, box_end = i + known;
    }
    length(i) = static_cast<int32_t>(known);
  }
}

bool is_dry(const Sampling& s) {
  return s.dry_multiplier > 0 && s.dry_penalty_last_n != 0;
}

/// A repetition's length beyond that, above which the base's power is no float any more.
size_t largest_power(float base) {
  constexpr float kLogOfLargest = 88.7228391f;
  return base > 1.000001f ? static_cast<size_t>(kLogOfLargest / std::log(base)) : std::numeric_limits<size_t>::max();
}

void apply_dry(const Sampling& s, const Occasion& occasion, Candidates& candidates) {
  const std::span<const TokenId> window = last_tokens(occasion.history, s.dry_penalty_last_n);
  const auto allowed = static_cast<size_t>(s.dry_allowed_length);
  const size_t limit = occasion.breakers.tokens_since(window);
  if (window.size() <= allowed || limit < allowed) return;
  const std::span<int32_t> lengths = candidates.numbers(window.size());
  find_repetitions(window, limit, lengths);
  // Of each token that would make one longer, the longest, and one: it is a repetition of none, perhaps.
  const std::span<int32_t> longest = candidates.tally();
  for (const TokenId id : window) longest[static_cast<size_t>(id)] = 0;
  for (size_t i = 0; i + 1 < window.size(); ++i) {
    int32_t& most = longest[static_cast<size_t>(window[i + 1])];
    if (lengths[i] >= s.dry_allowed_length) most = std::max(most, lengths[i] + 1);
  }
  for (const TokenId id : window) {
    const int32_t most = std::exchange(longest[static_cast<size_t>(id)], 0);
    if (most == 0 || occasion.breakers.breaks(id)) continue;
    const size_t power = std::min(static_cast<size_t>(most - 1) - allowed, largest_power(s.dry_base));
    const double penalty = s.dry_multiplier * std::pow(static_cast<double>(s.dry_base), static_cast<double>(power));
    candidates.change(id,
                      candidates.logit(static_cast<size_t>(id)) - static_cast<float>(std::min(penalty, kLargestFloat)));
  }
}

}  // namespace

DryBreakers::DryBreakers(const Tokenizer& tokenizer, std::span<const std::string> texts) {
  for (size_t i = 0; i < tokenizer.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string bytes = tokenizer.bytes(id, /*show_special=*/true);
    for (const std::string& text : texts) add_if_begun(tokenizer, text.substr(0, kLongestBreaker), id, bytes);
  }
}

/// A token that holds the text is a breaker, and one that ends as the text begins is with what follows then.
void DryBreakers::add_if_begun(const Tokenizer& tokenizer, const std::string& text, TokenId id,
                               const std::string& bytes) {
  if (text.empty()) return;
  if (bytes.find(text) != bytes.npos) return add(id, {});
  for (size_t at = bytes.find(text[0]); at != bytes.npos; at = bytes.find(text[0], at + 1)) {
    const size_t begun = bytes.size() - at;
    if (begun >= text.size() || bytes.compare(at, begun, text, 0, begun) != 0) continue;
    std::vector<TokenId> tail =
        tokenizer.encode(text.substr(begun), {.add_begin = false, .parse_special = false, .goes_on = true});
    tail.resize(std::min(tail.size(), kLongestTail));
    add(id, std::move(tail));
  }
}

void DryBreakers::add(TokenId head, std::vector<TokenId> tail) {
  auto& tails = tails_[head];
  if (std::ranges::find(tails, tail) == tails.end()) tails.push_back(std::move(tail));
}

size_t DryBreakers::tokens_since(std::span<const TokenId> history) const {
  for (size_t after = 0; after < history.size(); ++after) {
    const auto found = tails_.find(history[history.size() - 1 - after]);
    if (found == tails_.end()) continue;
    const std::span<const TokenId> rest = history.last(after);
    std::optional<size_t> longest;
    for (const std::vector<TokenId>& tail : found->second) {
      if (tail.size() <= after && std::equal(tail.begin(), tail.end(), rest.begin())) {
        longest = std::max(longest.value_or(0), tail.size());
      }
    }
    if (longest) return after - *longest;
  }
  return history.size();
}

bool DryBreakers::breaks(TokenId id) const {
  const auto found = tails_.find(id);
  return found != tails_.end() && std::ranges::any_of(found->second, [](const auto& tail) { return tail.empty(); });
}

extern const Processor kDry;
const Processor kDry{"DRY", Processor::Effect::changes, is_dry, apply_dry};

}  // namespace contexture
