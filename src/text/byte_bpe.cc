#include "text/byte_bpe.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace contexture {
namespace {

/// GPT-2's alphabet: the printable bytes of Latin-1 are themselves, the others take the code points from 256 on.
struct Alphabet {
  std::array<uint16_t, 256> of_byte;
  std::array<int16_t, 256 + 68> of_code_point;  ///< -1: stands for no byte

  Alphabet() {
    of_code_point.fill(-1);
    uint16_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      of_byte[byte] = is_printable ? byte : next++;
      of_code_point[of_byte[byte]] = byte;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

/// Unused pieces are never given out, and a byte-level merge through one is not known to exist.
bool is_text(PieceType type) {
  return type == PieceType::normal;
}

/// Calls visit(left, right, id) for every way to cut a text piece into two, in the order of ids.
template <typename Visit>
void for_each_cut(const Vocabulary& vocabulary, const SymbolMap& symbols, Visit visit) {
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (!is_text(vocabulary.types[id])) continue;
    const std::string bytes = byte_bpe_bytes(vocabulary, static_cast<TokenId>(id));
    const std::string_view text = bytes;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = symbols.find(text.substr(0, cut));
      if (left == symbols.end()) continue;
      const auto right = symbols.find(text.substr(cut));
      if (right != symbols.end()) visit(left->second, right->second, static_cast<TokenId>(id));
    }
  }
}

SymbolMap text_pieces(const Vocabulary& vocabulary) {
  SymbolMap symbols;
  symbols.reserve(vocabulary.pieces.size());
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (is_text(vocabulary.types[id])) symbols.try_emplace(byte_bpe_bytes(vocabulary, id), id);
  }
  return symbols;
}

}  // namespace

std::string printable_of_bytes(std::string_view bytes) {
  std::string piece;
  for (const char c : bytes) {
    const uint16_t code_point = alphabet().of_byte[static_cast<uint8_t>(c)];
    if (code_point < 0x80) {
      piece += static_cast<char>(code_point);
    } else {
      piece += static_cast<char>(0xC0 | code_point >> 6);
      piece += static_cast<char>(0x80 | (code_point & 0x3F));
    }
  }
  return piece;
}

std::string bytes_of_printable(std::string_view piece) {
  std::string bytes;
  for (size_t at = 0; at < piece.size();) {
    const Utf8Sequence next = next_utf8(piece.substr(at));
    if (next.kind != Utf8Sequence::Kind::valid || next.size > 2) return std::string(piece);
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(piece[at + i]); };
    const size_t code_point = next.size == 1 ? byte(0) : (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    if (code_point >= alphabet().of_code_point.size() || alphabet().of_code_point[code_point] < 0) {
      return std::string(piece);
    }
    bytes += static_cast<char>(alphabet().of_code_point[code_point]);
    at += next.size;
  }
  return bytes;
}

std::string byte_bpe_bytes(const Vocabulary& vocabulary, TokenId id) {
  const std::string& piece = vocabulary.pieces[id];
  return is_text(vocabulary.types[id]) ? bytes_of_printable(piece) : piece;
}

std::vector<std::string> byte_bpe_merges_by_id(const Vocabulary& vocabulary) {
  std::vector<std::string> merges;
  for_each_cut(vocabulary, text_pieces(vocabulary), [&](int32_t left, int32_t right, TokenId) {
    merges.push_back(vocabulary.pieces[left] + ' ' + vocabulary.pieces[right]);
  });
  return merges;
}

ByteBpe::ByteBpe(const Vocabulary& vocabulary)
    : pretokenizer_(vocabulary.pretokenizer),
      ignore_merges_(vocabulary.ignore_merges.value_or(pretokenizer_.ignores_merges())),
      fuse_unknown_(vocabulary.fuse_unknown),
      size_(vocabulary.pieces.size()),
      unknown_(vocabulary.unknown.value_or(-1)),
      symbols_(text_pieces(vocabulary)) {
  if (vocabulary.merges.empty()) {
    add_merges_by_id(vocabulary);
  } else {
    add_merges(vocabulary);
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = symbols_.find(std::string(1, static_cast<char>(byte)));
    bytes_[byte] = found == symbols_.end() ? -1 : found->second;
  }
}

/// A merge may give a user-defined piece, which stands in the text where it was no word of its own, or not normalized.
/// It gives no control piece, which a text could forge.
void ByteBpe::add_merges(const Vocabulary& vocabulary) {
  SymbolMap specials;
  for (size_t id = 0; id < size_; ++id) {
    if (!is_text(vocabulary.types[id])) specials.try_emplace(vocabulary.pieces[id], id);
  }
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string_view merge = vocabulary.merges[rank];
    const size_t space = merge.find(' ', 1);
    const std::string left = bytes_of_printable(merge.substr(0, space));
    const std::string right = bytes_of_printable(merge.substr(space + 1));
    if (const auto special = specials.find(std::string(merge).erase(space, 1)); special != specials.end()) {
      if (vocabulary.types[special->second] != PieceType::user_defined) continue;
      symbols_.try_emplace(left + right, special->second);
    }
    const int32_t left_symbol = find_or_add(left), right_symbol = find_or_add(right);
    merges_.add(left_symbol, right_symbol, rank, find_or_add(left + right));
  }
}

/// tiktoken's files have no list of merges: two pieces merge where their concatenation is a piece, lowest id first.
void ByteBpe::add_merges_by_id(const Vocabulary& vocabulary) {
  for_each_cut(vocabulary, symbols_,
               [&](int32_t left, int32_t right, TokenId id) { merges_.add(left, right, id, id); });
}

int32_t ByteBpe::find_or_add(const std::string& bytes) {
  return symbols_.try_emplace(bytes, static_cast<int32_t>(size_ + symbols_.size())).first->second;
}

void ByteBpe::encode(std::string_view text, std::vector<TokenId>& ids) const {
  while (!text.empty()) {
    const size_t valid = valid_utf8_prefix(text);
    if (valid > 0) encode_words(text.substr(0, valid), ids);
    if (valid < text.size()) emit_bytes(text.substr(valid, 1), ids);
    text.remove_prefix(std::min(valid + 1, text.size()));
  }
}

void ByteBpe::encode_words(std::string_view text, std::vector<TokenId>& ids) const {
  std::vector<Symbol> symbols;
  for (const std::string_view word : pretokenizer_.split(text)) encode_word(word, symbols, ids);
}

void ByteBpe::encode_word(std::string_view word, std::vector<Symbol>& symbols, std::vector<TokenId>& ids) const {
  const auto is_piece = [&](int32_t symbol) { return symbol >= 0 && static_cast<size_t>(symbol) < size_; };
  if (ignore_merges_) {
    const auto whole = symbols_.find(word);
    if (whole != symbols_.end() && is_piece(whole->second)) return ids.push_back(whole->second);
  }
  symbols.clear();
  for (const char c : word) symbols.push_back({bytes_[static_cast<uint8_t>(c)], 1});
  merges_.merge(symbols);
  bool after_unknown = false;
  for (const Symbol& symbol : symbols) {
    const bool is_unknown = symbol.id < 0 && unknown_ >= 0;
    if (is_piece(symbol.id)) {
      ids.push_back(symbol.id);
    } else if (!is_unknown || !after_unknown || !fuse_unknown_) {
      emit_bytes(word.substr(0, symbol.size), ids);
    }
    after_unknown = is_unknown;
    word.remove_prefix(symbol.size);
  }
}

void ByteBpe::emit_bytes(std::string_view text, std::vector<TokenId>& ids) const {
  const auto has_piece = [&](char c) {
    const int32_t symbol = bytes_[static_cast<uint8_t>(c)];
    return symbol >= 0 && static_cast<size_t>(symbol) < size_;
  };
  for (const char c : text) {
    if (has_piece(c)) {
      ids.push_back(bytes_[static_cast<uint8_t>(c)]);
    } else if (unknown_ >= 0) {
      ids.push_back(unknown_);
    } else if (std::all_of(kReplacementCharacter.begin(), kReplacementCharacter.end(), has_piece)) {
      for (const char part : kReplacementCharacter) ids.push_back(bytes_[static_cast<uint8_t>(part)]);
    } else {
      fail(
          "the vocabulary has no piece for the byte 0x{:02X} and no unknown token; use the one that the model was made "
          "with",
          static_cast<uint8_t>(c));
    }
  }
}

}  // namespace contexture
