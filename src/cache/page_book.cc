#include "cache/page_book.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"

namespace contexture {

PageBook::PageBook(size_t pages, size_t page_tokens, size_t sequences, size_t context)
    : page_tokens_(page_tokens),
      context_(context),
      tree_(pages, page_tokens),
      pages_(pages),
      idle_leaves_(pages),
      sequences_(sequences) {
  const size_t longest = std::min(context, pages * page_tokens);
  free_.reserve(pages);
  for (size_t i = pages; i-- > 0;) free_.push_back(static_cast<PageId>(i));
  for (Sequence& s : sequences_) {
    s.pages.reserve((longest + page_tokens - 1) / page_tokens);
    s.tokens.reserve(longest);
  }
}

size_t PageBook::bytes_for(size_t pages, size_t page_tokens, size_t sequences, size_t context) {
  const size_t longest = std::min(context, pages * page_tokens);  // a sequence is no longer than the pool
  const size_t pages_of_sequence = (longest + page_tokens - 1) / page_tokens;
  const size_t of_sequence = sizeof(Sequence) + pages_of_sequence * sizeof(PageId) + longest * sizeof(int32_t);
  size_t of_sequences = 0;
  if (__builtin_mul_overflow(of_sequence, sequences, &of_sequences) || of_sequences > SIZE_MAX / 4) {
    fail("the books of {} sequences of {} tokens have more bytes than can be counted; ask for fewer", sequences,
         context);
  }
  return PrefixTree::bytes_for(pages, page_tokens) + PageHeap<>::bytes_for(pages) +
         pages * (sizeof(Page) + sizeof(PageId)) + of_sequences;
}

const PageBook::Sequence& PageBook::at(SequenceId id) const {
  assert(sequences_.at(static_cast<size_t>(id)).used);
  return sequences_[static_cast<size_t>(id)];
}

PageBook::Sequence& PageBook::at(SequenceId id) {
  return const_cast<Sequence&>(std::as_const(*this).at(id));
}

std::optional<SequenceId> PageBook::create(uint64_t key) {
  for (size_t i = 0; i < sequences_.size(); ++i) {
    Sequence& s = sequences_[i];
    if (s.used) continue;
    s.used = true;
    s.forgotten = false;
    s.key = key;
    s.length = s.registered = s.others = 0;
    s.pages.clear();
    s.tokens.clear();
    return static_cast<SequenceId>(i);
  }
  return std::nullopt;
}

std::optional<SequenceId> PageBook::fork(SequenceId sequence) {
  const std::optional<SequenceId> id = create(at(sequence).key);
  if (!id) return id;
  const Sequence& from = at(sequence);
  Sequence& to = at(*id);
  to.forgotten = from.forgotten;
  to.length = from.length;
  to.registered = to.others = from.registered;
  to.pages.assign(from.pages.begin(), from.pages.end());
  to.tokens.assign(from.tokens.begin(), from.tokens.end());
  for (const PageId p : to.pages) use(p);
  return id;
}

void PageBook::free(SequenceId sequence) {
  Sequence& s = at(sequence);
  register_pages(s, /*with_partial=*/true);
  for (const PageId p : s.pages) release(p);
  s.used = false;
}

bool PageBook::append(SequenceId sequence, size_t tokens, std::optional<Copy>& copy) {
  copy.reset();
  Sequence& s = at(sequence);
  if (tokens == 0) return true;
  if (tokens > context_ - s.length) return false;
  const size_t partial = s.length % page_tokens_, whole = s.length / page_tokens_;
  const bool is_shared = partial > 0 && page(s.pages[whole]).users > 1;
  const bool is_kept = partial > 0 && tree_.contains(s.pages[whole]);
  const size_t wanted = (s.length + tokens + page_tokens_ - 1) / page_tokens_, fresh = wanted - s.pages.size();
  bool must_copy = is_shared || is_kept;
  if (fresh + (must_copy ? 1 : 0) > available()) {
    if (is_shared || !is_kept || fresh > available()) return false;
    must_copy = false;  // better to write over what is kept for others than to be full
    forget_with_children(s.pages[whole]);
    s.registered = std::min(s.registered, whole);
  }
  if (must_copy) {
    const PageId old = s.pages[whole], own = take_page();
    copy = {old, own, partial};
    s.pages[whole] = own;
    s.registered = std::min(s.registered, whole);
    release(old);
  }
  s.others = std::min(s.others, whole);
  while (s.pages.size() < wanted) s.pages.push_back(take_page());
  s.length += tokens;
  return true;
}

void PageBook::truncate(SequenceId sequence, size_t length) {
  Sequence& s = at(sequence);
  assert(length <= s.length);
  register_pages(s, /*with_partial=*/false);
  const size_t kept = (length + page_tokens_ - 1) / page_tokens_;
  while (s.pages.size() > kept) {
    release(s.pages.back());
    s.pages.pop_back();
  }
  s.length = length;
  if (s.tokens.size() > length) s.tokens.resize(length);
  s.registered = std::min(s.registered, length / page_tokens_);
  s.others = std::min(s.others, kept);
}

void PageBook::remember(SequenceId sequence, std::span<const int32_t> tokens) {
  Sequence& s = at(sequence);
  assert(s.tokens.size() + tokens.size() <= s.length);
  s.tokens.insert(s.tokens.end(), tokens.begin(), tokens.end());
  register_pages(s, /*with_partial=*/false);
}

size_t PageBook::adopt(SequenceId sequence, std::span<const int32_t> tokens, std::optional<Copy>& copy) {
  copy.reset();
  Sequence& s = at(sequence);
  assert(s.length == 0);
  tokens = tokens.first(std::min(tokens.size(), context_));
  PageId parent = kNoPage;
  while (tokens.size() - s.length >= page_tokens_) {
    const PageId next = tree_.find({parent, s.key}, tokens.subspan(s.length, page_tokens_));
    if (next == kNoPage) break;
    use(next);
    s.pages.push_back(next);
    s.length += page_tokens_;
    parent = next;
  }
  s.registered = s.others = s.pages.size();
  const PrefixTree::Match rest = tree_.longest({parent, s.key}, tokens.subspan(s.length));
  if (rest.tokens > 0) {
    use(rest.page);  // so that it is not the one evicted
    if (available() > 0) {
      copy = {rest.page, take_page(), rest.tokens};
      s.pages.push_back(copy->to);
      s.length += rest.tokens;
    }
    release(rest.page);
  }
  s.tokens.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(s.length));
  return s.length;
}

std::optional<int32_t> PageBook::next_held(std::span<const int32_t> tokens, uint64_t key) const {
  PageId parent = kNoPage;
  for (; tokens.size() >= page_tokens_; tokens = tokens.subspan(page_tokens_)) {
    parent = tree_.find({parent, key}, tokens.first(page_tokens_));
    if (parent == kNoPage) return std::nullopt;
  }
  return tree_.next({parent, key}, tokens);
}

PageId PageBook::take_page() {
  if (free_.empty()) evict_one();
  const PageId id = free_.back();
  free_.pop_back();
  page(id) = {.users = 1, .last_used = ++clock_};
  return id;
}

void PageBook::use(PageId id) {
  Page& p = page(id);
  if (p.users++ == 0) {
    --idle_;
    if (idle_leaves_.contains(id)) idle_leaves_.remove(id);
  }
  p.last_used = ++clock_;
}

void PageBook::release(PageId id) {
  Page& p = page(id);
  assert(p.users > 0);
  p.last_used = ++clock_;
  if (--p.users > 0) return;
  if (tree_.contains(id)) {
    ++idle_;
    if (is_idle_leaf(id)) idle_leaves_.push(id, p.last_used);
  } else {
    free_.push_back(id);
  }
}

bool PageBook::is_idle_leaf(PageId id) const {
  return pages_[static_cast<size_t>(id)].users == 0 && tree_.contains(id) && !tree_.has_children(id);
}

/// The page has no children. If nobody uses it, it is free then.
void PageBook::erase_from_tree(PageId id) {
  const PageId parent = tree_.parent(id);
  if (idle_leaves_.contains(id)) idle_leaves_.remove(id);
  tree_.erase(id);
  if (page(id).users == 0) {
    --idle_;
    free_.push_back(id);
  }
  if (parent != kNoPage && is_idle_leaf(parent)) idle_leaves_.push(parent, page(parent).last_used);
}

/// A page whose children are kept is kept: without it they could not be found. Children have no more users than their
/// parent, so that an idle page always has an idle leaf below it.
void PageBook::evict_one() {
  assert(idle_leaves_.size() > 0);
  erase_from_tree(idle_leaves_.first());
}

/// Takes a page out of the tree, and first all below it: nobody uses them, since who does also uses this one.
void PageBook::forget_with_children(PageId id) {
  while (tree_.has_children(id)) {
    PageId leaf = id;
    while (tree_.has_children(leaf)) leaf = tree_.first_child(leaf);
    assert(page(leaf).users == 0);
    erase_from_tree(leaf);
  }
  erase_from_tree(id);
}

/// From the last page on, since who uses a page uses all before it. A page that it knows by fewer tokens than a fork
/// that is gone put there is in the tree, too.
void PageBook::forget(SequenceId sequence) {
  Sequence& s = at(sequence);
  s.forgotten = true;
  for (size_t i = s.pages.size(); i-- > s.others;) {
    const PageId id = s.pages[i];
    if (!tree_.contains(id)) continue;
    if (page(id).users > 1) return;
    forget_with_children(id);
    s.registered = std::min(s.registered, i);
  }
}

/// Puts a sequence's pages into the tree as far as their tokens are known. Where another sequence was first with the
/// same tokens, its page takes the place of ours: they hold the same bits. (Not where ours is shared: a fork would be
/// left with a page whose parent it does not use, and evict_one relies on the contrary.)
void PageBook::register_pages(Sequence& s, bool with_partial) {
  if (s.forgotten) return;
  while (s.registered < s.pages.size()) {
    const size_t begin = s.registered * page_tokens_;
    if (begin >= s.tokens.size()) return;
    const size_t count = std::min(page_tokens_, s.tokens.size() - begin);
    if (count < page_tokens_ && !with_partial) return;
    const PageId own = s.pages[s.registered], parent = s.registered == 0 ? kNoPage : s.pages[s.registered - 1];
    const auto tokens = std::span<const int32_t>(s.tokens).subspan(begin, count);
    const PageId same = tree_.find({parent, s.key}, tokens);
    if (same == kNoPage) {
      if (tree_.contains(own)) return;  // with more tokens than we know it by
      tree_.insert({parent, s.key}, own, tokens);
    } else if (same != own) {
      if (page(own).users > 1) return;
      use(same);
      release(own);
      s.pages[s.registered] = same;
    }
    ++s.registered;
  }
}

void PageBook::check() const {
  std::vector<size_t> users(pages_.size(), 0);
  for (const Sequence& s : sequences_) {
    if (!s.used) continue;
    if (s.pages.size() != (s.length + page_tokens_ - 1) / page_tokens_)
      fail("a sequence has the wrong number of pages");
    if (s.tokens.size() > s.length) fail("a sequence remembers tokens that it does not have");
    for (const PageId id : s.pages) ++users[static_cast<size_t>(id)];
  }
  size_t idle = 0;
  std::vector<bool> is_free(pages_.size(), false);
  for (const PageId id : free_) {
    if (is_free[static_cast<size_t>(id)]) fail("page {} is free twice", id);
    is_free[static_cast<size_t>(id)] = true;
  }
  for (size_t i = 0; i < pages_.size(); ++i) {
    const bool in_tree = tree_.contains(static_cast<PageId>(i));
    if (pages_[i].users != users[i]) fail("page {} counts {} users and has {}", i, pages_[i].users, users[i]);
    if (is_free[i] && (users[i] > 0 || in_tree)) fail("page {} is free and in use", i);
    if (!is_free[i] && users[i] == 0 && !in_tree) fail("page {} is lost", i);
    if (users[i] == 0 && in_tree) ++idle;
  }
  if (idle != idle_) fail("{} pages are idle, {} are counted", idle, idle_);
  check_leaves();
}

void PageBook::check_leaves() const {
  if (!idle_leaves_.is_sound()) fail("the pages to evict are out of order");
  size_t leaves = 0;
  for (size_t i = 0; i < pages_.size(); ++i) {
    const PageId id = static_cast<PageId>(i);
    if (!is_idle_leaf(id)) continue;
    ++leaves;
    if (!idle_leaves_.contains(id)) fail("page {} could be evicted and is not among those", id);
    if (idle_leaves_.time(id) != pages_[i].last_used) fail("page {} stands among those to evict by a wrong time", id);
  }
  if (leaves != idle_leaves_.size()) fail("{} pages could be evicted, {} are among those", leaves, idle_leaves_.size());
}

}  // namespace contexture
