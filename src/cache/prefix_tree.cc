#include "cache/prefix_tree.h"

#include <xxhash.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace contexture {

PrefixTree::PrefixTree(size_t pages, size_t page_tokens)
    : page_tokens_(page_tokens),
      nodes_(pages),
      tokens_(pages * page_tokens),
      buckets_(pages + 1, kNoPage),
      keys_(pages + 1, kNoPage) {}

size_t PrefixTree::bytes_for(size_t pages, size_t page_tokens) {
  return pages * sizeof(Node) + pages * page_tokens * sizeof(int32_t) + 2 * (pages + 1) * sizeof(PageId);
}

uint64_t PrefixTree::hash_of(PageParent parent, std::span<const int32_t> tokens) const {
  const uint64_t seed = parent.page == kNoPage ? parent.key : at(parent.page).hash;
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), seed);
}

PageId PrefixTree::first_root(uint64_t key) const {
  return const_cast<PrefixTree&>(*this).link_to_first(key);
}

PageId& PrefixTree::link_to_first(uint64_t key) {
  PageId* link = &keys_[XXH3_64bits(&key, sizeof(key)) % keys_.size()];
  while (*link != kNoPage && at(*link).key != key) link = &at(*link).next_first;
  return *link;
}

std::span<const int32_t> PrefixTree::tokens(PageId page) const {
  return {tokens_.data() + static_cast<size_t>(page) * page_tokens_, at(page).count};
}

PageId PrefixTree::find(PageParent parent, std::span<const int32_t> tokens) const {
  const uint64_t hash = hash_of(parent, tokens);
  for (PageId page = buckets_[hash % buckets_.size()]; page != kNoPage; page = at(page).next_in_bucket) {
    const Node& node = at(page);
    if (node.hash == hash && node.parent == parent.page && node.key == parent.key &&
        std::ranges::equal(this->tokens(page), tokens)) {
      return page;
    }
  }
  return kNoPage;
}

PrefixTree::Match PrefixTree::longest(PageParent parent, std::span<const int32_t> tokens) const {
  Match best;
  for (PageId page = first_child(parent); page != kNoPage; page = at(page).next_sibling) {
    const std::span<const int32_t> held = this->tokens(page);
    const size_t most = std::min(held.size(), tokens.size());
    const size_t common = static_cast<size_t>(
        std::mismatch(held.begin(), held.begin() + static_cast<ptrdiff_t>(most), tokens.begin()).first - held.begin());
    if (common > best.tokens) best = {page, common};
  }
  return best;
}

std::optional<int32_t> PrefixTree::next(PageParent parent, std::span<const int32_t> tokens) const {
  for (PageId page = first_child(parent); page != kNoPage; page = at(page).next_sibling) {
    const std::span<const int32_t> held = this->tokens(page);
    if (held.size() > tokens.size() && std::equal(tokens.begin(), tokens.end(), held.begin())) {
      return held[tokens.size()];
    }
  }
  return std::nullopt;
}

void PrefixTree::insert(PageParent parent, PageId page, std::span<const int32_t> tokens) {
  assert(!contains(page) && !tokens.empty() && tokens.size() <= page_tokens_);
  assert(find(parent, tokens) == kNoPage);
  Node& node = at(page);
  node.hash = hash_of(parent, tokens);
  node.count = static_cast<uint32_t>(tokens.size());
  node.parent = parent.page;
  node.key = parent.key;
  node.first_child = node.previous_sibling = kNoPage;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(page) * page_tokens_));
  PageId& first = parent.page == kNoPage ? link_to_first(parent.key) : at(parent.page).first_child;
  node.next_sibling = first;
  if (first != kNoPage) {
    at(first).previous_sibling = page;
    node.next_first = std::exchange(at(first).next_first, kNoPage);
  }
  first = page;
  node.next_in_bucket = bucket(node.hash);
  bucket(node.hash) = page;
  ++size_;
}

void PrefixTree::erase(PageId page) {
  assert(contains(page) && !has_children(page));
  Node& node = at(page);
  if (node.next_sibling != kNoPage) at(node.next_sibling).previous_sibling = node.previous_sibling;
  if (node.previous_sibling != kNoPage) {
    at(node.previous_sibling).next_sibling = node.next_sibling;
  } else {
    PageId& first = node.parent == kNoPage ? link_to_first(node.key) : at(node.parent).first_child;
    const PageId next = node.next_sibling;
    if (next != kNoPage) at(next).next_first = node.next_first;
    first = next != kNoPage ? next : node.next_first;
  }
  PageId* link = &bucket(node.hash);
  while (*link != page) link = &at(*link).next_in_bucket;
  *link = node.next_in_bucket;
  node = {};
  --size_;
}

}  // namespace contexture
