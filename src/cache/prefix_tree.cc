#include "cache/prefix_tree.h"

#include <xxhash.h>

#include <algorithm>
#include <cassert>

namespace contexture {

PrefixTree::PrefixTree(size_t pages, size_t page_tokens)
    : page_tokens_(page_tokens), nodes_(pages), tokens_(pages * page_tokens), buckets_(pages + 1, kNoPage) {}

size_t PrefixTree::bytes_for(size_t pages, size_t page_tokens) {
  return pages * sizeof(Node) + pages * page_tokens * sizeof(int32_t) + (pages + 1) * sizeof(PageId);
}

uint64_t PrefixTree::hash_of(PageId parent, std::span<const int32_t> tokens) const {
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), parent == kNoPage ? 0 : at(parent).hash);
}

std::span<const int32_t> PrefixTree::tokens(PageId page) const {
  return {tokens_.data() + static_cast<size_t>(page) * page_tokens_, at(page).count};
}

PageId PrefixTree::find(PageId parent, std::span<const int32_t> tokens) const {
  const uint64_t hash = hash_of(parent, tokens);
  for (PageId page = buckets_[hash % buckets_.size()]; page != kNoPage; page = at(page).next_in_bucket) {
    if (at(page).hash == hash && at(page).parent == parent && std::ranges::equal(this->tokens(page), tokens)) {
      return page;
    }
  }
  return kNoPage;
}

PrefixTree::Match PrefixTree::longest(PageId parent, std::span<const int32_t> tokens) const {
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

std::optional<int32_t> PrefixTree::next(PageId parent, std::span<const int32_t> tokens) const {
  for (PageId page = first_child(parent); page != kNoPage; page = at(page).next_sibling) {
    const std::span<const int32_t> held = this->tokens(page);
    if (held.size() > tokens.size() && std::equal(tokens.begin(), tokens.end(), held.begin())) {
      return held[tokens.size()];
    }
  }
  return std::nullopt;
}

void PrefixTree::insert(PageId parent, PageId page, std::span<const int32_t> tokens) {
  assert(!contains(page) && !tokens.empty() && tokens.size() <= page_tokens_);
  assert(find(parent, tokens) == kNoPage);
  Node& node = at(page);
  node.hash = hash_of(parent, tokens);
  node.count = static_cast<uint32_t>(tokens.size());
  node.parent = parent;
  node.first_child = node.previous_sibling = kNoPage;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(page) * page_tokens_));
  PageId& first = parent == kNoPage ? first_root_ : at(parent).first_child;
  node.next_sibling = first;
  if (first != kNoPage) at(first).previous_sibling = page;
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
    (node.parent == kNoPage ? first_root_ : at(node.parent).first_child) = node.next_sibling;
  }
  PageId* link = &bucket(node.hash);
  while (*link != page) link = &at(*link).next_in_bucket;
  *link = node.next_in_bucket;
  node = {};
  --size_;
}

}  // namespace contexture
