#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "text_fixtures.h"

/// The keys tokenizer.ggml.* and what becomes of them.
namespace contexture {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

/// Metadata cannot be changed once set, so a file is a list of changes to a usual one.
struct File {
  std::string model = "llama";
  std::optional<std::vector<std::string>> tokens = {{"<unk>", "<s>", "</s>", "<0x0A>", "\u2581a", "<|eot_id|>"}};
  std::optional<std::vector<float>> scores = {{0, 0, 0, 0, -1, 0}};
  std::optional<std::vector<int64_t>> types = {{2, 3, 3, 6, 1, 3}};
  std::optional<std::vector<std::string>> merges;
  std::vector<std::pair<const char*, int64_t>> ids;
  std::vector<std::pair<const char*, bool>> flags;
  std::vector<std::pair<const char*, const char*>> strings;

  Metadata metadata() const {
    const std::string prefix = "tokenizer.ggml.";
    Metadata result;
    result.set_string(prefix + "model", model);
    if (tokens) result.set_strings(prefix + "tokens", *tokens);
    if (scores) result.set_floats(prefix + "scores", *scores);
    if (types) result.set_ints(prefix + "token_type", *types);
    if (merges) result.set_strings(prefix + "merges", *merges);
    for (const auto& [key, id] : ids) result.set_int(prefix + key, id);
    for (const auto& [key, flag] : flags) result.set_bool(prefix + key, flag);
    for (const auto& [key, value] : strings) result.set_string(key, value);
    return result;
  }
  Vocabulary read() const { return vocabulary_from_metadata(metadata()); }
};

File byte_bpe() {
  File file;
  file.model = "gpt2";
  file.tokens = {{"a", "b", "ab", "<|endoftext|>", "<|im_end|>"}};
  file.scores.reset();
  file.types = {{1, 1, 1, 3, 3}};
  file.merges = {{"a b"}};
  return file;
}

void expect_refused(const File& file, const char* message) {
  EXPECT_THAT([&] { file.read(); }, ThrowsMessage<Error>(HasSubstr(message)));
}

TEST(VocabularyMetadata, SentencePiece) {
  const Vocabulary vocabulary = File().read();
  EXPECT_EQ(vocabulary.algorithm, Vocabulary::Algorithm::sentencepiece_bpe);
  EXPECT_EQ(vocabulary.pieces.size(), 6u);
  EXPECT_EQ(vocabulary.scores[4], -1);
  EXPECT_EQ(vocabulary.types[3], PieceType::byte);
  // What SentencePiece assumes where the file says nothing.
  EXPECT_EQ(vocabulary.unknown, 0);
  EXPECT_EQ(vocabulary.begin, 1);
  EXPECT_EQ(vocabulary.end, 2);
  EXPECT_TRUE(vocabulary.add_begin);
  EXPECT_FALSE(vocabulary.add_end);
  EXPECT_TRUE(vocabulary.add_space_prefix);
  EXPECT_FALSE(vocabulary.collapse_spaces);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(2, 5));
}

TEST(VocabularyMetadata, WhatTheFileSaysWins) {
  File file;
  file.ids = {
      {"bos_token_id", 4}, {"eos_token_id", 1}, {"unknown_token_id", 3}, {"eot_token_id", 4}, {"eom_token_id", 3}};
  file.flags = {{"add_bos_token", false},
                {"add_eos_token", true},
                {"add_space_prefix", false},
                {"remove_extra_whitespaces", true}};
  const Vocabulary vocabulary = file.read();
  EXPECT_EQ(vocabulary.begin, 4);
  EXPECT_EQ(vocabulary.end, 1);
  EXPECT_EQ(vocabulary.unknown, 3);
  EXPECT_FALSE(vocabulary.add_begin);
  EXPECT_TRUE(vocabulary.add_end);
  EXPECT_FALSE(vocabulary.add_space_prefix);
  EXPECT_TRUE(vocabulary.collapse_spaces);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(1, 2, 3, 4, 5));  // eos, "</s>", eom, eot, "<|eot_id|>"
}

TEST(VocabularyMetadata, TypesAreGuessedWhereTheyAreMissing) {
  File file;
  file.types.reset();
  EXPECT_THAT(file.read().types, ElementsAre(PieceType::unknown, PieceType::control, PieceType::control,
                                             PieceType::byte, PieceType::normal, PieceType::normal));
}

TEST(VocabularyMetadata, ByteBpe) {
  File file = byte_bpe();
  const Vocabulary vocabulary = file.read();
  EXPECT_EQ(vocabulary.algorithm, Vocabulary::Algorithm::byte_bpe);
  EXPECT_EQ(vocabulary.pretokenizer, "default");
  EXPECT_THAT(vocabulary.merges, ElementsAre("a b"));
  EXPECT_EQ(vocabulary.begin, std::nullopt);
  EXPECT_FALSE(vocabulary.add_begin);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(3, 4));
}

TEST(VocabularyMetadata, WhetherABeginTokenIsUsualDependsOnTheKind) {
  File file = byte_bpe();
  file.ids = {{"bos_token_id", 3}};
  file.strings = {{"tokenizer.ggml.pre", "llama-bpe"}};
  EXPECT_TRUE(file.read().add_begin);
  file.flags = {{"add_bos_token", false}};
  EXPECT_FALSE(file.read().add_begin);
  file.flags.clear();
  file.strings = {{"tokenizer.ggml.pre", "gpt-2"}};
  EXPECT_FALSE(file.read().add_begin);
  file.flags = {{"add_bos_token", true}};
  EXPECT_TRUE(file.read().add_begin);
}

TEST(VocabularyMetadata, Phi3sTokensSwallowTheSpaceAfterThem) {
  File file;
  EXPECT_TRUE(file.read().strips_right.empty());
  file.strings = {{"general.name", "Phi-3 mini"}};
  EXPECT_THAT(file.read().strips_right, ElementsAre(2, 5));  // "</s>" and "<|eot_id|>", but not "<s>" and "<unk>"
}

TEST(VocabularyMetadata, UnknownKindsAreRefusedByName) {
  File file;
  file.model = "t5";
  expect_refused(file, "\"t5\"");
  file = byte_bpe();
  file.strings = {{"tokenizer.ggml.pre", "superbpe"}};
  EXPECT_THAT([&] { file.read(); }, ThrowsMessage<Error>(AllOf(HasSubstr("\"superbpe\""), HasSubstr("qwen2"))));
}

TEST(VocabularyMetadata, TablesThatDoNotFitAreRefused) {
  File file;
  file.tokens.reset();
  expect_refused(file, "tokens is missing");
  file = File();
  file.scores.reset();
  expect_refused(file, "scores is missing");
  file = File();
  file.scores->pop_back();
  expect_refused(file, "5 scores");
  file = File();
  file.types->push_back(1);
  expect_refused(file, "7 types");
  file = File();
  file.types->at(4) = 7;
  expect_refused(file, "type 7");
  file.types->at(4) = -1;
  expect_refused(file, "type -1");
  file.types->at(4) = 6;
  expect_refused(file, "name a byte");
  file = byte_bpe();
  file.merges.reset();
  expect_refused(file, "merges is missing");
  file.merges = {{"a b", "ab"}};
  expect_refused(file, "merge 1");
  file = byte_bpe();
  file.flags = {{"add_bos_token", true}};
  expect_refused(file, "there is none");
}

TEST(VocabularyMetadata, IdsOutsideTheVocabularyAreRefused) {
  for (const char* key : {"bos_token_id", "eos_token_id", "unknown_token_id", "eot_token_id", "eom_token_id"}) {
    for (const int64_t id : {int64_t{-1}, int64_t{6}, int64_t{1} << 40}) {
      File file;
      file.ids = {{key, id}};
      expect_refused(file, key);
    }
  }
}

TEST(VocabularyMetadata, AModelWithoutAVocabulary) {
  EXPECT_EQ(vocabulary_of(Metadata()), std::nullopt);
  Metadata metadata;
  metadata.set_string("tokenizer.ggml.model", "no_vocab");
  EXPECT_EQ(vocabulary_of(metadata), std::nullopt);
  EXPECT_TRUE(vocabulary_of(File().metadata()).has_value());
  EXPECT_THROW(vocabulary_from_metadata(Metadata()), Error);
}

}  // namespace
}  // namespace contexture
