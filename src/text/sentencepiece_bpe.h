#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/merge_table.h"
#include "text/special_tokens.h"
#include "text/string_map.h"
#include "text/vocabulary.h"

namespace contexture {

/// SentencePiece's BPE: a text is taken apart into characters, and neighbours whose concatenation is a piece merge,
/// highest score first, or those of a list, in its order. What is no piece in the end becomes byte pieces ("<0x0A>") or
/// the unknown token.
///
/// Inside, a space is a space: the U+2581 that stands for it in the files is replaced where pieces are read.
class SentencePieceBpe {
 public:
  explicit SentencePieceBpe(const Vocabulary& vocabulary);

  /// The text as the pieces know it: U+2581 becomes a space (to SentencePiece the two are one character), and runs of
  /// spaces are collapsed where the vocabulary asks for that.
  std::string normalize(std::string_view text) const;

  /// Appends the ids of normalized text. Bytes that are not UTF-8 become one byte piece each.
  void encode(std::string_view text, std::vector<TokenId>& ids) const;

 private:
  /// What an unused piece is given out as; `left.size` and `right.size` are bytes of it.
  struct Halves {
    Symbol left, right;
  };

  SymbolMap read_pieces(const Vocabulary& vocabulary);
  void add_merges_by_score(const Vocabulary& vocabulary, SymbolMap& symbols);
  void add_listed_merges(const Vocabulary& vocabulary, SymbolMap& symbols);
  void add_halves(const Vocabulary& vocabulary);
  int32_t symbol_of(std::string_view character) const;
  std::vector<Symbol> characters_of(std::string_view text) const;
  void emit(const Symbol& symbol, std::string_view text, std::vector<TokenId>& ids) const;

  size_t size_;  ///< of the vocabulary; symbols from here on are characters that are parts of pieces but no pieces
  bool collapse_spaces_, fuse_unknown_;
  TokenId unknown_;                             ///< -1: none
  std::array<TokenId, 256> byte_pieces_;        ///< -1: none
  std::array<int32_t, 128> ascii_;              ///< the symbols of ASCII characters; -1: none
  SymbolMap characters_;                        ///< the symbols of single characters
  std::unordered_map<TokenId, Halves> halves_;  ///< of unused pieces, which merge further but are never given out
  SpecialTokens user_defined_;                  ///< those that are a part of the text around them
  MergeTable merges_;
};

/// U+2581, which SentencePiece writes for a space, replaced by one.
std::string spaces_for_marks(std::string_view text);
/// The other way.
std::string marks_for_spaces(std::string_view text);

/// The bytes that a piece stands for, spaces for U+2581; one byte for a byte piece, SentencePiece's " \u2047 " for
/// unknown.
std::string sentencepiece_bytes(const Vocabulary& vocabulary, TokenId id);

}  // namespace contexture
