#include "text/special_tokens.h"

namespace contexture {

void SpecialTokens::add(std::string_view text, TokenId id) {
  if (text.empty()) return;
  starts_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char c : text) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<uint8_t>(c);
    const auto [child, is_new] = children_.try_emplace(edge, static_cast<uint32_t>(ids_.size()));
    if (is_new) ids_.push_back(-1);
    node = child->second;
  }
  if (ids_[node] < 0) ids_[node] = id;
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    const Match match = longest_at(text, at);
    if (match.size > 0) return match;
  }
  return {};
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, size_t from,
                                         const std::function<bool(const Match&)>& counts) const {
  for (size_t at = from; at < text.size(); ++at) {
    const Match match = longest_at(text, at, &counts);
    if (match.size > 0) return match;
  }
  return {};
}

SpecialTokens::Match SpecialTokens::longest_at(std::string_view text, size_t at,
                                               const std::function<bool(const Match&)>* counts) const {
  Match match{at, 0, -1};
  if (!starts_[static_cast<uint8_t>(text[at])]) return match;
  uint32_t node = 0;
  for (size_t end = at; end < text.size(); ++end) {
    const auto child = children_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[end]));
    if (child == children_.end()) break;
    node = child->second;
    const Match longer{at, end + 1 - at, ids_[node]};
    if (longer.id >= 0 && (!counts || (*counts)(longer))) match = longer;
  }
  return match;
}

}  // namespace contexture
