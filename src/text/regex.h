#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace contexture {

/// What matching needs besides the expression; its bound on steps grows with the text.
class RegexMatcher {
 public:
  explicit RegexMatcher(size_t text_size);

 private:
  friend class Regex;
  struct Free {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  };
  std::unique_ptr<pcre2_match_data, Free> match_;
  std::unique_ptr<pcre2_match_context, Free> context_;
};

/// A regular expression of PCRE2 in which `\s` and `\S` are Unicode's White_Space, as in the engines that the published
/// ones were written for (PCRE2's own \s has U+180E too).
class Regex {
 public:
  enum class Of : uint8_t { characters, bytes };

  /// `compiled`: to machine code, where PCRE2 can. Of characters: texts are valid UTF-8.
  explicit Regex(std::string_view expression, Of of = Of::characters, bool compiled = true);

  /// Appends the matches in `text` and what lies between them. No match may be empty.
  void split(std::string_view text, const RegexMatcher& matcher, std::vector<std::string_view>& words) const;

  /// Whether the text begins with a match.
  bool starts(std::string_view text) const;

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  int match(std::string_view text, size_t from, uint32_t options, const RegexMatcher& matcher) const;

  std::unique_ptr<pcre2_code, Free> code_;
};

/// `text` with every `from` in it as `to`.
std::string replaced(std::string text, std::string_view from, std::string_view to);

}  // namespace contexture
