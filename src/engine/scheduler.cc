#include "engine/scheduler.h"

#include <algorithm>
#include <cassert>
#include <chrono>

#include "base/error.h"
#include "engine/prefix_report.h"

namespace contexture {
namespace {

uint64_t steady_nanoseconds() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

SchedulerOptions with_clock(SchedulerOptions options) {
  if (!options.clock) options.clock = steady_nanoseconds;
  return options;
}

/// Tokens that every text that runs is to find room for when another is admitted.
constexpr size_t kRoomToGrow = 32;

/// Namespaces that are known by name: at least so many that were used last, at most twice as many.
constexpr size_t kNamespaces = 1 << 15;

/// A key is a namespace's number and a rotation.
constexpr int kRotationBits = 8;
static_assert(sizeof(RotationId) * 8 == kRotationBits);
bool is_one_namespace(uint64_t key, uint64_t other) {
  return key >> kRotationBits == other >> kRotationBits;
}

}  // namespace

Scheduler::Scheduler(Executor& executor, const Tokenizer* tokenizer, const SchedulerOptions& options)
    : executor_(executor),
      tokenizer_(tokenizer),
      options_(with_clock(options)),
      kept_(executor.books()),
      swap_(executor.cache_here(), options.swap_bytes, options_.clock),
      scratch_(texts_looking(executor.capacities().sequences,
                             executor.threads() ? static_cast<size_t>(executor.threads()->threads()) : 1)) {
  const Capacities& capacities = executor.capacities();
  for (Candidates& scratch : scratch_) scratch.reserve(capacities.vocabulary, capacities.context);
  parts_.reserve(capacities.sequences);
  step_.reserve(capacities.step_tokens);
}

Scheduler::~Scheduler() {
  for (auto* members : {&running_, &waiting_}) {
    for (const std::unique_ptr<Member>& member : *members) release(*member, /*failed=*/true);
  }
}

TextId Scheduler::submit(std::unique_ptr<Text> text, const TextOptions& options) {
  if (text->wants_hidden() && executor_.capacities().hidden == 0) {
    contexture::fail("embeddings are not made where ranks share the context, nor by compiled graphs");
  }
  RotationId rotation = executor_.rotation_of(std::max(text->most_tokens(), options.planned_tokens));
  uint64_t key = 0;
  if (options.kept) {
    KeptContexts::Context& kept = kept_.at(*options.kept);
    if (kept.busy) {
      fail_as(ErrorKind::conflict, "another text runs in this context; wait for its end, or fork the context");
    }
    if (options.as_kept) rotation = kept.rotation, key = kept.key;
  }
  if (!options.as_kept) key = key_of(options.name_space, rotation);
  waiting_.push_back(std::unique_ptr<Member>(
      new Member{.id = next_, .text = std::move(text), .kept = options.kept, .key = key, .rotation = rotation}));
  if (options.kept) kept_.at(*options.kept).busy = true;
  return next_++;
}

TextId Scheduler::submit(const Submission& submission, const TextOptions& options) {
  if (!tokenizer_) contexture::fail("text cannot be generated without a tokenizer; name one with --tokenizer PATH");
  return submit(std::make_unique<Completion>(limits_of(executor_.capacities()), *tokenizer_, submission), options);
}

/// Namespaces are numbered as they come: no two have one key. Of those that were not used for long the numbers are
/// forgotten, and with them what could be found of their prompts.
uint64_t Scheduler::key_of(const std::string& name_space, RotationId rotation) {
  auto found = namespaces_.find(name_space);
  if (found == namespaces_.end()) {
    if (namespaces_.size() == kNamespaces) older_namespaces_ = std::exchange(namespaces_, {});
    const auto older = older_namespaces_.find(name_space);
    const uint64_t number = older == older_namespaces_.end() ? next_namespace_++ : older->second;
    found = namespaces_.emplace(name_space, number).first;
  }
  return found->second << kRotationBits | rotation;
}

void Scheduler::cancel(TextId id) {
  for (auto* members : {&running_, &waiting_}) {
    for (const std::unique_ptr<Member>& member : *members) member->cancelled |= member->id == id;
  }
}

void Scheduler::fail_all(const std::exception_ptr& error) {
  for (auto* members : {&running_, &waiting_}) {
    while (!members->empty()) {
      const std::unique_ptr<Member> member = std::move(members->front());
      members->pop_front();
      release(*member, /*failed=*/true);
      member->text->failed(error);
    }
  }
}

SchedulerCounts Scheduler::counts() const {
  SchedulerCounts counts = counts_;
  counts.running = running_.size();
  counts.waiting = waiting_.size();
  return counts;
}

bool Scheduler::step() {
  finish_cancelled();
  collect_finished();
  admit();
  assemble_step();
  if (!parts_.empty()) forward();
  collect_finished();
  return !running_.empty() || (!waiting_.empty() && !kept_.is_any_pinned());
}

void Scheduler::finish_cancelled() {
  for (auto* members : {&running_, &waiting_}) {
    for (size_t i = 0; i < members->size(); ++i) {  // what it says may bring new texts
      Member& member = *(*members)[i];
      if (member.text->is_finished() || !(member.cancelled || member.text->is_cancelled())) continue;
      guarded(member, [&] { member.text->finish(FinishReason::cancelled); });
    }
  }
}

/// Those that have ended leave, and what they made is theirs from here on.
void Scheduler::collect_finished() {
  for (auto* members : {&running_, &waiting_}) {
    for (size_t i = 0; i < members->size();) {
      if (!(*members)[i]->text->is_finished()) {
        ++i;
        continue;
      }
      const std::unique_ptr<Member> member = std::move((*members)[i]);
      members->erase(members->begin() + static_cast<ptrdiff_t>(i));
      if (member->failed) continue;
      release(*member, /*failed=*/false);
      try {
        member->text->deliver();
      } catch (...) {
        member->text->failed(std::current_exception());
      }
    }
  }
}

/// Gives back what a text has. One that failed leaves nothing that another could find.
void Scheduler::release(Member& member, bool failed) {
  Books& books = executor_.books();
  if (member.swapped) swap_.drop(*std::exchange(member.swapped, std::nullopt));
  const SequenceId sequence = std::exchange(member.sequence, KeptContexts::kNone);
  if (failed && sequence != KeptContexts::kNone) books.forget(sequence);
  if (!member.kept) {
    if (sequence != KeptContexts::kNone) books.free(sequence);
    return;
  }
  const KeptId id = *std::exchange(member.kept, std::nullopt);
  kept_.touch(id);
  KeptContexts::Context& kept = kept_.at(id);
  kept.busy = false;
  if (!member.began) return;
  kept.rotation = member.rotation;
  kept.key = member.key;
  if (failed) {  // what was there before is run again: which of its rows are sound is not known
    if (sequence != KeptContexts::kNone) books.free(sequence);
    return kept.tokens.resize(member.inherited);
  }
  kept.sequence = sequence;
  const std::span<const TokenId> tokens = member.text->tokens();
  const size_t held = sequence == KeptContexts::kNone ? tokens.size() : books.length(sequence);
  const size_t length = std::max(held, member.inherited);
  kept.tokens.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(length));
}

void Scheduler::fail(Member& member, const std::exception_ptr& error) {
  member.failed = true;
  release(member, /*failed=*/true);
  member.text->failed(error);
}

/// What a text's own doings throw ends that text alone.
template <class Body>
void Scheduler::guarded(Member& member, const Body& body) {
  try {
    body();
  } catch (...) {
    fail(member, std::current_exception());
  }
}

std::optional<SequenceId> Scheduler::create(uint64_t key) {
  for (;;) {
    const std::optional<SequenceId> id = executor_.books().create(key);
    if (id || !kept_.give_up_one()) return id;
  }
}

/// Nobody else holds room that will be free some time.
bool Scheduler::is_alone() const {
  return running_.empty() && !kept_.is_any_pinned();
}

bool Scheduler::has_more_room_than(const Member::Refusal& refusal) const {
  return executor_.books().free_tokens() > refusal.free_tokens || kept_.clock() != refusal.clock;
}

/// First come, first admitted: who waits first is not overtaken by one that needs less.
void Scheduler::admit() {
  while (!waiting_.empty()) {
    Member& member = *waiting_.front();
    const bool alone = is_alone();
    if (!alone && member.refused && !has_more_room_than(*member.refused)) return;
    if (!begin(member, alone)) return;
    if (!member.failed) running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

/// Of its tokens, those at the front that its kept context has too.
size_t Scheduler::common_with_kept(const Member& member) const {
  const std::vector<TokenId>& kept = kept_.at(*member.kept).tokens;
  return static_cast<size_t>(std::ranges::mismatch(kept, member.text->tokens()).in1 - kept.begin());
}

/// Lets a text run; false with nothing changed where there is no room yet. `alone`: nobody else runs, whose end would
/// make more.
bool Scheduler::begin(Member& member, bool alone) {
  PrefixReport prefix;
  if (!give_sequence(member, alone, prefix)) return false;
  if (member.failed) return true;
  while (!alone && !has_room_for(member)) {
    if (kept_.give_up_one()) continue;
    take_sequence_back(member);
    return false;
  }
  if (!std::exchange(member.began, true) && member.kept) member.inherited = common_with_kept(member);
  counts_.reused_tokens += prefix.reused_tokens;
  guarded(member, [&] { member.text->begin(prefix); });
  return true;
}

/// Its own context where it goes on in one, else a new sequence with what the cache holds of its tokens.
bool Scheduler::give_sequence(Member& member, bool alone, PrefixReport& prefix) {
  Books& books = executor_.books();
  if (member.kept && kept_.at(*member.kept).sequence != KeptContexts::kNone) {
    KeptContexts::Context& kept = kept_.at(*member.kept);
    if (kept.key == member.key) return prefix = go_on_in_kept(member), true;
    books.free(std::exchange(kept.sequence, KeptContexts::kNone));  // of no use: rotated otherwise, or another's
  }
  const std::optional<SequenceId> id = create(member.key);
  if (!id && alone) {
    fail(member, std::make_exception_ptr(
                     Error("no room for another sequence; make the cache for more of them", ErrorKind::busy)));
    return true;
  }
  if (!id) return false;
  member.sequence = *id;
  if (member.swapped && !alone && !has_room_for(member)) {  // what is copied in stays
    take_sequence_back(member);
    return false;
  }
  if (member.swapped && !swap_in(member)) {
    if (!alone) return take_sequence_back(member), false;
    swap_.drop(*std::exchange(member.swapped, std::nullopt));
  }
  if (books.length(member.sequence) == 0) prefix = find_prefix(member);
  return true;
}

/// For all its tokens, and for all that run to grow a little.
bool Scheduler::has_room_for(const Member& member) const {
  const Books& books = executor_.books();
  const size_t tokens = member.text->tokens().size(), held = books.length(member.sequence);
  return books.free_tokens() >= tokens - std::min(tokens, held) + kRoomToGrow * (running_.size() + 1);
}

/// There is no room yet: what it was given goes back.
void Scheduler::take_sequence_back(Member& member) {
  const SequenceId sequence = std::exchange(member.sequence, KeptContexts::kNone);
  Books& books = executor_.books();
  const bool is_of_kept = member.kept && !member.began && kept_.at(*member.kept).key == member.key &&
                          books.length(sequence) > 0 && books.length(sequence) <= common_with_kept(member);
  if (is_of_kept) {
    kept_.at(*member.kept).sequence = sequence;
  } else {
    books.free(sequence);
  }
  member.refused = {books.free_tokens(), kept_.clock()};
}

/// What the cache holds of a text that has an empty sequence.
PrefixReport Scheduler::find_prefix(Member& member) {
  const Text& text = *member.text;
  PrefixReport report =
      adopt_prefix(executor_.books(), member.sequence, tokenizer_, text.tokens().first(text.adoptable()), member.key);
  if (!member.kept || report.first_difference || !tokenizer_) return report;
  const KeptContexts::Context& kept = kept_.at(*member.kept);
  if (is_one_namespace(kept.key, member.key)) {  // others are not told its text
    report.first_difference = first_difference(*tokenizer_, kept.tokens, text.tokens());
  }
  return report;
}

/// What a kept context holds of it; what follows the first difference is forgotten.
PrefixReport Scheduler::go_on_in_kept(Member& member) {
  KeptContexts::Context& kept = kept_.at(*member.kept);
  const Text& text = *member.text;
  const size_t wanted = std::min(common_with_kept(member), text.adoptable());
  member.sequence = std::exchange(kept.sequence, KeptContexts::kNone);
  const size_t held = executor_.books().length(member.sequence);
  const size_t left = wanted < held ? executor_.books().truncate(member.sequence, wanted) : held;
  PrefixReport report;
  if (left == 0) {
    report = find_prefix(member);
  } else {
    report.reused_tokens = left;
    if (tokenizer_) report.first_difference = first_difference(*tokenizer_, kept.tokens, text.tokens());
  }
  report.lost_tokens = wanted - std::min(wanted, report.reused_tokens);
  return report;
}

/// Who came first is fed first, so that the oldest always gets on: who holds pages that it needs is younger.
void Scheduler::assemble_step() {
  const Capacities& capacities = executor_.capacities();
  step_.clear();
  parts_.clear();
  prompt_tokens_ = 0;
  wishes_.clear();
  for (const std::unique_ptr<Member>& member : running_) {
    const Text& text = *member->text;
    const size_t held = text.is_finished() ? 0 : executor_.books().length(member->sequence);
    const size_t tokens = text.is_finished() ? 0 : text.tokens().size() - held;
    wishes_.push_back({tokens, tokens == 1, tokens == 0 ? 0 : text.rows_wanted(held, tokens)});
  }
  shares_.resize(wishes_.size());
  share_step(wishes_, {capacities.step_tokens, options_.step_ns, capacities.logit_rows}, counts_.rates, shares_);
  for (size_t i = 0; i < running_.size(); ++i) {  // fewer, where some are preempted
    if (shares_[i] > 0 && !running_[i]->text->is_finished()) add_part(*running_[i], shares_[i]);
  }
}

/// Puts so many of a text's next tokens into the step.
void Scheduler::add_part(Member& member, size_t count) {
  const Capacities& capacities = executor_.capacities();
  const std::span<const TokenId> tokens = member.text->tokens();
  const auto full = [&] { guarded(member, [&] { member.text->finish(FinishReason::context); }); };
  if (tokens.size() > capacities.context) return full();
  const size_t held = executor_.books().length(member.sequence);
  const size_t rows = member.text->rows_wanted(held, count);
  while (!executor_.books().append(member.sequence, count)) {
    if (kept_.give_up_one()) continue;
    if (running_.size() == 1 && !kept_.is_any_pinned()) return full();
    const bool is_youngest = running_.back().get() == &member;
    preempt_youngest();
    if (is_youngest) return;
  }
  parts_.push_back({&member, held, count, rows});
  step_.add(member.sequence, held, tokens.subspan(held, count), count - rows, member.rotation);
  if (tokens.size() - held > 1) prompt_tokens_ += count;
}

void Scheduler::preempt_youngest() {
  waiting_.push_front(std::move(running_.back()));
  running_.pop_back();
  Member& member = *waiting_.front();
  const uint64_t run_ns = executor_.books().length(member.sequence) * counts_.rates.prompt_token_ns;
  member.remembered = executor_.books().remembered(member.sequence);
  member.swapped = swap_.out(member.sequence, run_ns);
  counts_.swaps += member.swapped.has_value();
  executor_.books().free(std::exchange(member.sequence, KeptContexts::kNone));
  ++counts_.preemptions;
}

/// The sequence holds again what was swapped out, and the books remember what they remembered of it.
bool Scheduler::swap_in(Member& member) {
  if (!swap_.in(*member.swapped, member.sequence)) return false;
  member.swapped.reset();
  executor_.books().remember(member.sequence, member.text->tokens().first(member.remembered));
  return true;
}

void Scheduler::forward() {
  // One flag, or one observer, for the whole pass: those of a single text are not all the others'.
  const auto common = [&](auto Text::*field) {
    const auto first = parts_.front().member->text.get()->*field;
    return std::ranges::all_of(parts_, [&](const Part& p) { return p.member->text.get()->*field == first; }) ? first
                                                                                                             : nullptr;
  };
  Step step = step_.step(common(&Text::cancelled), common(&Text::observer));
  step.wants_hidden = std::ranges::any_of(parts_, [](const Part& p) { return p.member->text->wants_hidden(); });
  const uint64_t begin = options_.clock();
  const StepResult result = executor_.forward(step);
  if (result.cancelled) {  // some layers have not stored their K and V
    for (const Part& part : parts_) (void)executor_.books().truncate(part.member->sequence, part.first);
    return finish_cancelled();
  }
  ++counts_.steps;
  counts_.prompt_tokens += prompt_tokens_;
  counts_.rates.observe(options_.clock() - begin, prompt_tokens_);
  std::vector<std::exception_ptr> errors(parts_.size());
  const std::vector<Rows> rows = rows_of_parts(result, errors);
  look_at(rows, errors);
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (errors[i]) {
      fail(*parts_[i].member, errors[i]);
    } else {
      take_from(parts_[i], !rows[i].empty());
    }
  }
}

/// What a step made for each part; an error for those whose numbers are none.
std::vector<Rows> Scheduler::rows_of_parts(const StepResult& result, std::vector<std::exception_ptr>& errors) const {
  const Capacities& capacities = executor_.capacities();
  std::vector<Rows> rows;
  size_t token = 0, row = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    Rows& made = rows.emplace_back(Rows{.first = part.first + part.count - part.rows, .width = capacities.hidden});
    made.logits = result.logits.subspan(row * capacities.vocabulary, part.rows * capacities.vocabulary);
    if (part.member->text->wants_hidden()) {
      made.first = part.first;
      made.hidden = result.hidden.subspan(token * capacities.hidden, part.count * capacities.hidden);
    }
    const auto damaged = result.damaged.empty() ? result.damaged : result.damaged.subspan(token, part.count);
    if (std::ranges::find(damaged, 1) != damaged.end()) {
      errors[i] = std::make_exception_ptr(
          Error("the model's hidden states are not numbers; its weights are damaged or its numbers overflow",
                ErrorKind::internal));
    }
    token += part.count;
    row += part.rows;
  }
  return rows;
}

/// Texts look at their rows in parallel, each for itself.
void Scheduler::look_at(const std::vector<Rows>& rows, std::vector<std::exception_ptr>& errors) {
  const auto look = [&](size_t i, int thread) {
    if (errors[i] || rows[i].empty()) return;
    try {
      parts_[i].member->text->look(rows[i], scratch_[static_cast<size_t>(thread)]);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  };
  if (parts_.size() > 1 && scratch_.size() > 1) {
    executor_.threads()->run(parts_.size(), look);
  } else {
    for (size_t i = 0; i < parts_.size(); ++i) look(i, 0);
  }
}

/// A text takes what it saw.
void Scheduler::take_from(const Part& part, bool has_rows) {
  Member& member = *part.member;
  Books& books = executor_.books();
  // Where what came before was not remembered, it was not computed here: rows of a session may have been converted.
  if (books.remembered(member.sequence) == part.first) {
    books.remember(member.sequence, member.text->tokens().subspan(part.first, part.count));
  }
  guarded(member, [&] {
    const size_t before = member.text->tokens().size();
    member.text->ran(part.count, part.first + part.count);
    if (has_rows) member.text->take();
    counts_.generated_tokens += member.text->tokens().size() - before;
  });
}

}  // namespace contexture
