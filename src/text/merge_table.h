#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace contexture {

/// A stretch of text on its way to being a token: a number that the merge table knows, and its bytes.
struct Symbol {
  int32_t id;     ///< negative: nothing merges with it
  uint32_t size;  ///< bytes of the text that it covers
};

/// The heart of byte pair encoding: which neighbours merge, which pair goes first, and what they become. Both kinds of
/// tokenizer are this table with different symbols, so there is one merge loop. Pairs are looked up by number, never by
/// text: a long piece costs no more than a short one.
class MergeTable {
 public:
  /// A lower rank merges earlier. Where the pair is there already, the entry of lower rank stays.
  void add(int32_t left, int32_t right, uint32_t rank, int32_t result);

  /// Merges neighbours, lowest rank first and the leftmost of equal ranks first, until no pair is in the table.
  /// O(n log n): see merge_long.
  void merge(std::vector<Symbol>& symbols) const;

  /// The two ways in which merge() works; they give the same symbols. The short one is O(n²) and can stop early, when
  /// `until` symbols are left.
  void merge_short(std::vector<Symbol>& symbols, size_t until = 1) const;
  void merge_long(std::vector<Symbol>& symbols) const;

  size_t size() const { return used_; }

 private:
  struct Merge {
    uint32_t rank = kNoMerge;
    int32_t result = 0;
  };
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  struct Candidate;
  struct Chain;

  static constexpr uint32_t kNoMerge = UINT32_MAX;
  static constexpr uint64_t kEmpty = UINT64_MAX;  ///< would be the pair (-1, -1), and negative symbols never merge

  size_t slot_of(uint64_t key) const;
  Merge find(int32_t left, int32_t right) const;
  void grow();

  std::vector<Slot> slots_;  ///< open addressing with linear probing; a power of two, at most half full
  size_t used_ = 0;
};

}  // namespace contexture
