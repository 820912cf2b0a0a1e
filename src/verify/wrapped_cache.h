#pragma once

#include "cache/cache.h"

namespace contexture {

/// A cache that is another one, which must outlive it. Who watches or falsifies something overrides that alone.
class WrappedCache : public Cache {
 public:
  /// `plan` is that of `inner`.
  WrappedCache(const CachePlan& plan, Cache& inner) : Cache(plan), inner_(inner) {}

  size_t clamped_values() const override { return inner_.clamped_values(); }
  std::optional<SequenceId> create(uint64_t key) override { return inner_.create(key); }
  std::optional<SequenceId> fork(SequenceId sequence) override { return inner_.fork(sequence); }
  void free(SequenceId sequence) override { inner_.free(sequence); }
  bool append(SequenceId sequence, size_t tokens) override { return inner_.append(sequence, tokens); }
  size_t truncate(SequenceId sequence, size_t length) override { return inner_.truncate(sequence, length); }
  size_t length(SequenceId sequence) const override { return inner_.length(sequence); }
  void remember(SequenceId sequence, std::span<const int32_t> tokens) override { inner_.remember(sequence, tokens); }
  size_t remembered(SequenceId sequence) const override { return inner_.remembered(sequence); }
  size_t adopt(SequenceId sequence, std::span<const int32_t> tokens) override { return inner_.adopt(sequence, tokens); }
  std::optional<int32_t> next_held(std::span<const int32_t> tokens, uint64_t key) const override {
    return inner_.next_held(tokens, key);
  }
  void forget(SequenceId sequence) override { inner_.forget(sequence); }
  size_t free_tokens() const override { return inner_.free_tokens(); }
  Slot slot(SequenceId sequence, size_t position) const override { return inner_.slot(sequence, position); }
  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    inner_.store(layer, slots, k, v);
  }
  void view(SequenceId sequence, std::vector<TokenSpan>& spans) const override { inner_.view(sequence, spans); }
  void held(SequenceId sequence, std::vector<HeldRows>& held) const override { inner_.held(sequence, held); }
  std::optional<std::vector<WantedRows>> reserve(SequenceId sequence, size_t length) override {
    return inner_.reserve(sequence, length);
  }
  void restore(size_t layer, SequenceId sequence, const HeldRows& held) override {
    inner_.restore(layer, sequence, held);
  }

 protected:
  Cache& inner_;
};

}  // namespace contexture
