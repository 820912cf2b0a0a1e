#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "huggingface_writer.h"

/// tokenizer.json's added tokens: where they are found, what they swallow, and what merges make of their texts. The ids
/// of the trials are those of Hugging Face's library; the others follow from its source (added_vocabulary.rs: matches
/// in the given text, then in the normalized rest), which is not there to be asked.
namespace contexture {
namespace {

using nlohmann::json;
using test::kData;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr EncodeOptions kUnparsed{.add_begin = false, .parse_special = false};

json token_json(const char* content, TokenId id, bool is_special, json flags = json::object()) {
  json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", is_special}};
  token.update(flags);
  return token;
}

Vocabulary vocabulary_of_json(const json& file) {
  const std::string text = file.dump();
  return vocabulary_from_bytes(std::as_bytes(std::span(text)), "some.json");
}

/// As it is read, and as GGUF brings it back.
std::vector<Tokenizer> both(const json& file) {
  const Vocabulary vocabulary = vocabulary_of_json(file);
  Metadata metadata;
  vocabulary_to_metadata(vocabulary, metadata);
  std::vector<Tokenizer> tokenizers;
  tokenizers.emplace_back(vocabulary);
  tokenizers.emplace_back(vocabulary_from_metadata(metadata));
  return tokenizers;
}

void expect_ids(const json& file, const std::string& text, const std::vector<TokenId>& ids) {
  for (const Tokenizer& tokenizer : both(file)) EXPECT_THAT(tokenizer.encode(text), ElementsAreArray(ids)) << text;
}

/// Pieces <unk> (0), <s>, </s>, ▁, a, b (5), ▁a, ab, ▁▁ (8), <0x0A> (9), and the added <u> (10).
json marked_with(json flags = json::object(), const char* content = "<u>") {
  return {{"added_tokens",
           {token_json("<unk>", 0, true), token_json("<s>", 1, true), token_json("</s>", 2, true),
            token_json(content, 10, false, flags)}},
          {"normalizer", json::parse(test::kMarksJson)},
          {"pre_tokenizer", nullptr},
          {"model", test::small_model_json()}};
}

json metaspace_with(const char* scheme, json flags = json::object(), const char* content = "<u>") {
  json file = marked_with(std::move(flags), content);
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", false}};
  return file;
}

/// Pieces a (0), b, c, Ġ, ab, abc (5), Ġa, the special <e> (7) and the added one (8).
json byte_level_with(const char* content, json flags = json::object(), TokenId id = 8) {
  return {{"added_tokens", {token_json("<e>", 7, true), token_json(content, id, false, flags)}},
          {"pre_tokenizer", json::parse(test::kGpt2Json)},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"Ġ", 3}, {"ab", 4}, {"abc", 5}, {"Ġa", 6}}},
            {"merges", {"a b", "ab c", "Ġ a"}}}}};
}

TEST(AddedTokens, StrippingLeavesAMarkThatStandsInTheText) {
  const std::string path = kData + "trials/rstrip-and-mark";
  SKIP_WITHOUT(path + ".json");
  const Tokenizer tokenizer(vocabulary_from_file(path + ".tokenizer.json"));
  const json cases = json::parse(test::read_file(path + ".json"));
  ASSERT_FALSE(cases.empty());
  for (const json& trial : cases) {
    const std::string text = trial.at("text");
    EXPECT_EQ(tokenizer.encode(text, {.add_begin = false}), trial.at("right").get<std::vector<TokenId>>()) << text;
  }
}

TEST(AddedTokens, AMarkIsNoWhiteSpaceOnEitherSide) {
  expect_ids(marked_with({{"lstrip", true}, {"rstrip", true}}), "a▁ <u> ▁a", {6, 3, 10, 8, 4});
  expect_ids(metaspace_with("always", {{"lstrip", true}, {"rstrip", true}}), "a▁ <u> ▁a", {6, 3, 10, 6});
}

TEST(AddedTokens, AMarkAndASpaceInTheirTextsAreNotTheSame) {
  expect_ids(marked_with(json::object(), "<▁>"), "<▁>< >", {10, 3, 0, 3, 0});
  expect_ids(marked_with(json::object(), "< >"), "< ><▁>", {10, 3, 0, 3, 0});
  // Gemma's: where a text has spaces for the marks, merges give the piece.
  json file = marked_with(json::object(), "▁▁");
  file["added_tokens"][3]["id"] = 8;
  file["normalizer"] = json::parse(R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})");
  expect_ids(file, "b  b", {5, 8, 5});
  expect_ids(file, "b▁▁b", {5, 8, 5});
  expect_ids(file, "b ▁b", {5, 8, 5});
}

TEST(AddedTokens, WhatOneSwallowedIsLookedThroughForTheNext) {
  json file = byte_level_with("\n");
  file["added_tokens"][0]["rstrip"] = true;
  expect_ids(file, "<e> \n a", {7, 8, 6});
  expect_ids(file, "<e>  a", {7, 0});
}

TEST(AddedTokens, NormalizedOnesAreLookedForAfterTheOthers) {
  expect_ids(byte_level_with("a<e>"), "a<e>", {8});
  expect_ids(byte_level_with("a<e>", {{"normalized", true}}), "a<e>", {0, 7});
}

TEST(AddedTokens, NormalizedOnesKnowThePrefixAndTheMarks) {
  // "▁<u>" is looked for, and what follows it gets no "▁" of its own.
  const json file = marked_with({{"normalized", true}});
  expect_ids(file, "<u>", {10});
  expect_ids(file, "a <u>b", {6, 10, 5});
  expect_ids(file, "a▁<u> b", {6, 10, 3, 5});
  expect_ids(file, "a<u>", {6, 0});
  expect_ids(file, "</s><u>a", {2, 10, 4});
  for (const Tokenizer& tokenizer : both(file)) {
    EXPECT_FALSE(tokenizer.restarts_text(10));
    for (const std::string text : {"<u>", "a <u>b", "<u> <u>a"}) {
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
    }
  }
}

TEST(AddedTokens, NormalizedOnesAreFoundBeforeAPretokenizerWritesMarks) {
  const json always = metaspace_with("always", {{"normalized", true}});
  expect_ids(always, "a<u>b", {6, 10, 3, 5});
  expect_ids(always, "<u> b", {10, 3, 5});
  expect_ids(metaspace_with("first", {{"normalized", true}}), "a<u>b", {6, 10, 5});
  expect_ids(metaspace_with("first", {{"normalized", true}}), "<u>b", {10, 5});
  expect_ids(metaspace_with("always", {{"normalized", true}}, "<▁>"), "< ><▁>", {3, 0, 3, 0, 10});
  for (const Tokenizer& tokenizer : both(always)) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("a<u>b")), "a<u>b");
  }
}

TEST(AddedTokens, NormalizedOnesSwallowWhatIsWhiteSpaceByThen) {
  expect_ids(marked_with({{"normalized", true}, {"rstrip", true}}), "<u>\n \na", {10, 3, 9, 4});  // the space is a mark
  expect_ids(metaspace_with("always", {{"normalized", true}, {"rstrip", true}}), "<u>\n \na", {10, 6});
}

TEST(AddedTokens, NormalizedOnesAreBroughtToFormCAsTheTextIs) {
  json file = byte_level_with("e\u0301", {{"normalized", true}});
  file["normalizer"] = {{"type", "NFC"}};
  expect_ids(file, "ae\u0301b\u00E9", {0, 8, 1, 8});
  file["added_tokens"][1]["normalized"] = false;
  file["model"]["vocab"].update(json{{"Ã", 9}, {"©", 10}});
  expect_ids(file, "ae\u0301b\u00E9", {0, 8, 1, 9, 10});
}

TEST(AddedTokens, SingleWordsTouchNoLetter) {
  const json file = marked_with({{"single_word", true}});
  expect_ids(file, "a <u> b", {6, 3, 10, 8, 5});
  expect_ids(file, "<u>", {10});
  expect_ids(file, "<u><u>", {10, 10});
  expect_ids(file, "<u>\n", {10, 3, 9});
  for (const char* neighbour : {"a", "\u00E9", "_", "7", "\u2167", "\u0301", "\u200D", "\u4E2D"}) {
    EXPECT_THAT(Tokenizer(vocabulary_of_json(file)).encode(std::string("<u>") + neighbour),
                ::testing::Not(::testing::Contains(10)));
    EXPECT_THAT(Tokenizer(vocabulary_of_json(file)).encode(neighbour + std::string("<u>")),
                ::testing::Not(::testing::Contains(10)));
  }
  for (const char* neighbour : {"-", "\u00B2", "\u2581", "\xFF", "\xC3"}) {
    EXPECT_THAT(Tokenizer(vocabulary_of_json(file)).encode(std::string("<u>") + neighbour), ::testing::Contains(10))
        << neighbour;
    EXPECT_THAT(Tokenizer(vocabulary_of_json(file)).encode(neighbour + std::string("<u>")), ::testing::Contains(10))
        << neighbour;
  }
}

TEST(AddedTokens, AMergeMayGiveOneThatIsNoWordOfItsOwn) {
  const json file = byte_level_with("ab", {{"single_word", true}}, 4);
  expect_ids(file, "ab", {4});
  expect_ids(file, "cab", {2, 4});
  expect_ids(file, "abc", {5});
  expect_ids(file, "ab c", {4, 3, 2});
  for (const Tokenizer& tokenizer : both(file)) EXPECT_EQ(tokenizer.decode(tokenizer.encode("cab ab")), "cab ab");
}

TEST(AddedTokens, NoMergeGivesASpecialOne) {
  json file = byte_level_with("x", {{"special", true}}, 4);
  file["added_tokens"][1]["content"] = "ab";
  expect_ids(file, "ab", {4});
  for (const Tokenizer& tokenizer : both(file)) {
    EXPECT_THAT(tokenizer.encode("ab", kUnparsed), ElementsAre(0, 1));
  }
  file = marked_with();
  file["added_tokens"].push_back(token_json("ab", 7, true));
  expect_ids(file, "ab", {7});
  for (const Tokenizer& tokenizer : both(file)) {
    EXPECT_THAT(tokenizer.encode("bab", kUnparsed), ElementsAre(3, 5, 4, 5));
  }
}

}  // namespace
}  // namespace contexture
