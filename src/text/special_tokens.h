#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/vocabulary.h"

namespace contexture {

/// Finds the pieces that are tokens whatever surrounds them: a trie of their texts.
///
/// Of several that start at one byte the longest wins, and what starts first wins over what starts later. (llama.cpp
/// looks for the longest of all in the whole text first. The two differ only where special pieces overlap.)
class SpecialTokens {
 public:
  void add(std::string_view text, TokenId id);

  struct Match {
    size_t at = std::string_view::npos;  ///< npos: none
    size_t size = 0;
    TokenId id = -1;
  };
  /// The first one at or after `from`. O(text × longest special piece) in the worst case.
  Match find(std::string_view text, size_t from) const;
  /// The same of those for which `counts` is true.
  Match find(std::string_view text, size_t from, const std::function<bool(const Match&)>& counts) const;

  /// The longest one that starts at `at`; its size is 0 where there is none.
  Match longest_at(std::string_view text, size_t at, const std::function<bool(const Match&)>* counts = nullptr) const;

 private:
  std::unordered_map<uint64_t, uint32_t> children_;  ///< node << 8 | byte -> node
  std::vector<TokenId> ids_{-1};                     ///< by node: the token that ends there; -1: none
  bool starts_[256] = {};                            ///< bytes that some special piece starts with
};

}  // namespace contexture
