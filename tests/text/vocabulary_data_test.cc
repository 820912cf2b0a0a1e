#include <gtest/gtest.h>

#include "huggingface_writer.h"
#include "support/sanitized.h"
#include "text_fixtures.h"

/// The exact ids of llama.cpp's test texts, for every vocabulary in the data folder.
namespace contexture {
namespace {

using test::kData;

Vocabulary through_metadata(const Vocabulary& vocabulary) {
  Metadata metadata;
  vocabulary_to_metadata(vocabulary, metadata);
  return vocabulary_from_metadata(metadata);
}

struct Case {
  const char* vocabulary;  ///< below the data folder
  const char* texts;       ///< below vocab/; with .inp and .out

  Vocabulary open() const { return test::open_vocabulary(kData + vocabulary); }
};

std::vector<std::string> split_at(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find(separator, at);
    parts.push_back(text.substr(at, end - at));
    at = end == text.npos ? text.size() : end + separator.size();
  }
  return parts;
}

std::vector<TokenId> parse_ids(const std::string& line) {
  std::istringstream stream(line);
  std::vector<TokenId> ids;
  for (TokenId id; stream >> id;) ids.push_back(id);
  return ids;
}

class VocabularyData : public ::testing::TestWithParam<Case> {};

void expect_exact_ids(const Tokenizer& tokenizer, const std::string& texts_path) {
  const std::vector<std::string> texts = split_at(test::read_file(texts_path + ".inp"), "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = split_at(test::read_file(texts_path + ".out"), "\n");
  ASSERT_EQ(texts.size(), lines.size());
  ASSERT_GT(texts.size(), 40u);
  for (size_t i = 0; i < texts.size(); ++i) {
    for (const bool parse_special : {false, true}) {
      const std::vector<TokenId> ids = tokenizer.encode(texts[i], {.add_begin = false, .parse_special = parse_special});
      EXPECT_EQ(ids, parse_ids(lines[i])) << "text " << i << ": " << ::testing::PrintToString(texts[i]);
      EXPECT_EQ(tokenizer.decode(ids), texts[i]);
    }
  }
}

TEST_P(VocabularyData, ExactIdsOfEveryText) {
  const std::string texts_path = kData + "vocab/" + GetParam().texts;
  SKIP_WITHOUT(kData + GetParam().vocabulary);
  SKIP_WITHOUT(texts_path + ".inp");
  expect_exact_ids(Tokenizer(GetParam().open()), texts_path);
}

/// Written as tokenizer.json, as the metadata of a model, or as one and then the other, and read again.
TEST_P(VocabularyData, OtherFormsOfItGiveTheSameIds) {
  if (kSanitized && GetParam().vocabulary == std::string("llama3/tokenizer.model")) {
    GTEST_SKIP() << "128,000 pieces through the code that GPT-2's go through";
  }
  const std::string texts_path = kData + "vocab/" + GetParam().texts;
  SKIP_WITHOUT(kData + GetParam().vocabulary);
  SKIP_WITHOUT(texts_path + ".inp");
  const Vocabulary original = GetParam().open();
  const Vocabulary again = through_metadata(original);
  EXPECT_EQ(again.types, original.types);
  EXPECT_EQ(again.begin, original.begin);
  EXPECT_EQ(again.end, original.end);
  EXPECT_EQ(again.end_tokens, original.end_tokens);
  EXPECT_EQ(again.add_begin, original.add_begin);
  EXPECT_EQ(again.strips_right, original.strips_right);
  EXPECT_EQ(again.user_defined_restarts_text, original.user_defined_restarts_text);
  const Vocabulary marked = original.algorithm == Vocabulary::Algorithm::byte_bpe ? original : again;
  const Tokenizer as_is(original);
  std::vector<Vocabulary> others = {through_metadata(test::through_json(marked))};
  if (!kSanitized) others.insert(others.end(), {again, test::through_json(marked)});
  for (const Vocabulary& other : others) {
    const Tokenizer tokenizer(other);
    expect_exact_ids(tokenizer, texts_path);
    std::mt19937 random(9);
    for (size_t i = 0; i < sized(500); ++i) {
      const std::string text = i % 2 ? test::random_text(random, random() % 60) : test::english_like(random, 100);
      ASSERT_EQ(tokenizer.encode(text), as_is.encode(text)) << ::testing::PrintToString(text);
    }
  }
}

/// Every length, so that character borders and the borders of words and tokens all are hit.
TEST_P(VocabularyData, RandomUnicodeComesBack) {
  SKIP_WITHOUT(kData + GetParam().vocabulary);
  const Tokenizer tokenizer(GetParam().open());
  const bool is_sentencepiece = tokenizer.vocabulary().algorithm == Vocabulary::Algorithm::sentencepiece_bpe;
  std::mt19937 random(5);
  for (size_t i = 0; i < sized(3000); ++i) {
    const std::string text = test::random_text(random, random() % 60);
    if (is_sentencepiece && text.find("\u2581") != text.npos) continue;  // to SentencePiece it is a space
    for (const bool parse_special : {false, true}) {
      const std::vector<TokenId> ids = tokenizer.encode(text, {.add_begin = true, .parse_special = parse_special});
      ASSERT_EQ(tokenizer.decode(ids), text) << ::testing::PrintToString(text);
      StreamDecoder decoder(tokenizer);
      std::string streamed;
      for (const TokenId id : ids) {
        const std::string part = decoder.push(id);
        ASSERT_EQ(valid_utf8_prefix(part), part.size());
        streamed += part;
      }
      ASSERT_EQ(streamed + decoder.finish(), text);
    }
  }
}

/// DeepSeek's vocabulary lacks the bytes that are never UTF-8; they become U+FFFD.
std::string without_impossible_bytes(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (byte == 0xC0 || byte == 0xC1 || byte >= 0xF5) {
      out += kReplacementCharacter;
    } else {
      out += c;
    }
  }
  return out;
}

TEST_P(VocabularyData, AnyBytesComeBack) {
  SKIP_WITHOUT(kData + GetParam().vocabulary);
  const bool is_deepseek = std::string(GetParam().vocabulary).find("deepseek") != std::string::npos;
  const Tokenizer tokenizer(GetParam().open());
  std::mt19937 random(6);
  for (size_t i = 0; i < sized(2000); ++i) {
    std::string text;
    for (size_t part = random() % 6; part > 0; --part) {
      text += random() % 2 ? test::random_bytes(random, random() % 10) : test::random_text(random, random() % 10);
    }
    if (text.find("\u2581") != text.npos) continue;
    const std::string expected = is_deepseek ? without_impossible_bytes(text) : text;
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), expected) << ::testing::PrintToString(text);
  }
}

/// One word of a megabyte, and runs that no pre-tokenizer splits.
TEST_P(VocabularyData, AVeryLongWordIsNotQuadratic) {
  SKIP_WITHOUT(kData + GetParam().vocabulary);
  const Tokenizer tokenizer(GetParam().open());
  constexpr size_t kSize = sized(1'000'000);
  std::mt19937 random(7);
  std::string word;
  while (word.size() < kSize) word += static_cast<char>('a' + random() % 26);
  for (const std::string& text : {word, std::string(kSize, 'a'), std::string(kSize, ' ')}) {
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

INSTANTIATE_TEST_SUITE_P(All, VocabularyData,
                         ::testing::Values(Case{"vocab/ggml-vocab-llama-spm.gguf", "ggml-vocab-llama-spm.gguf"},
                                           Case{"vocab/ggml-vocab-phi-3.gguf", "ggml-vocab-phi-3.gguf"},
                                           Case{"vocab/ggml-vocab-gpt-2.gguf", "ggml-vocab-gpt-2.gguf"},
                                           Case{"vocab/ggml-vocab-deepseek-coder.gguf",
                                                "ggml-vocab-deepseek-coder.gguf"},
                                           Case{"llama3/tokenizer.model", "ggml-vocab-llama-bpe.gguf"},
                                           Case{"llama2/tokenizer.model", "ggml-vocab-llama-spm.gguf"},
                                           Case{"llama2/tokenizer.bin", "ggml-vocab-llama-spm.gguf"}),
                         [](const auto& info) {
                           std::string name = info.param.vocabulary;
                           for (char& c : name) {
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace contexture
