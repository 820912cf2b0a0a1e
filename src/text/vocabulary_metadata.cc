#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "text/byte_bpe.h"
#include "text/pretokenizer.h"
#include "text/sentencepiece_bpe.h"
#include "text/vocabulary_readers.h"

/// The keys tokenizer.ggml.* of GGUF, and ours for what it cannot say:
///
///   tokenizer.end_token_ids             every token that ends a text
///   tokenizer.merges_are_listed         of a "llama": it merges by the list, not by scores (which many files of that
///                                       kind bring both)
///   tokenizer.ids_are_complete          of a "llama": a missing begin, end or unknown token is not to be guessed
///
///   tokenizer.ignore_merges, .nfc, .prefix_once, .prefix_if_absent, .user_defined_restarts_text, .strips_left and
///   .strips_right                       as in Vocabulary
namespace contexture {
namespace {

constexpr const char* kWhere = "tokenizer.ggml";

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

std::vector<TokenId> read_ids(const Metadata& metadata, const char* key, size_t pieces) {
  std::vector<TokenId> ids;
  for (const int64_t id : metadata.get_ints(key)) {
    if (id < 0 || id >= static_cast<int64_t>(pieces)) {
      fail("{}: the key {} names the token {}, but there are {}; use the tokenizer that the model was made with",
           printable(metadata.origin(), 400), key, id, pieces);
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

void read_end_tokens(const Metadata& metadata, Vocabulary& vocabulary) {
  for (const TokenId id : read_ids(metadata, "tokenizer.end_token_ids", vocabulary.pieces.size())) {
    vocabulary.end_tokens.push_back(id);
  }
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
  if (metadata.get_bool("tokenizer.merges_are_listed", false)) {
    vocabulary.merges = metadata.get_strings("tokenizer.ggml.merges");
  }
  if (!metadata.get_bool("tokenizer.ids_are_complete", false)) {
    // What SentencePiece itself assumes, for files that leave it out.
    if (!vocabulary.unknown) vocabulary.unknown = 0;
    if (!vocabulary.begin && vocabulary.pieces.size() > 1) vocabulary.begin = 1;
    if (!vocabulary.end && vocabulary.pieces.size() > 2) vocabulary.end = 2;
  }
  vocabulary.add_begin = metadata.get_bool("tokenizer.ggml.add_bos_token", vocabulary.begin.has_value());
  vocabulary.add_space_prefix = metadata.get_bool("tokenizer.ggml.add_space_prefix", true);
  vocabulary.collapse_spaces = metadata.get_bool("tokenizer.ggml.remove_extra_whitespaces", false);
  vocabulary.prefix_once = metadata.get_bool("tokenizer.prefix_once", false);
  vocabulary.prefix_if_absent = metadata.get_bool("tokenizer.prefix_if_absent", false);
  vocabulary.user_defined_restarts_text = metadata.get_bool("tokenizer.user_defined_restarts_text", true);
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
  if (metadata.has("tokenizer.ignore_merges")) {
    vocabulary.ignore_merges = metadata.get_bool("tokenizer.ignore_merges", false);
  }
}

/// Phi-3's tokenizer.json marks its added tokens "rstrip", a mark that GGUF has no key for; llama.cpp too goes by the
/// name.
void read_strips(const Metadata& metadata, Vocabulary& vocabulary) {
  const size_t count = vocabulary.pieces.size();
  vocabulary.strips_left = read_ids(metadata, "tokenizer.strips_left", count);
  vocabulary.strips_right = read_ids(metadata, "tokenizer.strips_right", count);
  const bool is_sentencepiece = vocabulary.algorithm == Vocabulary::Algorithm::sentencepiece_bpe;
  if (metadata.has("tokenizer.strips_right") || !is_sentencepiece) return;
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
  vocabulary.nfc = metadata.get_bool("tokenizer.nfc", false);
  read_strips(metadata, vocabulary);
  return vocabulary;
}

namespace {

/// The piece that a key spells out; nothing where there is none such.
std::optional<TokenId> piece_named(const Metadata& metadata, const char* key, const Vocabulary& vocabulary) {
  const std::string text = metadata.get_string(key, "");
  const auto at = std::find(vocabulary.pieces.begin(), vocabulary.pieces.end(), text);
  if (text.empty() || at == vocabulary.pieces.end()) return std::nullopt;
  return static_cast<TokenId>(at - vocabulary.pieces.begin());
}

}  // namespace

void apply_token_metadata(Vocabulary& vocabulary, const Metadata& metadata) {
  const size_t count = vocabulary.pieces.size();
  if (const auto id = read_id(metadata, "tokenizer.ggml.bos_token_id", count)) vocabulary.begin = id;
  if (const auto id = read_id(metadata, "tokenizer.ggml.eos_token_id", count)) vocabulary.end = id;
  if (const auto id = piece_named(metadata, "tokenizer.bos_token", vocabulary)) vocabulary.begin = id;
  if (const auto id = piece_named(metadata, "tokenizer.eos_token", vocabulary)) vocabulary.end = id;
  vocabulary.add_begin = metadata.get_bool("tokenizer.ggml.add_bos_token", vocabulary.add_begin);
  vocabulary.add_end = metadata.get_bool("tokenizer.ggml.add_eos_token", vocabulary.add_end);
  read_end_tokens(metadata, vocabulary);
  check_vocabulary(vocabulary, metadata.origin());
}

std::optional<Vocabulary> vocabulary_of(const Metadata& metadata) {
  if (metadata.get_string("tokenizer.ggml.model", "no_vocab") == "no_vocab") return std::nullopt;
  return vocabulary_from_metadata(metadata);
}

namespace {

void write_id(std::optional<TokenId> id, const char* key, Metadata& metadata) {
  if (id) metadata.set_int(key, *id);
}

/// The token that ends a turn, where the end token ends the whole text.
std::optional<TokenId> find_turn_end(const Vocabulary& vocabulary) {
  constexpr std::array<std::string_view, 8> kNames = {"<|eot_id|>",      "<|im_end|>", "<|end|>", "<end_of_turn>",
                                                      "<|end_of_turn|>", "<|eot|>",    "<|EOT|>", "<end_of_utterance>"};
  for (const TokenId id : vocabulary.end_tokens) {
    const bool is_turns = std::find(kNames.begin(), kNames.end(), vocabulary.pieces[id]) != kNames.end();
    if (is_turns && id != vocabulary.end) return id;
  }
  return std::nullopt;
}

void write_ids(const std::vector<TokenId>& ids, const char* key, Metadata& metadata) {
  metadata.set_ints(key, {ids.begin(), ids.end()});
}

void write_sentencepiece(const Vocabulary& vocabulary, Metadata& metadata) {
  metadata.set_floats("tokenizer.ggml.scores", vocabulary.scores);
  if (!vocabulary.merges.empty()) {
    metadata.set_strings("tokenizer.ggml.merges", vocabulary.merges);
    metadata.set_bool("tokenizer.merges_are_listed", true);
  }
  metadata.set_bool("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix);
  if (vocabulary.collapse_spaces) metadata.set_bool("tokenizer.ggml.remove_extra_whitespaces", true);
  if (vocabulary.prefix_once) metadata.set_bool("tokenizer.prefix_once", true);
  if (vocabulary.prefix_if_absent) metadata.set_bool("tokenizer.prefix_if_absent", true);
  if (!vocabulary.user_defined_restarts_text) metadata.set_bool("tokenizer.user_defined_restarts_text", false);
  const bool has_all = vocabulary.begin && vocabulary.end && vocabulary.unknown;
  if (!has_all) metadata.set_bool("tokenizer.ids_are_complete", true);
}

void write_byte_bpe(const Vocabulary& vocabulary, Metadata& metadata) {
  metadata.set_string("tokenizer.ggml.pre", vocabulary.pretokenizer);
  metadata.set_strings("tokenizer.ggml.merges",
                       vocabulary.merges.empty() ? byte_bpe_merges_by_id(vocabulary) : vocabulary.merges);
  const bool usual = Pretokenizer(vocabulary.pretokenizer).ignores_merges();
  if (vocabulary.ignore_merges.value_or(usual) != usual) metadata.set_bool("tokenizer.ignore_merges", !usual);
}

}  // namespace

void vocabulary_to_metadata(const Vocabulary& vocabulary, Metadata& metadata) {
  const bool is_sentencepiece = vocabulary.algorithm == Vocabulary::Algorithm::sentencepiece_bpe;
  metadata.set_string("tokenizer.ggml.model", is_sentencepiece ? "llama" : "gpt2");
  if (is_sentencepiece) metadata.set_string("tokenizer.ggml.pre", "default");
  std::vector<std::string> pieces = vocabulary.pieces;
  for (size_t id = 0; id < pieces.size() && is_sentencepiece; ++id) {
    // llama2.c's files have spaces for spaces.
    if (vocabulary.types[id] == PieceType::normal) pieces[id] = marks_for_spaces(pieces[id]);
  }
  metadata.set_strings("tokenizer.ggml.tokens", std::move(pieces));
  std::vector<int64_t> types;
  for (const PieceType type : vocabulary.types) types.push_back(static_cast<int64_t>(type));
  metadata.set_ints("tokenizer.ggml.token_type", std::move(types));
  if (is_sentencepiece) {
    write_sentencepiece(vocabulary, metadata);
  } else {
    write_byte_bpe(vocabulary, metadata);
  }
  write_id(vocabulary.begin, "tokenizer.ggml.bos_token_id", metadata);
  write_id(vocabulary.end, "tokenizer.ggml.eos_token_id", metadata);
  write_id(vocabulary.unknown, "tokenizer.ggml.unknown_token_id", metadata);
  metadata.set_bool("tokenizer.ggml.add_bos_token", vocabulary.add_begin);
  metadata.set_bool("tokenizer.ggml.add_eos_token", vocabulary.add_end);
  write_id(find_turn_end(vocabulary), "tokenizer.ggml.eot_token_id", metadata);
  if (!vocabulary.end_tokens.empty()) write_ids(vocabulary.end_tokens, "tokenizer.end_token_ids", metadata);
  if (vocabulary.nfc) metadata.set_bool("tokenizer.nfc", true);
  if (!vocabulary.strips_left.empty()) write_ids(vocabulary.strips_left, "tokenizer.strips_left", metadata);
  write_ids(vocabulary.strips_right, "tokenizer.strips_right", metadata);  // even if empty: see read_strips
}

}  // namespace contexture
