#include "text/pretokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "text/pretokenizer_kinds.h"
#include "text/utf8.h"

namespace contexture {
namespace {

const PretokenizerKind* find_kind(const std::string& name) {
  for (const PretokenizerKind& kind : pretokenizer_kinds()) {
    for (const std::string& known : kind.names) {
      if (name == known) return &kind;
    }
  }
  return nullptr;
}

/// An expression as tokenizer.json may write it: `\x{4E00}` and the character are the same, and so are `\n` and a
/// line's end.
std::string as_published(std::string expression) {
  for (size_t at; (at = expression.find("\\x{")) != expression.npos;) {
    const size_t end = expression.find('}', at);
    std::string character;
    append_utf8(character, std::stoul(expression.substr(at + 3, end - at - 3), nullptr, 16));
    expression.replace(at, end + 1 - at, character);
  }
  return replaced(replaced(expression, "\r", "\\r"), "\n", "\\n");
}

}  // namespace

struct Pretokenizer::Impl {
  const PretokenizerKind* kind;
  std::vector<Regex> expressions;
};

Pretokenizer::Pretokenizer(const std::string& name, bool compiled) {
  const PretokenizerKind* kind = find_kind(name);
  if (kind == nullptr) fail("the pre-tokenizer \"{}\" is not known; known are {}", printable(name), names());
  auto impl = std::make_unique<Impl>();
  impl->kind = kind;
  for (const SplitExpression& step : kind->expressions) impl->expressions.emplace_back(step.text, step.of, compiled);
  impl_ = std::move(impl);
}

Pretokenizer::~Pretokenizer() = default;

std::vector<std::string_view> Pretokenizer::split(std::string_view text) const {
  const RegexMatcher matcher(text.size());
  std::vector<std::string_view> words{text}, finer;
  for (const Regex& expression : impl_->expressions) {
    finer.clear();
    for (const std::string_view word : words) expression.split(word, matcher, finer);
    words.swap(finer);
  }
  return words;
}

bool Pretokenizer::ignores_merges() const {
  return impl_->kind->ignores_merges;
}

bool Pretokenizer::is_known(const std::string& name) {
  return find_kind(name) != nullptr;
}

std::optional<std::string> Pretokenizer::find_published(const std::vector<Step>& steps, bool ignores_merges) {
  const auto same = [](const Step& theirs, const SplitExpression& ours) {
    return theirs.of == ours.of && replaced(replaced(theirs.expression, "\r", "\\r"), "\n", "\\n") ==
                                       as_published(ours.published != nullptr ? ours.published : ours.text);
  };
  std::optional<std::string> name;
  for (const PretokenizerKind& kind : pretokenizer_kinds()) {
    if (!std::equal(steps.begin(), steps.end(), kind.expressions.begin(), kind.expressions.end(), same)) continue;
    if (!name || kind.ignores_merges == ignores_merges) name = kind.names[0];
    if (kind.ignores_merges == ignores_merges) break;
  }
  return name;
}

std::string Pretokenizer::names() {
  std::vector<std::string> all;
  for (const PretokenizerKind& kind : pretokenizer_kinds()) {
    all.insert(all.end(), kind.names.begin(), kind.names.end());
  }
  return fmt::format("{}", fmt::join(all, ", "));
}

bool Pretokenizer::begin_is_usual(const std::string& name) {
  const PretokenizerKind* kind = find_kind(name);
  return kind != nullptr && kind->begin_is_usual;
}

}  // namespace contexture
