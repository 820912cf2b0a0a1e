#include "kernels/selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "kernels/each_target.h"
#include "support/random.h"

namespace contexture {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kRowCounts[] = {1, 2, 7, 15, 16, 17, 31, 33, 100, 1000, 5000};

/// Normal numbers, of which some are equal and some -inf.
std::vector<float> some_row(std::mt19937& random, size_t count, float scale) {
  std::vector<float> row = random_floats(random, count, scale);
  for (float& x : row) {
    if (random() % 5 == 0) x = std::round(x);
    if (random() % 11 == 0) x = kNever;
  }
  row[random() % count] = 1;
  return row;
}

float largest_of(const std::vector<float>& row) {
  return *std::max_element(row.begin(), row.end());
}

TEST(Selection, PeakIsTheLargestAndSeesNaNAnywhere) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    std::vector<float> row = some_row(random, count, 3);
    const size_t place = random() % count;
    each_target([&](const char* target) {
      EXPECT_EQ(peak_of(row.data(), count).largest, largest_of(row)) << target;
      EXPECT_FALSE(peak_of(row.data(), count).has_nan);
      const float was = std::exchange(row[place], std::numeric_limits<float>::quiet_NaN());
      EXPECT_TRUE(peak_of(row.data(), count).has_nan) << target << " at " << place << " of " << count;
      row[place] = was;
    });
  }
  EXPECT_EQ(peak_of(nullptr, 0).largest, kNever);
}

TEST(Selection, WeightsAreNearFloat64AndAddUpExactlyInAnyOrder) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    for (const float slope : {1.f, 0.01f, 1.3f, 30.f}) {
      const std::vector<float> row = some_row(random, count, 8);
      const float largest = largest_of(row);
      std::vector<float> want(count), weight(count), first;
      weigh_plain(row.data(), count, largest, slope, want.data());
      each_target([&](const char* target) {
        const double total = weigh(row.data(), count, largest, slope, weight.data());
        if (first.empty()) first = weight;
        EXPECT_EQ(weight, first) << target;
        for (size_t i = 0; i < count; ++i) {
          EXPECT_NEAR(weight[i], want[i], 2e-5 * want[i] + 0x1p-34) << row[i] - largest;
          EXPECT_EQ(std::fmod(weight[i], 0x1p-34), 0);
        }
        std::vector<float> shuffled = weight;
        std::shuffle(shuffled.begin(), shuffled.end(), random);
        EXPECT_EQ(total, std::accumulate(shuffled.begin(), shuffled.end(), 0.0)) << target;
        EXPECT_EQ(total, sum_of_weights(shuffled.data(), count)) << target;
        EXPECT_EQ(total, weigh(row.data(), count, largest, slope, nullptr)) << target;
      });
    }
  }
}

TEST(Selection, ASumIsFoundWhereAddingFindsIt) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    const std::vector<float> row = some_row(random, count, 2);
    std::vector<float> weight(count);
    const double total = weigh(row.data(), count, largest_of(row), 1, weight.data());
    for (const double share : {0.0, 0.3, 0.999, 1.0}) {
      const double mass = std::min(share * total, std::nextafter(total, 0.0));
      size_t want = 0;
      for (double reached = weight[0]; reached <= mass; reached += weight[++want]) continue;
      each_target([&](const char* target) { EXPECT_EQ(find_sum(weight.data(), count, mass), want) << target; });
    }
  }
}

TEST(Selection, OffsetsAreWeighedAndWhatWeighsNothingIsPassedOver) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    const std::vector<float> row = some_row(random, count, 3);
    const float largest = largest_of(row);
    std::vector<float> weight(count);
    weigh(row.data(), count, largest, 1, weight.data());
    double want = 0;
    for (size_t i = 0; i < count; ++i) {
      if (weight[i] > 0) want += static_cast<double>(weight[i]) * (static_cast<double>(row[i]) - largest);
    }
    each_target([&](const char* target) {
      EXPECT_NEAR(weighted_offset(row.data(), weight.data(), count, largest), want, 1e-5 * (1 - want)) << target;
    });
  }
}

TEST(Selection, SpreadIsThatOfWhatIsFinite) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    const std::vector<float> row = some_row(random, count, 3);
    size_t finite = 0;
    double sum = 0, squares = 0;
    for (const float x : row) finite += x > kNever, sum += x > kNever ? x : 0;
    const double mean = sum / static_cast<double>(finite);
    for (const float x : row) squares += x > kNever ? (x - mean) * (x - mean) : 0;
    each_target([&](const char* target) {
      const Spread spread = spread_of(row.data(), count, largest_of(row));
      EXPECT_EQ(spread.count, finite) << target;
      EXPECT_NEAR(spread.mean, mean, 1e-6);
      EXPECT_NEAR(spread.deviation, std::sqrt(squares / static_cast<double>(finite)), 1e-6);
    });
  }
  const std::vector<float> nothing(20, kNever);
  EXPECT_EQ(spread_of(nothing.data(), 20, 0).count, 0u);
}

struct Part {
  std::vector<float> key, weight;
  std::vector<int32_t> index;

  explicit Part(size_t count) : key(count), weight(count), index(count) {}
  PartOfRow pointers() { return {key.data(), weight.data(), index.data()}; }
  void resize(size_t count) {
    key.resize(count);
    weight.resize(count);
    index.resize(count);
  }
  bool operator==(const Part&) const = default;
};

TEST(Selection, RowsAreSplitExactly) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    Part row(count);
    row.key = some_row(random, count, 2);
    for (int32_t& index : row.index) index = static_cast<int32_t>(random() % 1000000);
    weigh(row.key.data(), count, largest_of(row.key), 1, row.weight.data());
    for (int kind = 0; kind < 8; ++kind) {
      const bool is_near = kind % 2 == 1, is_weighted = kind / 2 % 2 == 1, is_listed = kind / 4 == 1;
      const auto part_of = [&](Part& part) {
        return WeightedRow{{part.key.data(), is_near, 0.3f},
                           is_weighted ? part.weight.data() : nullptr,
                           is_listed ? part.index.data() : nullptr,
                           count};
      };
      const WeightedRow all = part_of(row);
      const float one = all.key[random() % count], other = all.key[random() % count];
      const float low = std::min(one, other), high = random() % 3 ? std::max(one, other) : -kNever;
      Part want(count);
      const Split wanted = split_row_plain(all, low, high, want.pointers());
      want.resize(wanted.count);
      each_target([&](const char* target) {
        const auto expect_split = [&](const Split& split, Part part) {
          EXPECT_EQ(split.above, wanted.above) << target;
          EXPECT_EQ(split.between, wanted.between) << target;
          ASSERT_EQ(split.count, wanted.count) << target;
          part.resize(split.count);
          if (!is_weighted) part.weight = want.weight;
          EXPECT_TRUE(part == want) << target << ", kind " << kind << " of " << count;
        };
        Part got(count), over = row;
        const Split split = split_row(all, low, high, got.pointers());
        expect_split(split, got);
        const Split split_over = split_row(part_of(over), low, high, over.pointers());
        expect_split(split_over, over);
      });
    }
  }
}

TEST(Selection, TheLeastThatIsHeavyIsTheLastOfItsKind) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    const std::vector<float> row = some_row(random, count, 2);
    std::vector<float> weight(count);
    weigh(row.data(), count, largest_of(row), 1, weight.data());
    const float bound = weight[random() % count];
    LeastHeavy want{0, 0, 0};
    for (size_t i = 0; i < count; ++i) {
      if (weight[i] <= bound) continue;
      if (want.count++ == 0 || row[i] <= want.least) want.least = row[i], want.index = i;
    }
    each_target([&](const char* target) {
      const LeastHeavy got = least_heavy(row.data(), weight.data(), count, bound);
      ASSERT_EQ(got.count, want.count) << target;
      if (want.count == 0) return;
      EXPECT_EQ(got.least, want.least) << target;
      EXPECT_EQ(got.index, want.index) << target << " of " << count;
    });
  }
}

/// Rows of which the same elements stay, written over themselves.
struct Cut {
  std::vector<float> first, second;
  std::vector<int32_t> ids;

  void resize(size_t count) {
    first.resize(count);
    second.resize(count);
    ids.resize(count);
  }
  bool operator==(const Cut&) const = default;
};

/// What lies before `turn` and the rest, each with a range of its own.
template <class Keep>
Cut cut(Cut rows, const RowKeys& key, size_t count, bool has_ids, size_t turn, const float low[2], const float high[2],
        const Keep& keep) {
  const CutRows pointers{.key = key,
                         .in = {rows.first.data(), rows.second.data()},
                         .out = {rows.first.data(), rows.second.data()},
                         .in_id = has_ids ? rows.ids.data() : nullptr,
                         .out_id = rows.ids.data()};
  const size_t kept = keep(pointers, 0, turn, low[0], high[0], 0);
  rows.resize(keep(pointers, turn, count, low[1], high[1], kept));
  return rows;
}

TEST(Selection, RowsAreCutTogetherAndKeepTheirOrder) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    Cut rows{.first = some_row(random, count, 2), .second = random_floats(random, count), .ids = {}};
    for (size_t i = 0; i < count; ++i) rows.ids.push_back(static_cast<int32_t>(random() % 100000));
    const std::vector<float> keys = some_row(random, count, 2);
    for (int round = 0; round < 20; ++round) {
      const RowKeys key{keys.data(), round % 2 == 1, 0.3f};
      const float some = key[random() % count], other = key[random() % count];
      const float low[2] = {random() % 2 ? some : kNever, other}, high[2] = {other, random() % 2 ? some : -kNever};
      const size_t turn = random() % (count + 1);
      const bool has_ids = random() % 2;
      const Cut want = cut(rows, key, count, has_ids, turn, low, high, keep_between_plain);
      each_target([&](const char* target) {
        EXPECT_EQ(cut(rows, key, count, has_ids, turn, low, high, keep_between), want) << target << " of " << count;
      });
    }
  }
}

TEST(Selection, WhatIsFirstIsFirst) {
  std::mt19937 random = fresh_random();
  for (const size_t count : kRowCounts) {
    const std::vector<float> row = some_row(random, count, 2);
    const float value = row[random() % count];
    each_target([&](const char* target) {
      const auto found = static_cast<size_t>(std::ranges::find(row, value) - row.begin());
      EXPECT_EQ(find_first(row.data(), count, value), found) << target;
      EXPECT_EQ(find_first(row.data(), count, 1000), count) << target;
    });
  }
}

}  // namespace
}  // namespace contexture
