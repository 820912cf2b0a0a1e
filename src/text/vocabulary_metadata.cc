#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "text/pretokenizer.h"
#include "text/vocabulary_readers.h"

/// The keys tokenizer.ggml.* of GGUF.
namespace contexture {
namespace {

constexpr const char* kWhere = "tokenizer.ggml";

bool is_byte_name(const std::string& piece) {
  return piece.size() == 6 && piece.starts_with("<0x") && piece[5] == '>';
}

std::optional<TokenId> read_id(const Metadata& metadata, const char* key, size_t pieces) {
  if (!metadata.has(key)) return std::nullopt;
  return static_cast<TokenId>(metadata.get_int(key, 0, static_cast<int64_t>(pieces) - 1));
}

/// Files of 2023 bring no types: then bytes are known by their names and the unknown, begin and end token by their ids.
void read_types(const Metadata& metadata, Vocabulary& vocabulary) {
  const std::vector<int64_t>& types = metadata.get_ints("tokenizer.ggml.token_type");
  if (types.empty()) {
    for (const std::string& piece : vocabulary.pieces) {
      vocabulary.types.push_back(is_byte_name(piece) ? PieceType::byte : PieceType::normal);
    }
    for (const auto& id : {vocabulary.begin, vocabulary.end}) {
      if (id) vocabulary.types[*id] = PieceType::control;
    }
    if (vocabulary.unknown) vocabulary.types[*vocabulary.unknown] = PieceType::unknown;
    return;
  }
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] < 0 || types[id] > static_cast<int64_t>(PieceType::byte)) {
      fail("{}.token_type: piece {} has the unknown type {}; convert the model again", kWhere, id, types[id]);
    }
    // 0 is "undefined" to the converters, and nothing treats it unlike a normal piece.
    vocabulary.types.push_back(types[id] == 0 ? PieceType::normal : static_cast<PieceType>(types[id]));
  }
}

void read_end_tokens(const Metadata& metadata, Vocabulary& vocabulary) {
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = read_id(metadata, key, vocabulary.pieces.size())) vocabulary.end_tokens.push_back(*id);
  }
  collect_end_tokens(vocabulary);
}

void read_sentencepiece(const Metadata& metadata, Vocabulary& vocabulary) {
  vocabulary.scores = metadata.get_floats("tokenizer.ggml.scores");
  if (vocabulary.scores.empty()) {
    fail("{}.scores is missing, and a SentencePiece vocabulary merges by it; convert the model again", kWhere);
  }
  // What SentencePiece itself assumes, for files that leave it out.
  if (!vocabulary.unknown) vocabulary.unknown = 0;
  if (!vocabulary.begin && vocabulary.pieces.size() > 1) vocabulary.begin = 1;
  if (!vocabulary.end && vocabulary.pieces.size() > 2) vocabulary.end = 2;
  vocabulary.add_begin = metadata.get_bool("tokenizer.ggml.add_bos_token", vocabulary.begin.has_value());
  vocabulary.add_space_prefix = metadata.get_bool("tokenizer.ggml.add_space_prefix", true);
  vocabulary.collapse_spaces = metadata.get_bool("tokenizer.ggml.remove_extra_whitespaces", false);
}

void read_byte_bpe(const Metadata& metadata, Vocabulary& vocabulary) {
  vocabulary.merges = metadata.get_strings("tokenizer.ggml.merges");
  if (vocabulary.merges.empty()) fail("{}.merges is missing; convert the model again", kWhere);
  vocabulary.pretokenizer = metadata.get_string("tokenizer.ggml.pre", "default");
  if (!Pretokenizer::is_known(vocabulary.pretokenizer)) {
    fail("{}.pre is \"{}\", which is not known; known are {}", kWhere, printable(vocabulary.pretokenizer),
         Pretokenizer::names());
  }
  const bool usual = Pretokenizer::begin_is_usual(vocabulary.pretokenizer) && vocabulary.begin.has_value();
  vocabulary.add_begin = metadata.get_bool("tokenizer.ggml.add_bos_token", usual);
  vocabulary.add_space_prefix = false;
}

/// Phi-3's tokenizer.json marks its added tokens "rstrip", a mark that GGUF cannot carry; llama.cpp too goes by the
/// name.
void read_strips_right(const Metadata& metadata, Vocabulary& vocabulary) {
  std::string model = metadata.get_string("general.name", "");
  std::transform(model.begin(), model.end(), model.begin(), [](unsigned char c) { return std::tolower(c); });
  if (model.find("phi-3") == model.npos && model.find("phi3") == model.npos) return;
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const std::string& piece = vocabulary.pieces[id];
    const bool is_special = vocabulary.types[id] == PieceType::control || vocabulary.types[id] == PieceType::unknown;
    const bool keeps = piece == "<unk>" || piece == "<s>" || piece == "<|endoftext|>";
    if ((is_special && !keeps) || piece == "</s>") vocabulary.strips_right.push_back(id);
  }
}

}  // namespace

Vocabulary vocabulary_from_metadata(const Metadata& metadata) {
  Vocabulary vocabulary;
  const std::string model = metadata.get_string("tokenizer.ggml.model");
  if (model != "llama" && model != "gpt2") {
    fail("{}.model is \"{}\"; known are \"llama\" (SentencePiece BPE) and \"gpt2\" (byte-level BPE)", kWhere,
         printable(model));
  }
  const bool is_sentencepiece = model == "llama";
  vocabulary.algorithm = is_sentencepiece ? Vocabulary::Algorithm::sentencepiece_bpe : Vocabulary::Algorithm::byte_bpe;
  vocabulary.pieces = metadata.get_strings("tokenizer.ggml.tokens");
  if (vocabulary.pieces.empty()) fail("{}.tokens is missing or empty; convert the model again", kWhere);
  const size_t count = vocabulary.pieces.size();
  vocabulary.begin = read_id(metadata, "tokenizer.ggml.bos_token_id", count);
  vocabulary.end = read_id(metadata, "tokenizer.ggml.eos_token_id", count);
  vocabulary.unknown = read_id(metadata, "tokenizer.ggml.unknown_token_id", count);
  if (is_sentencepiece) {
    read_sentencepiece(metadata, vocabulary);
  } else {
    read_byte_bpe(metadata, vocabulary);
  }
  vocabulary.add_end = metadata.get_bool("tokenizer.ggml.add_eos_token", false);
  read_types(metadata, vocabulary);
  check_vocabulary(vocabulary, kWhere);
  read_end_tokens(metadata, vocabulary);
  if (is_sentencepiece) read_strips_right(metadata, vocabulary);
  return vocabulary;
}

std::optional<Vocabulary> vocabulary_of(const Metadata& metadata) {
  if (metadata.get_string("tokenizer.ggml.model", "no_vocab") == "no_vocab") return std::nullopt;
  return vocabulary_from_metadata(metadata);
}

}  // namespace contexture
