#include <cassert>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "engine/runtime.h"
#include "engine/sampler.h"
#include "engine/stop_matcher.h"

namespace contexture {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Feeds one sequence to the model.
class Feeder {
 public:
  Feeder(Runtime& runtime, SequenceId sequence, const GenerationCallbacks& callbacks)
      : runtime_(runtime), sequence_(sequence), cancelled_(callbacks.cancelled), observer_(callbacks.observer) {
    const size_t most = runtime.workspace().size.tokens;
    positions_.reserve(most);
    sequences_.reserve(most);
    wants_.reserve(most);
  }

  /// The logits after the last of these tokens, which fit a step; nothing where the context is full, or where it was
  /// cancelled: then the sequence is as it was.
  std::optional<std::span<const float>> feed(std::span<const TokenId> tokens) {
    Cache& cache = runtime_.cache();
    const size_t first = cache.length(sequence_);
    if (!cache.append(sequence_, tokens.size())) return std::nullopt;
    positions_.clear();
    for (size_t i = 0; i < tokens.size(); ++i) positions_.push_back(static_cast<int64_t>(first + i));
    sequences_.assign(tokens.size(), sequence_);
    wants_.assign(tokens.size(), 0);
    wants_.back() = 1;
    const Step step{.tokens = tokens,
                    .positions = positions_,
                    .sequences = sequences_,
                    .wants_logits = wants_,
                    .cancelled = cancelled_,
                    .observer = observer_};
    const std::span<const float> logits = runtime_.model().forward(step, cache, runtime_.workspace(), runtime_.pool());
    if (cancelled_ && *cancelled_) {
      (void)cache.truncate(sequence_, first);  // some layers have not stored their K and V
      return std::nullopt;
    }
    return logits;
  }

 private:
  Runtime& runtime_;
  SequenceId sequence_;
  const std::atomic<bool>* cancelled_;
  AttentionObserver* observer_;
  std::vector<int64_t> positions_;
  std::vector<SequenceId> sequences_;
  std::vector<uint8_t> wants_;
};

bool is_cancelled(const GenerationCallbacks& callbacks) {
  return callbacks.cancelled && *callbacks.cancelled;
}

/// Runs the prompt through the model in chunks; the logits after it, or nothing where it was cancelled.
std::optional<std::span<const float>> prefill(Runtime& runtime, Feeder& feeder, std::span<const TokenId> prompt,
                                              const GenerationCallbacks& callbacks) {
  std::optional<std::span<const float>> logits;
  const size_t chunk = runtime.workspace().size.tokens;
  for (size_t at = 0; at < prompt.size(); at += chunk) {
    const size_t count = std::min(chunk, prompt.size() - at);
    logits = feeder.feed(prompt.subspan(at, count));
    if (callbacks.on_prefill) callbacks.on_prefill(at + count, prompt.size());
    if (!logits) return std::nullopt;
  }
  return logits;
}

std::vector<TokenId> banned_tokens(const Tokenizer& tokenizer, const GenerateOptions& options, size_t vocabulary,
                                   std::optional<TokenId> also_end) {
  std::vector<TokenId> banned;
  // Rows past the tokenizer's last piece are padding of the matrix: there is no text for them.
  for (size_t id = 0; id < vocabulary; ++id) {
    const bool is_real = id < tokenizer.size() && tokenizer.vocabulary().types[id] != PieceType::unused;
    if (!is_real) banned.push_back(static_cast<TokenId>(id));
  }
  if (!options.ignore_end) return banned;
  for (const TokenId id : tokenizer.vocabulary().end_tokens) {
    if (static_cast<size_t>(id) < vocabulary) banned.push_back(id);
  }
  if (also_end && static_cast<size_t>(*also_end) < vocabulary) banned.push_back(*also_end);
  return banned;
}

}  // namespace

void check_prompt(const MemoryPlan& plan, std::span<const TokenId> prompt) {
  if (prompt.empty()) fail("the prompt is empty and this model has no begin token; give a prompt with -p");
  const size_t context = plan.cache.context;
  if (prompt.size() > context) {
    fail("the prompt has {} tokens and the context {}; ask for more with -c or shorten it", prompt.size(), context);
  }
  const size_t vocabulary = plan.config.vocabulary;
  for (const TokenId id : prompt) {
    if (id < 0 || static_cast<size_t>(id) >= vocabulary) {
      fail("token {} is outside the model's vocabulary of {}; is this its tokenizer?", id, vocabulary);
    }
  }
}

Generation generate(Runtime& runtime, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                    const GenerateOptions& options, const GenerationCallbacks& callbacks) {
  check_prompt(runtime.plan(), prompt);
  const OwnedSequence sequence(runtime.cache());
  return generate_in(runtime, tokenizer, sequence.id(), prompt, options, callbacks);
}

Generation generate_in(Runtime& runtime, const Tokenizer& tokenizer, SequenceId sequence,
                       std::span<const TokenId> prompt, const GenerateOptions& options,
                       const GenerationCallbacks& callbacks, std::optional<TokenId> also_end) {
  check_prompt(runtime.plan(), prompt);
  const size_t held = runtime.cache().length(sequence);
  assert(held < prompt.size());
  const size_t vocabulary = runtime.model().config().vocabulary;
  Generation result;
  result.prompt_tokens = prompt.size();
  result.prefilled_tokens = prompt.size() - held;
  const size_t most = std::min(options.max_tokens, runtime.plan().cache.context + 1 - prompt.size());
  result.token_ids.reserve(most);
  result.log_probabilities.reserve(most);
  std::vector<TokenId> history(prompt.begin(), prompt.end());
  history.reserve(prompt.size() + most);
  Sampler sampler(options, vocabulary, banned_tokens(tokenizer, options, vocabulary, also_end));
  StreamDecoder decoder(tokenizer, prompt);
  StopMatcher stops(options.stop);
  Feeder feeder(runtime, sequence, callbacks);

  Clock::time_point start = Clock::now();
  std::optional<std::span<const float>> logits = prefill(runtime, feeder, prompt.subspan(held), callbacks);
  result.prefill_seconds = seconds_since(start);
  start = Clock::now();
  if (!logits) result.finish_reason = FinishReason::cancelled;
  while (logits) {
    if (result.token_ids.size() == options.max_tokens) {
      result.finish_reason = FinishReason::length;
      break;
    }
    const auto [id, log_probability] = sampler.choose(*logits, history);
    if (tokenizer.is_end(id) || id == also_end) {
      result.finish_reason = FinishReason::end;
      break;
    }
    result.token_ids.push_back(id);
    result.log_probabilities.push_back(log_probability);
    history.push_back(id);
    const std::string text = stops.push(decoder.push(id));
    result.text += text;
    const bool go_on = !callbacks.on_token || callbacks.on_token({id, log_probability, text});
    if (stops.stopped()) {
      result.finish_reason = FinishReason::stop;
      break;
    }
    if (!go_on || is_cancelled(callbacks)) {
      result.finish_reason = FinishReason::cancelled;
      break;
    }
    if (result.token_ids.size() == options.max_tokens) continue;  // no pass for logits that nobody asks for
    logits = feeder.feed({&id, 1});
    if (!logits) result.finish_reason = FinishReason::context;
    if (is_cancelled(callbacks)) {
      result.finish_reason = FinishReason::cancelled;
      break;
    }
  }
  result.decode_seconds = seconds_since(start);
  if (!stops.stopped()) {
    const std::string rest = stops.push(decoder.finish()) + stops.finish();
    result.text += rest;
    if (!rest.empty() && callbacks.on_token) callbacks.on_token({-1, 0, rest});
  }
  return result;
}

}  // namespace contexture
