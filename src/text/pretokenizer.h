#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace contexture {

/// Splits a text into words, within which byte-level BPE merges. Each kind is one or more regular expressions, applied
/// one after the other: the matches of each, and what lies between them, are what the next one splits further.
class Pretokenizer {
 public:
  /// GPT-2's, which ByteLevel of tokenizer.json brings along.
  static const char* const kByteLevelExpression;

  /// By GGUF's name of it ("llama-bpe"). Throws Error where it is not known. `compiled`: to machine code, where PCRE2
  /// can; tests turn it off to see that its interpreter does as well.
  explicit Pretokenizer(const std::string& name, bool compiled = true);
  ~Pretokenizer();

  /// `text` is valid UTF-8. The words are parts of it, in order, and cover it.
  std::vector<std::string_view> split(std::string_view text) const;

  /// A word that is a token is taken whole, even where merges would not get there.
  bool ignores_merges() const;

  /// GGUF's name of the kind whose expressions, as tokenizer.json writes them, are these; of two such kinds the one
  /// that treats merges in this way. Nothing where there is none.
  static std::optional<std::string> find_published(const std::vector<std::string>& expressions, bool ignores_merges);
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
