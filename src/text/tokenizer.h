#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "text/vocabulary.h"

namespace contexture {

struct EncodeOptions {
  bool add_begin = true;      ///< the begin (and end) token as the file asks; false: neither
  bool parse_special = true;  ///< "<|eot_id|>" in the text is that token; false: it is text like any other
  bool goes_on = false;       ///< other text comes before it: no space is put in front
  /// With parse_special: bytes of the text that came from elsewhere, ascending and apart. What touches them is no
  /// control token, nor one of these user-defined ones, ascending.
  std::span<const ByteRange> content = {};
  std::span<const TokenId> guarded = {};
};

/// Text to token ids and back. Immutable once made; safe to use from several threads.
///
/// Any bytes are a text. What is not UTF-8 becomes a token a byte, and comes back from decode() as it was, where the
/// vocabulary has the bytes; else it becomes the unknown token or U+FFFD. decode(encode(text)) is `text` where the
/// vocabulary has all bytes and a piece for the space, but for this of sentencepiece_bpe: U+2581 comes back as a space,
/// and spaces that the vocabulary collapses or swallows (collapse_spaces, prefix_if_absent, strips_left, strips_right)
/// are gone. Where the vocabulary says nfc, characters come back in that form.
///
/// User-defined pieces are tokens wherever their text occurs; control pieces only with `parse_special`.
class Tokenizer {
 public:
  /// Throws Error where the vocabulary contradicts itself or names a pre-tokenizer that is not known.
  explicit Tokenizer(Vocabulary vocabulary);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Throws Error for a text of more than 2^30 bytes, and for one that the vocabulary has no way to write.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const;

  /// The bytes that a token adds to a text (a part of a UTF-8 character, perhaps). Control tokens add nothing, or their
  /// name with `show_special`. Throws Error for an id outside the vocabulary.
  std::string bytes(TokenId id, bool show_special = false) const;

  /// The bytes of a whole sequence, without the space that sentencepiece_bpe puts where a text starts. The sequence
  /// starts one; so does a control token, for what follows it ("<|user|>Hi").
  std::string decode(std::span<const TokenId> ids, bool show_special = false) const;

  /// Whether what follows this token starts a text, so that encode() puts a space before it and decode() takes it away.
  bool restarts_text(TokenId id) const;

  /// The piece as it is stored, for people and tables.
  const std::string& piece(TokenId id) const;

  /// Without its merges, which are kept in another form.
  const Vocabulary& vocabulary() const;
  size_t size() const;
  bool is_end(TokenId id) const;

 private:
  friend class StreamDecoder;

  /// bytes(), less the space of a text's start; `at_start` is kept from token to token.
  std::string next_bytes(TokenId id, bool show_special, bool& at_start) const;

  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

/// Turns a stream of tokens into text and never hands out half a UTF-8 character. `after` is the text so far (prompt),
/// which decides whether the first token's leading space is dropped. The tokenizer must outlive this.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, std::span<const TokenId> after = {}, bool show_special = false);
  /// The characters that this token completes; perhaps none. Bytes that cannot become valid UTF-8 are handed out as
  /// U+FFFD, one for each maximal start of a character (as Unicode recommends), so that the text does not depend on
  /// where tokens end.
  std::string push(TokenId id);
  /// The beginning of a character that is not complete.
  const std::string& open() const { return pending_; }
  /// What is left at the end: U+FFFD where a character was never completed, else nothing. What follows is a new stream.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool show_special_;
  bool at_start_;
  std::string pending_;
};

}  // namespace contexture
