#include "base/error.h"

#include <gmock/gmock.h>

namespace contexture {
namespace {

TEST(Fail, ThrowsTheFormattedMessage) {
  try {
    fail("{}: tensor {} is cut off", "m.gguf", 7);
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "m.gguf: tensor 7 is cut off");
  }
}

TEST(Printable, LeavesTextAsItIs) {
  EXPECT_EQ(printable("blk.0.attn_q.weight"), "blk.0.attn_q.weight");
  EXPECT_EQ(printable("\xe2\x96\x81the"), "\xe2\x96\x81the");
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, MasksControlBytes) {
  EXPECT_EQ(printable(std::string_view("a\nb\tc\x1b[31m\x7f\0d", 13)), "a?b?c?[31m??d");
}

TEST(Printable, CutsLongText) {
  EXPECT_EQ(printable("abcdef", 4), "abcd...");
  EXPECT_EQ(printable("abcd", 4), "abcd");
  EXPECT_EQ(printable(std::string(1000, 'x')).size(), 83u);
}

}  // namespace
}  // namespace contexture
