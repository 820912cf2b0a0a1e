#include <gtest/gtest.h>

#include "support/sanitized.h"
#include "text/byte_bpe.h"
#include "text_fixtures.h"

namespace contexture {
namespace {

/// A token for each byte, so that a text can be cut anywhere; 256 is control.
Vocabulary bytes_vocabulary() {
  Vocabulary vocabulary;
  vocabulary.algorithm = Vocabulary::Algorithm::byte_bpe;
  vocabulary.pretokenizer = "gpt-2";
  vocabulary.add_begin = false;
  for (int byte = 0; byte < 256; ++byte) vocabulary.pieces.push_back(printable_of_bytes(std::string(1, byte)));
  vocabulary.pieces.push_back("<|end|>");
  vocabulary.types.assign(256, PieceType::normal);
  vocabulary.types.push_back(PieceType::control);
  return vocabulary;
}

/// Its pieces are the two parts of a text, whatever bytes they are.
std::string stream_in_two(const std::string& first, const std::string& second,
                          std::vector<std::string>* parts = nullptr) {
  Vocabulary vocabulary = bytes_vocabulary();
  for (const std::string& piece : {first, second}) {
    vocabulary.pieces.push_back(printable_of_bytes(piece));
    vocabulary.types.push_back(PieceType::normal);
  }
  const Tokenizer tokenizer(vocabulary);
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> got = {decoder.push(257), decoder.push(258), decoder.finish()};
  for (const std::string& part : got) EXPECT_EQ(valid_utf8_prefix(part), part.size());
  if (parts) *parts = got;
  return got[0] + got[1] + got[2];
}

const std::string kReplaced(kReplacementCharacter);

/// What the stream should be, however it is cut: each maximal start of a character that leads nowhere is one U+FFFD.
std::string repaired(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Sequence next = next_utf8(text);
    out += next.kind == Utf8Sequence::Kind::valid ? text.substr(0, next.size) : std::string_view(kReplaced);
    text.remove_prefix(next.size);
  }
  return out;
}

TEST(StreamDecoder, EveryWayToCutATextInTwo) {
  const std::string texts[] = {"a\u00E9\u20AC\U0001F999z",
                               "\u20AC",
                               "\U0001F999",
                               "\xF0\x9F\xA6",
                               "a\xFF"
                               "b",
                               "\xE2\x82"
                               "a",
                               "\xED\xA0\x80",
                               "\xC0\xAF\xF5",
                               "\xF0\x9F\xE2\x82\xAC",
                               "\x80\x80",
                               "\xF4\x90\x80\x80"};
  for (const std::string& text : texts) {
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      ASSERT_EQ(stream_in_two(text.substr(0, cut), text.substr(cut)), repaired(text)) << cut;
    }
  }
}

TEST(StreamDecoder, HandsOutACharacterAsSoonAsItIsWhole) {
  std::vector<std::string> parts;
  stream_in_two("a\xE2\x82",
                "\xAC"
                "b\xC3",
                &parts);
  EXPECT_EQ(parts, (std::vector<std::string>{"a",
                                             "\u20AC"
                                             "b",
                                             kReplaced}));
  stream_in_two("a\xE2\x82", "b", &parts);
  EXPECT_EQ(parts, (std::vector<std::string>{"a", kReplaced + "b", ""}));
  stream_in_two("a\xFF", "b", &parts);
  EXPECT_EQ(parts, (std::vector<std::string>{"a" + kReplaced, "b", ""}));
}

TEST(StreamDecoder, RandomBytesOneByOne) {
  const Tokenizer tokenizer(bytes_vocabulary());
  std::mt19937 random(1);
  for (size_t i = 0; i < sized(2000); ++i) {
    const std::string text =
        test::random_bytes(random, 4) + test::random_text(random, 4) + test::random_bytes(random, 3);
    StreamDecoder decoder(tokenizer);
    std::string streamed;
    for (const char c : text) {
      const std::string part = decoder.push(static_cast<uint8_t>(c));
      ASSERT_EQ(valid_utf8_prefix(part), part.size());
      streamed += part;
    }
    ASSERT_EQ(streamed + decoder.finish(), repaired(text)) << ::testing::PrintToString(text);
  }
}

TEST(StreamDecoder, FinishLeavesNothingBehind) {
  const Tokenizer tokenizer(bytes_vocabulary());
  StreamDecoder decoder(tokenizer);
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.finish(), kReplaced);
  EXPECT_EQ(decoder.finish(), "");
  EXPECT_EQ(decoder.push('a'), "a");
}

TEST(StreamDecoder, ControlTokensAreSilentUnlessAskedFor) {
  const Tokenizer tokenizer(bytes_vocabulary());
  StreamDecoder silent(tokenizer), loud(tokenizer, {}, true);
  EXPECT_EQ(silent.push(256), "");
  EXPECT_EQ(loud.push(256), "<|end|>");
  // A half character before it stays half.
  EXPECT_EQ(loud.push(0xE2), "");
  EXPECT_EQ(loud.push(256), kReplaced + "<|end|>");
}

Vocabulary sentencepiece_vocabulary() {
  Vocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "<s>", "</s>", "\u2581Hi", "\u2581", "there"};
  vocabulary.types = {PieceType::unknown, PieceType::control, PieceType::control,
                      PieceType::normal,  PieceType::normal,  PieceType::normal};
  vocabulary.scores.assign(6, 0);
  vocabulary.unknown = 0, vocabulary.begin = 1, vocabulary.end = 2;
  return vocabulary;
}

std::string stream(const Tokenizer& tokenizer, const std::vector<TokenId>& after, const std::vector<TokenId>& ids) {
  StreamDecoder decoder(tokenizer, after);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

TEST(StreamDecoder, TheSpaceOfATextsStartIsDroppedOnce) {
  const Tokenizer tokenizer(sentencepiece_vocabulary());
  EXPECT_EQ(stream(tokenizer, {}, {3, 3}), "Hi Hi");
  EXPECT_EQ(stream(tokenizer, {1}, {4, 3}), " Hi");
  EXPECT_EQ(stream(tokenizer, {1, 3}, {3}), " Hi");
  EXPECT_EQ(stream(tokenizer, {}, {5, 3}), "there Hi");
  // A control token starts a text anew: an answer after "<|assistant|>" has no leading space.
  EXPECT_EQ(stream(tokenizer, {1, 3, 2}, {3, 3}), "Hi Hi");
}

TEST(StreamDecoder, StreamsWhatDecodeGives) {
  const Tokenizer tokenizer(sentencepiece_vocabulary());
  std::mt19937 random(2);
  for (size_t i = 0; i < sized(500); ++i) {
    std::vector<TokenId> ids;
    for (size_t n = random() % 12; n > 0; --n) ids.push_back(static_cast<TokenId>(random() % 6));
    for (const bool show_special : {false, true}) {
      StreamDecoder decoder(tokenizer, {}, show_special);
      std::string streamed;
      for (const TokenId id : ids) streamed += decoder.push(id);
      ASSERT_EQ(streamed + decoder.finish(), tokenizer.decode(ids, show_special));
    }
  }
}

}  // namespace
}  // namespace contexture
