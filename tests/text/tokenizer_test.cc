#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "support/sanitized.h"
#include "text/byte_bpe.h"
#include "text_fixtures.h"

namespace contexture {
namespace {

using test::kData;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Vocabulary small_sentencepiece() {
  Vocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a", "<user>", "<x>"};
  vocabulary.types.assign(vocabulary.pieces.size(), PieceType::normal);
  vocabulary.types[0] = PieceType::unknown;
  for (const int id : {1, 2, 7}) vocabulary.types[id] = PieceType::control;
  vocabulary.types[8] = PieceType::user_defined;
  vocabulary.scores.assign(vocabulary.pieces.size(), 0);
  vocabulary.unknown = 0, vocabulary.begin = 1, vocabulary.end = 2;
  vocabulary.end_tokens = {2, 7};
  return vocabulary;
}

TEST(Tokenizer, BeginAndEndTokensAsTheFileAsks) {
  Vocabulary vocabulary = small_sentencepiece();
  EXPECT_THAT(Tokenizer(vocabulary).encode("a"), ElementsAre(1, 6));
  EXPECT_THAT(Tokenizer(vocabulary).encode("a", {.add_begin = false}), ElementsAre(6));
  EXPECT_THAT(Tokenizer(vocabulary).encode(""), ElementsAre(1));
  vocabulary.add_end = true;
  EXPECT_THAT(Tokenizer(vocabulary).encode("a"), ElementsAre(1, 6, 2));
  EXPECT_THAT(Tokenizer(vocabulary).encode("a", {.add_begin = false}), ElementsAre(6));
  vocabulary.add_begin = false;
  EXPECT_THAT(Tokenizer(vocabulary).encode("a"), ElementsAre(6, 2));
}

TEST(Tokenizer, SpecialTokensAreParsedOrTakenAsText) {
  const Tokenizer tokenizer(small_sentencepiece());
  EXPECT_THAT(tokenizer.encode("a<user>b", {.add_begin = false}), ElementsAre(6, 7, 3, 5));
  const std::vector<TokenId> as_text = tokenizer.encode("a<user>b", {.add_begin = false, .parse_special = false});
  EXPECT_THAT(as_text, ElementsAre(6, 0, 5));  // the run of unknown characters is one token
  // User-defined pieces are found either way.
  EXPECT_THAT(tokenizer.encode("a<x>b", {.add_begin = false}), ElementsAre(6, 8, 3, 5));
  EXPECT_THAT(tokenizer.encode("a<x>b", {.add_begin = false, .parse_special = false}), ElementsAre(6, 8, 3, 5));
}

TEST(Tokenizer, ControlTokensAreNoneInContent) {
  const Tokenizer tokenizer(small_sentencepiece());
  const auto encoded = [&](std::string_view text, const std::vector<ByteRange>& content) {
    return tokenizer.encode(text, {.add_begin = false, .content = content});
  };
  EXPECT_THAT(encoded("a<user>b<user>", {{1, 7}}), ElementsAre(6, 0, 5, 7)) << "the one that is content";
  EXPECT_THAT(encoded("a<user>b<user>", {{13, 14}}), ElementsAre(6, 7, 3, 5, 0)) << "its last byte is";
  EXPECT_THAT(encoded("a<user>b<user>", {{0, 1}, {7, 8}}), ElementsAre(6, 7, 3, 5, 7)) << "what is beside it is";
  EXPECT_THAT(encoded("a<x>b", {{0, 5}}), ElementsAre(6, 8, 3, 5)) << "user-defined pieces are found in any text";
}

TEST(Tokenizer, ControlTokensThatAreNormalizedAreNoneInContentEither) {
  Vocabulary vocabulary = small_sentencepiece();
  vocabulary.normalized = {7};
  vocabulary.collapse_spaces = true;
  vocabulary.add_space_prefix = false;
  const Tokenizer tokenizer(vocabulary);
  const std::string text = "a  \u2581 <user>  b   <user>";
  const auto users = [&](const std::vector<ByteRange>& content) {
    const std::vector<TokenId> ids = tokenizer.encode(text, {.add_begin = false, .content = content});
    return std::count(ids.begin(), ids.end(), 7);
  };
  EXPECT_EQ(users({}), 2);
  EXPECT_EQ(users({{0, 6}}), 2);
  EXPECT_EQ(users({{7, 13}}), 1);
  EXPECT_EQ(users({{0, 7}, {15, 17}}), 2);
  EXPECT_EQ(users({{15, text.size()}}), 1);
  EXPECT_EQ(users({{7, 13}, {15, text.size()}}), 0);
}

TEST(Tokenizer, WhereATextStartsItHasItsSpace) {
  Vocabulary vocabulary = small_sentencepiece();
  EXPECT_THAT(Tokenizer(vocabulary).encode("<user>a<user>"), ElementsAre(1, 7, 6, 7));
  EXPECT_EQ(Tokenizer(vocabulary).decode(std::vector<TokenId>{1, 7, 6, 7, 6, 6}, true), "<s><user>a<user>a a");
  vocabulary.add_space_prefix = false;
  EXPECT_THAT(Tokenizer(vocabulary).encode("<user>a a"), ElementsAre(1, 7, 4, 6));
  EXPECT_EQ(Tokenizer(vocabulary).decode(std::vector<TokenId>{6, 6}), " a a");
}

TEST(Tokenizer, AUserDefinedPieceRestartsTheTextOrIsAPartOfIt) {
  Vocabulary vocabulary = small_sentencepiece();
  EXPECT_TRUE(Tokenizer(vocabulary).restarts_text(8));
  EXPECT_THAT(Tokenizer(vocabulary).encode("<x>a", {.add_begin = false}), ElementsAre(8, 6));
  vocabulary.user_defined_restarts_text = false;
  const Tokenizer tokenizer(vocabulary);
  EXPECT_FALSE(tokenizer.restarts_text(8));
  EXPECT_TRUE(tokenizer.restarts_text(7));
  EXPECT_THAT(tokenizer.encode("<x>a", {.add_begin = false}), ElementsAre(3, 8, 4));
  for (const std::string text : {"<x>a", "a<x> a", " <x><x>"})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(Tokenizer, CollapsesSpacesWhereTheFileAsks) {
  Vocabulary vocabulary = small_sentencepiece();
  vocabulary.collapse_spaces = true;
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.encode("  a   b "), tokenizer.encode("a b"));
  EXPECT_THAT(tokenizer.encode("   ", {.add_begin = false}), ElementsAre());
}

TEST(Tokenizer, SpecialPiecesThatSwallowTheSpaceAfterThem) {
  Vocabulary vocabulary = small_sentencepiece();
  vocabulary.strips_right = {7};
  const Tokenizer tokenizer(vocabulary);
  EXPECT_THAT(tokenizer.encode("<user> \n\ta", {.add_begin = false}), ElementsAre(7, 6));
  EXPECT_THAT(tokenizer.encode("<x> a", {.add_begin = false}), ElementsAre(8, 3, 6));
}

TEST(Tokenizer, EndTokensAndPieces) {
  const Tokenizer tokenizer(small_sentencepiece());
  EXPECT_TRUE(tokenizer.is_end(2));
  EXPECT_TRUE(tokenizer.is_end(7));
  EXPECT_FALSE(tokenizer.is_end(1));
  EXPECT_FALSE(tokenizer.is_end(-1));
  EXPECT_EQ(tokenizer.piece(6), "\u2581a");
  EXPECT_EQ(tokenizer.bytes(6), " a");
  EXPECT_EQ(tokenizer.bytes(7), "");
  EXPECT_EQ(tokenizer.bytes(7, true), "<user>");
  EXPECT_EQ(tokenizer.bytes(0), " \u2047 ");
  EXPECT_EQ(tokenizer.size(), 9u);
}

TEST(Tokenizer, AnIdOutsideTheVocabularyIsRefused) {
  const Tokenizer tokenizer(small_sentencepiece());
  StreamDecoder decoder(tokenizer);
  for (const TokenId id : {-1, 9, INT32_MAX, INT32_MIN}) {
    EXPECT_THROW(tokenizer.bytes(id), Error);
    EXPECT_THROW(tokenizer.piece(id), Error);
    EXPECT_THROW(tokenizer.decode(std::vector<TokenId>{id}), Error);
    EXPECT_THROW(decoder.push(id), Error);
    EXPECT_THROW(tokenizer.restarts_text(id), Error);
  }
}

TEST(Tokenizer, ByteFallback) {
  Vocabulary vocabulary = small_sentencepiece();
  const TokenId first_byte = static_cast<TokenId>(vocabulary.pieces.size());
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary.pieces.push_back(fmt::format("<0x{:02X}>", byte));
    vocabulary.types.push_back(PieceType::byte);
    vocabulary.scores.push_back(0);
  }
  const Tokenizer tokenizer(vocabulary);
  EXPECT_THAT(tokenizer.encode("a\n", {.add_begin = false}), ElementsAre(6, first_byte + '\n'));
  EXPECT_THAT(tokenizer.encode("\u00E9\xFF", {.add_begin = false}),
              ElementsAre(3, first_byte + 0xC3, first_byte + 0xA9, first_byte + 0xFF));
  EXPECT_THAT(tokenizer.encode("<0x0A>", {.add_begin = false, .parse_special = false}).size(), 7u);  // text, no byte
  std::mt19937 random(1);
  for (size_t i = 0; i < sized(500); ++i) {
    const std::string text = test::random_bytes(random, random() % 30);
    if (text.find("\u2581") != text.npos) continue;
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

TEST(Tokenizer, WithoutAWayToWriteATextItSaysSo) {
  Vocabulary vocabulary = small_sentencepiece();
  vocabulary.unknown.reset();
  EXPECT_THAT([&] { Tokenizer(vocabulary).encode("z"); }, ThrowsMessage<Error>(HasSubstr("\"z\"")));
}

TEST(Tokenizer, AVocabularyThatContradictsItselfIsRefused) {
  const auto expect_refused = [](auto&& change, const char* message) {
    Vocabulary vocabulary = small_sentencepiece();
    change(vocabulary);
    EXPECT_THAT([&] { Tokenizer{vocabulary}; }, ThrowsMessage<Error>(HasSubstr(message)));
  };
  expect_refused([](Vocabulary& v) { v.pieces.clear(); }, "empty");
  expect_refused([](Vocabulary& v) { v.types.pop_back(); }, "8 types");
  expect_refused([](Vocabulary& v) { v.scores.pop_back(); }, "8 scores");
  expect_refused([](Vocabulary& v) { v.begin = 9; }, "begin token is 9");
  expect_refused([](Vocabulary& v) { v.end = -1; }, "end token is -1");
  expect_refused([](Vocabulary& v) { v.unknown = 100; }, "unknown token is 100");
  expect_refused([](Vocabulary& v) { v.end_tokens.push_back(9); }, "end token is 9");
  expect_refused([](Vocabulary& v) { v.strips_right.push_back(9); }, "9");
  expect_refused([](Vocabulary& v) { v.begin.reset(); }, "none");
  expect_refused([](Vocabulary& v) { v.scores[4] = NAN; }, "score of piece 4");
  expect_refused([](Vocabulary& v) { v.pieces[5] = std::string(2000, 'x'); }, "2000 bytes");
  expect_refused([](Vocabulary& v) { v.types[5] = PieceType::byte; }, "name a byte");
  expect_refused([](Vocabulary& v) { v.types[5] = static_cast<PieceType>(9); }, "type");
  expect_refused(
      [](Vocabulary& v) {
        v.algorithm = Vocabulary::Algorithm::byte_bpe;
        v.pretokenizer = "gpt-2";
        v.merges = {"ab"};
      },
      "merge 0");
  expect_refused(
      [](Vocabulary& v) {
        v.algorithm = Vocabulary::Algorithm::byte_bpe;
        v.pretokenizer = "unheard-of";
      },
      "unheard-of");
}

TEST(Tokenizer, ATextTooLongIsRefused) {
  const Tokenizer tokenizer(small_sentencepiece());
  // Never read: the length alone is refused.
  const std::string_view endless("a", (size_t{1} << 30) + 1);
  EXPECT_THAT([&] { tokenizer.encode(endless); }, ThrowsMessage<Error>(HasSubstr("parts")));
}

TEST(Tokenizer, Phi3sChatTokens) {
  const std::string path = kData + "vocab/ggml-vocab-phi-3.gguf";
  SKIP_WITHOUT(path);
  const Tokenizer tokenizer(test::open_vocabulary(path));
  const std::vector<TokenId> hi = tokenizer.encode("Hi", {.add_begin = false});
  std::vector<TokenId> expected = {1, 32010};  // the newlines after them are swallowed
  expected.insert(expected.end(), hi.begin(), hi.end());
  expected.insert(expected.end(), {32007, 32001});
  EXPECT_EQ(tokenizer.encode("<|user|>\nHi<|end|>\n<|assistant|>\n"), expected);
  EXPECT_TRUE(tokenizer.is_end(32007));
  EXPECT_TRUE(tokenizer.is_end(32000));
  EXPECT_FALSE(tokenizer.is_end(32001));
}

TEST(Tokenizer, Llama3sChatTokens) {
  const std::string path = kData + "llama3/tokenizer.model";
  SKIP_WITHOUT(path);
  const Tokenizer tokenizer(test::open_vocabulary(path));
  EXPECT_EQ(tokenizer.size(), 128256u);
  EXPECT_THAT(tokenizer.encode("<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"),
              ElementsAre(128000, 128006, 882, 128007, 271, 13347, 128009));
  for (const TokenId id : {128001, 128008, 128009}) EXPECT_TRUE(tokenizer.is_end(id));
  EXPECT_FALSE(tokenizer.is_end(128000));
  EXPECT_EQ(tokenizer.piece(128010), "<|python_tag|>");
  EXPECT_EQ(tokenizer.piece(128011), "<|reserved_special_token_2|>");
  EXPECT_EQ(tokenizer.piece(128255), "<|reserved_special_token_246|>");
}

TEST(Tokenizer, SeveralThreadsAtOnce) {
  const std::string path = kData + "vocab/ggml-vocab-gpt-2.gguf";
  SKIP_WITHOUT(path);
  const Tokenizer tokenizer(test::open_vocabulary(path));
  std::mt19937 random(1);
  const std::string text = test::random_text(random, 3000);
  const std::vector<TokenId> expected = tokenizer.encode(text);
  std::vector<std::vector<TokenId>> got(4);
  {
    std::vector<std::jthread> threads;
    for (auto& ids : got) threads.emplace_back([&] { ids = tokenizer.encode(text); });
  }
  for (const auto& ids : got) EXPECT_EQ(ids, expected);
}

TEST(Tokenizer, TheTokenizerOfStories260k) {
  const std::string path = kData + "stories260k/tok512.bin";
  SKIP_WITHOUT(path);
  const Tokenizer tokenizer(vocabulary_from_file(path, 512));
  // The reference's greedy continuation of the begin token.
  EXPECT_THAT(tokenizer.encode("Once upon a time"), ElementsAre(1, 403, 407, 261, 378));
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = test::random_text(random, random() % 50);
    if (text.find("\u2581") != text.npos) continue;
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << ::testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace contexture
