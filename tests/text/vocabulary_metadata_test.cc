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

/// Of a vocabulary of six: -1 and its 32 bits mean "none", and what is out of range comes to the same.
constexpr int64_t kNoIds[] = {-1, UINT32_MAX, 6, int64_t{1} << 40};

Vocabulary written_and_read(const Vocabulary& vocabulary) {
  Metadata metadata;
  vocabulary_to_metadata(vocabulary, metadata);
  return vocabulary_from_metadata(metadata);
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

TEST(VocabularyMetadata, MasksOfSomeModelsSwallowTheSpaceBeforeThem) {
  File file = byte_bpe();
  file.tokens->push_back("<mask>"), file.tokens->push_back("[MASK]");
  file.types->push_back(3), file.types->push_back(3);
  EXPECT_TRUE(file.read().strips_left.empty());
  file.strings = {{"tokenizer.ggml.pre", "jina-v2-code"}};
  EXPECT_THAT(file.read().strips_left, ElementsAre(5));
  file.strings = {{"tokenizer.ggml.pre", "modern-bert"}, {"general.name", "Modern-BERT base"}};
  EXPECT_THAT(file.read().strips_left, ElementsAre(6));
}

/// Gemma 4: pieces with U+2581 and bytes by name, as SentencePiece has them, but merges as a list and no scores.
TEST(VocabularyMetadata, Gemma4MergesByAListOverSpacesAsMarks) {
  File file;
  file.model = "gemma4";
  file.tokens = {{"<pad>", "<bos>", "\u2581", "a", "b", "\u2581a", "ab", "\n", "\n\n", "<0xC3>", "<0xA9>", "<turn|>"}};
  file.types = {{3, 3, 1, 1, 1, 1, 1, 1, 1, 6, 6, 3}};
  file.scores.reset();
  file.merges = {{"a b", "\u2581 a", "\n \n"}};
  file.ids = {{"bos_token_id", 1}};
  file.flags = {{"add_bos_token", false}};  // which llama.cpp overrules
  const auto expect = [](const File& file, bool begins) {
    const Vocabulary vocabulary = file.read();
    EXPECT_EQ(vocabulary.algorithm, Vocabulary::Algorithm::sentencepiece_bpe);
    EXPECT_EQ(vocabulary.add_begin, begins);
    for (const Vocabulary& form : {vocabulary, written_and_read(vocabulary)}) {
      const Tokenizer tokenizer(form);
      const EncodeOptions plain{.add_begin = false};
      EXPECT_THAT(tokenizer.encode("a ab a\n\n\n", plain), ElementsAre(3, 2, 6, 5, 8, 7));
      EXPECT_THAT(tokenizer.encode("\u00E9<turn|>a", plain), ElementsAre(9, 10, 11, 3));
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(" a  ab")), " a  ab");
    }
  };
  expect(file, true);
  file.model = "gpt2";
  file.strings = {{"tokenizer.ggml.pre", "granite-embed-multi-311m"}};
  expect(file, true);
  file.strings = {{"tokenizer.ggml.pre", "sarvam-moe"}};
  expect(file, false);
  file.flags = {{"add_bos_token", true}};
  expect(file, true);
  file.merges.reset();
  expect_refused(file, "merges is missing");
}

TEST(VocabularyMetadata, KimiK2MergesByIdWhereTheFileHasNoList) {
  File file = byte_bpe();
  file.merges.reset();
  file.strings = {{"tokenizer.ggml.pre", "kimi-k2"}};
  EXPECT_THAT(Tokenizer(file.read()).encode("aab"), ElementsAre(0, 2));
}

TEST(VocabularyMetadata, Phi3sTokensSwallowTheSpaceAfterThem) {
  File file;
  EXPECT_TRUE(file.read().strips_right.empty());
  file.strings = {{"general.name", "Phi-3 mini"}};
  EXPECT_THAT(file.read().strips_right, ElementsAre(2, 5));  // "</s>" and "<|eot_id|>", but not "<s>" and "<unk>"
}

TEST(VocabularyMetadata, UnknownKindsAreRefusedByName) {
  File file;
  for (const auto& [model, what] : {std::pair("t5", "Unigram"), std::pair("bert", "WordPiece"),
                                    std::pair("rwkv", "RWKV"), std::pair("plamo2", "PLaMo 2")}) {
    file.model = model;
    EXPECT_THAT([&] { file.read(); },
                ThrowsMessage<Error>(AllOf(HasSubstr(model), HasSubstr(what), HasSubstr("use a model with one of"))));
  }
  file.model = "unheard-of";
  expect_refused(file, "\"unheard-of\"");
  file = byte_bpe();
  file.strings = {{"tokenizer.ggml.pre", "unheard-of"}};
  EXPECT_THAT([&] { file.read(); }, ThrowsMessage<Error>(AllOf(HasSubstr("\"unheard-of\""), HasSubstr("qwen2"))));
  file.strings = {{"tokenizer.ggml.pre", "whitespace"}};
  expect_refused(file, "drops the spaces");
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

TEST(VocabularyMetadata, AnIdThatIsNoneLeavesNoToken) {
  for (const int64_t id : kNoIds) {
    File file;
    for (const char* key : {"bos_token_id", "eos_token_id", "unknown_token_id", "eot_token_id", "eom_token_id"}) {
      file.ids.emplace_back(key, id);
    }
    const Vocabulary vocabulary = file.read();
    EXPECT_EQ(vocabulary.begin, std::nullopt);  // and none is guessed
    EXPECT_EQ(vocabulary.end, std::nullopt);
    EXPECT_EQ(vocabulary.unknown, std::nullopt);
    EXPECT_FALSE(vocabulary.add_begin);
    EXPECT_THAT(vocabulary.end_tokens, ElementsAre(2, 5));  // by their names
    file.flags = {{"add_bos_token", true}, {"add_eos_token", true}};
    EXPECT_FALSE(file.read().add_begin);  // there is nothing to add
    EXPECT_FALSE(file.read().add_end);
    file = byte_bpe();
    file.ids = {{"bos_token_id", id}, {"eos_token_id", 3}};
    file.flags = {{"add_bos_token", true}};
    EXPECT_EQ(file.read().begin, std::nullopt);
    EXPECT_FALSE(file.read().add_begin);
    EXPECT_EQ(file.read().end, 3);
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
  for (const int64_t id : kNoIds) {
    metadata.set_ints("tokenizer.end_token_ids", {5, id});
    EXPECT_THAT(vocabulary_from_metadata(metadata).end_tokens, ElementsAre(2, 3, 5));
  }
}

TEST(VocabularyMetadata, WhereTurnsHaveAnotherEndAMessagesEndIsNone) {
  const auto ends_of = [](std::vector<std::string> tokens) {
    File file;
    file.types = std::vector<int64_t>(tokens.size(), 3);
    file.scores = std::vector<float>(tokens.size(), 0);
    file.tokens = std::move(tokens);
    file.ids = {{"bos_token_id", -1}, {"eos_token_id", -1}, {"unknown_token_id", -1}};
    return file.read().end_tokens;
  };
  EXPECT_THAT(ends_of({"<|end|>", "<|return|>", "<|start|>"}), ElementsAre(0, 1));
  EXPECT_THAT(ends_of({"<|end|>", "<|return|>", "<|call|>"}), ElementsAre(1, 2));
  EXPECT_THAT(ends_of({"<|calls|>", "<|end|>", "<|flush|>"}), ElementsAre(0, 2));
  EXPECT_THAT(ends_of({"</s>", "<turn|>"}), ElementsAre(0, 1));
  EXPECT_THAT(ends_of({"</s>", "<turn|>", "<|tool_response>"}), ElementsAre(1, 2));
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

TEST(VocabularyMetadata, IdsThatAreNoneSayNoMore) {
  for (const int64_t id : kNoIds) {
    Vocabulary vocabulary = File().read();
    Metadata metadata;
    metadata.set_int("tokenizer.ggml.bos_token_id", id);
    metadata.set_int("tokenizer.ggml.eos_token_id", id);
    metadata.set_ints("tokenizer.end_token_ids", {id});
    apply_token_metadata(vocabulary, metadata);
    EXPECT_EQ(vocabulary.begin, 1);
    EXPECT_EQ(vocabulary.end, 2);
    EXPECT_TRUE(vocabulary.add_begin);
    EXPECT_THAT(vocabulary.end_tokens, ElementsAre(2, 5));
  }
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
  Vocabulary vocabulary = File().read();
  vocabulary.begin.reset();
  vocabulary.add_begin = false;
  Metadata metadata;
  metadata.set_bool("tokenizer.ggml.add_bos_token", true);
  EXPECT_THAT([&] { apply_token_metadata(vocabulary, metadata); }, ThrowsMessage<Error>(HasSubstr("there is none")));
}

// --- written and read again

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
  EXPECT_EQ(a.single_words, b.single_words);
  EXPECT_EQ(a.normalized, b.normalized);
  EXPECT_EQ(a.marks_after_cutting, b.marks_after_cutting);
  EXPECT_EQ(a.fuse_unknown, b.fuse_unknown);
}

TEST(VocabularyMetadata, EveryFieldIsWrittenAndReadAgain) {
  const Vocabulary usual = File().read();
  expect_equal(written_and_read(usual), usual);
  Vocabulary other = usual;
  other.merges = {"\u2581 a"};
  other.unknown.reset();
  other.add_begin = other.add_space_prefix = other.user_defined_restarts_text = false;
  other.add_end = other.prefix_once = other.prefix_if_absent = other.collapse_spaces = other.nfc = true;
  other.strips_left = {1, 5}, other.strips_right = {0, 2}, other.single_words = {5}, other.normalized = {2, 5};
  other.marks_after_cutting = true;
  other.fuse_unknown = false;
  other.end_tokens = {1, 2, 5};
  expect_equal(written_and_read(other), other);
  other.begin.reset(), other.end.reset(), other.add_end = false;
  expect_equal(written_and_read(other), other);
  const Vocabulary bytes = byte_bpe().read();
  expect_equal(written_and_read(bytes), bytes);
  other = bytes;
  other.pretokenizer = "llama-bpe";
  other.ignore_merges = false;
  other.nfc = other.fuse_unknown = other.add_space_prefix = other.prefix_if_absent = true;
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
  EXPECT_THAT([&] { vocabulary_from_metadata(metadata); },
              ThrowsMessage<Error>(AllOf(HasSubstr("without a tokenizer"), HasSubstr("--tokenizer"))));
  Metadata none;
  none.set_string("tokenizer.ggml.model", "none");
  EXPECT_EQ(vocabulary_of(none), std::nullopt);
  EXPECT_TRUE(vocabulary_of(File().metadata()).has_value());
  EXPECT_THROW(vocabulary_from_metadata(Metadata()), Error);
}

}  // namespace
}  // namespace contexture
