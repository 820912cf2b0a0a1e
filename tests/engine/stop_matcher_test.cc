#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

namespace contexture {
namespace {

TEST(StopMatcher, FindsStopsAcrossPiecesAndHoldsBackTheirBeginnings) {
  StopMatcher stops({"END", "\n\n"});
  EXPECT_EQ(stops.push("hello E"), "hello ");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("ough"), "ENough");
  EXPECT_EQ(stops.push("\n"), "");
  EXPECT_EQ(stops.push("x\n"), "\nx");
  EXPECT_EQ(stops.push("\nrest"), "");
  EXPECT_TRUE(stops.stopped());
  EXPECT_EQ(stops.push("more"), "");
}

TEST(StopMatcher, TakesTheEarliestAndGivesBackTheRest) {
  StopMatcher stops({"bc", "abcd", ""});
  EXPECT_EQ(stops.push("xab"), "x");
  EXPECT_EQ(stops.push("c"), "a");
  EXPECT_TRUE(stops.stopped());
  StopMatcher none({"abc"});
  EXPECT_EQ(none.push("xab"), "x");
  EXPECT_EQ(none.finish(), "ab");
  EXPECT_FALSE(none.stopped());
}

}  // namespace
}  // namespace contexture
