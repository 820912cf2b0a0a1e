#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include "sentencepiece_writer.h"
#include "support/sanitized.h"
#include "text_fixtures.h"

/// Our SentencePiece BPE against the library: the same ids for every text.
namespace contexture {
namespace {

using test::kData;
using test::SentencePieceWriter;

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

class Pair {
 public:
  explicit Pair(const std::string& file) : ours_(vocabulary_from_bytes(as_bytes(file), "test")) {
    const auto status = library_.LoadFromSerializedProto(file);
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }

  void expect_equal(const std::string& text) {
    const std::vector<int> expected = library_.EncodeAsIds(text);
    const std::vector<TokenId> actual = ours_.encode(text, {.add_begin = false, .parse_special = false});
    ASSERT_EQ(actual, expected) << "text: " << ::testing::PrintToString(text);
  }

  const Tokenizer& ours() const { return ours_; }
  sentencepiece::SentencePieceProcessor& library() { return library_; }

 private:
  Tokenizer ours_;
  sentencepiece::SentencePieceProcessor library_;
};

TEST(SentencePieceOracle, Llama2OnRandomUnicode) {
  SKIP_WITHOUT(kData + "llama2/tokenizer.model");
  Pair pair(test::read_file(kData + "llama2/tokenizer.model"));
  std::mt19937 random(1);
  for (size_t i = 0; i < sized(20000); ++i) pair.expect_equal(test::random_text(random, random() % 60));
  for (size_t i = 0; i < sized(20); ++i) pair.expect_equal(test::random_text(random, 5000));
  pair.expect_equal(test::english_like(random, sized(200'000)));
}

TEST(SentencePieceOracle, Llama2OnHardTexts) {
  SKIP_WITHOUT(kData + "llama2/tokenizer.model");
  Pair pair(test::read_file(kData + "llama2/tokenizer.model"));
  using namespace std::string_literals;
  for (const std::string& text :
       {""s, " "s, "  "s, "   a  b   "s, "\0a\0"s, "\n\n\n"s, "<s>"s, "<0x0A>"s, "<unk>"s, "\u2581"s, "a\u2581b"s,
        "\u2047"s, std::string(3000, ' '), std::string(3000, 'a'), std::string(3000, '=')}) {
    pair.expect_equal(text);
  }
}

TEST(SentencePieceOracle, Llama2DecodesAsTheLibraryDoes) {
  SKIP_WITHOUT(kData + "llama2/tokenizer.model");
  Pair pair(test::read_file(kData + "llama2/tokenizer.model"));
  std::mt19937 random(2);
  for (size_t i = 0; i < sized(2000); ++i) {
    const std::string text = test::random_text(random, random() % 40);
    const std::vector<int> ids = pair.library().EncodeAsIds(text);
    ASSERT_EQ(pair.ours().decode(ids), pair.library().DecodeIds(ids)) << ::testing::PrintToString(text);
  }
}

/// Vocabularies over the letters a to d and the space, with few distinct scores so that ties are common. Most of them
/// could not have come from training: that is where orders of merging differ.
SentencePieceWriter random_model(std::mt19937& random, bool with_bytes) {
  SentencePieceWriter writer;
  if (with_bytes) writer.add_bytes();
  const std::string letters[] = {"a", "b", "c", "d", "\u2581", "\u00E9"};
  std::vector<std::string> texts;
  for (const std::string& letter : letters) {
    if (random() % 5 != 0) texts.push_back(letter);
  }
  for (int i = 0; i < 40; ++i) {
    std::string text;
    for (size_t n = 2 + random() % 4; n > 0; --n) text += letters[random() % std::size(letters)];
    texts.push_back(text);
  }
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  std::shuffle(texts.begin(), texts.end(), random);
  for (const std::string& text : texts) {
    writer.pieces.push_back({text, -static_cast<float>(random() % 12), random() % 12 == 0 ? 4 : 1});
  }
  return writer;
}

std::string random_letters(std::mt19937& random) {
  static const std::string kLetters[] = {"a", "b", "c", "d", " ", "\u00E9", "x", "\u2581", "\u96EA"};
  std::string text;
  for (size_t n = random() % 100; n > 0; --n) text += kLetters[random() % (random() % 4 == 0 ? 9 : 5)];
  return text;
}

TEST(SentencePieceOracle, RandomVocabularies) {
  std::mt19937 random(3);
  for (int model = 0; model < 200; ++model) {
    SentencePieceWriter writer = random_model(random, model % 2 == 0);
    writer.add_dummy_prefix = model % 3 != 0;
    writer.remove_extra_whitespaces = model % 4 == 1;
    Pair pair(writer.write());
    for (int i = 0; i < 60; ++i) {
      pair.expect_equal(random_letters(random));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(SentencePieceOracle, UserDefinedPiecesArePartOfTheText) {
  SentencePieceWriter writer;
  for (const char* text : {"\u2581", "a", "b", "ab", "\u2581a"}) writer.pieces.push_back({text, 0, 1});
  for (const char* text : {"<x>", "<x>y", "\u2581\u2581", "ba"}) writer.pieces.push_back({text, 0, 4});
  Pair pair(writer.write());
  for (const char* text : {"<x>", "a<x>a", "<x><x>y", "a  b", "   a", "aba", "abba", "<x"}) pair.expect_equal(text);
}

TEST(SentencePieceOracle, UnusedPiecesAreMergedThroughButNotGivenOut) {
  SentencePieceWriter writer;
  writer.add_dummy_prefix = false;
  for (const char* text : {"a", "b", "c", "d"}) writer.pieces.push_back({text, -9, 1});
  writer.pieces.push_back({"ab", -1, 5});
  writer.pieces.push_back({"abc", -2, 1});
  writer.pieces.push_back({"cd", -3, 5});
  writer.pieces.push_back({"abcd", -4, 5});
  Pair pair(writer.write());
  for (const char* text : {"ab", "abc", "cd", "abcd", "dcab", "cdcd", "ababab"}) pair.expect_equal(text);
}

TEST(SentencePieceOracle, TextsTheVocabularyCannotWrite) {
  SentencePieceWriter writer;
  for (const char* text : {"a", "b", "ab"}) writer.pieces.push_back({text, 0, 1});
  Pair pair(writer.write());  // no space piece, no bytes: runs of the unknown are one token
  for (const char* text : {"", "ab", "xx ab yy", "axb", "x",
                           "\u96EA\u96EA"
                           "a"})
    pair.expect_equal(text);
}

}  // namespace
}  // namespace contexture
