#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"
#include "engine/prefix_report.h"

namespace contexture {

Scheduler::Scheduler(Runtime& runtime, const Tokenizer& tokenizer) : runtime_(runtime), tokenizer_(tokenizer) {
  const WorkspaceSize& size = runtime.workspace().size;
  parts_.reserve(size.sequences);
  step_.reserve(runtime.plan().step_tokens);
}

std::unique_ptr<Scheduler::Member> Scheduler::make_member(const Submission& r) {
  auto member = std::unique_ptr<Member>(new Member{
      submitted_, Completion(limits_of(runtime_.plan()), tokenizer_, r.prompt, r.options, r.callbacks, r.also_end)});
  ++submitted_;
  return member;
}

void Scheduler::submit(const Submission& request) {
  waiting_.push_back(make_member(request));
}

void Scheduler::submit_in(SequenceId sequence, const Submission& request) {
  assert(running_.empty() && waiting_.empty());
  running_.push_back(make_member(request));
  Member& member = *running_.back();
  member.sequence = sequence;
  const size_t held = runtime_.cache().length(sequence);
  assert(held < request.prompt.size());
  member.completion.begin(held == 0 ? adopt_prefix(runtime_.cache(), sequence, tokenizer_, request.prompt)
                                    : PrefixReport{.reused_tokens = held});
}

std::vector<Generation> Scheduler::run() {
  try {
    while (!running_.empty() || !waiting_.empty()) step();
  } catch (...) {  // of all that was asked for nothing is known any more
    running_.clear();
    waiting_.clear();
    results_.clear();
    submitted_ = 0;
    full_ = false;
    throw;
  }
  submitted_ = 0;
  return std::exchange(results_, {});
}

/// Whoever came first is fed first, so that the oldest always gets on: who holds tokens that it needs is younger.
void Scheduler::step() {
  step_.clear();
  parts_.clear();
  logit_rows_ = 0;
  finish_cancelled();
  collect_finished();
  for (size_t i = 0; i < running_.size() && room() > 0; ++i) feed(*running_[i]);
  admit();
  if (!parts_.empty()) forward();
  collect_finished();
}

/// Puts into the step what it has room for of the tokens that the sequence does not hold yet.
void Scheduler::feed(Member& member) {
  if (member.completion.is_finished()) return;
  Cache& cache = runtime_.cache();
  const std::span<const TokenId> tokens = member.completion.tokens();
  if (tokens.size() > runtime_.plan().cache.context) return member.completion.finish(FinishReason::context);
  const size_t held = cache.length(member.sequence);
  size_t count = std::min(tokens.size() - held, room());
  if (held + count == tokens.size() && logit_rows_ == runtime_.workspace().size.logit_rows) --count;
  if (count == 0) return;
  while (!cache.append(member.sequence, count)) {
    if (running_.size() == 1) return member.completion.finish(FinishReason::context);
    const bool is_youngest = running_.back().get() == &member;
    preempt_youngest();
    if (is_youngest) return;
  }
  const bool wants_logits = held + count == tokens.size();
  parts_.push_back({&member, count, wants_logits});
  step_.add(member.sequence, held, tokens.subspan(held, count), wants_logits ? count - 1 : count);
  logit_rows_ += wants_logits;
}

void Scheduler::admit() {
  Cache& cache = runtime_.cache();
  while (!full_ && room() > 0 && !waiting_.empty()) {
    const std::optional<SequenceId> id = cache.create();
    if (!id) {
      if (running_.empty()) fail("no room for another sequence; make the cache for more of them");
      return;
    }
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    Member& member = *running_.back();
    member.owned.emplace(cache, *id);
    member.sequence = *id;
    member.completion.begin(adopt_prefix(cache, *id, tokenizer_, member.completion.tokens()));
    feed(member);
  }
}

void Scheduler::preempt_youngest() {
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
  waiting_.front()->owned.reset();
  full_ = true;
  ++preemptions_;
}

void Scheduler::forward() {
  Cache& cache = runtime_.cache();
  // One flag, or one observer, for the whole pass: those of a single request are not all the others'.
  const auto common = [&](auto GenerationCallbacks::*member) {
    const auto of = [&](const Part& part) { return part.member->completion.callbacks().*member; };
    const auto first = of(parts_.front());
    return std::ranges::all_of(parts_, [&](const Part& p) { return of(p) == first; }) ? first : nullptr;
  };
  const std::atomic<bool>* cancelled = common(&GenerationCallbacks::cancelled);
  const Step step = step_.step(cancelled, common(&GenerationCallbacks::observer));
  std::span<const float> logits = runtime_.forward(step);
  if (cancelled && *cancelled) {  // some layers have not stored their K and V
    for (const Part& part : parts_) {
      (void)cache.truncate(part.member->sequence, cache.length(part.member->sequence) - part.count);
    }
    return finish_cancelled();
  }
  for (const Part& part : parts_) {
    Completion& completion = part.member->completion;
    const SequenceId sequence = part.member->sequence;
    const size_t length = cache.length(sequence), before = length - part.count;
    // Where what came before was not told, it was not computed here: rows of a session may have been converted.
    if (cache.remembered(sequence) == before) {
      cache.remember(sequence, completion.tokens().subspan(before, part.count));
    }
    completion.ran(part.count, length);
    if (!part.wants_logits) continue;
    const size_t vocabulary = runtime_.model().config().vocabulary;
    completion.take(logits.first(vocabulary), candidates_);
    logits = logits.subspan(vocabulary);
  }
}

void Scheduler::finish_cancelled() {
  for (auto* members : {&running_, &waiting_}) {
    for (size_t i = 0; i < members->size(); ++i) {  // what it says may bring new requests
      Completion& completion = (*members)[i]->completion;
      if (!completion.is_finished() && completion.is_cancelled()) completion.finish(FinishReason::cancelled);
    }
  }
}

void Scheduler::collect_finished() {
  results_.resize(submitted_);
  for (auto* members : {&running_, &waiting_}) {
    const size_t gone = std::erase_if(*members, [&](const std::unique_ptr<Member>& member) {
      if (!member->completion.is_finished()) return false;
      results_[member->number] = std::move(member->completion).result();
      return true;
    });
    if (gone > 0) full_ = false;
  }
}

Generation generate(Runtime& runtime, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
                    const GenerateOptions& options, const GenerationCallbacks& callbacks) {
  Scheduler scheduler(runtime, tokenizer);
  scheduler.submit({{prompt.begin(), prompt.end()}, options, callbacks, std::nullopt});
  return std::move(scheduler.run().front());
}

Generation generate_in(Runtime& runtime, const Tokenizer& tokenizer, SequenceId sequence,
                       std::span<const TokenId> prompt, const GenerateOptions& options,
                       const GenerationCallbacks& callbacks, std::optional<TokenId> also_end) {
  Scheduler scheduler(runtime, tokenizer);
  scheduler.submit_in(sequence, {{prompt.begin(), prompt.end()}, options, callbacks, also_end});
  return std::move(scheduler.run().front());
}

}  // namespace contexture
