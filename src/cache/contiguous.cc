// The baseline: each sequence has one run of memory for its whole context, a page as long as that.

#include <cassert>

#include "cache/kv_memory.h"
#include "cache/layout.h"

namespace contexture {
namespace {

class ContiguousCache final : public Cache {
 public:
  explicit ContiguousCache(const CachePlan& plan)
      : Cache(plan),
        context_(plan.context),
        memory_(plan.shape, plan.sequences, plan.context),
        lengths_(plan.sequences),
        used_(plan.sequences, false) {}

  size_t clamped_values() const override { return memory_.clamped_values(); }

  std::optional<SequenceId> create(uint64_t) override {
    for (size_t i = 0; i < used_.size(); ++i) {
      if (used_[i]) continue;
      used_[i] = true;
      lengths_[i] = 0;
      return static_cast<SequenceId>(i);
    }
    return std::nullopt;
  }

  std::optional<SequenceId> fork(SequenceId sequence) override {
    const std::optional<SequenceId> copy = create(0);
    if (!copy) return copy;
    lengths_[index(*copy)] = length(sequence);
    memory_.copy(index(sequence), index(*copy), length(sequence));
    return copy;
  }

  void free(SequenceId sequence) override { used_[index(sequence)] = false; }

  bool append(SequenceId sequence, size_t tokens) override {
    size_t& length = lengths_[index(sequence)];
    if (tokens > context_ - length) return false;
    length += tokens;
    return true;
  }

  size_t truncate(SequenceId sequence, size_t length) override {
    assert(length <= lengths_[index(sequence)]);
    return lengths_[index(sequence)] = length;
  }

  size_t length(SequenceId sequence) const override { return lengths_[index(sequence)]; }

  Slot slot(SequenceId sequence, size_t position) const override {
    assert(position < length(sequence));
    return static_cast<Slot>(index(sequence) * context_ + position);
  }

  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    memory_.store(layer, slots, k, v);
  }

  void view(SequenceId sequence, std::vector<TokenSpan>& spans) const override {
    spans.push_back(memory_.span(index(sequence), length(sequence), 0));
  }

  void restore(size_t layer, SequenceId sequence, const HeldRows& held) override {
    memory_.restore(layer, index(sequence), static_cast<size_t>(held.rows.first_position), held.rows);
  }

 private:
  size_t index(SequenceId sequence) const {
    assert(used_.at(static_cast<size_t>(sequence)));
    return static_cast<size_t>(sequence);
  }

  size_t context_;
  KvMemory memory_;
  std::vector<size_t> lengths_;  // tokens of each sequence
  std::vector<bool> used_;
};

size_t contiguous_bytes(const CachePlan& plan) {
  return KvMemory::bytes_for(plan.shape, plan.sequences, plan.context);
}

size_t contiguous_spans(const CachePlan&) {
  return 1;
}

std::unique_ptr<Cache> make_contiguous(const CachePlan& plan) {
  return std::make_unique<ContiguousCache>(plan);
}

}  // namespace

const CacheLayout& contiguous_layout() {
  static const CacheLayout layout{
      .name = "contiguous", .bytes = contiguous_bytes, .spans = contiguous_spans, .make = make_contiguous};
  return layout;
}

}  // namespace contexture
