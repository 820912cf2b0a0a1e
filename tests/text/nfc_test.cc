#include "text/nfc.h"

#include <gtest/gtest.h>

#include <chrono>

#include "support/sanitized.h"
#include "text_fixtures.h"

namespace contexture {
namespace {

/// Expected: Python's unicodedata.normalize("NFC", ...).
TEST(Nfc, ComposesAndOrders) {
  EXPECT_EQ(nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(nfc("\u00E9 plain"), "\u00E9 plain");
  EXPECT_EQ(nfc("q\u0307\u0323"), "q\u0323\u0307");  // marks in the order of their classes
  EXPECT_EQ(nfc("d\u0307\u0323"), "\u1E0D\u0307");   // of which the first is taken in
  EXPECT_EQ(nfc("\u212B\u2126"), "\u00C5\u03A9");    // Angstrom, Ohm
  EXPECT_EQ(nfc("\u1112\u1161\u11AB"), "\uD55C");    // Hangul
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093C");          // excluded from composition
  EXPECT_EQ(nfc("\U0001D15E"), "\U0001D157\U0001D165");
  EXPECT_EQ(nfc("\uFB01 \u00BD"), "\uFB01 \u00BD");  // compatibility is not touched
  EXPECT_EQ(nfc(std::string_view("a\0e\u0301", 5)), std::string("a\0\u00E9", 4));
}

TEST(Nfc, BytesThatAreNotUtf8Stay) {
  EXPECT_EQ(nfc("e\u0301\xFF\xC3"
                "e\u0301\xE4\xB8"),
            "\u00E9\xFF\xC3\u00E9\xE4\xB8");
  EXPECT_EQ(nfc("\xED\xA0\x80"), "\xED\xA0\x80");  // a surrogate
}

TEST(Nfc, IsIdempotent) {
  std::mt19937 random(2);
  for (size_t i = 0; i < sized(2000); ++i) {
    const std::string text = nfc(test::random_text(random, 40));
    ASSERT_EQ(nfc(text), text);
  }
}

/// A quarter of a million marks that all have to change places.
TEST(Nfc, ManyMarksTakeNoQuadraticTime) {
  std::string text = "a";
  for (int i = 0; i < 125'000; ++i) text += "\u0301\u0323";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(nfc(text).substr(0, 5), "\u1EA1\u0323");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 5);
}

}  // namespace
}  // namespace contexture
