#include "backends/ring/sharding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "support/random.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

size_t spread(std::span<const size_t> held) {
  const auto [least, most] = std::minmax_element(held.begin(), held.end());
  return *most - *least;
}

/// Positions of each rank, in order.
std::vector<std::vector<int64_t>> positions_of(std::span<const OwnedRun> runs, size_t ranks) {
  std::vector<std::vector<int64_t>> positions(ranks);
  for (const OwnedRun& run : runs) {
    for (size_t i = 0; i < run.count; ++i) {
      positions[static_cast<size_t>(run.rank)].push_back(run.first + static_cast<int64_t>(i));
    }
  }
  return positions;
}

TEST(Sharding, IsThePapersWhereAllDivides) {
  const std::vector<size_t> held(4, 0);
  const std::vector<OwnedRun> expected = {{0, 8, 0},  {8, 8, 1},  {16, 8, 2}, {24, 16, 3},
                                          {40, 8, 2}, {48, 8, 1}, {56, 8, 0}};
  EXPECT_EQ(shard(0, 64, held, 0), expected);
}

TEST(Sharding, EveryTokenHasOneRankAndAllHoldAlike) {
  for (const size_t ranks : {1, 2, 3, 4, 8, 13}) {
    for (const size_t tokens :
         {size_t{0}, size_t{1}, size_t{2}, 2 * ranks - 1, 2 * ranks, 2 * ranks + 1, size_t{1000}, size_t{4097}}) {
      for (const size_t offset : {0, 1, 5}) {
        const std::vector<size_t> held(ranks, 3);
        const std::vector<OwnedRun> runs = shard(7, tokens, held, offset);
        int64_t next = 7;
        std::vector<size_t> after = held;
        for (const OwnedRun& run : runs) {
          EXPECT_EQ(run.first, next);
          EXPECT_GT(run.count, 0u);
          next += static_cast<int64_t>(run.count);
          after.at(static_cast<size_t>(run.rank)) += run.count;
        }
        EXPECT_EQ(next, 7 + static_cast<int64_t>(tokens));
        EXPECT_LE(spread(after), 1u) << ranks << " ranks, " << tokens << " tokens";
      }
    }
  }
}

TEST(Sharding, WorkIsBalanced) {
  // Scores of a rank: the tokens at or before each of its own. Chunks of one length: all ranks have as many.
  for (const size_t ranks : {2, 3, 8}) {
    const std::vector<size_t> held(ranks, 0);
    std::vector<int64_t> scores(ranks, 0);
    const auto positions = positions_of(shard(0, 2 * ranks * 50, held, 0), ranks);
    for (size_t r = 0; r < ranks; ++r)
      scores[r] = std::accumulate(positions[r].begin(), positions[r].end(), int64_t{0});
    EXPECT_EQ(*std::min_element(scores.begin(), scores.end()), *std::max_element(scores.begin(), scores.end()));
  }
}

TEST(Sharding, SingleTokensGoRound) {
  for (const size_t offset : {0, 2}) {
    Ownership ownership(4, offset);
    ownership.append(64);
    for (int64_t t = 0; t < 12; ++t) {
      ownership.append(1);
      EXPECT_EQ(ownership.owner(64 + t), (static_cast<int>(offset) + t) % 4);
    }
  }
}

TEST(Sharding, AnyTurnsKeepTheBound) {
  std::mt19937 random = fresh_random();
  for (int round = 0; round < 200; ++round) {
    const size_t ranks = 1 + random() % 9;
    Ownership ownership(ranks, random() % 5);
    std::vector<size_t> ends = {0};  // of appends
    std::vector<int> owners;
    for (int turn = 0; turn < 60; ++turn) {
      if (random() % 8 == 0) {
        const size_t asked = random() % (ownership.length() + 1), left = ownership.truncate(asked);
        while (ends.back() > asked) ends.pop_back();
        ASSERT_EQ(left, ends.back());
        owners.resize(left);
      } else {
        const size_t tokens = random() % 3 == 0 ? random() % 70 : 1;
        ownership.append(tokens);
        if (tokens > 0) ends.push_back(ownership.length());
        for (size_t p = owners.size(); p < ownership.length(); ++p) {
          owners.push_back(ownership.owner(static_cast<int64_t>(p)));
        }
      }
      ASSERT_LE(spread(ownership.held()), 1u);
      std::vector<size_t> held(ranks, 0);
      for (size_t p = 0; p < owners.size(); ++p) {
        ASSERT_EQ(ownership.owner(static_cast<int64_t>(p)), owners[p]);
        ++held[static_cast<size_t>(owners[p])];
      }
      ASSERT_TRUE(std::equal(held.begin(), held.end(), ownership.held().begin()));
      ASSERT_LE(*std::max_element(held.begin(), held.end()), most_held(ownership.length(), ranks, Dealing::balanced));
    }
  }
}

TEST(Sharding, AStepsSharesFitThePlan) {
  std::mt19937 random = fresh_random();
  for (int round = 0; round < 500; ++round) {
    const size_t ranks = 1 + random() % 9, sequences = 1 + random() % 5;
    size_t tokens = 0;
    std::vector<size_t> step(ranks, 0);
    for (size_t s = 0; s < sequences; ++s) {
      const size_t count = random() % 40;
      std::vector<size_t> held(ranks);
      for (size_t& h : held) h = 10 + random() % 2;
      const std::vector<size_t> shares = shares_of(count, held, s);
      for (size_t r = 0; r < ranks; ++r) step[r] += shares[r];
      tokens += count;
    }
    EXPECT_LE(*std::max_element(step.begin(), step.end()), most_in_step(tokens, sequences, ranks, Dealing::balanced));
  }
}

/// Runs of 64 positions there and back.
int rank_by_position(int64_t position, size_t ranks) {
  std::vector<int> turn;
  for (size_t r = 0; r < ranks; ++r) turn.push_back(static_cast<int>(r));
  for (size_t r = ranks; r > 0; --r) turn.push_back(static_cast<int>(r - 1));
  return turn[static_cast<size_t>(position / 64) % turn.size()];
}

TEST(Sharding, ByPositionOnlyThePositionSaysWhoHoldsAToken) {
  std::mt19937 random = fresh_random();
  for (size_t round = 0; round < sized(200); ++round) {
    const size_t ranks = 1 + random() % 9;
    Ownership ownership(ranks, random() % 5, Dealing::by_position);
    for (int turn = 0; turn < 40; ++turn) {
      if (random() % 6 == 0) {
        const size_t left = random() % (ownership.length() + 1);
        ASSERT_EQ(ownership.truncate(left), left) << "it may be cut anywhere";
      } else {
        const size_t tokens = random() % 3 == 0 ? random() % 400 : 1;
        const std::vector<size_t> before(ownership.held().begin(), ownership.held().end());
        const std::vector<size_t> shares = ownership.shares(tokens);
        ownership.append(tokens);
        for (size_t r = 0; r < ranks; ++r) ASSERT_EQ(ownership.held()[r], before[r] + shares[r]);
      }
      std::vector<size_t> held(ranks, 0);
      for (size_t p = 0; p < ownership.length(); ++p) {
        const auto position = static_cast<int64_t>(p);
        ASSERT_EQ(ownership.owner(position), rank_by_position(position, ranks)) << p << " of " << ranks << " ranks";
        ++held[static_cast<size_t>(ownership.owner(position))];
      }
      ASSERT_TRUE(std::equal(held.begin(), held.end(), ownership.held().begin()));
      ASSERT_LE(spread(held), kDealtRun);
      ASSERT_EQ(*std::max_element(held.begin(), held.end()),
                most_held(ownership.length(), ranks, Dealing::by_position));
    }
  }
}

TEST(Sharding, ByPositionAStepsSharesFitThePlan) {
  std::mt19937 random = fresh_random();
  for (int round = 0; round < 2000; ++round) {
    const size_t ranks = 1 + random() % 9, sequences = 1 + random() % 5;
    size_t tokens = 0;
    std::vector<size_t> step(ranks, 0);
    for (size_t s = 0; s < sequences; ++s) {
      const size_t first = random() % 3000, count = random() % (random() % 2 ? 10 : 900);
      for (size_t r = 0; r < ranks; ++r) {
        step[r] += held_by_position(first + count, r, ranks) - held_by_position(first, r, ranks);
      }
      tokens += count;
    }
    EXPECT_LE(*std::max_element(step.begin(), step.end()),
              most_in_step(tokens, sequences, ranks, Dealing::by_position));
  }
}

}  // namespace
}  // namespace contexture
