#include "text/regex.h"

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <new>

#include "base/error.h"

namespace contexture {

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

/// PCRE2's own limit on steps would refuse a run of ten million spaces. Ours is a net: the expressions are linear.
RegexMatcher::RegexMatcher(size_t text_size)
    : match_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
  if (!match_ || !context_) throw std::bad_alloc();
  const size_t steps = std::max<size_t>(10'000'000, 4 * text_size);
  pcre2_set_match_limit(context_.get(), static_cast<uint32_t>(std::min<size_t>(steps, UINT32_MAX)));
}

Regex::Regex(std::string_view given, Of of, bool compiled) {
  const std::string expression = replaced(replaced(std::string(given), "\\s", "\\p{wspace}"), "\\S", "\\P{wspace}");
  const uint32_t options = of == Of::characters ? PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C : 0;
  int error = 0;
  PCRE2_SIZE at = 0;
  code_.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(), options, &error, &at, nullptr));
  if (!code_) fail("PCRE2 refuses {} at {} (error {}); it is older than 10.40", expression, at, error);
  if (compiled) pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where that fails, PCRE2 interprets
}

int Regex::match(std::string_view text, size_t from, uint32_t options, const RegexMatcher& matcher) const {
  return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                     options | PCRE2_NO_UTF_CHECK, matcher.match_.get(), matcher.context_.get());
}

void Regex::split(std::string_view text, const RegexMatcher& matcher, std::vector<std::string_view>& words) const {
  size_t at = 0;
  while (at < text.size()) {
    const int count = match(text, at, 0, matcher);
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count < 0) fail("the text cannot be split into words (PCRE2 error {}); give it in smaller parts", count);
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(matcher.match_.get());
    assert(range[0] >= at && range[1] > range[0]);
    if (range[0] > at) words.push_back(text.substr(at, range[0] - at));
    words.push_back(text.substr(range[0], range[1] - range[0]));
    at = range[1];
  }
  if (at < text.size()) words.push_back(text.substr(at));
}

bool Regex::starts(std::string_view text) const {
  return match(text, 0, PCRE2_ANCHORED, RegexMatcher(text.size())) >= 0;
}

}  // namespace contexture
