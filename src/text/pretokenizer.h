#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace contexture {

/// Splits a text into words, within which byte-level BPE merges. Each kind is one or more regular expressions, applied
/// one after the other: the matches of each, and what lies between them, are what the next one splits further.
class Pretokenizer {
 public:
  /// By GGUF's name of it ("llama-bpe"). Throws Error where it is not known. `compiled`: to machine code, where PCRE2
  /// can; tests turn it off to see that its interpreter does as well.
  explicit Pretokenizer(const std::string& name, bool compiled = true);
  ~Pretokenizer();

  /// `text` is valid UTF-8. The words are parts of it, in order, and cover it. (Falcon cuts characters too.)
  std::vector<std::string_view> split(std::string_view text) const;

  /// A word that is a token is taken whole, even where merges would not get there.
  bool ignores_merges() const;

  /// An expression of a tokenizer.json, and whether it meets the text or (after ByteLevel) its bytes.
  struct Step {
    std::string expression;
    Regex::Of of = Regex::Of::characters;
  };
  /// GGUF's name of the kind that is published with these steps; of two such kinds the one that treats merges in this
  /// way. Nothing where there is none.
  static std::optional<std::string> find_published(const std::vector<Step>& steps, bool ignores_merges);
  static bool is_known(const std::string& name);
  /// For errors: "llama-bpe, gpt-2, ...".
  static std::string names();
  /// Models of this kind want a begin token, should their file not say.
  static bool begin_is_usual(const std::string& name);

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace contexture
