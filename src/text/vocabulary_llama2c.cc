#include <cstring>

#include "base/error.h"
#include "text/vocabulary_readers.h"

/// Two files called tokenizer.bin, made of a SentencePiece model whose text starts with a space; little-endian, without
/// a magic number. Spaces are written as spaces.
///
///   llama2.c's                                  ExecuTorch's
///   int32  the longest piece in bytes           int32  how many pieces
///                                               int32  the begin token, int32  the end token
///                                               int32  the longest piece in bytes
///   { float32 score; int32 size; char piece[size]; } ...   to the end of the file
///
/// llama2.c's has fixed places: piece 0 is unknown, 1 begins a text ("\n<s>\n"), 2 ends it ("\n</s>\n"), 3 to 258 are
/// the bytes "<0x00>" to "<0xFF>". In ExecuTorch's, pieces are known by their names.
namespace contexture {
namespace {

constexpr TokenId kUnknown = 0, kBegin = 1, kEnd = 2, kFirstByte = 3;

class BytesReader {
 public:
  explicit BytesReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t left() const { return bytes_.size() - at_; }

  /// `left()` has room for it.
  template <typename T>
  T get() {
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::string get_string(size_t size) {
    const std::string text(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return text;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

struct Entry {
  float score;
  std::string piece;
};

/// False where the rest of the file holds no whole entry.
bool read_entry(BytesReader& reader, Entry& entry) {
  if (reader.left() < 8) return false;
  entry.score = reader.get<float>();
  const int32_t size = reader.get<int32_t>();
  if (size < 0 || static_cast<size_t>(size) > reader.left()) return false;
  entry.piece = reader.get_string(size);
  return true;
}

PieceType type_of(size_t id, const std::string& piece) {
  if (id == kUnknown) return PieceType::unknown;
  if (id == kBegin || id == kEnd) return PieceType::control;
  return id < kFirstByte + 256 && piece.size() == 6 && piece.starts_with("<0x") ? PieceType::byte : PieceType::normal;
}

PieceType type_by_name(const std::string& piece) {
  if (piece == "<unk>") return PieceType::unknown;
  return is_byte_name(piece) ? PieceType::byte : PieceType::normal;
}

struct ExecutorchHeader {
  int32_t count, begin, end, longest;
};

ExecutorchHeader read_executorch_header(BytesReader& reader) {
  ExecutorchHeader header;
  header.count = reader.get<int32_t>();
  header.begin = reader.get<int32_t>();
  header.end = reader.get<int32_t>();
  header.longest = reader.get<int32_t>();
  return header;
}

}  // namespace

/// In llama2.c's file, text lies where the longest size is here.
bool is_executorch_vocabulary(std::span<const std::byte> bytes) {
  BytesReader reader(bytes);
  if (reader.left() < sizeof(ExecutorchHeader)) return false;
  const ExecutorchHeader header = read_executorch_header(reader);
  const auto is_id = [&](int32_t id) { return id >= 0 && id < header.count; };
  return header.count > 0 && static_cast<size_t>(header.count) <= kMaxPieces && is_id(header.begin) &&
         is_id(header.end) && header.longest > 0 && header.longest < 1 << 16;
}

Vocabulary read_executorch_vocabulary(std::span<const std::byte> bytes, const std::string& name) {
  BytesReader reader(bytes);
  const ExecutorchHeader header = read_executorch_header(reader);
  Vocabulary vocabulary;
  for (int32_t id = 0; id < header.count; ++id) {
    Entry entry;
    if (!read_entry(reader, entry)) fail("{}: cut off in piece {} of {}; copy the file again", name, id, header.count);
    const bool is_control = id == header.begin || id == header.end;
    vocabulary.types.push_back(is_control ? PieceType::control : type_by_name(entry.piece));
    if (vocabulary.types.back() == PieceType::unknown && !vocabulary.unknown) vocabulary.unknown = id;
    vocabulary.scores.push_back(entry.score);
    vocabulary.pieces.push_back(std::move(entry.piece));
  }
  if (reader.left() > 0) {
    fail("{}: more than the {} pieces that it announces; write it again (without a padding token)", name, header.count);
  }
  vocabulary.begin = header.begin;
  vocabulary.end = header.end;
  collect_end_tokens(vocabulary);
  check_vocabulary(vocabulary, name);
  return vocabulary;
}

/// The first three pieces and the longest size are all there is to know it by.
bool is_llama2c_vocabulary(std::span<const std::byte> bytes) {
  BytesReader reader(bytes);
  if (reader.left() < 4) return false;
  const int32_t longest = reader.get<int32_t>();
  Entry entry;
  for (int i = 0; i < 3; ++i) {
    if (!read_entry(reader, entry) || entry.piece.empty() || entry.piece.size() > 16) return false;
  }
  return longest > 0 && longest < 1 << 16;
}

Vocabulary read_llama2c_vocabulary(std::span<const std::byte> bytes, const std::string& name, int64_t vocabulary_size) {
  BytesReader reader(bytes);
  reader.get<int32_t>();  // the longest piece: a hint for buffers that we do not need
  Vocabulary vocabulary;
  while (reader.left() > 0) {
    Entry entry;
    if (!read_entry(reader, entry)) {
      fail("{}: cut off in piece {}; copy the file again", name, vocabulary.pieces.size());
    }
    const size_t id = vocabulary.pieces.size();
    check_piece_count(id + 1, name);
    if (id == kBegin) entry.piece = "<s>";
    if (id == kEnd) entry.piece = "</s>";
    vocabulary.types.push_back(type_of(id, entry.piece));
    vocabulary.scores.push_back(entry.score);
    vocabulary.pieces.push_back(std::move(entry.piece));
  }
  const int64_t count = static_cast<int64_t>(vocabulary.pieces.size());
  if (vocabulary_size != 0 && count != vocabulary_size) {
    fail("{}: {} pieces, but the model has {}; use the tokenizer that the model was made with", name, count,
         vocabulary_size);
  }
  vocabulary.unknown = kUnknown;
  vocabulary.begin = kBegin;
  vocabulary.end = kEnd;
  collect_end_tokens(vocabulary);
  check_vocabulary(vocabulary, name);
  return vocabulary;
}

}  // namespace contexture
