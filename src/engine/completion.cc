#include "engine/completion.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"

namespace contexture {
namespace {

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

std::span<const TokenId> checked(const TextLimits& limits, std::span<const TokenId> prompt) {
  check_prompt(limits, prompt);
  return prompt;
}

}  // namespace

void check_prompt(const TextLimits& limits, std::span<const TokenId> prompt) {
  if (prompt.empty()) fail("the prompt is empty and this model has no begin token; give a prompt with -p");
  if (prompt.size() > limits.context) {
    fail("the prompt has {} tokens and the context {}; {} or shorten it", prompt.size(), limits.context, limits.longer);
  }
  for (const TokenId id : prompt) {
    if (id < 0 || static_cast<size_t>(id) >= limits.vocabulary) {
      fail("token {} is outside the model's vocabulary of {}; is this its tokenizer?", id, limits.vocabulary);
    }
  }
}

void check_prompt(const MemoryPlan& plan, std::span<const TokenId> prompt) {
  check_prompt(limits_of(plan), prompt);
}

TextLimits limits_of(const MemoryPlan& plan) {
  return {.context = plan.cache.context, .vocabulary = plan.config.vocabulary};
}

Completion::Completion(const TextLimits& limits, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                       const GenerateOptions& options, const GenerationCallbacks& callbacks,
                       std::optional<TokenId> also_end)
    : tokenizer_(tokenizer),
      max_tokens_(options.max_tokens),
      resumable_(options.resumable),
      also_end_(also_end),
      callbacks_(callbacks),
      sampler_(options, banned_tokens(tokenizer, options, limits.vocabulary, also_end)),
      text_(tokenizer, checked(limits, prompt), options.stop, options.resume) {
  most_ = std::min(max_tokens_, limits.context + 1 - prompt.size());
  tokens_.assign(prompt.begin(), prompt.end());
  result_.prompt_tokens = prompt.size();
  result_.resume.draws = options.resume.draws;
}

double Completion::seconds_since_mark() {
  const Clock::time_point now = Clock::now();
  return std::chrono::duration<double>(now - std::exchange(mark_, now).value_or(now)).count();
}

void Completion::begin(const PrefixReport& prefix) {
  if (mark_) return;  // it was preempted and comes back
  // Not before its turn comes: those that wait may be many.
  tokens_.reserve(tokens_.size() + most_);
  result_.token_ids.reserve(most_);
  result_.log_probabilities.reserve(most_);
  mark_ = Clock::now();
  result_.prefix = prefix;
  furthest_ = prefix.reused_tokens;
}

void Completion::ran(size_t count, size_t length) {
  assert(count <= length && length <= tokens_.size());
  const size_t first = length - count, prompt = result_.prompt_tokens;
  result_.recomputed_tokens += std::min(furthest_, length) - std::min(furthest_, first);
  const size_t before = std::exchange(furthest_, std::max(furthest_, length));
  if (before >= prompt || furthest_ == before) return;
  result_.prefilled_tokens += std::min(prompt, furthest_) - before;
  const size_t held = result_.prefix.reused_tokens;
  if (callbacks_.on_prefill) callbacks_.on_prefill(std::min(prompt, furthest_) - held, prompt - held);
}

void Completion::take(std::span<const float> logits, Sampler::Candidates& candidates) {
  assert(!finished_);
  if (!std::exchange(prefilled_, true)) result_.prefill_seconds = seconds_since_mark();
  if (max_tokens_ == 0) return finish(FinishReason::length);
  const auto [id, log_probability] = sampler_.choose(logits, tokens_, candidates);
  if (tokenizer_.is_end(id) || id == also_end_) return finish(FinishReason::end);
  tokens_.push_back(id);
  result_.token_ids.push_back(id);
  result_.log_probabilities.push_back(log_probability);
  ++result_.resume.draws;
  const std::string text = text_.push(id);
  result_.text += text;
  const bool go_on = !callbacks_.on_token || callbacks_.on_token({id, log_probability, text});
  if (text_.stopped()) return finish(FinishReason::stop);
  if (!go_on || is_cancelled()) return finish(FinishReason::cancelled);
  if (result_.token_ids.size() == max_tokens_) finish(FinishReason::length);
}

void Completion::finish(FinishReason reason) {
  assert(!finished_);
  finished_ = true;
  result_.finish_reason = reason;
  (prefilled_ ? result_.decode_seconds : result_.prefill_seconds) = seconds_since_mark();
  end_text(reason);
}

/// What is left of the text: shown, or left to whoever goes on with it.
void Completion::end_text(FinishReason reason) {
  const bool is_cut = text_.stopped(), is_open = !is_cut && resumable_ && reason != FinishReason::end;
  result_.kept_tokens = tokens_.size();
  if (is_cut || is_open) {
    ShownText::Cut cut = text_.cut();
    const size_t open_tokens = tokens_.size() - cut.tokens;
    if (is_cut) {
      result_.kept_tokens = cut.tokens;
      result_.cut_text = std::move(cut.text);
      result_.resume.draws -= std::min<uint64_t>(result_.resume.draws, open_tokens);
    } else {
      result_.resume.open_tokens = open_tokens;
      result_.resume.shown_bytes = cut.text.size();
    }
    return;
  }
  const std::string rest = text_.finish();
  result_.text += rest;
  if (!rest.empty() && callbacks_.on_token) callbacks_.on_token({-1, 0, rest});
}

}  // namespace contexture
