#include "cache/page_book.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <map>

#include "base/error.h"
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

// Random operations against lists of tokens; the books balance all along.
void run_random_operations(size_t operations, size_t pages, size_t page_tokens, std::mt19937& random) {
  const size_t sequences = 6, context = 100;
  Pool pool(pages, page_tokens, sequences, context);
  std::map<SequenceId, std::vector<int32_t>> model;
  std::map<SequenceId, size_t> remembered;
  const auto random_tokens = [&](size_t n) {
    std::vector<int32_t> tokens(n);
    for (int32_t& t : tokens) t = static_cast<int32_t>(random() % 2);  // so that prefixes meet often
    return tokens;
  };
  for (size_t operation = 0; operation < operations; ++operation) {
    const auto some = [&] { return std::next(model.begin(), static_cast<ptrdiff_t>(random() % model.size())); };
    const unsigned kind = random() % 9;
    if (kind == 0 || model.empty()) {
      const auto id = pool.book.create();
      ASSERT_EQ(id.has_value(), model.size() < sequences);
      if (!id) continue;
      const std::vector<int32_t> prompt = random_tokens(random() % 40);
      const size_t adopted = pool.adopt(*id, prompt);
      ASSERT_LE(adopted, prompt.size());
      model[*id].assign(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(adopted));
      remembered[*id] = adopted;
    } else if (kind == 1) {
      const auto from = some();
      const auto id = pool.book.fork(from->first);
      ASSERT_EQ(id.has_value(), model.size() < sequences);
      if (!id) continue;
      model[*id] = from->second;
      remembered[*id] = remembered[from->first];
    } else if (kind == 2) {
      const auto gone = some();
      pool.book.free(gone->first);
      model.erase(gone);
    } else if (kind == 3) {
      auto& [id, tokens] = *some();
      const size_t length = random() % (tokens.size() + 1);
      pool.book.truncate(id, length);
      tokens.resize(length);
      remembered[id] = std::min(remembered[id], length);
    } else if (kind == 4) {
      auto& [id, tokens] = *some();
      size_t& done = remembered[id];
      const size_t more = random() % (tokens.size() - done + 1);
      pool.book.remember(id, std::span(tokens).subspan(done, more));
      done += more;
    } else {
      auto& [id, tokens] = *some();
      const std::vector<int32_t> more = random_tokens(random() % 20);
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
