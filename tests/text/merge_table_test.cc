#include "text/merge_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace contexture {

bool operator==(const Symbol& a, const Symbol& b) {
  return a.id == b.id && a.size == b.size;
}

namespace {

using Rules = std::map<std::pair<int32_t, int32_t>, std::pair<uint32_t, int32_t>>;  // pair -> rank, result

/// Byte pair encoding as one would tell it: look at all pairs, merge the best, begin again.
std::vector<Symbol> plain_merge(const Rules& rules, std::vector<Symbol> symbols) {
  for (;;) {
    size_t best = 0;
    const std::pair<uint32_t, int32_t>* rule = nullptr;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = rules.find({symbols[i].id, symbols[i + 1].id});
      if (found == rules.end() || (rule && rule->first <= found->second.first)) continue;
      best = i;
      rule = &found->second;
    }
    if (!rule) return symbols;
    symbols[best] = {rule->second, symbols[best].size + symbols[best + 1].size};
    symbols.erase(symbols.begin() + best + 1);
  }
}

MergeTable table_of(const Rules& rules) {
  MergeTable table;
  for (const auto& [pair, rule] : rules) table.add(pair.first, pair.second, rule.first, rule.second);
  return table;
}

TEST(MergeTable, BothWaysEqualThePlainOne) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    Rules rules;
    for (int32_t result = 4; result < 40; ++result) {
      // Few ranks, so that many are equal and the leftmost has to win.
      rules[{random() % result, random() % result}] = {static_cast<uint32_t>(random() % 8), result};
    }
    const MergeTable table = table_of(rules);
    ASSERT_EQ(table.size(), rules.size());
    std::vector<Symbol> symbols;
    for (size_t n = random() % 200; n > 0; --n) symbols.push_back({static_cast<int32_t>(random() % 6) - 1, 1});
    const std::vector<Symbol> expected = plain_merge(rules, symbols);
    std::vector<Symbol> by_scan = symbols, by_queue = symbols, by_choice = symbols;
    table.merge_short(by_scan);
    table.merge_long(by_queue);
    table.merge(by_choice);
    ASSERT_EQ(by_scan, expected) << "round " << round;
    ASSERT_EQ(by_queue, expected) << "round " << round;
    ASSERT_EQ(by_choice, expected) << "round " << round;
  }
}

TEST(MergeTable, LowestRankThenLeftmost) {
  const MergeTable table = table_of({{{0, 1}, {5, 10}}, {{1, 2}, {4, 11}}, {{0, 0}, {6, 12}}});
  std::vector<Symbol> symbols = {{0, 1}, {1, 1}, {2, 1}};
  table.merge(symbols);
  EXPECT_EQ(symbols, (std::vector<Symbol>{{0, 1}, {11, 2}}));
  symbols = {{0, 1}, {0, 1}, {0, 1}};
  table.merge(symbols);
  EXPECT_EQ(symbols, (std::vector<Symbol>{{12, 2}, {0, 1}}));
}

TEST(MergeTable, OfTwoEntriesForAPairTheLowerRankStays) {
  MergeTable table;
  table.add(0, 0, 5, 10);
  table.add(0, 0, 7, 11);
  std::vector<Symbol> symbols = {{0, 1}, {0, 1}};
  table.merge(symbols);
  EXPECT_EQ(symbols, (std::vector<Symbol>{{10, 2}}));
  EXPECT_EQ(table.size(), 1u);
}

TEST(MergeTable, StopsEarlyWhereAsked) {
  const MergeTable table = table_of({{{0, 1}, {0, 10}}, {{10, 2}, {1, 11}}});
  std::vector<Symbol> symbols = {{0, 1}, {1, 1}, {2, 1}};
  table.merge_short(symbols, 2);
  EXPECT_EQ(symbols, (std::vector<Symbol>{{10, 2}, {2, 1}}));
}

TEST(MergeTable, NegativeSymbolsAndEmptyTablesMergeNothing) {
  std::vector<Symbol> symbols = {{-1, 1}, {-1, 2}, {0, 3}}, before = symbols;
  MergeTable table;
  table.merge(symbols);
  EXPECT_EQ(symbols, before);
  table.add(0, 0, 0, 1);
  table.merge_long(symbols);
  EXPECT_EQ(symbols, before);
  symbols.clear();
  table.merge(symbols);
  table.merge_long(symbols);
  EXPECT_TRUE(symbols.empty());
}

/// A million symbols where every merge makes room for the next: a quadratic loop would take hours here.
TEST(MergeTable, AVeryLongWordIsNotQuadratic) {
  MergeTable table;
  for (int32_t i = 0; i < 20; ++i) table.add(i, i, static_cast<uint32_t>(i), i + 1);
  std::vector<Symbol> symbols(1 << 20, Symbol{0, 1});
  table.merge(symbols);
  EXPECT_EQ(symbols, (std::vector<Symbol>{{20, 1 << 20}}));
}

}  // namespace
}  // namespace contexture
