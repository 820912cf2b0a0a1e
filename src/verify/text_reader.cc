#include "verify/text_reader.h"

#include <algorithm>
#include <cassert>
#include <memory>

#include "base/error.h"

namespace contexture {

TextReader::TextReader(Runtime& runtime, const std::atomic<bool>* cancelled)
    : runtime_(runtime), cancelled_(cancelled), sequence_(runtime.cache()) {}

std::optional<std::span<const float>> TextReader::feed(std::span<const TokenId> tokens, size_t skipped) {
  Cache& cache = runtime_.cache();
  const size_t first = cache.length(sequence_.id());
  if (!cache.append(sequence_.id(), tokens.size())) {
    fail("the context of {} tokens is full; ask for more with -c", runtime_.plan().cache.context);
  }
  step_.clear();
  step_.add(sequence_.id(), first, tokens, skipped, runtime_.rotation_of(runtime_.plan().cache.context));
  const StepResult result = runtime_.forward(step_.step(cancelled_));
  if (result.cancelled) return std::nullopt;
  return result.logits;
}

size_t TextWindows::scored_of(size_t text_tokens) const {
  assert(tokens > 0 && scored_from > 0);
  const auto of_window = [&](size_t count) { return count - std::min(count, scored_from); };
  const size_t rest = whole_only ? 0 : text_tokens % tokens;
  return text_tokens / tokens * of_window(tokens) + of_window(rest);
}

namespace {

/// One text on its way through several runs.
class Walk {
 public:
  Walk(const TextWindows& windows, std::span<Runtime* const> runs, const OnPrediction& on_prediction,
       const std::atomic<bool>* cancelled)
      : windows_(windows), on_prediction_(on_prediction), rows_(runs.size()) {
    for (Runtime* const run : runs) {
      assert(run->workspace().size.logit_rows >= run->workspace().size.tokens);
      step_ = std::min(step_, run->workspace().size.tokens);
      readers_.push_back(std::make_unique<TextReader>(*run, cancelled));
      vocabulary_ = run->model().config().vocabulary;
    }
  }

  /// False where it was cancelled.
  bool read_window(std::span<const TokenId> window, const std::function<void(size_t)>& on_chunk) {
    if (window.size() <= windows_.scored_from) return true;
    for (const auto& reader : readers_) reader->restart();
    read_.assign(window.begin(), window.end());
    if (windows_.begin) read_[0] = *windows_.begin;
    for (size_t at = 0; at < window.size(); at += step_) {
      const size_t count = std::min(step_, window.size() - at);
      if (!read_chunk(window, at, count)) return false;
      on_chunk(at + count);
    }
    return true;
  }

 private:
  /// The logits after token i foretell token i + 1.
  bool read_chunk(std::span<const TokenId> window, size_t at, size_t count) {
    const size_t first = std::clamp(windows_.scored_from - 1, at, at + count);
    std::vector<std::span<const float>> logits;
    for (const auto& reader : readers_) {
      const std::optional<std::span<const float>> read = reader->feed(std::span(read_).subspan(at, count), first - at);
      if (!read) return false;
      logits.push_back(*read);
    }
    for (size_t i = first; i < std::min(at + count, window.size() - 1); ++i) {
      for (size_t run = 0; run < rows_.size(); ++run) {
        rows_[run] = logits[run].subspan((i - first) * vocabulary_, vocabulary_);
      }
      on_prediction_(window[i + 1], rows_);
    }
    return true;
  }

  const TextWindows& windows_;
  const OnPrediction& on_prediction_;
  size_t step_ = SIZE_MAX, vocabulary_ = 0;
  std::vector<std::unique_ptr<TextReader>> readers_;
  std::vector<std::span<const float>> rows_;
  std::vector<TokenId> read_;
};

}  // namespace

bool predict_text(std::span<const TokenId> text, const TextWindows& windows, std::span<Runtime* const> runs,
                  const OnPrediction& on_prediction, const TextProgress& progress) {
  if (windows.scored_of(text.size()) == 0) {
    fail("the text has {} tokens, of which none would be scored in windows of {}; give a longer text or a smaller -c",
         text.size(), windows.tokens);
  }
  for (Runtime* const run : runs) {
    if (windows.tokens > run->plan().cache.context) fail("a window of {} tokens does not fit", windows.tokens);
    const size_t vocabulary = run->plan().config.vocabulary;
    const auto stranger = std::find_if(text.begin(), text.end(),
                                       [&](TokenId id) { return id < 0 || static_cast<size_t>(id) >= vocabulary; });
    if (stranger != text.end()) {
      fail("token {} is outside the model's vocabulary of {}; is this its tokenizer?", *stranger, vocabulary);
    }
  }
  Walk walk(windows, runs, on_prediction, progress.cancelled);
  for (size_t at = 0; at < text.size(); at += windows.tokens) {
    const size_t count = std::min(windows.tokens, text.size() - at);
    if (windows.whole_only && count < windows.tokens) break;
    const auto on_chunk = [&](size_t done) {
      if (progress.on_chunk) progress.on_chunk(at + done, text.size());
    };
    if (!walk.read_window(text.subspan(at, count), on_chunk)) return false;
  }
  return true;
}

}  // namespace contexture
