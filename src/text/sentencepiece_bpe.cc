#include "text/sentencepiece_bpe.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace contexture {
namespace {

/// Leading and trailing spaces go, runs of them become one.
std::string collapsed(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c != ' ' || (!out.empty() && out.back() != ' ')) out += c;
  }
  return out;
}

/// What may come out of a merge. Control pieces may not, whatever a list says: a text could forge them. User-defined
/// pieces that are a part of the text around them are there before anything merges; others have been cut out where the
/// text spells them, and where U+2581 stands for a space it does not.
bool merges_into(const Vocabulary& vocabulary, size_t id) {
  const PieceType type = vocabulary.types[id];
  return type == PieceType::normal || type == PieceType::unused ||
         (type == PieceType::user_defined && vocabulary.user_defined_restarts_text);
}

/// The first character of a text that is not empty; one byte where it is not UTF-8.
std::string_view first_character(std::string_view text) {
  const Utf8Sequence next = next_utf8(text);
  return text.substr(0, next.kind == Utf8Sequence::Kind::valid ? next.size : 1);
}

/// Equal scores share a rank, so that the leftmost of them merges first.
std::vector<uint32_t> ranks_of(const std::vector<float>& scores) {
  std::vector<float> order(scores);
  std::sort(order.begin(), order.end(), std::greater<>());
  std::vector<uint32_t> ranks(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    ranks[i] = std::lower_bound(order.begin(), order.end(), scores[i], std::greater<>()) - order.begin();
  }
  return ranks;
}

}  // namespace

std::string spaces_for_marks(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0;;) {
    const size_t mark = text.find(kSpaceMark, at);
    out.append(text.substr(at, mark - at));
    if (mark == text.npos) return out;
    out += ' ';
    at = mark + kSpaceMark.size();
  }
}

std::string marks_for_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ' ') {
      out += kSpaceMark;
    } else {
      out += c;
    }
  }
  return out;
}

SentencePieceBpe::SentencePieceBpe(const Vocabulary& vocabulary)
    : size_(vocabulary.pieces.size()),
      collapse_spaces_(vocabulary.collapse_spaces),
      fuse_unknown_(vocabulary.fuse_unknown),
      unknown_(vocabulary.unknown.value_or(-1)) {
  byte_pieces_.fill(-1);
  ascii_.fill(-1);
  SymbolMap symbols = read_pieces(vocabulary);
  if (vocabulary.merges.empty()) {
    add_merges_by_score(vocabulary, symbols);
  } else {
    add_listed_merges(vocabulary, symbols);
  }
  for (const auto& [text, symbol] : symbols) {
    if (first_character(text).size() != text.size()) continue;
    characters_.emplace(text, symbol);
    if (static_cast<uint8_t>(text[0]) < ascii_.size()) ascii_[static_cast<uint8_t>(text[0])] = symbol;
  }
  add_halves(vocabulary);
}

SymbolMap SentencePieceBpe::read_pieces(const Vocabulary& vocabulary) {
  SymbolMap symbols;
  symbols.reserve(size_);
  for (size_t id = 0; id < size_; ++id) {
    const std::string bytes = sentencepiece_bytes(vocabulary, id);
    if (vocabulary.types[id] == PieceType::byte) {
      byte_pieces_[static_cast<uint8_t>(bytes[0])] = id;
    } else if (merges_into(vocabulary, id) && !bytes.empty()) {
      symbols.try_emplace(bytes, id);  // of two equal pieces the first counts
    } else if (vocabulary.types[id] == PieceType::user_defined) {
      user_defined_.add(bytes, id);
    }
  }
  return symbols;
}

/// Every way to cut a piece into two symbols is a merge. A character that is a part of pieces but no piece itself gets
/// a symbol of its own here, above the ids of the vocabulary.
void SentencePieceBpe::add_merges_by_score(const Vocabulary& vocabulary, SymbolMap& symbols) {
  const std::vector<uint32_t> ranks = ranks_of(vocabulary.scores);
  const auto find_or_add = [&](std::string_view text) {
    const auto found = symbols.find(text);
    if (found != symbols.end()) return found->second;
    if (first_character(text).size() != text.size()) return -1;
    return symbols.emplace(text, static_cast<int32_t>(size_ + symbols.size())).first->second;
  };
  for (size_t id = 0; id < size_; ++id) {
    if (!merges_into(vocabulary, id)) continue;
    const std::string bytes = sentencepiece_bytes(vocabulary, id);
    const std::string_view text = bytes;
    if (text.empty() || symbols.at(bytes) != static_cast<int32_t>(id)) continue;
    for (size_t cut = first_character(text).size(); cut < text.size();
         cut += first_character(text.substr(cut)).size()) {
      const Symbol left{find_or_add(text.substr(0, cut)), static_cast<uint32_t>(cut)};
      if (left.id < 0) continue;
      const Symbol right{find_or_add(text.substr(cut)), static_cast<uint32_t>(text.size() - cut)};
      if (right.id < 0) continue;
      merges_.add(left.id, right.id, ranks[id], static_cast<int32_t>(id));
    }
  }
}

void SentencePieceBpe::add_listed_merges(const Vocabulary& vocabulary, SymbolMap& symbols) {
  StringSet controls;
  for (size_t id = 0; id < size_; ++id) {
    if (vocabulary.types[id] == PieceType::control) controls.insert(sentencepiece_bytes(vocabulary, id));
  }
  const auto find_or_add = [&](std::string_view text) {
    const auto found = symbols.find(text);
    if (found != symbols.end()) return found->second;
    return symbols.emplace(text, static_cast<int32_t>(size_ + symbols.size())).first->second;
  };
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
    const std::string_view merge = vocabulary.merges[rank];
    const size_t space = merge.find(' ', 1);
    const std::string left = spaces_for_marks(merge.substr(0, space)),
                      right = spaces_for_marks(merge.substr(space + 1));
    if (controls.contains(left + right)) continue;
    const int32_t left_symbol = find_or_add(left), right_symbol = find_or_add(right);
    merges_.add(left_symbol, right_symbol, rank, find_or_add(left + right));
  }
}

/// An unused piece takes part in merges, and what it was last merged from is given out in its place. That does not
/// depend on the text around it, so it is found out here. (The library remembers it from the text: where one text
/// merges one unused piece in two ways, it writes both in the same.) Unused pieces longer than any real one are given
/// out as they are.
void SentencePieceBpe::add_halves(const Vocabulary& vocabulary) {
  constexpr size_t kLongest = 64;
  for (size_t id = 0; id < size_; ++id) {
    if (vocabulary.types[id] != PieceType::unused || vocabulary.pieces[id].size() > kLongest) continue;
    std::vector<Symbol> symbols = characters_of(sentencepiece_bytes(vocabulary, id));
    merges_.merge_short(symbols, 2);
    if (symbols.size() == 2) halves_.try_emplace(id, Halves{symbols[0], symbols[1]});
  }
}

std::string SentencePieceBpe::normalize(std::string_view text) const {
  if (!collapse_spaces_) return spaces_for_marks(text);
  std::string out = spaces_for_marks(collapsed(text));
  out.erase(out.find_last_not_of(' ') + 1);
  return out;
}

int32_t SentencePieceBpe::symbol_of(std::string_view character) const {
  const uint8_t first = static_cast<uint8_t>(character[0]);
  if (first < ascii_.size()) return ascii_[first];
  const auto found = characters_.find(character);
  return found == characters_.end() ? -1 : found->second;
}

/// User-defined pieces count as characters. No merge has them, so that they stay what they are.
std::vector<Symbol> SentencePieceBpe::characters_of(std::string_view text) const {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += symbols.back().size) {
    const SpecialTokens::Match match = user_defined_.longest_at(text, at);
    if (match.size > 0) {
      symbols.push_back({match.id, static_cast<uint32_t>(match.size)});
    } else {
      const std::string_view character = first_character(text.substr(at));
      symbols.push_back({symbol_of(character), static_cast<uint32_t>(character.size())});
    }
  }
  return symbols;
}

void SentencePieceBpe::encode(std::string_view text, std::vector<TokenId>& ids) const {
  std::vector<Symbol> symbols = characters_of(text);
  merges_.merge(symbols);
  size_t at = 0;
  bool after_unknown = false;
  for (const Symbol& symbol : symbols) {
    const size_t before = ids.size();
    emit(symbol, text.substr(at, symbol.size), ids);
    at += symbol.size;
    const bool is_unknown = ids.size() == before + 1 && ids.back() == unknown_;
    if (is_unknown && after_unknown && fuse_unknown_) ids.pop_back();
    after_unknown = is_unknown;
  }
}

void SentencePieceBpe::emit(const Symbol& symbol, std::string_view text, std::vector<TokenId>& ids) const {
  if (symbol.id >= 0 && static_cast<size_t>(symbol.id) < size_) {
    const auto halves = halves_.find(symbol.id);
    if (halves == halves_.end()) return ids.push_back(symbol.id);
    const auto& [left, right] = halves->second;
    emit(left, text.substr(0, left.size), ids);
    return emit(right, text.substr(left.size), ids);
  }
  if (text == " ") text = kSpaceMark;  // which the bytes of a space are to the models
  const auto has_piece = [&](char c) { return byte_pieces_[static_cast<uint8_t>(c)] >= 0; };
  if (std::all_of(text.begin(), text.end(), has_piece)) {
    for (const char c : text) ids.push_back(byte_pieces_[static_cast<uint8_t>(c)]);
  } else if (unknown_ >= 0) {
    ids.push_back(unknown_);
  } else {
    fail("the vocabulary has no piece for \"{}\" and no unknown token; use the vocabulary that the model was made with",
         printable(text));
  }
}

std::string sentencepiece_bytes(const Vocabulary& vocabulary, TokenId id) {
  const std::string& piece = vocabulary.pieces[id];
  switch (vocabulary.types[id]) {
    case PieceType::byte:
      return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    case PieceType::unknown:
      return " \xE2\x81\x87 ";
    default:
      return spaces_for_marks(piece);
  }
}

}  // namespace contexture
