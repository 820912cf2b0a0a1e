#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "text/byte_bpe.h"
#include "text/pretokenizer.h"
#include "text/pretokenizer_kinds.h"
#include "text/string_map.h"
#include "text/vocabulary_readers.h"

/// Hugging Face's tokenizer.json, of which we read the byte pair encodings of Llama's kin:
///
///   model           {"type": "BPE", "vocab": {piece: id}, "merges": ["a b" or ["a", "b"]], "unk_token",
///                   "byte_fallback", "fuse_unk", "ignore_merges"}
///   added_tokens    [{"id", "content", "special", "lstrip", "rstrip", "single_word", "normalized"}]: cut out of a text
///                   before all else, the normalized ones after the normalizer
///   normalizer      rewrites what is left: NFC; " " to "▁"; "▁" before it
///   pre_tokenizer   splits it into words: regular expressions, digits, punctuation; ByteLevel, which also writes bytes
///                   as characters; or Metaspace, which writes "▁" for spaces
///   post_processor  the tokens that a whole text begins and ends with
///
/// With ByteLevel it is byte_bpe, with "▁" it is sentencepiece_bpe. Everything that would change ids and is not known
/// is refused by its name. Truncation and padding are for training, and transformers turns them off; the decoder says
/// nothing that the others do not.
namespace contexture {
namespace {

using nlohmann::json;

/// A number larger than any vocabulary is damage; so are ids that leave most places empty.
constexpr size_t kFreeHoles = 1024;

/// By falling rank: what a file's begin and end tokens are called, should its post-processor not say.
constexpr std::string_view kRankedBeginNames[] = {"<s>",
                                                  "<|begin_of_text|>",
                                                  "<bos>",
                                                  "<|startoftext|>",
                                                  "<BOS_TOKEN>",
                                                  "<\xEF\xBD\x9C"
                                                  "begin\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};
constexpr std::string_view kRankedEndNames[] = {"</s>",
                                                "<|end_of_text|>",
                                                "<eos>",
                                                "<|endoftext|>",
                                                "<|END_OF_TURN_TOKEN|>",
                                                "<\xEF\xBD\x9C"
                                                "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
                                                "<|im_end|>"};

class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  Vocabulary read(const json& file);

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}: {}; use another form of the model, such as GGUF, or another model", name_,
         fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void refuse_type(std::string_view type) const {
    fail("{}: a tokenizer of type \"{}\"; only BPE is known, in whatever form the model comes; use another model",
         name_, printable(type));
  }
  [[noreturn]] void damaged(std::string_view what) const { fail("{}: {}; download the file again", name_, what); }

  const json* find(const json& object, const char* key) const;
  const json& list(const json& object, const char* key) const;
  std::string text(const json& object, const char* key) const;
  bool flag(const json& object, const char* key, bool fallback) const;
  TokenId id_of(const json& value, std::string_view piece) const;

  void read_model(const json& model);
  void read_pieces(const json& model, const json& added);
  void place(std::string_view piece, TokenId id, PieceType type);
  void read_added(const json& added, const json& vocab);
  void read_unknown(const json& model, const json& vocab);
  void read_normalizer(const json& node);
  void read_pretokenizer(const json& node);
  void read_split(const json& node);
  void read_digits(const json& node);
  void read_punctuation(const json& node);
  void read_metaspace(const json& node);
  void read_byte_level(const json& node);
  void read_post_processor(const json& node);
  void read_template(const json& node);
  void read_pair(const json& node);
  void choose_byte_bpe(const json& model);
  void choose_algorithm(const json& model);
  void read_merges(const json& model);
  std::pair<std::string, std::string> merge_of(const json& value, size_t rank) const;
  std::optional<TokenId> find_special(std::span<const std::string_view> names) const;

  const std::string& name_;
  Vocabulary vocabulary_;
  std::vector<bool> taken_;         ///< by id: a piece is there
  bool normalizes_spaces_ = false;  ///< the normalizer writes "▁" for spaces
  bool has_metaspace_ = false;      ///< ... or the pre-tokenizer does
  bool is_byte_level_ = false;
  bool drops_gaps_ = false;                ///< what lies between matches is no word
  bool splits_at_spaces_ = false;          ///< merges stay within words that begin with "▁"
  bool has_space_split_ = false;           ///< a Split at " ", which does nothing once spaces are "▁"
  std::vector<Pretokenizer::Step> steps_;  ///< of the pre-tokenizer
};

/// Null where the key is missing, or null in the file.
const json* Reader::find(const json& object, const char* key) const {
  if (!object.is_object()) damaged(fmt::format("an object with \"{}\" is something else", key));
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const json& Reader::list(const json& object, const char* key) const {
  const json* value = find(object, key);
  if (value == nullptr || !value->is_array()) damaged(fmt::format("\"{}\" is missing or no list", key));
  return *value;
}

std::string Reader::text(const json& object, const char* key) const {
  const json* value = find(object, key);
  if (value == nullptr || !value->is_string()) damaged(fmt::format("\"{}\" is missing or no text", key));
  return value->get<std::string>();
}

bool Reader::flag(const json& object, const char* key, bool fallback) const {
  const json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) damaged(fmt::format("\"{}\" is neither true nor false", key));
  return value->get<bool>();
}

TokenId Reader::id_of(const json& value, std::string_view piece) const {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxPieces) {
    damaged(fmt::format("the id of \"{}\" is {}, no number from 0 to {}", printable(piece),
                        printable(value.dump(-1, ' ', true)), kMaxPieces - 1));
  }
  return static_cast<TokenId>(value.get<uint64_t>());
}

// --- the pieces

void Reader::read_model(const json& model) {
  const json* type = find(model, "type");
  const json* vocab = find(model, "vocab");
  if (type != nullptr && !type->is_string()) damaged("\"type\" is no text");
  if (type != nullptr && *type != "BPE") refuse_type(text(model, "type"));
  // Older files do not say what they are.
  if (type == nullptr && vocab != nullptr && vocab->is_array()) refuse_type("Unigram");
  if (type == nullptr && !model.contains("merges")) {
    refuse_type(model.contains("max_input_chars_per_word") ? "WordPiece" : "WordLevel");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (find(model, key) != nullptr && !text(model, key).empty()) refuse("uses {}, which is not known", key);
  }
  const json* dropout = find(model, "dropout");
  if (dropout != nullptr && *dropout != 0) refuse("uses dropout, which is for training");
  vocabulary_.ignore_merges = flag(model, "ignore_merges", false);
  vocabulary_.fuse_unknown = flag(model, "fuse_unk", false);
}

/// Ids may have holes; they become unused pieces.
void Reader::read_pieces(const json& model, const json& added) {
  const json* vocab = find(model, "vocab");
  if (vocab == nullptr || !vocab->is_object()) damaged("\"vocab\" is missing or no object");
  const bool has_bytes = !is_byte_level_ && flag(model, "byte_fallback", false);
  const size_t entries = vocab->size() + added.size();
  size_t size = 0;
  for (const auto& [piece, id] : vocab->items()) size = std::max<size_t>(size, id_of(id, piece) + size_t{1});
  for (const json& token : added) {
    const json* id = find(token, "id");
    size = std::max<size_t>(size, id_of(id == nullptr ? json() : *id, text(token, "content")) + size_t{1});
  }
  if (size > 2 * entries + kFreeHoles) damaged(fmt::format("ids up to {}, but {} pieces", size - 1, entries));
  vocabulary_.pieces.resize(size);
  vocabulary_.types.assign(size, PieceType::unused);
  taken_.assign(size, false);
  for (const auto& [piece, id] : vocab->items()) {
    place(piece, id_of(id, piece), has_bytes && is_byte_name(piece) ? PieceType::byte : PieceType::normal);
  }
  read_added(added, *vocab);
  for (size_t id = 0; id < size; ++id) {
    if (!taken_[id]) vocabulary_.pieces[id] = fmt::format("[PAD{}]", id);
  }
  read_unknown(model, *vocab);
}

void Reader::place(std::string_view piece, TokenId id, PieceType type) {
  if (taken_[id] && vocabulary_.pieces[id] != piece) {
    damaged(
        fmt::format("\"{}\" and \"{}\" have the same id {}", printable(vocabulary_.pieces[id]), printable(piece), id));
  }
  vocabulary_.pieces[id] = piece;
  vocabulary_.types[id] = type;
  taken_[id] = true;
}

void Reader::read_added(const json& added, const json& vocab) {
  for (const json& token : added) {
    const std::string content = text(token, "content");
    const TokenId id = id_of(token.at("id"), content);
    const auto in_vocab = vocab.find(content);
    if (in_vocab != vocab.end() && *in_vocab != id) {
      damaged(fmt::format("\"{}\" has the ids {} and {}", printable(content), in_vocab->get<uint64_t>(), id));
    }
    place(content, id, flag(token, "special", false) ? PieceType::control : PieceType::user_defined);
  }
  const std::pair<const char*, std::vector<TokenId>&> kMarks[] = {{"lstrip", vocabulary_.strips_left},
                                                                  {"rstrip", vocabulary_.strips_right},
                                                                  {"single_word", vocabulary_.single_words},
                                                                  {"normalized", vocabulary_.normalized}};
  for (const auto& [key, ids] : kMarks) {
    for (const json& token : added) {
      if (flag(token, key, false)) ids.push_back(id_of(token.at("id"), key));
    }
    std::sort(ids.begin(), ids.end());
  }
}

void Reader::read_unknown(const json& model, const json& vocab) {
  if (find(model, "unk_token") == nullptr) return;
  const std::string piece = text(model, "unk_token");
  const auto found = vocab.find(piece);
  if (found != vocab.end()) {
    vocabulary_.unknown = id_of(*found, piece);
  } else {
    const auto at = std::find(vocabulary_.pieces.begin(), vocabulary_.pieces.end(), piece);
    if (at == vocabulary_.pieces.end()) damaged(fmt::format("unk_token \"{}\" is no piece", printable(piece)));
    vocabulary_.unknown = static_cast<TokenId>(at - vocabulary_.pieces.begin());
  }
}

// --- what is done to a text

void Reader::read_normalizer(const json& node) {
  const std::string type = text(node, "type");
  if (type == "Sequence") {
    for (const json& part : list(node, "normalizers")) read_normalizer(part);
  } else if (type == "NFC") {
    vocabulary_.nfc = true;
  } else if (type == "Prepend" && text(node, "prepend") == kSpaceMark) {
    vocabulary_.add_space_prefix = true;
  } else if (type == "Replace" && find(node, "pattern") != nullptr && *find(node, "pattern") == json{{"String", " "}} &&
             text(node, "content") == kSpaceMark) {
    normalizes_spaces_ = true;
  } else {
    refuse("the normalizer {} is not known in this form", printable(node.dump(-1, ' ', true)));
  }
}

void Reader::read_pretokenizer(const json& node) {
  const std::string type = text(node, "type");
  if (type == "Sequence") {
    for (const json& part : list(node, "pretokenizers")) read_pretokenizer(part);
  } else if (type == "Split") {
    read_split(node);
  } else if (type == "Digits") {
    read_digits(node);
  } else if (type == "Punctuation") {
    read_punctuation(node);
  } else if (type == "ByteLevel") {
    read_byte_level(node);
  } else if (type == "Metaspace") {
    read_metaspace(node);
  } else {
    refuse("the pre-tokenizer {} is not known", printable(type));
  }
}

/// Matches and what lies between them are words, or (inverted) matches alone.
void Reader::read_split(const json& node) {
  const json* pattern = find(node, "pattern");
  const std::string behavior = text(node, "behavior");
  const bool is_inverted = flag(node, "invert", false);
  if (pattern != nullptr && *pattern == json{{"String", " "}} && behavior == "MergedWithPrevious" && !is_inverted) {
    has_space_split_ = true;
  } else if (pattern != nullptr && pattern->is_object() && pattern->contains("Regex") &&
             ((behavior == "Isolated" && !is_inverted) || (behavior == "Removed" && is_inverted))) {
    drops_gaps_ = drops_gaps_ || is_inverted;
    steps_.push_back({text(*pattern, "Regex"), is_byte_level_ ? Regex::Of::bytes : Regex::Of::characters});
  } else {
    refuse("the pre-tokenizer {} is not known in this form", printable(node.dump(-1, ' ', true)));
  }
}

void Reader::read_digits(const json& node) {
  const bool is_individual = flag(node, "individual_digits", false);
  if (!is_byte_level_) {
    steps_.push_back({is_individual ? split_expressions::kDigit : split_expressions::kDigits});
  } else if (!is_individual) {
    steps_.push_back({split_expressions::kDigitsOfBytes, Regex::Of::bytes});
  } else {
    refuse("Digits, one by one, after ByteLevel is not known");
  }
}

void Reader::read_punctuation(const json& node) {
  const std::string behavior = find(node, "behavior") == nullptr ? "Isolated" : text(node, "behavior");
  if (is_byte_level_ || (behavior != "Isolated" && behavior != "Contiguous")) {
    refuse("Punctuation {} is not known", is_byte_level_ ? "after ByteLevel" : printable(behavior));
  }
  const bool is_single = behavior == "Isolated";
  steps_.push_back({is_single ? split_expressions::kPunctuationMarks : split_expressions::kPunctuationRuns});
}

void Reader::read_byte_level(const json& node) {
  if (is_byte_level_) refuse("the pre-tokenizer ByteLevel comes twice");
  is_byte_level_ = true;
  if (flag(node, "add_prefix_space", true)) {
    if (!steps_.empty()) refuse("ByteLevel with add_prefix_space puts a space before every word");
    vocabulary_.prefix_if_absent = true;
  }
  if (flag(node, "use_regex", true)) steps_.push_back({split_expressions::kByteLevel});
}

void Reader::read_metaspace(const json& node) {
  if (text(node, "replacement") != kSpaceMark) refuse("Metaspace with another replacement than U+2581 is not known");
  const bool adds = flag(node, "add_prefix_space", true);  // of files before prepend_scheme
  const std::string scheme = find(node, "prepend_scheme") != nullptr ? text(node, "prepend_scheme")
                             : adds                                  ? "always"
                                                                     : "never";
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    refuse("Metaspace's prepend_scheme \"{}\" is not known", printable(scheme));
  }
  if (has_metaspace_) refuse("the pre-tokenizer Metaspace comes twice");
  has_metaspace_ = true;
  splits_at_spaces_ = flag(node, "split", true);
  if (scheme == "never" || vocabulary_.add_space_prefix) return;  // a normalizer may have put it there already
  vocabulary_.add_space_prefix = true;
  vocabulary_.prefix_if_absent = true;
  vocabulary_.prefix_once = scheme == "first";
}

void Reader::read_post_processor(const json& node) {
  const std::string type = text(node, "type");
  if (type == "Sequence") {
    for (const json& part : list(node, "processors")) read_post_processor(part);
  } else if (type == "TemplateProcessing") {
    read_template(node);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    read_pair(node);
  } else if (type != "ByteLevel") {
    refuse("the post-processor {} is not known", printable(type));
  }
}

/// {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [1]}}}
void Reader::read_template(const json& node) {
  bool is_after_text = false;
  for (const json& item : list(node, "single")) {
    const json* special = find(item, "SpecialToken");
    if (special == nullptr) {
      const json* sequence = find(item, "Sequence");
      if (sequence == nullptr || text(*sequence, "id") != "A" || is_after_text) refuse("the template is no one text");
      is_after_text = true;
      continue;
    }
    const std::string token = text(*special, "id");
    const json* tokens = find(node, "special_tokens");
    const json* entry = tokens == nullptr ? nullptr : find(*tokens, token.c_str());
    if (entry == nullptr || list(*entry, "ids").size() != 1)
      refuse("the template's \"{}\" is no one token", printable(token));
    const TokenId id = id_of(list(*entry, "ids")[0], token);
    bool& adds = is_after_text ? vocabulary_.add_end : vocabulary_.add_begin;
    if (adds) refuse("the template puts several tokens {} a text", is_after_text ? "after" : "before");
    adds = true;
    (is_after_text ? vocabulary_.end : vocabulary_.begin) = id;
  }
  if (!is_after_text) refuse("the template has no text");
}

/// {"cls": ["<s>", 0], "sep": ["</s>", 2]}
void Reader::read_pair(const json& node) {
  for (const auto& [key, id, adds] : {std::tuple("cls", &vocabulary_.begin, &vocabulary_.add_begin),
                                      std::tuple("sep", &vocabulary_.end, &vocabulary_.add_end)}) {
    const json& token = list(node, key);
    if (token.size() != 2 || !token[0].is_string()) damaged(fmt::format("\"{}\" is no token with its id", key));
    if (*adds) refuse("two post-processors put tokens around a text");
    *adds = true;
    *id = id_of(token[1], token[0].get<std::string>());
  }
}

// --- what it amounts to

void Reader::choose_byte_bpe(const json& model) {
  if (vocabulary_.add_space_prefix || has_space_split_) refuse("ByteLevel together with other handling of spaces");
  vocabulary_.add_space_prefix = vocabulary_.prefix_if_absent;
  for (int byte = 0; byte < 256 && flag(model, "byte_fallback", false); ++byte) {
    if (!model.at("vocab").contains(printable_of_bytes(std::string(1, static_cast<char>(byte))))) {
      refuse("byte_fallback together with ByteLevel, and no piece for the byte {}", byte);
    }
  }
  vocabulary_.algorithm = Vocabulary::Algorithm::byte_bpe;
  const auto kind = Pretokenizer::find_published(steps_, *vocabulary_.ignore_merges);
  if (!kind) {
    std::vector<std::string> expressions;
    for (const Pretokenizer::Step& step : steps_) expressions.push_back(step.expression);
    refuse("its pre-tokenizer's expressions are not known: {}",
           printable(fmt::format("{}", fmt::join(expressions, "  then  ")), 200));
  }
  // The expressions that end like this match all of a text.
  if (drops_gaps_ && (steps_.size() != 1 || !steps_[0].expression.ends_with("|\\s+"))) {
    refuse("its pre-tokenizer drops what lies between matches");
  }
  vocabulary_.pretokenizer = *kind;
}

void Reader::choose_algorithm(const json& model) {
  const bool has_marks = normalizes_spaces_ || has_metaspace_;
  if (is_byte_level_ == has_marks) {
    refuse("a BPE tokenizer with {}; one of the two is known",
           is_byte_level_ ? "both ByteLevel and U+2581 for spaces" : "neither ByteLevel nor U+2581 for spaces");
  }
  if (is_byte_level_) return choose_byte_bpe(model);
  if (!steps_.empty()) refuse("U+2581 for spaces together with the expression {}", printable(steps_[0].expression));
  if (has_space_split_ && !normalizes_spaces_) refuse("a Split at spaces that are no U+2581 yet");
  if (*vocabulary_.ignore_merges) refuse("ignore_merges without ByteLevel");
  vocabulary_.marks_after_cutting = !normalizes_spaces_;
  vocabulary_.ignore_merges.reset();
}

std::pair<std::string, std::string> Reader::merge_of(const json& value, size_t rank) const {
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return {value[0].get<std::string>(), value[1].get<std::string>()};
  }
  if (value.is_string()) {
    const std::string& both = value.get_ref<const std::string&>();
    const size_t space = both.find(' ');
    if (space != both.npos && both.find(' ', space + 1) == both.npos) {
      return {both.substr(0, space), both.substr(space + 1)};
    }
  }
  damaged(fmt::format("merge {} is no two pieces", rank));
}

/// A merge whose result holds "▁" elsewhere than in front never comes to pass where words begin with it.
void Reader::read_merges(const json& model) {
  const json& merges = list(model, "merges");
  SymbolMap ids;
  ids.reserve(vocabulary_.pieces.size());
  for (size_t id = 0; id < vocabulary_.pieces.size(); ++id) {
    if (taken_[id]) ids.emplace(vocabulary_.pieces[id], static_cast<TokenId>(id));
  }
  vocabulary_.merges.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merge_of(merges[rank], rank);
    const auto result = ids.find(left + right);
    if (left.empty() || right.empty() || !ids.contains(left) || !ids.contains(right) || result == ids.end()) {
      damaged(fmt::format("merge {}, \"{}\" and \"{}\", is not of pieces and into a piece", rank, printable(left),
                          printable(right)));
    }
    if (splits_at_spaces_ && (left + right).find(kSpaceMark, 1) != std::string::npos) continue;
    if (left.find(' ') != left.npos || right.find(' ') != right.npos) continue;  // no text has it at this point
    std::string& merge = vocabulary_.merges.emplace_back(left);
    (merge += ' ') += right;
  }
  if (vocabulary_.merges.empty()) damaged("there are no merges");
  if (!is_byte_level_) score_by_merges(vocabulary_);
}

std::optional<TokenId> Reader::find_special(std::span<const std::string_view> names) const {
  for (const std::string_view name : names) {
    const auto found = std::find(vocabulary_.pieces.begin(), vocabulary_.pieces.end(), name);
    const size_t id = found - vocabulary_.pieces.begin();
    if (found != vocabulary_.pieces.end() && vocabulary_.types[id] == PieceType::control) return id;
  }
  return std::nullopt;
}

Vocabulary Reader::read(const json& file) {
  vocabulary_.add_begin = vocabulary_.add_space_prefix = false;
  const json* model = find(file, "model");
  if (model == nullptr) damaged("\"model\" is missing");
  read_model(*model);
  const json* added = find(file, "added_tokens");
  if (added != nullptr && !added->is_array()) damaged("\"added_tokens\" is no list");
  if (const json* node = find(file, "normalizer")) read_normalizer(*node);
  if (const json* node = find(file, "pre_tokenizer")) read_pretokenizer(*node);
  read_pieces(*model, added == nullptr ? json::array() : *added);
  if (const json* node = find(file, "post_processor")) read_post_processor(*node);
  choose_algorithm(*model);
  read_merges(*model);
  if (!vocabulary_.begin) vocabulary_.begin = find_special(kRankedBeginNames);
  if (!vocabulary_.end) vocabulary_.end = find_special(kRankedEndNames);
  check_vocabulary(vocabulary_, name_);
  collect_end_tokens(vocabulary_);
  return std::move(vocabulary_);
}

}  // namespace

bool is_huggingface_vocabulary(std::span<const std::byte> bytes) {
  constexpr std::string_view kWhite = " \t\r\n";
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const size_t brace = text.find_first_not_of(kWhite);
  if (brace == text.npos || text[brace] != '{') return false;
  const size_t next = text.find_first_not_of(kWhite, brace + 1);  // llama2.c's file may begin with the number 123
  return next != text.npos && (text[next] == '"' || text[next] == '}');
}

Vocabulary read_huggingface_vocabulary(std::span<const std::byte> bytes, const std::string& name) {
  return Reader(name).read(parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name));
}

}  // namespace contexture
