#include "text/byte_bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "support/sanitized.h"
#include "text_fixtures.h"

namespace contexture {
namespace {

using test::kData;

/// The 256 bytes, then the results of merges; ids in that order.
Vocabulary vocabulary_of(const std::vector<std::pair<std::string, std::string>>& merges) {
  Vocabulary vocabulary;
  vocabulary.algorithm = Vocabulary::Algorithm::byte_bpe;
  vocabulary.pretokenizer = "gpt-2";
  vocabulary.add_begin = false;
  for (int byte = 0; byte < 256; ++byte) vocabulary.pieces.push_back(printable_of_bytes(std::string(1, byte)));
  for (const auto& [left, right] : merges) {
    const std::string l = printable_of_bytes(left), r = printable_of_bytes(right);
    vocabulary.pieces.push_back(l + r);
    vocabulary.merges.push_back(l + " " + r);
  }
  vocabulary.types.assign(vocabulary.pieces.size(), PieceType::normal);
  return vocabulary;
}

std::vector<TokenId> encode(const ByteBpe& bpe, std::string_view text) {
  std::vector<TokenId> ids;
  bpe.encode(text, ids);
  return ids;
}

TEST(ByteBpe, TheAlphabetIsGpt2s) {
  EXPECT_EQ(printable_of_bytes(" \n"), "\u0120\u010A");
  EXPECT_EQ(printable_of_bytes("a\xC3\xA9"), "a\u00C3\u00A9");
  EXPECT_EQ(printable_of_bytes(std::string("\0\x7F\xAD", 3)), "\u0100\u0121\u0143");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(bytes_of_printable(printable_of_bytes(all)), all);
  // What is not written in it stands for itself.
  for (const char* text : {"<|a b|>", "\u4E2D", "\u0144", "a\xFF"}) EXPECT_EQ(bytes_of_printable(text), text);
}

/// As GPT-2's program does it: strings, and the pair of lowest rank until none is left.
std::vector<std::string> plain_bpe(const std::map<std::pair<std::string, std::string>, size_t>& ranks,
                                   const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    size_t best = 0, best_rank = SIZE_MAX;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find({parts[i], parts[i + 1]});
      if (found != ranks.end() && found->second < best_rank) best = i, best_rank = found->second;
    }
    if (best_rank == SIZE_MAX) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + best + 1);
  }
}

TEST(ByteBpe, EqualsThePlainAlgorithmOnRandomMerges) {
  std::mt19937 random(1);
  for (size_t round = 0; round < sized(100); ++round) {
    std::vector<std::string> known = {"a", "b", "c", "\xC3", "\xA9"};
    std::vector<std::pair<std::string, std::string>> merges;
    std::map<std::pair<std::string, std::string>, size_t> ranks;
    std::map<std::string, TokenId> ids;
    for (int byte = 0; byte < 256; ++byte) ids[std::string(1, byte)] = byte;
    for (int i = 0; i < 40; ++i) {
      const std::string left = known[random() % known.size()], right = known[random() % known.size()];
      if (ids.contains(left + right)) continue;
      ranks[{left, right}] = merges.size();
      ids[left + right] = 256 + static_cast<TokenId>(merges.size());
      merges.emplace_back(left, right);
      known.push_back(left + right);
    }
    const ByteBpe bpe(vocabulary_of(merges));
    for (int i = 0; i < 50; ++i) {
      std::string word;
      for (size_t n = random() % 120; n > 0; --n)
        word += std::string("a\0b\0c\0\u00E9", 8).c_str() + 2 * (random() % 4);
      std::vector<TokenId> expected;
      for (const std::string& part : plain_bpe(ranks, word)) expected.push_back(ids.at(part));
      ASSERT_EQ(encode(bpe, word), expected) << word;
    }
  }
}

TEST(ByteBpe, Llama3EqualsThePlainAlgorithm) {
  const std::string path = kData + "llama3/tokenizer.model";
  SKIP_WITHOUT(path);
  const Vocabulary vocabulary = vocabulary_from_file(path);
  const ByteBpe bpe(vocabulary);
  const Pretokenizer pretokenizer("llama-bpe");
  std::map<std::string, TokenId, std::less<>> ranks;
  for (TokenId id = 0; id < 128000; ++id) ranks[bytes_of_printable(vocabulary.pieces[id])] = id;
  std::mt19937 random(2);
  for (size_t round = 0; round < sized(300); ++round) {
    const std::string text = test::random_text(random, 60) + test::english_like(random, 100);
    std::vector<TokenId> expected;
    for (const std::string_view word : pretokenizer.split(text)) {
      // tiktoken: a word that is a token is that token; else the pair whose concatenation has the lowest rank merges.
      std::vector<std::string> parts;
      if (ranks.contains(word)) {
        parts.emplace_back(word);
      } else {
        for (const char c : word) parts.emplace_back(1, c);
      }
      for (;;) {
        size_t best = parts.size();
        TokenId best_rank = INT32_MAX;
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
          const auto found = ranks.find(parts[i] + parts[i + 1]);
          if (found != ranks.end() && found->second < best_rank) best = i, best_rank = found->second;
        }
        if (best == parts.size()) break;
        parts[best] += parts[best + 1];
        parts.erase(parts.begin() + best + 1);
      }
      for (const std::string& part : parts) expected.push_back(ranks.at(part));
    }
    ASSERT_EQ(encode(bpe, text), expected) << ::testing::PrintToString(text);
  }
}

TEST(ByteBpe, AWordThatIsATokenIsTakenWholeWhereTheKindSaysSo) {
  Vocabulary vocabulary = vocabulary_of({{"a", "b"}, {"b", "c"}});
  vocabulary.pieces.push_back("abc");  // no merge leads there: "ab" comes first
  vocabulary.types.push_back(PieceType::normal);
  EXPECT_EQ(encode(ByteBpe(vocabulary), "abc"), (std::vector<TokenId>{256, 'c'}));
  vocabulary.pretokenizer = "llama-bpe";
  EXPECT_EQ(encode(ByteBpe(vocabulary), "abc"), (std::vector<TokenId>{258}));
}

TEST(ByteBpe, AMergeWhoseResultIsNoPieceGoesOnAndIsWrittenInBytes) {
  Vocabulary vocabulary = vocabulary_of({{"a", "b"}, {"ab", "c"}});
  vocabulary.pieces[256] = "zz";
  const ByteBpe bpe(vocabulary);
  EXPECT_EQ(encode(bpe, "abc"), (std::vector<TokenId>{257}));
  EXPECT_EQ(encode(bpe, "ab"), (std::vector<TokenId>{'a', 'b'}));
}

TEST(ByteBpe, InvalidBytesAreWordsOfTheirOwn) {
  const ByteBpe bpe(vocabulary_of({{"\xC3", "\xA9"}, {"\xC3", "\xC3"}, {"a", "b"}}));
  EXPECT_EQ(encode(bpe, "\u00E9"), (std::vector<TokenId>{256}));
  EXPECT_EQ(encode(bpe,
                   "ab\xC3\xC3"
                   "ab"),
            (std::vector<TokenId>{258, 0xC3, 0xC3, 258}));
}

TEST(ByteBpe, AByteWithoutAPieceBecomesUnknownOrTheReplacementCharacter) {
  Vocabulary vocabulary = vocabulary_of({});
  vocabulary.pieces[0xFF] = "<unk>";
  EXPECT_EQ(encode(ByteBpe(vocabulary), "a\xFF"), (std::vector<TokenId>{'a', 0xEF, 0xBF, 0xBD}));
  vocabulary.unknown = 0xFF;
  EXPECT_EQ(encode(ByteBpe(vocabulary), "a\xFF"), (std::vector<TokenId>{'a', 0xFF}));
  vocabulary.unknown.reset();
  vocabulary.pieces[0xBF] = "other";
  EXPECT_THAT([&] { encode(ByteBpe(vocabulary), "a\xFF"); },
              ::testing::ThrowsMessage<Error>(::testing::HasSubstr("0xFF")));
}

}  // namespace
}  // namespace contexture
