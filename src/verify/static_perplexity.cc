#include "verify/static_perplexity.h"

#include <algorithm>

#include "base/error.h"

namespace contexture {

std::optional<Perplexity> measure_perplexity(std::span<const TokenId> text, const TextWindows& windows,
                                             StaticRunner& runner, const TextProgress& progress) {
  if (windows.scored_of(text.size()) == 0) {
    fail("the text has {} tokens, of which none would be scored in windows of {}; give a longer text or a smaller -c",
         text.size(), windows.tokens);
  }
  if (windows.tokens > runner.capacity() + 1) fail("a window of {} tokens does not fit", windows.tokens);
  const size_t vocabulary = runner.shape().vocabulary;
  for (const TokenId id : text) {
    if (id < 0 || static_cast<size_t>(id) >= vocabulary) {
      fail("token {} is outside the model's vocabulary of {}; is this its tokenizer?", id, vocabulary);
    }
  }
  Perplexity perplexity;
  for (size_t at = 0; at < text.size(); at += windows.tokens) {
    const std::span<const TokenId> window = text.subspan(at, std::min(windows.tokens, text.size() - at));
    if (window.size() <= windows.scored_from || (windows.whole_only && window.size() < windows.tokens)) continue;
    std::vector<TokenId> read(window.begin(), window.end() - 1);
    if (windows.begin) read[0] = *windows.begin;
    runner.truncate(0);
    const std::span<const float> last = runner.feed(read, {.on_logits =
                                                               [&](size_t token, std::span<const float> logits) {
                                                                 if (token + 1 >= windows.scored_from)
                                                                   perplexity.add(logits, window[token + 1]);
                                                               },
                                                           .on_progress =
                                                               [&](size_t done, size_t) {
                                                                 if (progress.on_chunk)
                                                                   progress.on_chunk(at + done, text.size());
                                                               },
                                                           .cancelled = progress.cancelled});
    if (last.empty()) return std::nullopt;
  }
  return perplexity;
}

}  // namespace contexture
