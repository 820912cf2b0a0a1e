#include "cache/page_book.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "cache/page_heap.h"
#include "support/random.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

/// A pool whose pages hold what was written to them, checked against lists of tokens: the trivial model of a cache.
class Pool {
 public:
  Pool(size_t pages, size_t page_tokens, size_t sequences, size_t context)
      : book(pages, page_tokens, sequences, context), page_tokens_(page_tokens), rows_(pages * page_tokens, -1) {}

  bool append(SequenceId id, const std::vector<int32_t>& tokens) {
    std::optional<PageBook::Copy> copied;
    const size_t before = book.length(id);
    if (!book.append(id, tokens.size(), copied)) {
      EXPECT_EQ(book.length(id), before) << "full changes nothing";
      return false;
    }
    carry_out(copied);
    for (size_t i = 0; i < tokens.size(); ++i) row(id, before + i) = tokens[i];
    return true;
  }

  size_t adopt(SequenceId id, const std::vector<int32_t>& tokens) {
    std::optional<PageBook::Copy> copied;
    const size_t adopted = book.adopt(id, tokens, copied);
    carry_out(copied);
    return adopted;
  }

  std::vector<int32_t> read(SequenceId id) {
    std::vector<int32_t> tokens(book.length(id));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = row(id, i);
    return tokens;
  }

  PageBook book;

 private:
  int32_t& row(SequenceId id, size_t position) {
    const auto page = static_cast<size_t>(book.pages(id)[position / page_tokens_]);
    return rows_[page * page_tokens_ + position % page_tokens_];
  }
  void carry_out(const std::optional<PageBook::Copy>& copied) {
    if (!copied) return;
    const auto from = rows_.begin() + copied->from * static_cast<ptrdiff_t>(page_tokens_);
    std::copy_n(from, copied->tokens, rows_.begin() + copied->to * static_cast<ptrdiff_t>(page_tokens_));
  }

  size_t page_tokens_;
  std::vector<int32_t> rows_;  // (pages, page_tokens)
};

std::vector<int32_t> counting(int32_t first, size_t count) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<int32_t>(i);
  return tokens;
}

TEST(PageBook, ForksShareUntilOneWrites) {
  Pool pool(6, 8, 4, 64);
  const SequenceId a = pool.book.create().value();
  ASSERT_TRUE(pool.append(a, counting(0, 12)));
  EXPECT_EQ(pool.book.available(), 4u);
  const SequenceId b = pool.book.fork(a).value();
  EXPECT_EQ(pool.book.available(), 4u) << "a fork takes no page";
  ASSERT_TRUE(pool.append(b, {100}));
  EXPECT_EQ(pool.book.available(), 3u) << "the page that is written is copied, the whole one is not";
  ASSERT_TRUE(pool.append(a, {200, 201}));
  EXPECT_EQ(pool.book.available(), 3u) << "who is left alone writes in place";
  std::vector<int32_t> expected = counting(0, 12);
  expected.push_back(100);
  EXPECT_EQ(pool.read(b), expected);
  pool.book.check();
}

TEST(PageBook, PromptsFindWhatIsThereAndCopyThePartialPage) {
  Pool pool(10, 8, 4, 64);
  const SequenceId a = pool.book.create().value();
  ASSERT_TRUE(pool.append(a, counting(0, 20)));
  pool.book.remember(a, counting(0, 20));
  pool.book.free(a);
  EXPECT_EQ(pool.book.available(), 10u) << "what is kept can be had";

  const SequenceId b = pool.book.create().value();
  std::vector<int32_t> prompt = counting(0, 18);
  prompt.push_back(-5);
  EXPECT_EQ(pool.adopt(b, prompt), 18u) << "two whole pages, two tokens of the third";
  EXPECT_EQ(pool.read(b), counting(0, 18));
  ASSERT_TRUE(pool.append(b, {-5}));

  const SequenceId c = pool.book.create().value();
  EXPECT_EQ(pool.adopt(c, counting(1, 20)), 0u);
  const SequenceId d = pool.book.create().value();
  EXPECT_EQ(pool.adopt(d, counting(0, 20)), 20u) << "b wrote to a copy";
  EXPECT_EQ(pool.read(d), counting(0, 20));
  pool.book.check();
}

TEST(PageBook, TheLongestUnusedGoesFirst) {
  Pool pool(4, 8, 4, 32);
  const auto keep = [&](int32_t first, size_t count) {
    const SequenceId id = pool.book.create().value();
    pool.adopt(id, counting(first, count));
    const size_t have = pool.book.length(id);
    std::vector<int32_t> rest = counting(first + static_cast<int32_t>(have), count - have);
    ASSERT_TRUE(pool.append(id, rest));
    pool.book.remember(id, rest);
    pool.book.free(id);
  };
  const auto kept = [&](int32_t first, size_t count) {
    const SequenceId id = pool.book.create().value();
    const size_t adopted = pool.adopt(id, counting(first, count));
    pool.book.free(id);
    return adopted;
  };
  keep(0, 16);
  keep(1000, 8);
  keep(0, 8);      // used again
  keep(2000, 16);  // needs two: one is free; of the rest, the longest unused that is nobody's parent goes
  EXPECT_EQ(kept(0, 16), 8u) << "the second page of the first prompt was the oldest";
  EXPECT_EQ(kept(1000, 8), 8u);
  EXPECT_EQ(kept(2000, 16), 16u);
  pool.book.check();
}

TEST(PageBook, EqualPagesBecomeOne) {
  Pool pool(8, 8, 4, 32);
  const SequenceId a = pool.book.create().value(), b = pool.book.create().value();
  for (const SequenceId id : {a, b}) ASSERT_TRUE(pool.append(id, counting(0, 16)));
  EXPECT_EQ(pool.book.available(), 4u);
  for (const SequenceId id : {a, b}) pool.book.remember(id, counting(0, 16));
  EXPECT_EQ(pool.book.available(), 6u) << "computed side by side, held once";
  EXPECT_EQ(pool.read(a), pool.read(b));
  pool.book.check();
}

TEST(PageBook, ASequenceAloneCanHaveThePoolToItsLastPage) {
  Pool pool(2, 8, 2, 16);
  const SequenceId a = pool.book.create().value();
  ASSERT_TRUE(pool.append(a, counting(0, 16)));
  pool.book.remember(a, counting(0, 16));
  EXPECT_FALSE(pool.append(a, {1}));
  pool.book.truncate(a, 4);  // into a page that is kept for others, its child beside it
  ASSERT_TRUE(pool.append(a, counting(50, 12)));
  std::vector<int32_t> expected = counting(0, 4);
  for (const int32_t t : counting(50, 12)) expected.push_back(t);
  EXPECT_EQ(pool.read(a), expected);
  pool.book.check();
}

/// Tokens remembered by a sequence of a key that is gone.
void keep(Pool& pool, uint64_t key, const std::vector<int32_t>& tokens) {
  const SequenceId id = pool.book.create(key).value();
  ASSERT_TRUE(pool.append(id, tokens));
  pool.book.remember(id, tokens);
  pool.book.free(id);
}

/// How many of some tokens a new sequence of a key finds.
size_t found(Pool& pool, uint64_t key, const std::vector<int32_t>& tokens) {
  const SequenceId id = pool.book.create(key).value();
  const size_t adopted = pool.adopt(id, tokens);
  pool.book.free(id);
  return adopted;
}

TEST(PageBook, SequencesOfOneKeyAloneFindWhatItRemembered) {
  Pool pool(20, 8, 4, 64);
  keep(pool, 0, counting(0, 20));
  keep(pool, 7, counting(0, 11));
  keep(pool, UINT64_MAX, counting(500, 8));
  EXPECT_EQ(found(pool, 0, counting(0, 20)), 20u);
  EXPECT_EQ(found(pool, 7, counting(0, 20)), 11u);
  EXPECT_EQ(found(pool, 8, counting(0, 20)), 0u);
  EXPECT_EQ(found(pool, 7, counting(500, 8)), 0u);
  EXPECT_EQ(pool.book.next_held(counting(0, 11)), 11);
  EXPECT_EQ(pool.book.next_held(counting(0, 11), 7), std::nullopt);
  EXPECT_EQ(pool.book.next_held(counting(0, 10), 7), 10);
  EXPECT_EQ(pool.book.next_held(counting(500, 3), UINT64_MAX), 503);
  EXPECT_EQ(pool.book.next_held({}, 9), std::nullopt);
  const SequenceId parent = pool.book.create(9).value();
  const SequenceId fork = pool.book.fork(parent).value();
  ASSERT_TRUE(pool.append(fork, counting(0, 16)));
  pool.book.remember(fork, counting(0, 16));
  EXPECT_EQ(found(pool, 9, counting(0, 16)), 16u) << "a fork is of its parent's key";
  pool.book.check();
}

TEST(PageBook, WhatIsForgottenIsNotFound) {
  Pool pool(20, 8, 4, 64);
  keep(pool, 0, counting(0, 8));
  const SequenceId failed = pool.book.create().value();
  EXPECT_EQ(pool.adopt(failed, counting(0, 40)), 8u);
  ASSERT_TRUE(pool.append(failed, counting(8, 30)));
  pool.book.remember(failed, counting(8, 20));
  const SequenceId other = pool.book.create().value();
  EXPECT_EQ(pool.adopt(other, counting(0, 16)), 16u) << "while it was not known to have failed";
  EXPECT_EQ(found(pool, 0, counting(0, 30)), 24u);
  pool.book.forget(failed);
  pool.book.check();
  EXPECT_EQ(pool.book.length(failed), 38u) << "it keeps its own pages";
  EXPECT_EQ(found(pool, 0, counting(0, 30)), 16u) << "what another one uses stays, and what it had from others";
  pool.book.remember(failed, counting(28, 10));
  pool.book.free(failed);
  EXPECT_EQ(found(pool, 0, counting(0, 40)), 16u) << "neither telling nor freeing puts it back";
  pool.book.free(other);
  pool.book.check();
  EXPECT_EQ(pool.book.available(), 20u);
}

TEST(PageBook, WhatFollowsTheForgottenGoesToo) {
  Pool pool(20, 8, 4, 64);
  const SequenceId failed = pool.book.create().value();
  ASSERT_TRUE(pool.append(failed, counting(0, 8)));
  pool.book.remember(failed, counting(0, 8));
  const SequenceId after = pool.book.create().value();
  EXPECT_EQ(pool.adopt(after, counting(0, 8)), 8u);
  ASSERT_TRUE(pool.append(after, counting(8, 8)));
  pool.book.remember(after, counting(8, 8));
  pool.book.free(after);
  pool.book.forget(failed);
  pool.book.check();
  EXPECT_EQ(found(pool, 0, counting(0, 16)), 0u);
}

/// How often pages were compared.
struct Counting {
  static inline size_t compared = 0;
  bool operator()(uint64_t a, uint64_t b) const { return ++compared, a < b; }
};

TEST(PageHeap, GivesTheEarliestInLogarithmicSteps) {
  std::mt19937 random = fresh_random();
  constexpr size_t kPages = 100'000;
  PageHeap<Counting> heap(kPages);
  std::map<uint64_t, PageId> plain;
  std::vector<uint64_t> times(kPages, 0);
  uint64_t clock = 0;
  for (size_t operation = 0; operation < 300'000; ++operation) {
    const PageId page = static_cast<PageId>(random() % kPages);
    uint64_t& time = times[static_cast<size_t>(page)];
    Counting::compared = 0;
    if (!heap.contains(page)) {
      time = ++clock << 32 | random();
      if (random() % 2) time = random();  // a parent whose last child has gone: used long ago
      if (!plain.emplace(time, page).second) continue;
      heap.push(page, time);
    } else if (random() % 2) {
      heap.remove(page);
      plain.erase(time);
    } else {
      ASSERT_EQ(heap.first(), plain.begin()->second);
      heap.remove(heap.first());
      plain.erase(plain.begin());
    }
    ASSERT_LE(Counting::compared, 2u * 17 + 1) << "2^17 pages are more than there are";
    ASSERT_EQ(heap.size(), plain.size());
    if (operation % 30'000 == 0) {
      ASSERT_TRUE(heap.is_sound());
    }
  }
}

// Each of as many evictions would look at all of as many pages, were they not in order: days.
TEST(PageBook, AMillionPagesAreEvictedAtOnce) {
  constexpr size_t kPages = 1 << 20;
  PageBook book(kPages, 1, 2, kPages);
  std::optional<PageBook::Copy> copy;
  for (int32_t text = 0; text < 2; ++text) {
    const SequenceId id = book.create().value();
    ASSERT_TRUE(book.append(id, kPages, copy)) << "all that is kept is evicted";
    std::vector<int32_t> tokens = counting(0, kPages);
    tokens[0] = -1 - text;
    book.remember(id, tokens);
    book.free(id);
    EXPECT_EQ(book.available(), kPages);
  }
  book.check();
}

// Random operations against lists of tokens; the books balance all along.
void run_random_operations(size_t operations, size_t pages, size_t page_tokens, std::mt19937& random) {
  const size_t sequences = 6, context = 100;
  Pool pool(pages, page_tokens, sequences, context);
  std::map<SequenceId, std::vector<int32_t>> model;
  std::map<SequenceId, size_t> remembered;
  std::map<SequenceId, int32_t> keys;  // of sequences; and a key's tokens are its own
  // Told to the book without the key, so that prefixes meet often, and written with it, so that a meeting shows.
  const auto random_tokens = [&](size_t n, int32_t key) {
    std::vector<int32_t> tokens(n);
    for (int32_t& t : tokens) t = 2 * key + static_cast<int32_t>(random() % 2);
    return tokens;
  };
  const auto told = [](std::span<const int32_t> tokens) {
    std::vector<int32_t> ids(tokens.begin(), tokens.end());
    for (int32_t& t : ids) t %= 2;
    return ids;
  };
  for (size_t operation = 0; operation < operations; ++operation) {
    const auto some = [&] { return std::next(model.begin(), static_cast<ptrdiff_t>(random() % model.size())); };
    const unsigned kind = random() % 20;
    if (kind == 0 || model.empty()) {
      const auto key = static_cast<int32_t>(random() % 3);
      const auto id = pool.book.create(static_cast<uint64_t>(key));
      ASSERT_EQ(id.has_value(), model.size() < sequences);
      if (!id) continue;
      keys[*id] = key;
      const std::vector<int32_t> prompt = random_tokens(random() % 40, key);
      const size_t adopted = pool.adopt(*id, told(prompt));
      ASSERT_LE(adopted, prompt.size());
      model[*id].assign(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(adopted));
      remembered[*id] = adopted;
    } else if (kind <= 2) {
      const auto from = some();
      const auto id = pool.book.fork(from->first);
      ASSERT_EQ(id.has_value(), model.size() < sequences);
      if (!id) continue;
      model[*id] = from->second;
      remembered[*id] = remembered[from->first];
      keys[*id] = keys[from->first];
    } else if (kind <= 4) {
      const auto gone = some();
      if (random() % 3 == 0) pool.book.forget(gone->first);
      pool.book.free(gone->first);
      model.erase(gone);
    } else if (kind == 5) {
      pool.book.forget(some()->first);
    } else if (kind <= 7) {
      auto& [id, tokens] = *some();
      const size_t length = random() % (tokens.size() + 1);
      pool.book.truncate(id, length);
      tokens.resize(length);
      remembered[id] = std::min(remembered[id], length);
    } else if (kind <= 9) {
      auto& [id, tokens] = *some();
      size_t& done = remembered[id];
      const size_t more = random() % (tokens.size() - done + 1);
      pool.book.remember(id, told(std::span(tokens).subspan(done, more)));
      done += more;
    } else {
      auto& [id, tokens] = *some();
      const std::vector<int32_t> more = random_tokens(random() % 20, keys[id]);
      const size_t available = pool.book.available();
      const bool appended = pool.append(id, more);
      if (!appended) {
        ASSERT_TRUE(tokens.size() + more.size() > context || available < more.size() / page_tokens + 2);
      }
      if (appended) tokens.insert(tokens.end(), more.begin(), more.end());
    }
    if (operation % 16 == 0) {
      ASSERT_NO_THROW(pool.book.check());
      for (const auto& [id, tokens] : model) ASSERT_EQ(pool.read(id), tokens) << "operation " << operation;
    }
  }
  while (!model.empty()) {
    pool.book.free(model.begin()->first);
    model.erase(model.begin());
  }
  pool.book.check();
  EXPECT_EQ(pool.book.available(), pages) << "no page leaked";
}

TEST(PageBook, BalancesUnderAMillionRandomOperations) {
  std::mt19937 random = fresh_random();
  for (const size_t pages : {14, 30, 90}) {  // far too few, too few, enough
    for (const size_t page_tokens : {1, 8, 32})
      run_random_operations(sized(1'000'000) / 9 + 1, pages, page_tokens, random);
  }
}

TEST(PrefixTree, ComparesTokensAndNotHashesAlone) {
  PrefixTree tree(4, 8);
  const std::vector<int32_t> x = {1, 2, 3}, y = {1, 2, 4};
  tree.insert(kNoPage, 0, x);
  tree.insert(0, 1, x);
  EXPECT_EQ(tree.find(kNoPage, x), 0);
  EXPECT_EQ(tree.find(0, x), 1);
  EXPECT_EQ(tree.find(1, x), kNoPage);
  EXPECT_EQ(tree.find(kNoPage, y), kNoPage);
  EXPECT_EQ(tree.longest(kNoPage, y).tokens, 2u);
  EXPECT_EQ(tree.longest(kNoPage, std::vector<int32_t>{9}).page, kNoPage);
  tree.erase(1);
  EXPECT_EQ(tree.find(0, x), kNoPage);
  EXPECT_EQ(tree.size(), 1u);
}

// Two pages' tokens of one hash: of 16 bytes, two words, XXH3 adds one, the other one's bytes reversed, and their
// product, after each has met a constant; here one word of each page is that constant, so that the product is 0, and
// the sums are equal.
TEST(PrefixTree, AHashThatIsEqualIsNotBelieved) {
  const std::vector<int32_t> x = {-364758599, 1736602491, 160846395, -1353270213};
  const std::vector<int32_t> y = {-364758599, 1719825275, 160846394, -1353270213};
  ASSERT_EQ(XXH3_64bits(x.data(), 16), XXH3_64bits(y.data(), 16));
  PrefixTree tree(2, 4);
  tree.insert(kNoPage, 0, x);
  EXPECT_EQ(tree.find(kNoPage, x), 0);
  EXPECT_EQ(tree.find(kNoPage, y), kNoPage);
  tree.insert(kNoPage, 1, y);
  EXPECT_EQ(tree.find(kNoPage, x), 0);
  EXPECT_EQ(tree.find(kNoPage, y), 1);
  tree.erase(0);
  EXPECT_EQ(tree.find(kNoPage, x), kNoPage);
  EXPECT_EQ(tree.find(kNoPage, y), 1);
}

}  // namespace
}  // namespace contexture
