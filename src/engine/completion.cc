#include "engine/completion.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"
#include "sampling/fields.h"

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

/// No list of tokens is made where nobody asks for it: it takes a look at every one.
DryBreakers breakers(const Tokenizer& tokenizer, const Sampling& sampling) {
  return sampling.dry_multiplier > 0 ? DryBreakers(tokenizer, sampling.dry_sequence_breakers) : DryBreakers();
}

void check_options(const GenerateOptions& options, size_t vocabulary) {
  check_biases(options.sampling, vocabulary);
  if (options.sampling.mirostat != 0 && (options.resumable || options.resume.draws > 0)) {
    fail("a text by Mirostat cannot go on after it stopped: its bound is not kept; leave out Mirostat or the session");
  }
}

/// Before anything is made of them.
const Submission& checked(const TextLimits& limits, const Submission& submission) {
  check_prompt(limits, submission.prompt);
  const uint64_t draws = submission.options.resume.draws;
  if (draws > submission.prompt.size()) {  // each is skipped
    fail("{} random numbers are said to be used up by a text of {} tokens; give those that it left behind", draws,
         submission.prompt.size());
  }
  return submission;
}

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::end:
      return "end";
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::context:
      return "context";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return "?";
}

Completion::Completion(const TextLimits& limits, const Tokenizer& tokenizer, const Submission& submission)
    : tokenizer_(tokenizer),
      max_tokens_(submission.options.max_tokens),
      resumable_(submission.options.resumable),
      also_end_(submission.also_end),
      callbacks_(submission.callbacks),
      sampler_(submission.options.sampling, checked(limits, submission).options.resume.draws,
               banned_tokens(tokenizer, submission.options, limits.vocabulary, submission.also_end),
               breakers(tokenizer, submission.options.sampling)),
      text_(tokenizer, submission.prompt, submission.options.stop, submission.options.resume) {
  check_options(submission.options, limits.vocabulary);
  alternatives_wanted_ = std::min(submission.options.alternatives, limits.vocabulary);
  cancelled = callbacks_.cancelled;
  observer = callbacks_.observer;
  const size_t prompt = submission.prompt.size();
  most_ = std::min(max_tokens_, limits.context + 1 - prompt);
  most_tokens_ = std::min(limits.context, prompt + std::min(max_tokens_, limits.context));
  tokens_ = submission.prompt;
  result_.prompt_tokens = prompt;
  result_.resume.draws = submission.options.resume.draws;
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

void Completion::look(const Rows& rows, Candidates& scratch) {
  if (max_tokens_ == 0) return;
  choice_ = sampler_.choose(rows.logits, tokens_, scratch);
  if (alternatives_wanted_ > 0) alternatives_ = likeliest(rows.logits, alternatives_wanted_, choice_->log_sum, scratch);
}

void Completion::take() {
  assert(!finished_);
  if (!std::exchange(prefilled_, true)) result_.prefill_seconds = seconds_since_mark();
  if (max_tokens_ == 0) return finish(FinishReason::length);
  const Sampler::Choice choice = *std::exchange(choice_, std::nullopt);
  const TokenId id = choice.id;
  if (tokenizer_.is_end(id) || id == also_end_) return finish(FinishReason::end);
  tokens_.push_back(id);
  result_.token_ids.push_back(id);
  result_.log_probabilities.push_back(choice.log_probability);
  ++result_.resume.draws;
  const std::string text = text_.push(id);
  result_.text += text;
  const bool go_on = !callbacks_.on_token || callbacks_.on_token({id, choice.log_probability, text, alternatives_});
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

void Completion::deliver() {
  if (callbacks_.on_finished) callbacks_.on_finished(std::move(result_));
}

void Completion::failed(std::exception_ptr error) noexcept {
  finished_ = true;
  if (callbacks_.on_failed) callbacks_.on_failed(std::move(error));
}

void cut_after(Generation& made, size_t tokens, std::string text) {
  if (made.token_ids.size() > tokens) {
    made.resume.draws -= std::min<uint64_t>(made.resume.draws, made.token_ids.size() - tokens);
    made.token_ids.resize(tokens);
    made.log_probabilities.resize(tokens);
  }
  made.kept_tokens = made.prompt_tokens + tokens;
  made.cut_text.clear();
  made.resume.open_tokens = made.resume.shown_bytes = 0;
  made.text = std::move(text);
  made.finish_reason = FinishReason::cancelled;
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
