#pragma once

#include <optional>
#include <span>
#include <vector>

#include "cache/cache.h"
#include "cache/page_heap.h"
#include "cache/prefix_tree.h"

namespace contexture {

/// The bookkeeping of a paged cache (vLLM's PagedAttention, arXiv:2309.06180 §4.3, with a prefix tree): which pages
/// each sequence has, how many share a page, which are kept for prompts to come. Numbers only, no tensors: what must be
/// copied is said, and the owner of the memory copies it.
///
/// A page is written only by a sequence that alone has it and while it is not in the prefix tree; anything else is
/// copied first. Pages that no sequence has stay in the tree until their place is needed, the longest unused first: to
/// find it takes steps of the order of the logarithm of the pages.
class PageBook {
 public:
  PageBook(size_t pages, size_t page_tokens, size_t sequences, size_t context);
  /// What the constructor allocates; nothing is, later.
  static size_t bytes_for(size_t pages, size_t page_tokens, size_t sequences, size_t context);

  /// The first `tokens` rows of a page, to be copied in all layers before anything is written or read.
  struct Copy {
    PageId from, to;
    size_t tokens;
  };

  /// Sequences of one key find what others of it remembered, and no more.
  std::optional<SequenceId> create(uint64_t key = 0);
  std::optional<SequenceId> fork(SequenceId sequence);
  void free(SequenceId sequence);

  /// Room for `tokens` more; false with nothing changed where the context or the pool is full. At most one copy.
  bool append(SequenceId sequence, size_t tokens, std::optional<Copy>& copy);
  void truncate(SequenceId sequence, size_t length);

  /// The ids of the tokens after those remembered so far, whose K and V have been stored: what lets others find them.
  void remember(SequenceId sequence, std::span<const int32_t> tokens);
  /// Gives an empty sequence as many of these tokens as pages hold already; how many. At most one copy, of the page of
  /// which only a part fits.
  size_t adopt(SequenceId sequence, std::span<const int32_t> tokens, std::optional<Copy>& copy);

  /// A token that follows these, from the first on, in some page of a key.
  std::optional<int32_t> next_held(std::span<const int32_t> tokens, uint64_t key = 0) const;

  /// Takes out of the tree what this sequence has put there and nobody else uses, and puts no more of it there.
  void forget(SequenceId sequence);

  size_t length(SequenceId sequence) const { return at(sequence).length; }
  size_t remembered(SequenceId sequence) const { return at(sequence).tokens.size(); }
  std::span<const PageId> pages(SequenceId sequence) const { return at(sequence).pages; }
  size_t page_tokens() const { return page_tokens_; }
  /// Pages that could be had now: never used, or kept for prompts to come and not in use.
  size_t available() const { return free_.size() + idle_; }

  /// Throws Error where the books do not balance: a page lost, owned twice, or miscounted. For tests.
  void check() const;

 private:
  struct Sequence {
    bool used = false, forgotten = false;
    uint64_t key = 0;
    size_t length = 0;
    std::vector<PageId> pages;
    std::vector<int32_t> tokens;  // those remembered: the first of `length`
    size_t registered = 0;        // pages at the front that are in the tree
    size_t others = 0;            // pages at the front that others put there
  };
  struct Page {
    size_t users = 0;
    uint64_t last_used = 0;
  };

  const Sequence& at(SequenceId id) const;
  Sequence& at(SequenceId id);
  Page& page(PageId id) { return pages_[static_cast<size_t>(id)]; }
  PageId take_page();
  void use(PageId id);
  void release(PageId id);
  void erase_from_tree(PageId id);
  bool is_idle_leaf(PageId id) const;
  void evict_one();
  void forget_with_children(PageId id);
  void check_leaves() const;
  void register_pages(Sequence& sequence, bool with_partial);

  size_t page_tokens_, context_;
  PrefixTree tree_;
  std::vector<Page> pages_;
  std::vector<PageId> free_;
  size_t idle_ = 0;         // pages in the tree that no sequence uses
  PageHeap<> idle_leaves_;  // those of them that no other page follows, by when they were used last
  uint64_t clock_ = 0;
  std::vector<Sequence> sequences_;
};

}  // namespace contexture
