#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "sentencepiece_writer.h"
#include "support/temporary_folder.h"
#include "text/sentencepiece_bpe.h"
#include "text/vocabulary_readers.h"
#include "text_fixtures.h"

/// SentencePiece's .model, tiktoken's ranks and llama2.c's tokenizer.bin: what is read, and what is refused.
namespace contexture {
namespace {

using test::kData;
using test::SentencePieceWriter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

Vocabulary read(const std::string& file, int64_t vocabulary_size = 0) {
  return vocabulary_from_bytes(as_bytes(file), "some.file", vocabulary_size);
}

void expect_refused(const std::string& file, const char* message, int64_t vocabulary_size = 0) {
  EXPECT_THAT([&] { read(file, vocabulary_size); },
              ThrowsMessage<Error>(::testing::AllOf(HasSubstr("some.file"), HasSubstr(message))));
}

/// Every beginning of a file, and every byte of it changed: read or refused, never a crash.
void expect_survives_damage(const std::string& file) {
  const auto try_read = [](const std::string& damaged) {
    try {
      Tokenizer(read(damaged)).encode("a text");
    } catch (const Error&) {
    }
  };
  for (size_t size = 0; size < file.size(); ++size) try_read(file.substr(0, size));
  for (size_t at = 0; at < std::min<size_t>(file.size(), 1000); ++at) {
    for (const int value : {0x00, 0x7F, 0x80, 0xFF, file[at] ^ 1}) {
      std::string damaged = file;
      damaged[at] = static_cast<char>(value);
      try_read(damaged);
    }
  }
}

TEST(VocabularyFile, UnknownFilesAreRefused) {
  for (const std::string& file :
       {std::string(), std::string("{model: 1}"), std::string("GGUF"), std::string(100, '\0')}) {
    expect_refused(file, "not a tokenizer file");
  }
  EXPECT_THROW(vocabulary_from_file("no/such/file"), Error);
}

// --- SentencePiece

SentencePieceWriter small_model() {
  SentencePieceWriter writer;
  for (const char* text : {"\u2581", "a", "b", "ab"}) writer.pieces.push_back({text, -1, 1});
  return writer;
}

TEST(VocabularyFile, SentencePiece) {
  SentencePieceWriter writer = small_model();
  Vocabulary vocabulary = read(writer.write());
  EXPECT_EQ(vocabulary.algorithm, Vocabulary::Algorithm::sentencepiece_bpe);
  EXPECT_THAT(vocabulary.pieces, ElementsAre("<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab"));
  EXPECT_EQ(vocabulary.scores[3], -1);
  EXPECT_EQ(vocabulary.unknown, 0);
  EXPECT_EQ(vocabulary.begin, 1);
  EXPECT_EQ(vocabulary.end, 2);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(2));
  EXPECT_TRUE(vocabulary.add_space_prefix);
  EXPECT_FALSE(vocabulary.collapse_spaces);
  EXPECT_FALSE(vocabulary.user_defined_restarts_text);
  writer.add_dummy_prefix = false;
  writer.remove_extra_whitespaces = true;
  vocabulary = read(writer.write());
  EXPECT_FALSE(vocabulary.add_space_prefix);
  EXPECT_TRUE(vocabulary.collapse_spaces);
}

TEST(VocabularyFile, SentencePieceModelsOfOtherKindsAreRefusedByName) {
  SentencePieceWriter writer = small_model();
  writer.model_type = 1;
  expect_refused(writer.write(), "unigram");
  writer.model_type = 99;
  expect_refused(writer.write(), "only BPE");
  writer = small_model();
  writer.charsmap = "rules";
  expect_refused(writer.write(), "identity");
  writer = small_model();
  writer.space_is_suffix = true;
  expect_refused(writer.write(), "treat_whitespace_as_suffix");
  writer = small_model();
  writer.escape_whitespaces = false;
  expect_refused(writer.write(), "escape_whitespaces");
}

TEST(VocabularyFile, DamagedSentencePieceModels) {
  const std::string file = small_model().write();
  expect_refused(file.substr(0, file.size() - 1), "cut off");
  const std::string head = SentencePieceWriter::bytes(1, SentencePieceWriter::bytes(1, "a"));
  expect_refused(head + "\x0A" + std::string(9, '\xFF') + "\x01", "cut off");   // a size of 2^64 - 1
  expect_refused(head + "\x0A" + std::string(10, '\xFF') + "\x01", "cut off");  // a varint of 11 bytes
  expect_refused(head + "\x0B", "cut off");                                     // a wire type that is no more
  expect_refused(head + SentencePieceWriter::number(1, 5), "not a SentencePiece model");
  expect_refused(SentencePieceWriter::bytes(1, SentencePieceWriter::bytes(1, "")), "piece 0 is empty");
  expect_refused(SentencePieceWriter::bytes(1, SentencePieceWriter::bytes(1, "a") + SentencePieceWriter::number(3, 7)),
                 "type 7");
  expect_survives_damage(file);
}

// --- tiktoken

std::string base64(std::string_view bytes) {
  constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) text += i + k <= bytes.size() ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

std::string tiktoken_file(const std::vector<std::string>& more = {}) {
  std::string file;
  for (int byte = 0; byte < 256; ++byte) file += base64(std::string(1, byte)) + " " + std::to_string(byte) + "\n";
  for (size_t i = 0; i < more.size(); ++i) file += base64(more[i]) + " " + std::to_string(256 + i) + "\n";
  return file;
}

TEST(VocabularyFile, Tiktoken) {
  const std::string file = tiktoken_file({"ab", "abc", "\xC3\xA9", "    "});
  const Vocabulary vocabulary = read_tiktoken_vocabulary(as_bytes(file), "some.file", 0);
  EXPECT_EQ(vocabulary.algorithm, Vocabulary::Algorithm::byte_bpe);
  EXPECT_EQ(vocabulary.pretokenizer, "llama-bpe");
  EXPECT_EQ(vocabulary.pieces.size(), 256u + 4 + 256);
  EXPECT_EQ(vocabulary.begin, 260);
  EXPECT_EQ(vocabulary.end, 261);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(261, 268, 269));
  const Tokenizer tokenizer(vocabulary);
  EXPECT_THAT(tokenizer.encode("xabc"), ElementsAre(260, 'x', 257));
  EXPECT_THAT(tokenizer.encode("\u00E9<|eot_id|>"), ElementsAre(260, 258, 269));
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(all)), all);
}

TEST(VocabularyFile, TiktokenFilesOtherThanLlama3sAreRefused) {
  expect_refused(tiktoken_file(), "256 ranks");
}

TEST(VocabularyFile, DamagedTiktokenFiles) {
  const std::string file = tiktoken_file();
  expect_refused(file + "YQ== 300\n", "line 257");   // a gap in the ranks
  expect_refused(file + "YQ==\n", "line 257");       // no rank
  expect_refused(file + "Y?== 256\n", "line 257");   // no base64
  expect_refused(file + "YQ= 256\n", "line 257");    // base64 cut off
  expect_refused(file + " 256\n", "line 257");       // no token
  expect_refused(file + "YQ== 256x\n", "line 257");  // more after the rank
  expect_refused(file + "YQ== 99999999999999999999999\n", "line 257");
  expect_refused(file + "\n\n", "line 257");
  expect_survives_damage(file.substr(0, 600));
}

// --- llama2.c

struct Llama2cWriter {
  std::string file = std::string("\x07\0\0\0", 4);

  void add(std::string_view piece, float score = 0) { add(piece, score, static_cast<int32_t>(piece.size())); }
  void add(std::string_view piece, float score, int32_t size) {
    char head[8];
    std::memcpy(head, &score, 4);
    std::memcpy(head + 4, &size, 4);
    file.append(head, 8).append(piece);
  }
};

Llama2cWriter small_llama2c() {
  Llama2cWriter writer;
  for (const char* piece : {"<unk>", "\n<s>\n", "\n</s>\n"}) writer.add(piece);
  for (int byte = 0; byte < 256; ++byte) writer.add(fmt::format("<0x{:02X}>", byte));
  writer.add(" ", -3), writer.add("a", -2), writer.add(" a", -1);
  return writer;
}

TEST(VocabularyFile, Llama2c) {
  const Vocabulary vocabulary = read(small_llama2c().file);
  EXPECT_EQ(vocabulary.pieces.size(), 262u);
  EXPECT_EQ(vocabulary.pieces[1], "<s>");
  EXPECT_EQ(vocabulary.pieces[2], "</s>");
  EXPECT_EQ(vocabulary.types[3], PieceType::byte);
  EXPECT_EQ(vocabulary.types[259], PieceType::normal);
  EXPECT_EQ(vocabulary.scores[261], -1);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(2));
  EXPECT_THAT(Tokenizer(vocabulary).encode("a a\n"), ElementsAre(1, 261, 261, 3 + '\n'));
  EXPECT_EQ(read(small_llama2c().file, 262).pieces.size(), 262u);
}

TEST(VocabularyFile, DamagedLlama2cFiles) {
  const Llama2cWriter good = small_llama2c();
  expect_refused(good.file, "the model has 263", 263);
  expect_refused(good.file, "the model has 100", 100);
  expect_refused(good.file + "abc", "cut off in piece 262");
  for (const int32_t size : {-1, INT32_MIN, INT32_MAX, 6}) {
    Llama2cWriter bad = good;
    bad.add("short", 0, size);
    expect_refused(bad.file, "cut off in piece 262");
  }
  Llama2cWriter bad = good;
  bad.add("x", NAN);
  expect_refused(bad.file, "not a number");
  bad = good;
  bad.add(std::string(5000, 'x'));
  expect_refused(bad.file, "5000 bytes");
  expect_survives_damage(good.file.substr(0, 300));
}

// --- ExecuTorch

/// As its tools write the vocabulary of a SentencePiece model.
std::string executorch_file(const Vocabulary& vocabulary, int32_t begin, int32_t end) {
  Llama2cWriter writer;
  int32_t header[4] = {static_cast<int32_t>(vocabulary.pieces.size()), begin, end, 48};
  writer.file.assign(reinterpret_cast<const char*>(header), sizeof(header));
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    writer.add(spaces_for_marks(vocabulary.pieces[id]), vocabulary.scores[id]);
  }
  return writer.file;
}

Vocabulary small_executorch() {
  Vocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "\u2581a"};
  vocabulary.scores = {0, 0, 0, 0, -3, -2, -1};
  return vocabulary;
}

TEST(VocabularyFile, Executorch) {
  const Vocabulary vocabulary = read(executorch_file(small_executorch(), 1, 2));
  EXPECT_THAT(vocabulary.pieces, ElementsAre("<unk>", "<s>", "</s>", "<0x0A>", " ", "a", " a"));
  EXPECT_THAT(vocabulary.types, ElementsAre(PieceType::unknown, PieceType::control, PieceType::control, PieceType::byte,
                                            PieceType::normal, PieceType::normal, PieceType::normal));
  EXPECT_EQ(vocabulary.unknown, 0);
  EXPECT_EQ(vocabulary.begin, 1);
  EXPECT_THAT(vocabulary.end_tokens, ElementsAre(2));
  EXPECT_THAT(Tokenizer(vocabulary).encode("a a\n"), ElementsAre(1, 6, 6, 3));
  EXPECT_EQ(read(executorch_file(small_executorch(), 2, 5)).end, 5);
}

TEST(VocabularyFile, DamagedExecutorchFiles) {
  const std::string file = executorch_file(small_executorch(), 1, 2);
  expect_refused(file.substr(0, file.size() - 1), "cut off in piece 6 of 7");
  expect_refused(file.substr(0, 16), "cut off in piece 0 of 7");
  expect_refused(file + "abc", "more than the 7 pieces");
  for (const int32_t id : {7, -1, INT32_MIN}) expect_refused(executorch_file(small_executorch(), id, 2), "not a");
  const std::string rest = file.substr(4);
  expect_refused("\xFF\xFF\xFF\x7F" + rest, "not a tokenizer file");                     // 2^31 - 1 pieces
  expect_refused(std::string("\0\0\x40\0", 4) + rest, "cut off in piece 7 of 4194304");  // as many as there may be
  expect_survives_damage(file);
}

TEST(VocabularyFile, Llama2AsExecutorchFile) {
  SKIP_WITHOUT(kData + "llama2/tokenizer.model");
  const Vocabulary model = test::open_vocabulary(kData + "llama2/tokenizer.model");
  const Tokenizer expected(model), actual(read(executorch_file(model, 1, 2)));
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = test::random_text(random, random() % 60) + "</s>" + test::random_text(random, 5);
    ASSERT_EQ(actual.encode(text), expected.encode(text)) << ::testing::PrintToString(text);
  }
}

// --- folders

TEST(VocabularyFile, AFolderIsSearched) {
  const TemporaryFolder temporary;
  const std::filesystem::path& folder = temporary.path();
  const auto write = [&](const char* name, const std::string& bytes) {
    std::ofstream(folder / name, std::ios::binary) << bytes;
  };
  EXPECT_THAT([&] { vocabulary_from_file(folder.string()); },
              ThrowsMessage<Error>(::testing::AllOf(HasSubstr("tokenizer.json, tokenizer.model, tokenizer.bin"),
                                                    HasSubstr(folder.string()))));
  write("tokenizer.bin", small_llama2c().file);
  EXPECT_EQ(vocabulary_from_file(folder.string()).pieces.size(), 262u);
  write("tokenizer.model", small_model().write());
  EXPECT_EQ(vocabulary_from_file(folder.string()).pieces.size(), 7u);
  write("tokenizer.json", "{}");
  EXPECT_THAT([&] { vocabulary_from_file(folder.string()); }, ThrowsMessage<Error>(HasSubstr("tokenizer.json")));
}

// --- the three agree

TEST(VocabularyFile, Llama2sModelAndBinAndGgufAgree) {
  for (const char* name : {"llama2/tokenizer.model", "llama2/tokenizer.bin", "vocab/ggml-vocab-llama-spm.gguf"}) {
    SKIP_WITHOUT(kData + name);
  }
  const Tokenizer model(test::open_vocabulary(kData + "llama2/tokenizer.model"));
  const Tokenizer bin(vocabulary_from_file(kData + "llama2/tokenizer.bin", 32000));
  const Tokenizer gguf(test::open_vocabulary(kData + "vocab/ggml-vocab-llama-spm.gguf"));
  for (TokenId id = 0; id < 32000; ++id) {
    ASSERT_EQ(model.bytes(id, true), gguf.bytes(id, true)) << id;
    ASSERT_EQ(model.bytes(id, true), bin.bytes(id, true)) << id;
    ASSERT_EQ(model.vocabulary().types[id], bin.vocabulary().types[id]) << id;
    ASSERT_EQ(model.is_end(id), bin.is_end(id)) << id;
  }
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = test::random_text(random, random() % 60) + "</s>" + test::random_text(random, 5);
    ASSERT_EQ(model.encode(text), gguf.encode(text)) << ::testing::PrintToString(text);
    ASSERT_EQ(model.encode(text), bin.encode(text)) << ::testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace contexture
