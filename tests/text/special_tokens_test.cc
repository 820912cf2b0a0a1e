#include "text/special_tokens.h"

#include <gtest/gtest.h>

namespace contexture {
namespace {

TEST(SpecialTokens, LongestAtTheLeftmostPlace) {
  SpecialTokens tokens;
  tokens.add("<a>", 1);
  tokens.add("<a><b>", 2);
  tokens.add("b><", 3);
  tokens.add("<a", 4);
  const auto expect = [&](std::string_view text, size_t from, size_t at, size_t size, TokenId id) {
    const SpecialTokens::Match match = tokens.find(text, from);
    EXPECT_EQ(match.at, at) << text;
    EXPECT_EQ(match.size, size) << text;
    EXPECT_EQ(match.id, id) << text;
  };
  expect("x<a>y", 0, 1, 3, 1);
  expect("x<a><b>", 0, 1, 6, 2);
  expect("x<a><c", 0, 1, 3, 1);     // the longer one breaks off: back to what was whole
  expect("<<a-b><a>", 0, 1, 2, 4);  // the first place wins, not the longest match
  expect("<<a-b><a>", 3, 4, 3, 3);
  expect("nothing <", 0, std::string_view::npos, 0, -1);
  expect("", 0, std::string_view::npos, 0, -1);
  expect("<a>", 3, std::string_view::npos, 0, -1);
}

TEST(SpecialTokens, BytesOfAllKindsAndTheFirstOfEqualTexts) {
  SpecialTokens tokens;
  const std::string odd("\0\xFF\0", 3);
  tokens.add(odd, 7);
  tokens.add(odd, 8);
  tokens.add("", 9);
  EXPECT_EQ(tokens.find("a" + odd, 0).id, 7);
  EXPECT_EQ(tokens.find("abc", 0).size, 0u);
}

}  // namespace
}  // namespace contexture
