#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.h"

namespace contexture {

/// Where a repetition may not go on: texts, as the tokens that write them. A text may begin within a token; what
/// follows that one is then the tokens of the rest.
class DryBreakers {
 public:
  DryBreakers() = default;
  DryBreakers(const Tokenizer& tokenizer, std::span<const std::string> texts);

  void add(TokenId head, std::vector<TokenId> tail);
  /// Tokens of the history's end, up to the last breaker in it: none where it is one itself.
  size_t tokens_since(std::span<const TokenId> history) const;
  /// Whether the token is one by itself.
  bool breaks(TokenId id) const;

 private:
  void add_if_begun(const Tokenizer& tokenizer, const std::string& text, TokenId id, const std::string& bytes);

  std::unordered_map<TokenId, std::vector<std::vector<TokenId>>> tails_;  // of what begins with the token
};

}  // namespace contexture
