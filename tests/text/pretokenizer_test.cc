#include "text/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/error.h"
#include "support/sanitized.h"
#include "text_fixtures.h"

namespace contexture {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

const char* const kKinds[] = {"llama-bpe",
                              "gpt-2",
                              "qwen2",
                              "deepseek-llm",
                              "deepseek-coder",
                              "falcon",
                              "mpt",
                              "refact",
                              "starcoder",
                              "command-r",
                              "smollm",
                              "default",
                              "dbrx",
                              "qwen35",
                              "tekken",
                              "gpt-4o",
                              "deepseek-v3",
                              "seed-coder",
                              "bailingmoe",
                              "bloom",
                              "viking",
                              "jais-2",
                              "exaone-moe",
                              "superbpe",
                              "tiny_aya",
                              "afmoe",
                              "kimi-k2",
                              "youtu",
                              "chameleon",
                              "minicpm5",
                              "laguna",
                              "ufakzeka",
                              "spark2_5",
                              "granite-embed-multi-97m"};

std::vector<std::string> split(const std::string& kind, const std::string& text) {
  std::vector<std::string> words;
  for (const std::string_view word : Pretokenizer(kind).split(text)) words.emplace_back(word);
  return words;
}

/// One text, split by hand by the published expressions, that tells the kinds apart.
constexpr const char* kText = "I'LL  say: 12345 'no'\r\n\n x\u4E2D=`1` ";

TEST(Pretokenizer, Llama3) {
  EXPECT_THAT(split("llama-bpe", kText), ElementsAre("I", "'LL", " ", " say", ":", " ", "123", "45", " '", "no",
                                                     "'\r\n\n", " x\u4E2D", "=`", "1", "`", " "));
}

TEST(Pretokenizer, Qwen2) {
  EXPECT_THAT(split("qwen2", kText), ElementsAre("I", "'LL", " ", " say", ":", " ", "1", "2", "3", "4", "5", " '", "no",
                                                 "'\r\n\n", " x\u4E2D", "=`", "1", "`", " "));
}

TEST(Pretokenizer, Gpt2AndMpt) {
  for (const char* kind : {"gpt-2", "mpt"}) {
    EXPECT_THAT(split(kind, kText), ElementsAre("I", "'", "LL", " ", " say", ":", " 12345", " '", "no", "'", "\r\n\n",
                                                " x\u4E2D", "=`", "1", "`", " "));
  }
}

TEST(Pretokenizer, StarcoderAndItsLikes) {
  for (const char* kind : {"starcoder", "refact", "command-r", "smollm"}) {
    EXPECT_THAT(split(kind, kText), ElementsAre("I", "'", "LL", " ", " say", ":", " ", "1", "2", "3", "4", "5", " '",
                                                "no", "'", "\r\n\n", " x\u4E2D", "=`", "1", "`", " "));
  }
}

TEST(Pretokenizer, Falcon) {
  EXPECT_THAT(split("falcon", kText), ElementsAre("I", "'", "LL", " ", " say", ":", " ", "123", "45", " ", "'", "no",
                                                  "'", "\r\n\n", " x\u4E2D", "=`", "1", "`", " "));
}

TEST(Pretokenizer, Default) {
  EXPECT_THAT(split("default", kText), ElementsAre("I", "'", "LL", " ", " say", ":", " ", "123", "45", " ", "'", "no",
                                                   "'", "\r\n\n", " x\u4E2D", "=", "`", "1", "`", " "));
}

TEST(Pretokenizer, DeepseekCoder) {
  EXPECT_THAT(split("deepseek-coder", kText),
              ElementsAre("I", "'", "LL", " ", " say", ":", " ", "1", "2", "3", "4", "5", " '", "no", "'", "\r", "\n",
                          "\n", " x", "\u4E2D", "=`", "1", "` "));
}

TEST(Pretokenizer, DeepseekLlm) {
  EXPECT_THAT(split("deepseek-llm", kText), ElementsAre("I", "'", "LL", " ", " say", ":", " ", "12345", " '", "no", "'",
                                                        "\r", "\n", "\n", " x", "\u4E2D", "=`", "1", "`", " "));
  // Spaces at the end are a word, spaces elsewhere are what other expressions leave.
  EXPECT_THAT(split("deepseek-llm", "1  2  "), ElementsAre("1", "  ", "2", "  "));
}

/// With capitals in words, marks, slashes, kana and wide punctuation. The words were found by another engine, Python's
/// `regex` 2026.5.9, from the expressions in the models' tokenizer.json.
constexpr const char* kHarder =
    "I'LL say:  1234 camelCASEe\u0301x HTTPServer'd a/b!/\n\n x\u4E2D\u3042y\uFF0C(p|q) $f_g\r\n ";

TEST(Pretokenizer, KindsThatFewTextsTellApart) {
  const std::pair<const char*, std::vector<std::string>> kCases[] = {
      {"dbrx",
       {"I",
        "'LL",
        " say",
        ":",
        " ",
        " ",
        "123",
        "4",
        " camelCASEe",
        "\u0301x",
        " HTTPServer",
        "'d",
        " a",
        "/b",
        "!/\n\n",
        " x\u4E2D\u3042y",
        "\uFF0C(",
        "p",
        "|q",
        ")",
        " $",
        "f",
        "_g",
        "\r\n",
        " "}},
      {"qwen35",
       {"I",
        "'LL",
        " say",
        ":",
        " ",
        " ",
        "1",
        "2",
        "3",
        "4",
        " camelCASEe\u0301x",
        " HTTPServer",
        "'d",
        " a",
        "/b",
        "!/\n\n",
        " x\u4E2D\u3042y",
        "\uFF0C(",
        "p",
        "|q",
        ")",
        " $",
        "f",
        "_g",
        "\r\n",
        " "}},
      {"tekken", {"I",       "'LL",    " say",         ":",           " ",  " ",  "1",  "2",      "3",
                  "4",       " camel", "CASEe\u0301x", " HTTPServer", "'d", " a", "/b", "!/\n\n", " x\u4E2D\u3042y",
                  "\uFF0C(", "p",      "|q",           ")",           " $", "f",  "_g", "\r\n",   " "}},
      {"gpt-4o",
       {"I'LL",
        " say",
        ":",
        " ",
        " ",
        "123",
        "4",
        " camel",
        "CASEe\u0301x",
        " HTTPServer'd",
        " a",
        "/b",
        "!/\n\n",
        " x\u4E2D\u3042y",
        "\uFF0C(",
        "p",
        "|q",
        ")",
        " $",
        "f",
        "_g",
        "\r\n",
        " "}},
      {"deepseek-v3",
       {"I",
        "'LL",
        " say",
        ":",
        "  ",
        "123",
        "4",
        " camelCASEe\u0301x",
        " HTTPServer",
        "'d",
        " a",
        "/b",
        "!/\n\n",
        " x",
        "\u4E2D\u3042",
        "y",
        "\uFF0C(",
        "p",
        "|q",
        ")",
        " $",
        "f",
        "_g",
        "\r\n",
        " "}},
      {"seed-coder",
       {"I",
        "'LL",
        " say",
        ":",
        " ",
        " ",
        "1",
        "2",
        "3",
        "4",
        " camelCASEe",
        "\u0301x",
        " HTTPServer",
        "'d",
        " a",
        "/b",
        "!/",
        "\n\n",
        " x\u4E2D\u3042y",
        "\uFF0C(",
        "p",
        "|q",
        ")",
        " $",
        "f",
        "_g",
        "\r\n",
        " "}},
      {"bailingmoe", {"I",       "'LL",         " say",    ":",           " ",  " ",  "1",  "2",      "3",
                      "4",       " camelCASEe", "\u0301x", " HTTPServer", "'d", " a", "/b", "!/\n\n", " x\u4E2D\u3042y",
                      "\uFF0C(", "p",           "|q",      ")",           " $", "f",  "_g", "\r\n",   " "}},
      {"bloom",
       {"I'LL", " say:", " ", " 1234", " camelCASEe\u0301x", " HTTPServer'd", " a/b", "!", "/", "\n\n",
        " x\u4E2D\u3042y", "\uFF0C(", "p", "|", "q", ")", " $f_g", "\r\n "}},
      {"viking",
       {"I'LL",
        " say:",
        " ",
        " ",
        "1",
        "2",
        "3",
        "4",
        " camelCASEe\u0301x",
        " HTTPServer'd",
        " a/b",
        "!",
        "/",
        "\n\n",
        " x\u4E2D\u3042y",
        "\uFF0C(",
        "p",
        "|",
        "q",
        ")",
        " $f_g",
        "\r\n "}}};
  for (const auto& [kind, words] : kCases) EXPECT_THAT(split(kind, kHarder), ElementsAreArray(words)) << kind;
}

/// Split by hand by the published expressions. llama.cpp 0.5 gives the same but where its own expressions are simpler
/// than the published ones: it does not part words at capitals for kimi-k2, tiny_aya and youtu, and keeps spaces before
/// digits together with them for afmoe.
TEST(Pretokenizer, KindsOfRecentModels) {
  const std::tuple<const char*, std::string, std::vector<std::string>> kCases[] = {
      {"jais-2", "a       x  \n  y   ", {"a", "    ", "  ", " x", "  \n", " ", " y", "  ", " "}},
      {"exaone-moe",
       "one two  three 12 e\u0301 f's\n\n!/ ",
       {"one two", " ", " three", " ", "1", "2", " e\u0301 f", "'s", "\n\n", "!/", " "}},
      {"superbpe", "a b 1234567 \u00BD12345 x", {"a b ", "1", "234", "567", " ", "\u00BD12", "345", " x"}},
      {"superbpe", "12 123", {"12", " ", "123"}},
      {"tiny_aya",
       "x1234567 123abc 12. 1234\u00B2 it's",
       {"x", "1", "234", "567", " ", "123", "abc", " ", "12", ".", " ", "1", "234", "\u00B2", " it's"}},
      {"tiny_aya", "1234abc 1234", {"123", "4", "abc", " ", "1", "234"}},
      {"afmoe",
       "x  1234567y \u4E2D\u6587\u0E01 12\n",
       {"x", "  ", "1", "234", "567", "y", " ", "\u4E2D\u6587", "\u0E01", " ", "12", "\n"}},
      {"kimi-k2",
       "\u4E2D\u6587camelCase's 1234 \u3005\u30A2b!\n\n x",
       {"\u4E2D\u6587", "camel", "Case's", " ", "123", "4", " ", "\u3005", "\u30A2b", "!\n\n", " x"}},
      {"youtu",
       "\uAC00\u3131\uFF0C\u300Cx\u300D\u3105\u4E2D\u3042 aB12's\n",
       {"\uAC00\u3131", "\uFF0C\u300C", "x", "\u300D", "\u3105", "\u4E2D\u3042", " a", "B", "1", "2", "'s", "\n"}},
      {"chameleon",
       "IMGIMGABZ      x!? 12\tit's",
       {"IMGIMGABZ", "    ", "  ", "x", "!", "?", " ", "1", "2", "\t", "it", "'", "s"}},
      {"minicpm5", "it'S 12345\n \nx", {"it", "'S", " ", "123", "45", "\n \n", "x"}},
      {"laguna", "a b1\n\n\n c's", {"a", " b", "1", "\n\n\n", " c", "'s"}},
      {"ufakzeka", "Ali'nin 12 it's", {"Ali", "'nin", " ", "1", "2", " it", "'s"}},
      {"spark2_5", "a!\r\n\n123 x  y", {"a", "!", "\r", "\n", "\n", "1", "2", "3", " x", " ", " y"}},
      {"granite-embed-multi-97m", "camelCase's 1234", {"camel", "Case's", " ", "123", "4"}},
      {"mellum2", "a 12's", {"a", " ", "1", "2", "'s"}},
      {"joyai-llm", "a 1234\u4E2D", {"a", " ", "123", "4", "\u4E2D"}},
      {"falcon", "$x 12 \u00B2 1234", {"$", "x", " ", "12", " \xC2", "\xB2", " ", "123", "4"}}};
  for (const auto& [kind, text, words] : kCases) EXPECT_THAT(split(kind, text), ElementsAreArray(words)) << kind;
}

TEST(Pretokenizer, WhiteSpaceIsUnicodes) {
  // U+180E was white space in old versions of Unicode, and is to PCRE2's \s; U+3000 is.
  EXPECT_THAT(split("gpt-2", "a\u180E"), ElementsAre("a", "\u180E"));
  EXPECT_THAT(split("gpt-2", "\u180E!"), ElementsAre("\u180E!"));
  EXPECT_THAT(split("gpt-2", "\u3000!"), ElementsAre("\u3000", "!"));
}

TEST(Pretokenizer, OtherNamesOfTheSame) {
  const std::pair<const char*, const char*> kSame[] = {
      {"llama3", "llama-bpe"},       {"llama-v3", "llama-bpe"},
      {"deepseek-r1-qwen", "qwen2"}, {"phi-2", "gpt-2"},
      {"llama4", "gpt-4o"},          {"glm4", "dbrx"},
      {"minerva-7b", "starcoder"},   {"jina-v5-nano", "llama-bpe"},
      {"jina-v1-en", "gpt-2"},       {"jina-v2-code", "gpt-2"},
      {"jina-v2-de", "gpt-2"},       {"jina-v2-es", "gpt-2"},
      {"roberta-bpe", "gpt-2"},      {"modern-bert", "gpt-2"},
      {"f2llmv2", "qwen2"},          {"solar-open", "qwen2"},
      {"talkie", "gpt-4o"},          {"cohere2moe", "tiny_aya"},
      {"joyai-llm", "deepseek-v3"},  {"hy_v4", "deepseek-v3"},
      {"mellum2", "starcoder"},      {"granite-embed-multi-97m", "gpt-4o"}};
  std::mt19937 random(3);
  for (const auto& [alias, kind] : kSame) {
    for (int i = 0; i < 100; ++i) {
      const std::string text = test::random_text(random, 50);
      ASSERT_EQ(split(alias, text), split(kind, text));
    }
  }
}

TEST(Pretokenizer, WordsCoverTheText) {
  std::mt19937 random(4);
  for (const char* kind : kKinds) {
    const Pretokenizer pretokenizer(kind), interpreted(kind, /*compiled=*/false);
    for (size_t i = 0; i < sized(1000); ++i) {
      const std::string text = test::random_text(random, random() % 80);
      std::string joined;
      for (const std::string_view word : pretokenizer.split(text)) {
        ASSERT_TRUE(text.empty() || !word.empty());
        joined += word;
      }
      ASSERT_EQ(joined, text) << kind;
      ASSERT_EQ(interpreted.split(text), pretokenizer.split(text)) << kind;
    }
  }
}

TEST(Pretokenizer, WhatIsKnownOfAKind) {
  EXPECT_TRUE(Pretokenizer("llama-bpe").ignores_merges());
  EXPECT_FALSE(Pretokenizer("gpt-2").ignores_merges());
  EXPECT_TRUE(Pretokenizer("minicpm5").ignores_merges());
  EXPECT_TRUE(Pretokenizer("youtu").ignores_merges());
  EXPECT_TRUE(Pretokenizer("granite-embed-multi-97m").ignores_merges());
  EXPECT_TRUE(Pretokenizer::begin_is_usual("llama3"));
  EXPECT_TRUE(Pretokenizer::begin_is_usual("chameleon"));
  EXPECT_FALSE(Pretokenizer::begin_is_usual("qwen2"));
  EXPECT_FALSE(Pretokenizer::is_known("unheard-of"));
  for (const char* kind : kKinds) {
    EXPECT_TRUE(Pretokenizer::is_known(kind));
    EXPECT_THAT(Pretokenizer::names(), ::testing::HasSubstr(kind));
  }
}

TEST(Pretokenizer, AnUnknownOneIsRefusedByName) {
  try {
    Pretokenizer("tek\nken");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::AllOf(::testing::HasSubstr("tek?ken"), ::testing::HasSubstr("qwen2")));
  }
}

/// Texts made to send a backtracking matcher round and round. Each takes milliseconds; a quadratic one would take
/// minutes, and one that recurses would overflow the stack.
TEST(Pretokenizer, HostileTextsTakeLinearTime) {
  constexpr size_t kSize = sized(100'000);
  std::vector<std::string> texts;
  for (const char* unit : {"a", " ", "7", "\n", "'", "!", "\t ", "\r\n", " a", "'s", "\u00E9", "\u4E2D", "\u0301",
                           "\u3000", "\U0001F600", "a7", " \n", "!\n"}) {
    std::string text;
    while (text.size() < kSize) text += unit;
    texts.push_back(text);
    texts.push_back(text + "x");  // what the run could not foresee
    texts.push_back(text + "7");
    texts.push_back("x" + text + "\n");
  }
  for (const char* kind : {"llama-bpe", "qwen2", "gpt-2", "deepseek-llm", "deepseek-coder", "falcon", "starcoder",
                           "default", "tekken", "gpt-4o", "deepseek-v3", "bailingmoe", "bloom", "jais-2", "exaone-moe",
                           "superbpe", "tiny_aya", "afmoe", "kimi-k2"}) {
    const Pretokenizer compiled(kind), interpreted(kind, /*compiled=*/false);
    for (const std::string& text : texts) {
      const auto start = std::chrono::steady_clock::now();
      ASSERT_EQ(compiled.split(text), interpreted.split(text)) << kind;
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      ASSERT_LT(seconds.count(), 20) << kind << " on " << ::testing::PrintToString(text.substr(0, 8));
    }
  }
}

TEST(Pretokenizer, ARunLongerThanPcre2sUsualLimit) {
  const std::string text = std::string(12'000'000, ' ') + "x";
  for (const bool compiled : {true, false}) EXPECT_EQ(Pretokenizer("llama-bpe", compiled).split(text).size(), 2u);
}

}  // namespace
}  // namespace contexture
