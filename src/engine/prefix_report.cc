#include "engine/prefix_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace contexture {
namespace {

PrefixReport::Difference difference(const Tokenizer* tokenizer, size_t position, TokenId held, TokenId given) {
  const auto text = [&](TokenId id) {
    const bool is_known = tokenizer && id >= 0 && static_cast<size_t>(id) < tokenizer->size();
    return is_known ? tokenizer->bytes(id, /*show_special=*/true) : std::string();
  };
  return {position, held, given, text(held), text(given)};
}

}  // namespace

PrefixReport adopt_prefix(Books& books, SequenceId sequence, const Tokenizer* tokenizer,
                          std::span<const TokenId> tokens, uint64_t key) {
  PrefixReport report;
  report.reused_tokens = books.adopt(sequence, tokens);
  if (report.reused_tokens == tokens.size()) return report;
  const TokenId given = tokens[report.reused_tokens];
  const std::optional<TokenId> held = books.next_held(tokens.first(report.reused_tokens), key);
  if (held && *held != given) report.first_difference = difference(tokenizer, report.reused_tokens, *held, given);
  return report;
}

std::optional<PrefixReport::Difference> first_difference(const Tokenizer& tokenizer, std::span<const TokenId> held,
                                                         std::span<const TokenId> prompt) {
  const auto [h, p] = std::mismatch(held.begin(), held.end(), prompt.begin(), prompt.end());
  if (h == held.end() || prompt.end() - p <= 1) return std::nullopt;
  return difference(&tokenizer, static_cast<size_t>(p - prompt.begin()), *h, *p);
}

std::string explain_prefix(const Generation& made) {
  const PrefixReport& prefix = made.prefix;
  std::string line = fmt::format("{} of {} prompt tokens were new", made.prefilled_tokens, made.prompt_tokens);
  if (prefix.reused_tokens == 0 && prefix.lost_tokens == 0 && !prefix.first_difference) return line;
  line += fmt::format(" and took {:.3f} s", made.prefill_seconds);
  if (const auto& d = prefix.first_difference) {
    line +=
        fmt::format("; the cache went another way at token {}, where it held {} \"{}\" and the prompt has {} \"{}\"",
                    d->position, d->held, printable(d->held_text), d->given, printable(d->given_text));
  }
  if (prefix.lost_tokens > 0) {
    line += fmt::format("; {} that it once held are no longer there in the hot format", prefix.lost_tokens);
  }
  return line;
}

}  // namespace contexture
