#include "text/utf8.h"

#include <gtest/gtest.h>

#include "text_fixtures.h"

namespace contexture {
namespace {

using Kind = Utf8Sequence::Kind;

void expect_next(std::string_view text, Kind kind, size_t size) {
  const Utf8Sequence next = next_utf8(text);
  EXPECT_EQ(static_cast<int>(next.kind), static_cast<int>(kind)) << ::testing::PrintToString(std::string(text));
  EXPECT_EQ(next.size, size) << ::testing::PrintToString(std::string(text));
}

TEST(Utf8, EveryCodePointIsValidAndItsPrefixesAreIncomplete) {
  for (uint32_t code_point = 0; code_point <= 0x10FFFF; ++code_point) {
    if (code_point >= 0xD800 && code_point <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code_point);
    const Utf8Sequence whole = next_utf8(text + "x");
    ASSERT_TRUE(whole.kind == Kind::valid && whole.size == text.size()) << code_point;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const Utf8Sequence part = next_utf8(std::string_view(text).substr(0, cut));
      ASSERT_TRUE(part.kind == Kind::incomplete && part.size == cut) << code_point;
    }
  }
}

TEST(Utf8, SurrogatesAreInvalid) {
  for (uint32_t code_point = 0xD800; code_point <= 0xDFFF; ++code_point) {
    std::string text;
    append_utf8(text, code_point);
    expect_next(text, Kind::invalid, 1);
  }
}

/// The examples of the Unicode standard (table 3-8 and around it): how much one U+FFFD stands for.
TEST(Utf8, MaximalSubparts) {
  expect_next("\xC0\xAF", Kind::invalid, 1);          // overlong
  expect_next("\xE0\x80\xBF", Kind::invalid, 1);      // overlong
  expect_next("\xF0\x81\x82", Kind::invalid, 1);      // overlong
  expect_next("\xF4\x91\x92\x93", Kind::invalid, 1);  // above U+10FFFF
  expect_next("\xFF", Kind::invalid, 1);
  expect_next("\x80", Kind::invalid, 1);
  expect_next("\xE1\x80\xE2", Kind::invalid, 2);
  expect_next("\xF1\x80\x80\xE1", Kind::invalid, 3);
  expect_next(
      "\xF1\x80"
      "A",
      Kind::invalid, 2);
  expect_next("\xE2\x82", Kind::incomplete, 2);
  expect_next("A\xFF", Kind::valid, 1);
}

TEST(Utf8, ValidPrefix) {
  EXPECT_EQ(valid_utf8_prefix(""), 0u);
  EXPECT_EQ(valid_utf8_prefix("a\u00E9\u20AC"), 6u);
  EXPECT_EQ(valid_utf8_prefix("a\u00E9\xFFz"), 3u);
  EXPECT_EQ(valid_utf8_prefix("ab\xE2\x82"), 2u);
}

}  // namespace
}  // namespace contexture
