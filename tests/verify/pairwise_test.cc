#include "verify/pairwise.h"

#include <gtest/gtest.h>

#include <set>

namespace contexture {
namespace {

TEST(Pairwise, EveryValueMeetsEveryOtherOne) {
  for (const std::vector<size_t>& sizes : std::vector<std::vector<size_t>>{
           {5, 5, 5, 4, 3, 2, 6}, {1, 1, 1}, {2, 3}, {7}, {1, 4, 1, 4}, {2, 2, 2, 2, 2, 2, 2, 2}}) {
    const std::vector<Choice> choices = pairwise(sizes);
    std::set<std::vector<size_t>> met;
    for (const Choice& choice : choices) {
      ASSERT_EQ(choice.size(), sizes.size());
      for (size_t a = 0; a < sizes.size(); ++a) {
        ASSERT_LT(choice[a], sizes[a]);
        for (size_t b = a + 1; b < sizes.size(); ++b) met.insert({a, choice[a], b, choice[b]});
      }
    }
    size_t pairs = 0;
    for (size_t a = 0; a < sizes.size(); ++a) {
      for (size_t b = a + 1; b < sizes.size(); ++b) pairs += sizes[a] * sizes[b];
    }
    EXPECT_EQ(met.size(), pairs);
    EXPECT_EQ(choices, pairwise(sizes)) << "the same every time";
  }
  EXPECT_LE(pairwise(std::vector<size_t>{5, 5, 5, 4, 3, 2, 6}).size(), 45u);  // at least 5 · 6
}

TEST(Pairwise, EverythingIsEveryCombinationOnce) {
  const std::vector<Choice> all = everything(std::vector<size_t>{2, 3, 1, 4});
  EXPECT_EQ(all.size(), 24u);
  EXPECT_EQ(std::set<Choice>(all.begin(), all.end()).size(), 24u);
}

}  // namespace
}  // namespace contexture
