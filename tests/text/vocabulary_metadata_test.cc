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

/// Of a vocabulary of six.
void metadata_is_refused(const char* key) {
  for (const int64_t id : {int64_t{-1}, int64_t{6}, int64_t{1} << 40}) {
    Metadata metadata;
    if (std::string(key).ends_with("ids")) {
      metadata.set_ints(key, {id});
    } else {
      metadata.set_int(key, id);
    }
    Vocabulary vocabulary = File().read();
    EXPECT_THAT([&] { apply_token_metadata(vocabulary, metadata); }, ThrowsMessage<Error>(HasSubstr(key)));
  }
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

TEST(VocabularyMetadata, EveryTurnEndIsAnEndToken) {
  File file;
  file.tokens = {{"<unk>", "<s>", "</s>", "<|user|>", "\u2581a", "<|observation|>"}};
  file.types = {{2, 3, 3, 3, 1, 3}};
  EXPECT_THAT(file.read().end_tokens, ElementsAre(2));
  file.ids = {{"eot_token_id", 3}};
  EXPECT_THAT(file.read().end_tokens, ElementsAre(2, 3));
  Metadata metadata = file.metadata();
  metadata.set_ints("tokenizer.end_token_ids", {5, 2});
  EXPECT_THAT(vocabulary_from_metadata(metadata).end_tokens, ElementsAre(2, 3, 5));
  for (const int64_t id : {int64_t{-1}, int64_t{6}, int64_t{1} << 40}) {
    metadata.set_ints("tokenizer.end_token_ids", {2, id});
    EXPECT_THAT([&] { vocabulary_from_metadata(metadata); }, ThrowsMessage<Error>(HasSubstr("end_token_ids")));
  }
}

TEST(VocabularyMetadata, AModelsOtherFilesMaySayMore) {
  const Vocabulary before = File().read();
  Vocabulary vocabulary = before;
  apply_token_metadata(vocabulary, Metadata());
  EXPECT_EQ(vocabulary.begin, before.begin);
  EXPECT_EQ(vocabulary.end, before.end);
  EXPECT_EQ(vocabulary.end_tokens, before.end_tokens);
  EXPECT_EQ(vocabulary.add_begin, before.add_begin);
  Metadata metadata;
  metadata.set_int("tokenizer.ggml.bos_token_id", 0);
  metadata.set_int("tokenizer.ggml.eos_token_id", 1);
  metadata.set_ints("tokenizer.end_token_ids", {4, 1});
  metadata.set_bool("tokenizer.ggml.add_bos_token", false);
  metadata.set_bool("tokenizer.ggml.add_eos_token", true);
  apply_token_metadata(vocabulary, metadata);
  EXPECT_EQ(vocabulary.begin, 0);
  EXPECT_EQ(vocabulary.end, 1);
  EXPECT_FALSE(vocabulary.add_begin);
  EXPECT_TRUE(vocabulary.add_end);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(1, 2, 4, 5));
}

TEST(VocabularyMetadata, TokensNamedByTheirTextWin) {
  Vocabulary vocabulary = File().read();
  Metadata metadata;
  metadata.set_int("tokenizer.ggml.eos_token_id", 1);
  metadata.set_string("tokenizer.eos_token", vocabulary.pieces[2]);
  metadata.set_string("tokenizer.bos_token", "no such piece");
  const auto begin = vocabulary.begin;
  apply_token_metadata(vocabulary, metadata);
  EXPECT_EQ(vocabulary.end, 2);
  EXPECT_EQ(vocabulary.begin, begin);
}

TEST(VocabularyMetadata, OtherFilesThatDoNotFitAreRefused) {
  metadata_is_refused("tokenizer.ggml.bos_token_id");
  metadata_is_refused("tokenizer.ggml.eos_token_id");
  metadata_is_refused("tokenizer.end_token_ids");
  Vocabulary vocabulary = File().read();
  vocabulary.begin.reset();
  vocabulary.add_begin = false;
  Metadata metadata;
  metadata.set_bool("tokenizer.ggml.add_bos_token", true);
  EXPECT_THAT([&] { apply_token_metadata(vocabulary, metadata); }, ThrowsMessage<Error>(HasSubstr("there is none")));
}

// --- written and read again

Vocabulary written_and_read(const Vocabulary& vocabulary) {
  Metadata metadata;
  vocabulary_to_metadata(vocabulary, metadata);
  return vocabulary_from_metadata(metadata);
}

void expect_equal(const Vocabulary& a, const Vocabulary& b) {
  EXPECT_EQ(a.algorithm, b.algorithm);
  EXPECT_EQ(a.pretokenizer, b.pretokenizer);
  EXPECT_EQ(a.pieces, b.pieces);
  EXPECT_EQ(a.scores, b.scores);
  EXPECT_EQ(a.types, b.types);
  EXPECT_EQ(a.merges, b.merges);
  EXPECT_EQ(a.ignore_merges, b.ignore_merges);
  EXPECT_EQ(a.begin, b.begin);
  EXPECT_EQ(a.end, b.end);
  EXPECT_EQ(a.unknown, b.unknown);
  EXPECT_EQ(a.end_tokens, b.end_tokens);
  EXPECT_EQ(a.add_begin, b.add_begin);
  EXPECT_EQ(a.add_end, b.add_end);
  EXPECT_EQ(a.add_space_prefix, b.add_space_prefix);
  EXPECT_EQ(a.prefix_once, b.prefix_once);
  EXPECT_EQ(a.prefix_if_absent, b.prefix_if_absent);
  EXPECT_EQ(a.collapse_spaces, b.collapse_spaces);
  EXPECT_EQ(a.user_defined_restarts_text, b.user_defined_restarts_text);
  EXPECT_EQ(a.nfc, b.nfc);
  EXPECT_EQ(a.strips_left, b.strips_left);
  EXPECT_EQ(a.strips_right, b.strips_right);
}

TEST(VocabularyMetadata, EveryFieldIsWrittenAndReadAgain) {
  const Vocabulary usual = File().read();
  expect_equal(written_and_read(usual), usual);
  Vocabulary other = usual;
  other.merges = {"\u2581 a"};
  other.unknown.reset();
  other.add_begin = other.add_space_prefix = other.user_defined_restarts_text = false;
  other.add_end = other.prefix_once = other.prefix_if_absent = other.collapse_spaces = other.nfc = true;
  other.strips_left = {1, 5}, other.strips_right = {0, 2};
  other.end_tokens = {1, 2, 5};
  expect_equal(written_and_read(other), other);
  other.begin.reset(), other.end.reset(), other.add_end = false;
  expect_equal(written_and_read(other), other);
  const Vocabulary bytes = byte_bpe().read();
  expect_equal(written_and_read(bytes), bytes);
  other = bytes;
  other.pretokenizer = "llama-bpe";
  other.ignore_merges = false;
  other.nfc = true;
  other.begin = 3;
  expect_equal(written_and_read(other), other);
}

TEST(VocabularyMetadata, KeysAsOtherProgramsExpectThem) {
  Metadata metadata;
  vocabulary_to_metadata(File().read(), metadata);
  EXPECT_EQ(metadata.get_string("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(metadata.get_int("tokenizer.ggml.bos_token_id", 0, 9), 1);
  EXPECT_EQ(metadata.get_int("tokenizer.ggml.eos_token_id", 0, 9), 2);
  EXPECT_EQ(metadata.get_int("tokenizer.ggml.unknown_token_id", 0, 9), 0);
  EXPECT_EQ(metadata.get_int("tokenizer.ggml.eot_token_id", 0, 9), 5);  // "<|eot_id|>"
  EXPECT_TRUE(metadata.get_bool("tokenizer.ggml.add_bos_token", false));
  EXPECT_TRUE(metadata.get_bool("tokenizer.ggml.add_space_prefix", false));
  EXPECT_THAT(metadata.get_ints("tokenizer.ggml.token_type"), ElementsAre(2, 3, 3, 6, 1, 3));
  EXPECT_FALSE(metadata.has("tokenizer.ggml.merges"));
  Metadata bytes;
  vocabulary_to_metadata(byte_bpe().read(), bytes);
  EXPECT_EQ(bytes.get_string("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(bytes.get_string("tokenizer.ggml.pre"), "default");
  EXPECT_THAT(bytes.get_strings("tokenizer.ggml.merges"), ElementsAre("a b"));
  EXPECT_FALSE(bytes.has("tokenizer.ggml.scores"));
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
