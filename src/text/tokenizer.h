#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace contexture {

struct EncodeOptions {
  bool add_begin = true;      ///< the begin (and end) token as the file asks; false: neither
  bool parse_special = true;  ///< "<|eot_id|>" in the text is that token; false: it is text like any other
};

/// Text to token ids and back. Immutable once made; safe to use from several threads.
class Tokenizer {
 public:
  explicit Tokenizer(Vocabulary vocabulary);
  ~Tokenizer();

  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const;

  /// The bytes that a token adds to a text (a part of a UTF-8 character, perhaps). Control tokens add nothing, or their
  /// name with `show_special`. Throws Error for an id outside the vocabulary.
  std::string bytes(TokenId id, bool show_special = false) const;

  /// The text of a whole sequence, without the space that sentencepiece_bpe puts before its first word.
  std::string decode(std::span<const TokenId> ids, bool show_special = false) const;

  /// The piece as it is stored, for people and tables.
  const std::string& piece(TokenId id) const;

  const Vocabulary& vocabulary() const;
  size_t size() const;
  bool is_end(TokenId id) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

/// Turns a stream of tokens into text and never hands out half a UTF-8 character. `after` is the text so far (prompt),
/// which decides whether the first token's leading space is dropped.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, std::span<const TokenId> after = {}, bool show_special = false);
  /// The characters that this token completes; perhaps none. Bytes that cannot become valid UTF-8 are handed out as
  /// U+FFFD, one for each maximal invalid run.
  std::string push(TokenId id);
  /// What is left at the end: U+FFFD where a character was never completed, else nothing.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool show_special_;
  bool at_start_;
  std::string pending_;
};

}  // namespace contexture
