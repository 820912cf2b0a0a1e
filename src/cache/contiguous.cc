// The baseline: each sequence has one run of memory for its whole context. K and V (layer, sequence, kv_head, token,
// channel): a head's tokens follow each other, since attention streams them a head at a time.

#include "cache/contiguous.h"

#include <cassert>
#include <cstring>

#include "base/aligned.h"
#include "base/error.h"

namespace contexture {
namespace {

class ContiguousCache final : public Cache {
 public:
  explicit ContiguousCache(const CachePlan& plan)
      : Cache(plan.shape),
        context_(plan.context),
        k_row_(bytes_of(plan.shape.k_format, plan.shape.head_dim)),
        v_row_(bytes_of(plan.shape.v_format, plan.shape.head_dim)),
        k_(rows(plan) * k_row_),
        v_(rows(plan) * v_row_),
        lengths_(plan.sequences),
        used_(plan.sequences, false) {}

  static size_t rows(const CachePlan& plan) {
    return plan.shape.layers * plan.sequences * plan.shape.kv_heads * plan.context;
  }

  std::optional<SequenceId> create() override {
    for (size_t i = 0; i < used_.size(); ++i) {
      if (used_[i]) continue;
      used_[i] = true;
      lengths_[i] = 0;
      return static_cast<SequenceId>(i);
    }
    return std::nullopt;
  }

  std::optional<SequenceId> fork(SequenceId sequence) override {
    const std::optional<SequenceId> copy = create();
    if (!copy) return copy;
    const size_t tokens = lengths_[index(sequence)];
    lengths_[index(*copy)] = tokens;
    for (size_t layer = 0; layer < shape_.layers; ++layer) {
      for (size_t head = 0; head < shape_.kv_heads; ++head) {
        const size_t from = row(layer, head, first_slot(sequence)), to = row(layer, head, first_slot(*copy));
        std::memcpy(k_.data() + to * k_row_, k_.data() + from * k_row_, tokens * k_row_);
        std::memcpy(v_.data() + to * v_row_, v_.data() + from * v_row_, tokens * v_row_);
      }
    }
    return copy;
  }

  void free(SequenceId sequence) override { used_[index(sequence)] = false; }

  bool append(SequenceId sequence, size_t tokens) override {
    size_t& length = lengths_[index(sequence)];
    if (tokens > context_ - length) return false;
    length += tokens;
    return true;
  }

  void truncate(SequenceId sequence, size_t length) override {
    assert(length <= lengths_[index(sequence)]);
    lengths_[index(sequence)] = length;
  }

  size_t length(SequenceId sequence) const override { return lengths_[index(sequence)]; }

  Slot slot(SequenceId sequence, size_t position) const override {
    assert(position < length(sequence));
    return first_slot(sequence) + static_cast<Slot>(position);
  }

  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    const auto encode_k = info(shape_.k_format).encode, encode_v = info(shape_.v_format).encode;
    for (const Slot slot : slots) {
      for (size_t head = 0; head < shape_.kv_heads; ++head) {
        const size_t to = row(layer, head, slot);
        encode_k(k, k_.data() + to * k_row_, shape_.head_dim);
        encode_v(v, v_.data() + to * v_row_, shape_.head_dim);
        k += shape_.head_dim;
        v += shape_.head_dim;
      }
    }
  }

  void view(size_t layer, SequenceId sequence, std::vector<TokenSpan>& spans) const override {
    const size_t first = row(layer, 0, first_slot(sequence));
    spans.push_back({.k_format = shape_.k_format,
                     .v_format = shape_.v_format,
                     .k = k_.data() + first * k_row_,
                     .v = v_.data() + first * v_row_,
                     .k_token_stride = k_row_,
                     .k_head_stride = context_ * k_row_,
                     .v_token_stride = v_row_,
                     .v_head_stride = context_ * v_row_,
                     .count = length(sequence),
                     .first_position = 0,
                     .position_stride = 1});
  }

  size_t max_spans() const override { return 1; }

 private:
  size_t index(SequenceId sequence) const {
    assert(used_.at(static_cast<size_t>(sequence)));
    return static_cast<size_t>(sequence);
  }
  Slot first_slot(SequenceId sequence) const { return static_cast<Slot>(index(sequence) * context_); }

  /// The one place that knows where a token's head lies: its row of head_dim channels, counted from the start.
  size_t row(size_t layer, size_t head, Slot slot) const {
    const size_t sequence = static_cast<size_t>(slot) / context_, token = static_cast<size_t>(slot) % context_;
    return ((layer * used_.size() + sequence) * shape_.kv_heads + head) * context_ + token;
  }

  size_t context_, k_row_, v_row_;
  AlignedArray<std::byte> k_, v_;
  std::vector<size_t> lengths_;  // tokens of each sequence
  std::vector<bool> used_;
};

}  // namespace

size_t contiguous_bytes(const CachePlan& plan) {
  size_t rows = 1, bytes = 0;
  bool overflow = false;
  for (const size_t factor : {plan.shape.layers, plan.sequences, plan.shape.kv_heads, plan.context}) {
    overflow |= __builtin_mul_overflow(rows, factor, &rows);
  }
  for (const Format format : {plan.shape.k_format, plan.shape.v_format}) {
    size_t side = 0;
    overflow |= __builtin_mul_overflow(rows, bytes_of(format, plan.shape.head_dim), &side);
    overflow |= side > SIZE_MAX / 4;
    overflow |= __builtin_add_overflow(bytes, AlignedArray<std::byte>::bytes_for(side), &bytes);
  }
  if (overflow) fail("a cache of {} tokens has more bytes than can be counted; ask for fewer", plan.context);
  return bytes;
}

std::unique_ptr<Cache> make_contiguous(const CachePlan& plan) {
  return std::make_unique<ContiguousCache>(plan);
}

}  // namespace contexture
