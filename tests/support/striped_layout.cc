// A layout for tests, as anybody may add one: this file is all of it. Tokens lie in stripes, by turns in one memory and
// in another.

#include <algorithm>

#include "cache/kv_memory.h"
#include "cache/layout.h"

namespace contexture {
namespace {

constexpr int64_t kStripesTried[] = {1, 5, 16};
constexpr LayoutOption kStripeTokens{.name = "stripe_tokens",
                                     .label = "stripes of",
                                     .help = "striped cache: tokens that follow each other in one memory",
                                     .standard = 5,
                                     .low = 1,
                                     .high = 1024,
                                     .tried = kStripesTried};

/// Tokens of a sequence in each memory.
size_t half_page(const CachePlan& plan) {
  const size_t stripe = plan.options.size(kStripeTokens);
  return (plan.context / (2 * stripe) + 1) * stripe;
}

class StripedCache final : public Cache {
 public:
  explicit StripedCache(const CachePlan& plan)
      : Cache(plan),
        context_(plan.context),
        stripe_(plan.options.size(kStripeTokens)),
        halves_{KvMemory(plan.shape, plan.sequences, half_page(plan)),
                KvMemory(plan.shape, plan.sequences, half_page(plan))},
        lengths_(plan.sequences),
        used_(plan.sequences, false) {}

  size_t clamped_values() const override { return halves_[0].clamped_values() + halves_[1].clamped_values(); }

  std::optional<SequenceId> create(uint64_t) override {
    const auto unused = std::find(used_.begin(), used_.end(), false);
    if (unused == used_.end()) return std::nullopt;
    *unused = true;
    const auto id = static_cast<SequenceId>(unused - used_.begin());
    lengths_[index(id)] = 0;
    return id;
  }
  std::optional<SequenceId> fork(SequenceId sequence) override {
    const std::optional<SequenceId> copy = create(0);
    if (!copy) return copy;
    lengths_[index(*copy)] = length(sequence);
    for (KvMemory& half : halves_) half.copy(index(sequence), index(*copy), std::min(length(sequence), most_of_half()));
    return copy;
  }
  void free(SequenceId sequence) override { used_[index(sequence)] = false; }

  bool append(SequenceId sequence, size_t tokens) override {
    if (tokens > context_ - length(sequence)) return false;
    lengths_[index(sequence)] += tokens;
    return true;
  }
  size_t truncate(SequenceId sequence, size_t length) override { return lengths_[index(sequence)] = length; }
  size_t length(SequenceId sequence) const override { return lengths_[index(sequence)]; }

  Slot slot(SequenceId sequence, size_t position) const override {
    return static_cast<Slot>(index(sequence) * context_ + position);
  }
  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    for (const Slot slot : slots) {
      const size_t sequence = static_cast<size_t>(slot) / context_, position = static_cast<size_t>(slot) % context_;
      const Slot at = static_cast<Slot>(sequence * most_of_half() + place(position));
      half_of(position).store(layer, {&at, 1}, k, v);
      k += shape_.kv_heads * shape_.head_dim;
      v += shape_.kv_heads * shape_.head_dim;
    }
  }

  void view(SequenceId sequence, std::vector<TokenSpan>& spans) const override {
    for (size_t at = 0; at < length(sequence); at += stripe_) {
      const size_t count = std::min(stripe_, length(sequence) - at);
      spans.push_back(halves_[at / stripe_ % 2].span(index(sequence), count, static_cast<int64_t>(at), place(at)));
    }
  }

  void restore(size_t layer, SequenceId sequence, const HeldRows& held) override {
    for (size_t t = 0; t < held.rows.count; ++t) {
      const auto position = static_cast<size_t>(held.rows.position(t));
      half_of(position).restore(layer, index(sequence), place(position), held.rows.part(t, 1));
    }
  }

 private:
  size_t index(SequenceId sequence) const { return static_cast<size_t>(sequence); }
  size_t most_of_half() const { return (context_ / (2 * stripe_) + 1) * stripe_; }
  KvMemory& half_of(size_t position) { return halves_[position / stripe_ % 2]; }
  size_t place(size_t position) const { return position / (2 * stripe_) * stripe_ + position % stripe_; }

  size_t context_, stripe_;
  KvMemory halves_[2];
  std::vector<size_t> lengths_;
  std::vector<bool> used_;
};

const CacheLayout striped{
    .name = "striped",
    .options = {&kStripeTokens, 1},
    .bytes = [](const CachePlan& plan) { return 2 * KvMemory::bytes_for(plan.shape, plan.sequences, half_page(plan)); },
    .spans = [](const CachePlan& plan) { return plan.context / plan.options.size(kStripeTokens) + 1; },
    .make = [](const CachePlan& plan) -> std::unique_ptr<Cache> { return std::make_unique<StripedCache>(plan); }};

const bool added = add_layout(striped);

}  // namespace
}  // namespace contexture
