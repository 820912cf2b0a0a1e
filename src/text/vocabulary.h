#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/model_file.h"

namespace contexture {

using TokenId = int32_t;

/// What stands for a space in SentencePiece's pieces: U+2581.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

/// What a piece is, with the numbers of SentencePiece and GGUF.
enum class PieceType : uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

/// A tokenizer's tables, whatever file they came from.
struct Vocabulary {
  enum class Algorithm : uint8_t {
    sentencepiece_bpe,  ///< merges by score over UTF-8 characters, byte fallback ("llama" in GGUF)
    byte_bpe,           ///< merges by rank over bytes, within the words of a pre-tokenizer ("gpt2" in GGUF)
  };
  Algorithm algorithm = Algorithm::sentencepiece_bpe;
  std::string pretokenizer;         ///< GGUF's name of it ("llama-bpe"); byte_bpe only
  std::vector<std::string> pieces;  ///< as stored: "▁the" (sentencepiece_bpe), "Ġthe" (byte_bpe)
  std::vector<float> scores;        ///< sentencepiece_bpe; higher merges first
  std::vector<PieceType> types;     ///< one a piece
  /// "Ġ t" by rank. Empty: of byte_bpe, two pieces whose concatenation is a piece merge, with its id as the rank; of
  /// sentencepiece_bpe the same by its score (a list is what a tokenizer.json brings).
  std::vector<std::string> merges;
  std::optional<bool>
      ignore_merges;  ///< byte_bpe: a word that is a piece is taken whole; none: as its kind usually does
  std::optional<TokenId> begin, end, unknown;
  std::vector<TokenId> end_tokens;  ///< every token that ends a text: end, end of turn, end of message
  bool add_begin = true;            ///< the begin token precedes a prompt
  bool add_end = false;
  /// A text starts as if a space preceded it. (byte_bpe: only with prefix_if_absent.)
  bool add_space_prefix = true;
  bool prefix_once = false;       ///< ... but not what follows a special piece
  bool prefix_if_absent = false;  ///< ... and not where a space is there already
  bool collapse_spaces = false;   ///< sentencepiece_bpe: runs of spaces count as one, those at the ends as none
  /// sentencepiece_bpe: the text starts anew (with its space prefix) after a user-defined piece as it does after a
  /// control token, as llama.cpp reads GGUF files; false: such a piece is a part of the text around it, as the library
  /// reads .model.
  bool user_defined_restarts_text = true;
  bool nfc = false;  ///< text is brought to Unicode's Normalization Form C between the special pieces (Qwen's)
  /// sentencepiece_bpe: a run of unknown characters is one unknown token. byte_bpe: the same of a word's bytes.
  bool fuse_unknown = true;
  /// Special pieces that swallow the white space before or after them (Phi-3's); ascending, as are the next two.
  std::vector<TokenId> strips_left, strips_right;
  std::vector<TokenId> single_words;  ///< special pieces that are none where they touch a letter or a digit
  /// Special pieces that are looked for after the others have been cut out, and in the text as it is then: brought to
  /// Form C, and of sentencepiece_bpe with U+2581 for spaces and in front ("▁<x>"), unless that is done later.
  std::vector<TokenId> normalized;
  bool marks_after_cutting = false;  ///< it is: a pre-tokenizer of tokenizer.json writes U+2581, and no normalizer
};

/// From the keys tokenizer.ggml.* . Throws Error where they are missing, contradict each other or name an unknown
/// algorithm or pre-tokenizer (the error names it).
Vocabulary vocabulary_from_metadata(const Metadata& metadata);

/// The same, or nothing where a model file brings no vocabulary (the key tokenizer.ggml.model is missing, or
/// "no_vocab").
std::optional<Vocabulary> vocabulary_of(const Metadata& metadata);

/// A file of its own: Hugging Face's tokenizer.json, SentencePiece's .model, tiktoken's text of ranks (Llama 3's),
/// ExecuTorch's or llama2.c's tokenizer.bin; told apart by their bytes. Of a folder the first of tokenizer.json,
/// tokenizer.model, tokenizer.bin that is there. `vocabulary_size`: of the model; llama2.c's file must have as many
/// pieces (0: not known). The others may have fewer, since models round theirs up. Throws Error.
Vocabulary vocabulary_from_file(const std::string& path, int64_t vocabulary_size = 0);

/// The tokenizer's file in a folder: the first of those names that is there; empty where none is.
std::string find_vocabulary_file(const std::string& folder);

/// vocabulary_from_file from the bytes of such a file; `name` is for errors.
Vocabulary vocabulary_from_bytes(std::span<const std::byte> bytes, const std::string& name,
                                 int64_t vocabulary_size = 0);

/// What a model's other files say of its tokens, in GGUF's keys and ours, goes before what its tokenizer file says:
/// tokenizer.ggml.bos_token_id, .eos_token_id, .add_bos_token and .add_eos_token replace, as do tokenizer.bos_token and
/// .eos_token, which name a piece and win (they are what templates mean by eos_token); tokenizer.ggml.eot_token_id,
/// .eom_token_id and tokenizer.end_token_ids add to `end_tokens`. Keys that are missing change nothing. Throws Error
/// for an id outside the vocabulary.
void apply_token_metadata(Vocabulary& vocabulary, const Metadata& metadata);

/// Writes the keys tokenizer.ggml.* as other programs expect them, and for what GGUF has no key some of our own
/// (tokenizer.nfc, ...: see vocabulary_metadata.cc), so that vocabulary_from_metadata gives the same tokenizer.
void vocabulary_to_metadata(const Vocabulary& vocabulary, Metadata& metadata);

/// Throws Error where the tables of a vocabulary do not fit each other; `name` says where it came from. The readers
/// above have done so, and Tokenizer does it again for a vocabulary made by hand.
void check_vocabulary(const Vocabulary& vocabulary, const std::string& name);

}  // namespace contexture
