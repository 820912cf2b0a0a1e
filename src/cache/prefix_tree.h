#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace contexture {

/// A page of a pool: a number. What lies in it is the pool's business.
using PageId = int32_t;
constexpr PageId kNoPage = -1;

/// What a page follows: another page, or nothing, in the tree of a key.
struct PageParent {
  PageParent(PageId page, uint64_t key = 0) : page(page), key(page == kNoPage ? key : 0) {}  // NOLINT: as a page
  PageId page;
  uint64_t key;  // of the roots; below them their pages tell
};

/// Which page holds the tokens that follow which page: prompts that begin alike find the pages that are there already.
/// There is a tree for each key, and trees of different keys share nothing. A node is a page, found by a hash of its
/// tokens chained to its parent's, or to the key; a find compares every token, and the key, besides: a collision costs
/// time and is never believed. Memory is taken once, for all pages.
class PrefixTree {
 public:
  PrefixTree(size_t pages, size_t page_tokens);
  /// What the constructor allocates; nothing is, later.
  static size_t bytes_for(size_t pages, size_t page_tokens);

  /// The child of `parent` that holds exactly these tokens, or kNoPage.
  PageId find(PageParent parent, std::span<const int32_t> tokens) const;

  struct Match {
    PageId page = kNoPage;
    size_t tokens = 0;
  };
  /// The child of `parent` that begins with most of these tokens: how many; {kNoPage, 0} where none shares the first.
  Match longest(PageParent parent, std::span<const int32_t> tokens) const;

  /// What follows these tokens in a child of `parent`; fewer than a page has.
  std::optional<int32_t> next(PageParent parent, std::span<const int32_t> tokens) const;

  /// Makes `page` a child of `parent`: 1 to page_tokens tokens. It must not be in the tree, nor an equal one be there.
  void insert(PageParent parent, PageId page, std::span<const int32_t> tokens);
  /// Takes out a page that has no children.
  void erase(PageId page);

  bool contains(PageId page) const { return at(page).count > 0; }
  bool has_children(PageId page) const { return at(page).first_child != kNoPage; }
  PageId parent(PageId page) const { return at(page).parent; }
  PageId first_child(PageParent parent) const {
    return parent.page == kNoPage ? first_root(parent.key) : at(parent.page).first_child;
  }
  std::span<const int32_t> tokens(PageId page) const;
  size_t size() const { return size_; }

 private:
  struct Node {
    uint64_t hash = 0;
    uint64_t key = 0;    // of a root
    uint32_t count = 0;  // of tokens; 0: not in the tree
    PageId parent = kNoPage, first_child = kNoPage;
    PageId next_sibling = kNoPage, previous_sibling = kNoPage;
    PageId next_in_bucket = kNoPage;
    PageId next_first = kNoPage;  // of the first root of a key: that of another, in the same bucket of keys
  };

  const Node& at(PageId page) const { return nodes_[static_cast<size_t>(page)]; }
  Node& at(PageId page) { return nodes_[static_cast<size_t>(page)]; }
  uint64_t hash_of(PageParent parent, std::span<const int32_t> tokens) const;
  PageId& bucket(uint64_t hash) { return buckets_[hash % buckets_.size()]; }
  PageId first_root(uint64_t key) const;
  /// The link to the first root of a key in its bucket of keys; to kNoPage where there is none.
  PageId& link_to_first(uint64_t key);

  size_t page_tokens_;
  size_t size_ = 0;
  std::vector<Node> nodes_;      // (pages)
  std::vector<int32_t> tokens_;  // (pages, page_tokens)
  std::vector<PageId> buckets_;
  std::vector<PageId> keys_;  // buckets of the first roots of keys
};

}  // namespace contexture
