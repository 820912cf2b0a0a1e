#include "engine/kept_contexts.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace contexture {

KeptContexts::~KeptContexts() {
  for (auto& [id, context] : contexts_) free_sequence(context);
}

void KeptContexts::free_sequence(Context& context) {
  const SequenceId sequence = std::exchange(context.sequence, kNone);
  if (sequence != kNone) books_.free(sequence);
}

KeptId KeptContexts::create() {
  contexts_[next_].last_used = ++clock_;
  return next_++;
}

KeptId KeptContexts::lend(SequenceId sequence, std::vector<TokenId> tokens, RotationId rotation, uint64_t key) {
  assert(books_.length(sequence) == tokens.size());
  const KeptId id = create();
  Context& context = at(id);
  context.tokens = std::move(tokens);
  context.sequence = sequence;
  context.rotation = rotation;
  context.key = key;
  return id;
}

SequenceId KeptContexts::take_back(KeptId id) {
  assert(!at(id).busy);
  const SequenceId sequence = std::exchange(at(id).sequence, kNone);
  contexts_.erase(id);
  return sequence;
}

void KeptContexts::drop(KeptId id) {
  assert(!at(id).busy);
  free_sequence(at(id));
  contexts_.erase(id);
}

KeptId KeptContexts::fork(KeptId id) {
  const KeptId copy = create();
  const Context& from = at(id);
  assert(!from.busy);
  Context& to = at(copy);
  to.tokens = from.tokens;
  to.rotation = from.rotation;
  to.key = from.key;
  if (from.sequence != kNone) to.sequence = books_.fork(from.sequence).value_or(kNone);
  return copy;
}

void KeptContexts::truncate(KeptId id, size_t length) {
  Context& context = at(id);
  assert(!context.busy && length <= context.tokens.size());
  context.last_used = ++clock_;
  context.tokens.resize(length);
  if (context.sequence == kNone) return;
  const size_t held = books_.length(context.sequence);
  if (held > length) (void)books_.truncate(context.sequence, length);
}

void KeptContexts::pin(KeptId id) {
  assert(!at(id).busy);
  at(id).busy = at(id).pinned = true;
  ++pinned_;
}

void KeptContexts::unpin(KeptId id) {
  assert(at(id).pinned);
  at(id).busy = at(id).pinned = false;
  --pinned_;
  touch(id);
}

bool KeptContexts::give_up_one() {
  Context* oldest = nullptr;
  for (auto& [id, context] : contexts_) {
    if (context.pinned || context.sequence == kNone) continue;
    if (!oldest || context.last_used < oldest->last_used) oldest = &context;
  }
  if (!oldest) return false;
  free_sequence(*oldest);
  return true;
}

}  // namespace contexture
