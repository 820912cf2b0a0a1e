#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "text/merge_table.h"
#include "text/pretokenizer.h"
#include "text/string_map.h"
#include "text/vocabulary.h"

namespace contexture {

/// Byte-level BPE: a text is split into words (Pretokenizer), a word into bytes, and neighbours merge in the order in
/// which training found them.
class ByteBpe {
 public:
  explicit ByteBpe(const Vocabulary& vocabulary);

  /// Appends the ids of a text. Bytes that are not UTF-8 are words of their own, one each. A byte that the vocabulary
  /// lacks becomes the unknown token, or else U+FFFD; Error where that is lacking too.
  void encode(std::string_view text, std::vector<TokenId>& ids) const;

 private:
  void add_merges(const Vocabulary& vocabulary);
  void add_merges_by_id(const Vocabulary& vocabulary);
  int32_t find_or_add(const std::string& bytes);
  void encode_words(std::string_view text, std::vector<TokenId>& ids) const;
  void encode_word(std::string_view word, std::vector<Symbol>& symbols, std::vector<TokenId>& ids) const;
  void emit_bytes(std::string_view text, std::vector<TokenId>& ids) const;

  Pretokenizer pretokenizer_;
  bool ignore_merges_, fuse_unknown_;
  size_t size_;                     ///< of the vocabulary; symbols from here on are parts of merges but no pieces
  TokenId unknown_;                 ///< -1: none
  SymbolMap symbols_;               ///< by the bytes that they stand for
  std::array<int32_t, 256> bytes_;  ///< the symbol of each byte; -1: none
  MergeTable merges_;
};

/// GGUF and tokenizer.json write each byte of a piece as a printable character ("Ġ" for a space), as GPT-2 began it.
std::string printable_of_bytes(std::string_view bytes);

/// The other way; a text that is not written like that stands for itself.
std::string bytes_of_printable(std::string_view piece);

/// The merges of a vocabulary without a list of them, as a list ("Ġ t"): every way to cut a piece into two, by the id
/// of the piece.
std::vector<std::string> byte_bpe_merges_by_id(const Vocabulary& vocabulary);

/// The bytes that a piece stands for: a normal one is written like that, a special one stands for itself.
std::string byte_bpe_bytes(const Vocabulary& vocabulary, TokenId id);

}  // namespace contexture
