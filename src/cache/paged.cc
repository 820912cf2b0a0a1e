// Pages of a fixed number of tokens, one pool for all sequences (PagedAttention, arXiv:2309.06180). Which page is whose
// is kept by PageBook; the memory is as any.

#include <algorithm>

#include "base/error.h"
#include "cache/kv_memory.h"
#include "cache/layout.h"
#include "cache/page_book.h"

namespace contexture {
namespace {

constexpr int64_t kPageSizes[] = {8, 16, 32, 64, 128, 256};
constexpr LayoutOption kPageTokens{.name = "page_tokens",
                                   .label = "pages of",
                                   .help = "tokens a page of the paged cache",
                                   .standard = 32,
                                   .choices = kPageSizes,
                                   .tried = kPageSizes};
constexpr LayoutOption kPoolTokens{
    .name = "pool_tokens",
    .label = "pool of",
    .help = "paged cache: tokens of all sequences together (0: enough for each to fill its context)",
    .standard = 0,
    .of_many = true};
constexpr LayoutOption kPagedOptions[] = {kPageTokens, kPoolTokens};

size_t page_tokens_of(const CachePlan& plan) {
  return plan.options.size(kPageTokens);
}

size_t pages_for(size_t tokens, const CachePlan& plan) {
  const size_t page = page_tokens_of(plan);
  return tokens / page + (tokens % page > 0 ? 1 : 0);
}

size_t pages_of(const CachePlan& plan) {
  const size_t pool = plan.options.size(kPoolTokens);
  size_t pages = 0;
  const bool overflow = __builtin_mul_overflow(pages_for(plan.context, plan), plan.sequences, &pages);
  if (pool > 0) pages = pages_for(pool, plan);
  if ((overflow && pool == 0) || pages > INT32_MAX) {
    fail("a cache of {} · {} tokens has more pages than can be counted; ask for fewer", plan.sequences, plan.context);
  }
  return pages;
}

class PagedCache final : public Cache {
 public:
  explicit PagedCache(const CachePlan& plan)
      : Cache(plan),
        page_tokens_(page_tokens_of(plan)),
        memory_(plan.shape, pages_of(plan), page_tokens_of(plan)),
        book_(pages_of(plan), page_tokens_of(plan), plan.sequences, plan.context) {}

  size_t clamped_values() const override { return memory_.clamped_values(); }
  std::optional<SequenceId> create(uint64_t key) override { return book_.create(key); }
  std::optional<SequenceId> fork(SequenceId sequence) override { return book_.fork(sequence); }
  void free(SequenceId sequence) override { book_.free(sequence); }
  size_t truncate(SequenceId sequence, size_t length) override {
    book_.truncate(sequence, length);
    return length;
  }
  size_t length(SequenceId sequence) const override { return book_.length(sequence); }

  bool append(SequenceId sequence, size_t tokens) override {
    std::optional<PageBook::Copy> copy;
    const bool fits = book_.append(sequence, tokens, copy);
    carry_out(copy);
    return fits;
  }

  void remember(SequenceId sequence, std::span<const int32_t> tokens) override { book_.remember(sequence, tokens); }
  size_t remembered(SequenceId sequence) const override { return book_.remembered(sequence); }

  size_t adopt(SequenceId sequence, std::span<const int32_t> tokens) override {
    std::optional<PageBook::Copy> copy;
    const size_t adopted = book_.adopt(sequence, tokens, copy);
    carry_out(copy);
    return adopted;
  }

  std::optional<int32_t> next_held(std::span<const int32_t> tokens, uint64_t key) const override {
    return book_.next_held(tokens, key);
  }
  void forget(SequenceId sequence) override { book_.forget(sequence); }
  size_t free_tokens() const override { return book_.available() * page_tokens_; }

  Slot slot(SequenceId sequence, size_t position) const override {
    const size_t page = static_cast<size_t>(book_.pages(sequence)[position / page_tokens_]);
    return static_cast<Slot>(page * page_tokens_ + position % page_tokens_);
  }

  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    memory_.store(layer, slots, k, v);
  }

  void view(SequenceId sequence, std::vector<TokenSpan>& spans) const override {
    size_t at = 0;
    for (const PageId page : book_.pages(sequence)) {
      const size_t count = std::min(page_tokens_, length(sequence) - at);
      spans.push_back(memory_.span(static_cast<size_t>(page), count, static_cast<int64_t>(at)));
      at += page_tokens_;
    }
  }

  void restore(size_t layer, SequenceId sequence, const HeldRows& held) override {
    for (size_t done = 0, count; done < held.rows.count; done += count) {
      const size_t position = static_cast<size_t>(held.rows.position(done)), first = position % page_tokens_;
      count = std::min(page_tokens_ - first, held.rows.count - done);
      const PageId page = book_.pages(sequence)[position / page_tokens_];
      memory_.restore(layer, static_cast<size_t>(page), first, held.rows.part(done, count));
    }
  }

 private:
  void carry_out(const std::optional<PageBook::Copy>& copy) {
    if (copy) memory_.copy(static_cast<size_t>(copy->from), static_cast<size_t>(copy->to), copy->tokens);
  }

  size_t page_tokens_;
  KvMemory memory_;
  PageBook book_;
};

size_t paged_bytes(const CachePlan& plan) {
  return KvMemory::bytes_for(plan.shape, pages_of(plan), page_tokens_of(plan)) +
         PageBook::bytes_for(pages_of(plan), page_tokens_of(plan), plan.sequences, plan.context);
}

size_t paged_spans(const CachePlan& plan) {
  return std::min(pages_for(plan.context, plan), pages_of(plan));
}

std::unique_ptr<Cache> make_paged(const CachePlan& plan) {
  return std::make_unique<PagedCache>(plan);
}

}  // namespace

const CacheLayout& paged_layout() {
  static const CacheLayout layout{.name = "paged",
                                  .options = kPagedOptions,
                                  .bytes = paged_bytes,
                                  .spans = paged_spans,
                                  .make = make_paged,
                                  .unit = page_tokens_of,
                                  .pool_option = kPoolTokens.name,
                                  .shares_prefixes = true};
  return layout;
}

}  // namespace contexture
