#pragma once

#include <string>
#include <vector>

#include "text/regex.h"

namespace contexture {

/// One step of a pre-tokenizer: its matches and what lies between them are words.
struct SplitExpression {
  const char* text;                 ///< as PCRE2 takes it, linear in the text
  const char* published = nullptr;  ///< as tokenizer.json has it, where that differs
  Regex::Of of = Regex::Of::characters;
};

struct PretokenizerKind {
  std::vector<std::string> names;  ///< GGUF's, the usual one first
  std::vector<SplitExpression> expressions;
  bool ignores_merges = false;
  bool begin_is_usual = false;
};

const std::vector<PretokenizerKind>& pretokenizer_kinds();

/// What components of tokenizer.json without an expression of their own amount to.
namespace split_expressions {
extern const char* const kByteLevel;         ///< GPT-2's, which ByteLevel brings along
extern const char* const kDigit;             ///< Digits, individual_digits
extern const char* const kDigits;            ///< Digits
extern const char* const kDigitsOfBytes;     ///< Digits after ByteLevel
extern const char* const kPunctuationRuns;   ///< Punctuation, Contiguous
extern const char* const kPunctuationMarks;  ///< Punctuation, Isolated
}  // namespace split_expressions

}  // namespace contexture
