#include "sampling/boundary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/selection.h"
#include "support/random.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

/// By a sort.
Boundary find_sorted(const std::vector<float>& key, const float* weight, double mass) {
  std::vector<size_t> order(key.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key[a] > key[b]; });
  double reached = 0;
  for (const size_t i : order) {
    reached += weight ? weight[i] : 1;
    if (reached > mass) return {key[i], i, reached};
  }
  return {key[order.back()], order.back(), reached};
}

/// A row of a kind: normal, with ties, of few values, all equal, ascending, of one value and a few others.
std::vector<float> row_of_kind(std::mt19937& random, int kind, size_t count) {
  std::vector<float> row = random_floats(random, count, 3);
  for (size_t i = 0; i < count; ++i) {
    if (kind == 1 && random() % 2) row[i] = std::round(row[i]);
    if (kind == 2) row[i] = static_cast<float>(random() % 3);
    if (kind == 3) row[i] = 0.5f;
    if (kind == 4) row[i] = static_cast<float>(i);
    if (kind == 5 && random() % 100) row[i] = 1;
    if (kind >= 6 && random() % 3 == 0) row[i] = -std::numeric_limits<float>::infinity();
  }
  return row;
}

TEST(Boundary, IsWhereASortFindsIt) {
  std::mt19937 random = fresh_random();
  BoundaryScratch scratch;
  for (int round = 0; round < (kSanitized ? 120 : 400); ++round) {
    const bool is_large = round % 27 == 26;  // of each kind
    const size_t count = 1 + random() % (is_large ? 100000 : round % 4 == 0 ? 20000 : round % 2 ? 2000 : 300);
    std::vector<float> key = row_of_kind(random, round % 8, count), weight(count);
    const float largest = *std::max_element(key.begin(), key.end());
    if (!std::isfinite(largest)) continue;
    scratch.reserve(count);
    const double total = weigh(key.data(), count, largest, 1, weight.data());
    const double share = std::uniform_real_distribution<double>(0, 1)(random);
    // Not all keys are what the weights come from: typical-p has others.
    if (round % 3 == 0) std::shuffle(key.begin(), key.end(), random);
    for (const double mass : {0.0, share * total, share * share * total, std::nextafter(total, 0.0)}) {
      const Boundary want = find_sorted(key, weight.data(), mass);
      const Boundary got = find_boundary({key.data()}, weight.data(), count, total, mass, scratch);
      ASSERT_EQ(got.index, want.index) << "kind " << round % 8 << " of " << count << ", " << mass << " of " << total;
      ASSERT_EQ(got.key, want.key);
      ASSERT_EQ(got.reached, want.reached);
    }
    const double number = static_cast<double>(1 + random() % count);
    const Boundary want = find_sorted(key, nullptr, number - 0.5);
    const Boundary got = find_boundary({key.data()}, nullptr, count, static_cast<double>(count), number - 0.5, scratch);
    ASSERT_EQ(got.index, want.index) << "kind " << round % 8 << ", " << number << " of " << count;
    ASSERT_EQ(got.reached, number);
    // The nearest to a centre first.
    const float centre = largest - static_cast<float>(random() % 3);
    std::vector<float> nearness(count);
    for (size_t i = 0; i < count; ++i) nearness[i] = -std::fabs(key[i] - centre);
    const RowKeys by_nearness{key.data(), true, centre};
    const Boundary nearest = find_sorted(nearness, weight.data(), share * total);
    ASSERT_EQ(find_boundary(by_nearness, weight.data(), count, total, share * total, scratch).index, nearest.index);
  }
}

}  // namespace
}  // namespace contexture
