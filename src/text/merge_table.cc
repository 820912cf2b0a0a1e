#include "text/merge_table.h"

#include <algorithm>
#include <cassert>
#include <queue>

namespace contexture {
namespace {

/// Up to here a plain scan for the best pair beats a queue; ordinary words are far shorter.
constexpr size_t kShort = 48;

uint64_t key_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

size_t MergeTable::slot_of(uint64_t key) const {
  uint64_t hash = key * 0x9E3779B97F4A7C15;
  hash ^= hash >> 32;
  const size_t mask = slots_.size() - 1;
  size_t slot = hash & mask;
  while (slots_[slot].key != key && slots_[slot].key != kEmpty) slot = (slot + 1) & mask;
  return slot;
}

void MergeTable::grow() {
  std::vector<Slot> old(std::max<size_t>(64, slots_.size() * 2));
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.key != kEmpty) slots_[slot_of(slot.key)] = slot;
  }
}

void MergeTable::add(int32_t left, int32_t right, uint32_t rank, int32_t result) {
  assert(left >= 0 && right >= 0 && rank != kNoMerge);
  if (used_ * 2 >= slots_.size()) grow();
  Slot& slot = slots_[slot_of(key_of(left, right))];
  if (slot.key == kEmpty) {
    slot.key = key_of(left, right);
    ++used_;
  }
  if (rank < slot.merge.rank) slot.merge = {rank, result};
}

MergeTable::Merge MergeTable::find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0 || slots_.empty()) return {};
  return slots_[slot_of(key_of(left, right))].merge;
}

void MergeTable::merge(std::vector<Symbol>& symbols) const {
  if (symbols.size() <= kShort) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
}

void MergeTable::merge_short(std::vector<Symbol>& symbols, size_t until) const {
  std::vector<Merge> merges(symbols.size());  // merges[i]: what symbols i and i + 1 would become
  for (size_t i = 0; i + 1 < symbols.size(); ++i) merges[i] = find(symbols[i].id, symbols[i + 1].id);
  while (symbols.size() > until) {
    const auto last = merges.begin() + (symbols.size() - 1);
    const auto best = std::min_element(merges.begin(), last, [](Merge a, Merge b) { return a.rank < b.rank; });
    if (best->rank == kNoMerge) break;
    const size_t i = best - merges.begin();
    symbols[i] = {best->result, symbols[i].size + symbols[i + 1].size};
    symbols.erase(symbols.begin() + i + 1);
    merges.erase(best);
    if (i > 0) merges[i - 1] = find(symbols[i - 1].id, symbols[i].id);
    if (i + 1 < symbols.size()) merges[i] = find(symbols[i].id, symbols[i + 1].id);
  }
}

/// A pair that could merge, as it was when it was seen: stale once one of the two has become something else.
struct MergeTable::Candidate {
  uint32_t rank;
  uint32_t at;  ///< of the left symbol
  int32_t left, right, result;

  /// std::priority_queue hands out the largest first: here the lowest rank, then the leftmost.
  bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
};

/// The symbols as a linked list, with the queue of pairs. Every merge takes one symbol away and adds at most two
/// candidates, so that at most 3n candidates pass through the queue.
struct MergeTable::Chain {
  struct Link {
    uint32_t previous, next;
  };
  static constexpr uint32_t kEnd = UINT32_MAX;

  const MergeTable& table;
  std::vector<Symbol>& symbols;
  std::vector<Link> links;
  std::priority_queue<Candidate> queue;

  Chain(const MergeTable& table, std::vector<Symbol>& symbols) : table(table), symbols(symbols), links(symbols.size()) {
    const uint32_t count = static_cast<uint32_t>(symbols.size());
    for (uint32_t i = 0; i < count; ++i) links[i] = {i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
  }

  void offer(uint32_t at) {
    if (at == kEnd || links[at].next == kEnd) return;
    const int32_t left = symbols[at].id, right = symbols[links[at].next].id;
    const Merge merge = table.find(left, right);
    if (merge.rank != kNoMerge) queue.push({merge.rank, at, left, right, merge.result});
  }

  bool is_stale(const Candidate& candidate) const {
    const uint32_t next = links[candidate.at].next;
    return symbols[candidate.at].size == 0 || symbols[candidate.at].id != candidate.left || next == kEnd ||
           symbols[next].id != candidate.right;
  }

  void apply(const Candidate& candidate) {
    const uint32_t at = candidate.at, gone = links[at].next, next = links[gone].next;
    symbols[at] = {candidate.result, symbols[at].size + symbols[gone].size};
    symbols[gone].size = 0;
    links[at].next = next;
    if (next != kEnd) links[next].previous = at;
    offer(links[at].previous);
    offer(at);
  }
};

void MergeTable::merge_long(std::vector<Symbol>& symbols) const {
  assert(symbols.size() < UINT32_MAX);
  Chain chain(*this, symbols);
  for (uint32_t i = 0; i + 1 < symbols.size(); ++i) chain.offer(i);
  while (!chain.queue.empty()) {
    const Candidate best = chain.queue.top();
    chain.queue.pop();
    if (!chain.is_stale(best)) chain.apply(best);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.size == 0; });
}

}  // namespace contexture
