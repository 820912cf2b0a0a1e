#include <cstring>
#include <string_view>

#include "base/error.h"
#include "text/vocabulary_readers.h"

/// SentencePiece's .model, a protocol buffer (sentencepiece_model.proto). Of its fields we need these:
///
///   ModelProto     1 pieces (repeated)   2 trainer_spec   3 normalizer_spec
///   pieces         1 piece: string       2 score: float   3 type: enum, as PieceType (1 where it is missing)
///   trainer_spec   3 model_type: enum    24 treat_whitespace_as_suffix: bool   46 bos_piece, 47 eos_piece: string
///   normalizer     1 name: string        2 precompiled_charsmap: bytes   3 add_dummy_prefix
///                  4 remove_extra_whitespaces   5 escape_whitespaces: bool, true where they are missing
///
/// A field is a varint (number << 3 | wire type) and its value: 0 a varint, 1 eight bytes, 2 a varint size and that
/// many bytes, 5 four bytes. Reading this much takes less code than the library takes to link.
namespace contexture {
namespace {

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      ///< wire types 0, 1 and 5
  std::string_view bytes;  ///< wire type 2
  bool is_bytes = false;

  float as_float() const {
    const uint32_t bits = static_cast<uint32_t>(value);
    float result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
  }
};

class Message {
 public:
  Message(std::string_view bytes, const std::string& name) : left_(bytes), name_(name) {}

  /// False at the end. Throws Error where the bytes are no message.
  bool next(Field& field) {
    if (left_.empty()) return false;
    const uint64_t key = varint();
    field = {};
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.bytes = take(varint()), field.is_bytes = true;
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        damaged();
    }
    return true;
  }

 private:
  [[noreturn]] void damaged() const { fail("{}: damaged or cut off; copy the file again", name_); }

  std::string_view take(uint64_t size) {
    if (size > left_.size()) damaged();
    const std::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    damaged();
  }

  uint64_t fixed(int size) {
    uint64_t value = 0;
    std::memcpy(&value, take(size).data(), size);  // little-endian, as every machine we run on
    return value;
  }

  std::string_view left_;
  const std::string& name_;
};

/// What the two specs say, with the defaults of the format.
struct Specs {
  uint64_t model_type = 1;
  bool space_is_suffix = false;
  std::string begin_piece = "<s>", end_piece = "</s>";
  std::string normalizer;
  bool has_charsmap = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
};

void read_piece(std::string_view bytes, const std::string& name, Vocabulary& vocabulary) {
  Message message(bytes, name);
  std::string piece;
  float score = 0;
  uint64_t type = static_cast<uint64_t>(PieceType::normal);
  for (Field field; message.next(field);) {
    if (field.number == 1) piece = field.bytes;
    if (field.number == 2) score = field.as_float();
    if (field.number == 3) type = field.value;
  }
  const size_t id = vocabulary.pieces.size();
  check_piece_count(id + 1, name);
  if (piece.empty()) fail("{}: piece {} is empty; the file is damaged", name, id);
  if (type < static_cast<uint64_t>(PieceType::normal) || type > static_cast<uint64_t>(PieceType::byte)) {
    fail("{}: piece {} has the unknown type {}; the file is damaged", name, id, type);
  }
  vocabulary.pieces.push_back(std::move(piece));
  vocabulary.scores.push_back(score);
  vocabulary.types.push_back(static_cast<PieceType>(type));
}

void read_trainer(std::string_view bytes, const std::string& name, Specs& specs) {
  Message message(bytes, name);
  for (Field field; message.next(field);) {
    if (field.number == 3) specs.model_type = field.value;
    if (field.number == 24) specs.space_is_suffix = field.value != 0;
    if (field.number == 46) specs.begin_piece = field.bytes;
    if (field.number == 47) specs.end_piece = field.bytes;
  }
}

void read_normalizer(std::string_view bytes, const std::string& name, Specs& specs) {
  Message message(bytes, name);
  for (Field field; message.next(field);) {
    if (field.number == 1) specs.normalizer = field.bytes;
    if (field.number == 2) specs.has_charsmap = !field.bytes.empty();
    if (field.number == 3) specs.add_dummy_prefix = field.value != 0;
    if (field.number == 4) specs.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) specs.escape_whitespaces = field.value != 0;
  }
}

/// What we do not do is refused by name: ids that are nearly right would be worse.
void refuse_unsupported(const Specs& specs, const std::string& name) {
  constexpr const char* kModelTypes[] = {"?", "unigram", "BPE", "word", "char"};
  if (specs.model_type != 2) {
    fail("{}: a SentencePiece {} model; only BPE is known; use a model with a BPE tokenizer", name,
         kModelTypes[specs.model_type < std::size(kModelTypes) ? specs.model_type : 0]);
  }
  if (specs.has_charsmap) {
    fail("{}: rewrites text by the rules \"{}\"; only \"identity\" is known; use a model without them", name,
         printable(specs.normalizer));
  }
  if (specs.space_is_suffix || !specs.escape_whitespaces) {
    fail("{}: treats spaces in an unusual way ({}); only the usual one is known; use another tokenizer", name,
         specs.space_is_suffix ? "treat_whitespace_as_suffix" : "escape_whitespaces is off");
  }
}

/// The library finds these by their names too.
std::optional<TokenId> find_piece(const Vocabulary& vocabulary, std::string_view piece, PieceType type) {
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (vocabulary.types[id] == type && (piece.empty() || vocabulary.pieces[id] == piece)) return id;
  }
  return std::nullopt;
}

}  // namespace

bool is_sentencepiece_vocabulary(std::span<const std::byte> bytes) {
  constexpr std::byte kPieces{1 << 3 | 2};
  return bytes.size() > 2 && bytes[0] == kPieces;
}

Vocabulary read_sentencepiece_vocabulary(std::span<const std::byte> bytes, const std::string& name) {
  Vocabulary vocabulary;
  Specs specs;
  Message message({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name);
  for (Field field; message.next(field);) {
    if (field.number <= 3 && !field.is_bytes)
      fail("{}: not a SentencePiece model, or damaged; copy the file again", name);
    if (field.number == 1) read_piece(field.bytes, name, vocabulary);
    if (field.number == 2) read_trainer(field.bytes, name, specs);
    if (field.number == 3) read_normalizer(field.bytes, name, specs);
  }
  refuse_unsupported(specs, name);
  vocabulary.unknown = find_piece(vocabulary, "", PieceType::unknown);
  vocabulary.begin = find_piece(vocabulary, specs.begin_piece, PieceType::control);
  vocabulary.end = find_piece(vocabulary, specs.end_piece, PieceType::control);
  // The file does not say whether a text begins with the begin token; the models that come with one expect it.
  vocabulary.add_begin = vocabulary.begin.has_value();
  vocabulary.add_space_prefix = specs.add_dummy_prefix;
  vocabulary.collapse_spaces = specs.remove_extra_whitespaces;
  vocabulary.user_defined_restarts_text = false;
  collect_end_tokens(vocabulary);
  check_vocabulary(vocabulary, name);
  return vocabulary;
}

}  // namespace contexture
