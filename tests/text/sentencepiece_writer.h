#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace contexture::test {

/// Writes SentencePiece .model files, for the library and for our reader alike.
struct SentencePieceWriter {
  struct Piece {
    std::string text;
    float score = 0;
    int type = 1;
  };
  std::vector<Piece> pieces = {{"<unk>", 0, 2}, {"<s>", 0, 3}, {"</s>", 0, 3}};
  int model_type = 2;  ///< BPE
  bool byte_fallback = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = false, escape_whitespaces = true, space_is_suffix = false;
  std::string charsmap;

  static std::string varint(uint64_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    return bytes += static_cast<char>(value);
  }
  static std::string number(int field, uint64_t value) { return varint(field << 3) + varint(value); }
  static std::string bytes(int field, std::string_view value) {
    return varint(field << 3 | 2) + varint(value.size()) + std::string(value);
  }
  static std::string real(int field, float value) {
    std::string raw(sizeof(value), '\0');
    std::memcpy(raw.data(), &value, sizeof(value));
    return varint(field << 3 | 5) + raw;
  }

  void add_bytes() {
    constexpr const char* kHex = "0123456789ABCDEF";
    byte_fallback = true;
    for (int i = 0; i < 256; ++i) pieces.push_back({std::string("<0x") + kHex[i / 16] + kHex[i % 16] + ">", 0, 6});
  }

  std::string write() const {
    std::string file;
    for (const Piece& piece : pieces) {
      file += bytes(1, bytes(1, piece.text) + real(2, piece.score) + number(3, piece.type));
    }
    file += bytes(
        2, number(3, model_type) + number(4, pieces.size()) + number(24, space_is_suffix) + number(35, byte_fallback));
    file += bytes(3, bytes(1, "identity") + bytes(2, charsmap) + number(3, add_dummy_prefix) +
                         number(4, remove_extra_whitespaces) + number(5, escape_whitespaces));
    return file;
  }
};

}  // namespace contexture::test
