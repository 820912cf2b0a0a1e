#include "backends/ring/sharded_cache.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "base/error.h"
#include "cache/layout.h"

namespace contexture {

/// Tokens that begin at `first` and follow each other.
void ShardedCache::Sequence::add(int64_t first, size_t count) {
  if (!runs.empty()) {
    Run& last = runs.back();
    const int64_t after = first - last.position(last.local + last.count - 1);
    if (count == 1 && last.count == 1) last.stride = after;  // the second token tells how they lie
    if (after == last.stride && (count == 1 || last.stride == 1)) {
      last.count += count;
      held += count;
      return;
    }
  }
  runs.push_back({held, count, first, 1});
  held += count;
}

auto ShardedCache::Sequence::run_of(size_t local) const -> std::vector<Run>::const_iterator {
  assert(local < held);
  return std::upper_bound(runs.begin(), runs.end(), local, [](size_t l, const Run& run) { return l < run.local; }) - 1;
}

/// A bound of the rank's cache on who sees a span, for queries of the whole context. A query counts there as the token
/// that it would be if it came to this rank: its place is the number of the rank's tokens before it.
int64_t ShardedCache::Sequence::first_query(int64_t local) const {
  if (local <= 0) return 0;
  if (local > static_cast<int64_t>(held)) return std::numeric_limits<int64_t>::max();
  return position(static_cast<size_t>(local) - 1) + 1;
}

CachePlan ShardedCache::share_of(CachePlan plan, size_t ranks, Dealing dealing) {
  if (ranks == 1) return plan;
  const size_t step = most_in_step(plan.step_tokens, 1, ranks, dealing);
  plan.context = most_held(plan.context, ranks, dealing);
  set_pool(plan, 0);
  plan.step_tokens = plan.step_tokens == 0 ? 0 : std::min(plan.context, step);
  return plan;
}

ShardedCache::ShardedCache(const CachePlan& plan, int rank, int ranks, Dealing dealing)
    : Cache(plan),
      rank_(rank),
      ranks_(static_cast<size_t>(ranks)),
      context_(plan.context),
      dealing_(dealing),
      truncates_anywhere_(layout_of(plan).truncates_anywhere),
      cache_(make_cache(share_of(plan, static_cast<size_t>(ranks), dealing))),
      sequences_(plan.sequences) {}

std::optional<SequenceId> ShardedCache::create(uint64_t key) {
  const std::optional<SequenceId> id = cache_->create(key);
  if (id) sequences_.at(static_cast<size_t>(*id)) = Sequence{Ownership(ranks_, static_cast<size_t>(*id), dealing_)};
  return id;
}

std::optional<SequenceId> ShardedCache::fork(SequenceId sequence) {
  const std::optional<SequenceId> id = cache_->fork(sequence);
  if (id) sequences_.at(static_cast<size_t>(*id)) = at(sequence);
  return id;
}

void ShardedCache::free(SequenceId sequence) {
  cache_->free(sequence);
  sequences_.at(static_cast<size_t>(sequence)).reset();
}

bool ShardedCache::append(SequenceId id, size_t tokens) {
  Sequence& sequence = at(id);
  const size_t before = sequence.ownership.length();
  if (tokens > context_ - before) return false;
  if (tokens == 0) return true;
  const std::vector<size_t> shares = sequence.ownership.shares(tokens);
  // Every rank has room for its part of a whole context, so that no rank is full where another is not.
  if (!cache_->append(id, shares[static_cast<size_t>(rank_)])) {
    fail("rank {} has no room for {} tokens, though the context has; please report this", rank_, tokens);
  }
  sequence.ownership.append(tokens);
  for (const OwnedRun& run : sequence.ownership.from(static_cast<int64_t>(before))) {
    if (run.rank != rank_) continue;
    const size_t old = run.first < static_cast<int64_t>(before) ? before - static_cast<size_t>(run.first) : 0;
    sequence.add(run.first + static_cast<int64_t>(old), run.count - old);
  }
  return true;
}

size_t ShardedCache::truncate(SequenceId id, size_t length) {
  Sequence& sequence = at(id);
  // What such a cache still holds of the past differs from rank to rank, and all must keep as many: there it begins
  // anew.
  if (ranks_ > 1 && !truncates_anywhere_ && length < sequence.ownership.length()) length = 0;
  const size_t left = sequence.ownership.truncate(length);
  std::vector<Run>& runs = sequence.runs;
  for (; !runs.empty() && runs.back().first >= static_cast<int64_t>(left); runs.pop_back()) {
    sequence.held -= runs.back().count;
  }
  if (!runs.empty()) {
    Run& last = runs.back();
    const int64_t room = static_cast<int64_t>(left) - last.first;
    const size_t keep = std::min(last.count, static_cast<size_t>((room + last.stride - 1) / last.stride));
    sequence.held -= last.count - keep;
    last.count = keep;
    if (keep == 1) last.stride = 1;
  }
  if (cache_->truncate(id, sequence.held) == sequence.held) return left;
  assert(!truncates_anywhere_ && ranks_ == 1);
  return truncate(id, 0);
}

Slot ShardedCache::slot(SequenceId id, size_t position) const {
  const Sequence& sequence = at(id);
  const int64_t p = static_cast<int64_t>(position);
  const auto run = std::upper_bound(sequence.runs.begin(), sequence.runs.end(), p,
                                    [](int64_t q, const Run& r) { return q < r.first; }) -
                   1;
  assert((p - run->first) % run->stride == 0 && p <= run->position(run->local + run->count - 1));
  return cache_->slot(id, run->local + static_cast<size_t>((p - run->first) / run->stride));
}

void ShardedCache::view(SequenceId id, std::vector<TokenSpan>& spans) const {
  const Sequence& sequence = at(id);
  local_.clear();
  cache_->view(id, local_);
  for (const TokenSpan& span : local_) {
    if (span.count == 0) continue;
    const size_t first = static_cast<size_t>(span.first_position);  // in the rank's cache
    const int64_t from = sequence.first_query(span.queries_from);
    const bool ends = span.queries_until != std::numeric_limits<int64_t>::max();
    const int64_t until = ends ? sequence.first_query(span.queries_until) : span.queries_until;
    auto run = sequence.run_of(first);
    for (size_t done = 0, count; done < span.count; done += count, ++run) {
      count = std::min(span.count - done, run->local + run->count - (first + done));
      TokenSpan& part = spans.emplace_back(span.part(done, count));
      part.first_position = run->position(first + done);
      part.position_stride = run->stride;
      part.queries_from = from;
      part.queries_until = until;
    }
  }
}

void ShardedCache::restore(size_t, SequenceId, const HeldRows&) {
  fail("a context that is spread over ranks cannot be restored from a file");
}

}  // namespace contexture
