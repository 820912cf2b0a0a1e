#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>

#include "base/error.h"
#include "base/log.h"
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
///   tokenizer.add_space_prefix          of a "gpt2", where GGUF's key of this name says nothing
///   tokenizer.ignore_merges, .nfc, .prefix_once, .prefix_if_absent, .user_defined_restarts_text, .fuse_unknown,
///   .marks_after_cutting, .strips_left, .strips_right, .single_words, .normalized
///                                       as in Vocabulary
namespace contexture {
namespace {

constexpr const char* kWhere = "tokenizer.ggml";
constexpr const char* kBeginKey = "tokenizer.ggml.bos_token_id";
constexpr const char* kEndKey = "tokenizer.ggml.eos_token_id";
constexpr const char* kUnknownKey = "tokenizer.ggml.unknown_token_id";
constexpr const char* kAddBeginKey = "tokenizer.ggml.add_bos_token";
constexpr const char* kAddEndKey = "tokenizer.ggml.add_eos_token";

bool is_id(int64_t id, size_t pieces) {
  return id >= 0 && id < static_cast<int64_t>(pieces);
}

/// For "there is none" writers put -1, which is 0xffffffff in GGUF's 32 bits; other ids that are none are worth a word.
void warn_of_id(const Metadata& metadata, const char* key, int64_t id, size_t pieces) {
  if (id == -1 || id == UINT32_MAX) return;
  log_warning("{}: the key {} names the token {}, but there are {}; it is left out", printable(metadata.origin(), 400),
              key, id, pieces);
}

std::optional<TokenId> read_id(const Metadata& metadata, const char* key, size_t pieces) {
  if (!metadata.has(key)) return std::nullopt;
  const int64_t id = metadata.get_int(key, INT64_MIN, INT64_MAX);
  if (is_id(id, pieces)) return static_cast<TokenId>(id);
  warn_of_id(metadata, key, id, pieces);
  return std::nullopt;
}

/// A token to put before or after every text; not where the file says that there is none.
bool read_adds(const Metadata& metadata, const char* key, bool fallback, const char* id_key,
               const std::optional<TokenId>& id) {
  const bool adds = metadata.get_bool(key, fallback);
  if (!adds || id || !metadata.has(id_key)) return adds;
  log_warning("{}: the key {} asks for a token that {} says is none; none is added", printable(metadata.origin(), 400),
              key, id_key);
  return false;
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

/// Of keys of ours, which are in order.
std::vector<TokenId> read_ids(const Metadata& metadata, const char* key, size_t pieces) {
  std::vector<TokenId> ids;
  for (const int64_t id : metadata.get_ints(key)) {
    if (!is_id(id, pieces)) {
      fail("{}: the key {} names the token {}, but there are {}; use the tokenizer that the model was made with",
           printable(metadata.origin(), 400), key, id, pieces);
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

void read_end_tokens(const Metadata& metadata, Vocabulary& vocabulary) {
  constexpr const char* kEnds = "tokenizer.end_token_ids";  // a model's configuration may be their source
  for (const int64_t id : metadata.get_ints(kEnds)) {
    if (is_id(id, vocabulary.pieces.size())) {
      vocabulary.end_tokens.push_back(static_cast<TokenId>(id));
    } else {
      warn_of_id(metadata, kEnds, id, vocabulary.pieces.size());
    }
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
    const auto assume = [&](std::optional<TokenId>& id, const char* key, TokenId usual) {
      if (!metadata.has(key) && is_id(usual, vocabulary.pieces.size())) id = usual;
    };
    assume(vocabulary.unknown, kUnknownKey, 0);
    assume(vocabulary.begin, kBeginKey, 1);
    assume(vocabulary.end, kEndKey, 2);
  }
  vocabulary.add_begin = read_adds(metadata, kAddBeginKey, vocabulary.begin.has_value(), kBeginKey, vocabulary.begin);
  vocabulary.add_space_prefix = metadata.get_bool("tokenizer.ggml.add_space_prefix", true);
  vocabulary.collapse_spaces = metadata.get_bool("tokenizer.ggml.remove_extra_whitespaces", false);
  vocabulary.prefix_once = metadata.get_bool("tokenizer.prefix_once", false);
  vocabulary.prefix_if_absent = metadata.get_bool("tokenizer.prefix_if_absent", false);
  vocabulary.user_defined_restarts_text = metadata.get_bool("tokenizer.user_defined_restarts_text", true);
  vocabulary.fuse_unknown = metadata.get_bool("tokenizer.fuse_unknown", true);
  vocabulary.marks_after_cutting = metadata.get_bool("tokenizer.marks_after_cutting", false);
}

std::vector<std::string> read_merges(const Metadata& metadata) {
  std::vector<std::string> merges = metadata.get_strings("tokenizer.ggml.merges");
  if (merges.empty()) fail("{}.merges is missing; convert the model again", kWhere);
  return merges;
}

/// Gemma 4 and its like: pieces and spaces as SentencePiece has them, which merge by a list. Files are called "gpt2"
/// and "gemma4", or "gemma4" alone.
bool is_listed_sentencepiece(const std::string& model, const std::string& pretokenizer) {
  constexpr std::string_view kNames[] = {"gemma4", "granite-embed-multi-311m", "sarvam-moe"};
  return model == "gemma4" ||
         (model == "gpt2" && std::find(std::begin(kNames), std::end(kNames), pretokenizer) != std::end(kNames));
}

/// As llama.cpp has it: Gemma 4's files may deny that a text begins with the begin token, and it does.
void read_listed_sentencepiece(const Metadata& metadata, Vocabulary& vocabulary) {
  vocabulary.merges = read_merges(metadata);
  score_by_merges(vocabulary);
  vocabulary.add_space_prefix = false;
  const bool is_sarvam = metadata.get_string("tokenizer.ggml.pre", "") == "sarvam-moe";
  vocabulary.add_begin =
      is_sarvam ? read_adds(metadata, kAddBeginKey, false, kBeginKey, vocabulary.begin) : vocabulary.begin.has_value();
}

void read_byte_bpe(const Metadata& metadata, Vocabulary& vocabulary) {
  vocabulary.pretokenizer = metadata.get_string("tokenizer.ggml.pre", "default");
  if (vocabulary.pretokenizer == "whitespace") {
    fail(
        "{}.pre is \"whitespace\", which drops the spaces of a text, so that none could be written with it; it is of "
        "models that embed texts, and this program runs models that write them",
        kWhere);
  }
  // Kimi K2's are those of its tiktoken file, which has none: pieces merge by their ids.
  const bool may_lack_merges = vocabulary.pretokenizer == "kimi-k2" && !metadata.has("tokenizer.ggml.merges");
  if (!may_lack_merges) vocabulary.merges = read_merges(metadata);
  if (!Pretokenizer::is_known(vocabulary.pretokenizer)) {
    fail("{}.pre is \"{}\", which is not known; known are {}", kWhere, printable(vocabulary.pretokenizer),
         Pretokenizer::names());
  }
  const bool usual = Pretokenizer::begin_is_usual(vocabulary.pretokenizer) && vocabulary.begin.has_value();
  vocabulary.add_begin = read_adds(metadata, kAddBeginKey, usual, kBeginKey, vocabulary.begin);
  vocabulary.add_space_prefix = vocabulary.prefix_if_absent = metadata.get_bool("tokenizer.add_space_prefix", false);
  vocabulary.fuse_unknown = metadata.get_bool("tokenizer.fuse_unknown", false);
  if (metadata.has("tokenizer.ignore_merges")) {
    vocabulary.ignore_merges = metadata.get_bool("tokenizer.ignore_merges", false);
  }
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

/// Phi-3's tokenizer.json marks its added tokens "rstrip", a mark that GGUF has no key for; llama.cpp too goes by the
/// name. So do the masks of some models, with "lstrip".
void guess_strips(const Metadata& metadata, Vocabulary& vocabulary) {
  const bool is_sentencepiece = vocabulary.algorithm == Vocabulary::Algorithm::sentencepiece_bpe;
  const std::string model = lower_case(metadata.get_string("general.name", ""));
  const bool is_phi3 = is_sentencepiece && (model.find("phi-3") != model.npos || model.find("phi3") != model.npos);
  const std::string& kind = vocabulary.pretokenizer;
  const std::string_view mask = kind == "jina-v2-de" || kind == "jina-v2-es" || kind == "jina-v2-code" ? "<mask>"
                                : model.find("modern-bert") != model.npos                              ? "[MASK]"
                                                                                                       : "";
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const std::string& piece = vocabulary.pieces[id];
    const PieceType type = vocabulary.types[id];
    const bool is_special = type == PieceType::control || type == PieceType::user_defined || type == PieceType::unknown;
    const bool keeps = piece == "<unk>" || piece == "<s>" || piece == "<|endoftext|>";
    if (is_phi3 && ((is_special && !keeps) || piece == "</s>")) vocabulary.strips_right.push_back(id);
    if (!mask.empty() && piece == mask) vocabulary.strips_left.push_back(id);
  }
}

/// The list for strips_right is there in every file of ours.
void read_marks_of_pieces(const Metadata& metadata, Vocabulary& vocabulary) {
  if (!metadata.has("tokenizer.strips_right")) return guess_strips(metadata, vocabulary);
  const size_t count = vocabulary.pieces.size();
  vocabulary.strips_left = read_ids(metadata, "tokenizer.strips_left", count);
  vocabulary.strips_right = read_ids(metadata, "tokenizer.strips_right", count);
  vocabulary.single_words = read_ids(metadata, "tokenizer.single_words", count);
  vocabulary.normalized = read_ids(metadata, "tokenizer.normalized", count);
}

/// What GGUF calls them, and what they are.
[[noreturn]] void refuse_model(const std::string& model) {
  constexpr std::pair<std::string_view, const char*> kOthers[] = {
      {"t5", "T5's Unigram"},  {"bert", "BERT's WordPiece"}, {"rwkv", "RWKV's"},
      {"plamo2", "PLaMo 2's"}, {"hybriddna", "HybridDNA's"}, {"whitespace", "BPE of words without their spaces"}};
  constexpr const char* kKnown = "\"llama\" (SentencePiece BPE), \"gpt2\" (byte-level BPE) and \"gemma4\"";
  for (const auto& [name, what] : kOthers) {
    if (model != name) continue;
    fail("{}.model is \"{}\" ({}), a kind of tokenizer that this program has not; use a model with one of {}", kWhere,
         name, what, kKnown);
  }
  fail("{}.model is \"{}\"; known are {}", kWhere, printable(model), kKnown);
}

/// GGUF's words for a model that was converted without a tokenizer.
bool says_no_vocabulary(const std::string& model) {
  return model == "no_vocab" || model == "none";
}

}  // namespace

Vocabulary vocabulary_from_metadata(const Metadata& metadata) {
  Vocabulary vocabulary;
  const std::string model = metadata.get_string("tokenizer.ggml.model", "no_vocab");
  if (says_no_vocabulary(model)) {
    fail("{}: a model without a tokenizer ({}.model: no_vocab); name one with --tokenizer PATH",
         printable(metadata.origin(), 400), kWhere);
  }
  if (model != "llama" && model != "gpt2" && model != "gemma4") refuse_model(model);
  const bool is_listed = is_listed_sentencepiece(model, metadata.get_string("tokenizer.ggml.pre", "default"));
  const bool is_sentencepiece = model == "llama" || is_listed;
  vocabulary.algorithm = is_sentencepiece ? Vocabulary::Algorithm::sentencepiece_bpe : Vocabulary::Algorithm::byte_bpe;
  vocabulary.pieces = metadata.get_strings("tokenizer.ggml.tokens");
  if (vocabulary.pieces.empty()) fail("{}.tokens is missing or empty; convert the model again", kWhere);
  const size_t count = vocabulary.pieces.size();
  vocabulary.begin = read_id(metadata, kBeginKey, count);
  vocabulary.end = read_id(metadata, kEndKey, count);
  vocabulary.unknown = read_id(metadata, kUnknownKey, count);
  if (is_listed) {
    read_listed_sentencepiece(metadata, vocabulary);
  } else if (is_sentencepiece) {
    read_sentencepiece(metadata, vocabulary);
  } else {
    read_byte_bpe(metadata, vocabulary);
  }
  vocabulary.add_end = read_adds(metadata, kAddEndKey, false, kEndKey, vocabulary.end);
  read_types(metadata, vocabulary);
  check_vocabulary(vocabulary, kWhere);
  read_end_tokens(metadata, vocabulary);
  vocabulary.nfc = metadata.get_bool("tokenizer.nfc", false);
  read_marks_of_pieces(metadata, vocabulary);
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
  if (const auto id = read_id(metadata, kBeginKey, count)) vocabulary.begin = id;
  if (const auto id = read_id(metadata, kEndKey, count)) vocabulary.end = id;
  if (const auto id = piece_named(metadata, "tokenizer.bos_token", vocabulary)) vocabulary.begin = id;
  if (const auto id = piece_named(metadata, "tokenizer.eos_token", vocabulary)) vocabulary.end = id;
  vocabulary.add_begin = read_adds(metadata, kAddBeginKey, vocabulary.add_begin, kBeginKey, vocabulary.begin);
  vocabulary.add_end = read_adds(metadata, kAddEndKey, vocabulary.add_end, kEndKey, vocabulary.end);
  read_end_tokens(metadata, vocabulary);
  check_vocabulary(vocabulary, metadata.origin());
}

std::optional<Vocabulary> vocabulary_of(const Metadata& metadata) {
  if (says_no_vocabulary(metadata.get_string("tokenizer.ggml.model", "no_vocab"))) return std::nullopt;
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
  if (!vocabulary.fuse_unknown) metadata.set_bool("tokenizer.fuse_unknown", false);
  if (vocabulary.marks_after_cutting) metadata.set_bool("tokenizer.marks_after_cutting", true);
  const bool has_all = vocabulary.begin && vocabulary.end && vocabulary.unknown;
  if (!has_all) metadata.set_bool("tokenizer.ids_are_complete", true);
}

void write_byte_bpe(const Vocabulary& vocabulary, Metadata& metadata) {
  metadata.set_string("tokenizer.ggml.pre", vocabulary.pretokenizer);
  metadata.set_strings("tokenizer.ggml.merges",
                       vocabulary.merges.empty() ? byte_bpe_merges_by_id(vocabulary) : vocabulary.merges);
  const bool usual = Pretokenizer(vocabulary.pretokenizer).ignores_merges();
  if (vocabulary.ignore_merges.value_or(usual) != usual) metadata.set_bool("tokenizer.ignore_merges", !usual);
  if (vocabulary.fuse_unknown) metadata.set_bool("tokenizer.fuse_unknown", true);
  const bool adds_space = vocabulary.add_space_prefix && vocabulary.prefix_if_absent;
  if (adds_space) metadata.set_bool("tokenizer.add_space_prefix", true);
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
  write_id(vocabulary.begin, kBeginKey, metadata);
  write_id(vocabulary.end, kEndKey, metadata);
  write_id(vocabulary.unknown, kUnknownKey, metadata);
  metadata.set_bool(kAddBeginKey, vocabulary.add_begin);
  metadata.set_bool(kAddEndKey, vocabulary.add_end);
  write_id(find_turn_end(vocabulary), "tokenizer.ggml.eot_token_id", metadata);
  if (!vocabulary.end_tokens.empty()) write_ids(vocabulary.end_tokens, "tokenizer.end_token_ids", metadata);
  if (vocabulary.nfc) metadata.set_bool("tokenizer.nfc", true);
  const auto write_marks = [&](const std::vector<TokenId>& ids, const char* key) {
    if (!ids.empty()) write_ids(ids, key, metadata);
  };
  write_marks(vocabulary.strips_left, "tokenizer.strips_left");
  write_marks(vocabulary.single_words, "tokenizer.single_words");
  write_marks(vocabulary.normalized, "tokenizer.normalized");
  write_ids(vocabulary.strips_right, "tokenizer.strips_right", metadata);  // even if empty: see read_marks_of_pieces
}

}  // namespace contexture
