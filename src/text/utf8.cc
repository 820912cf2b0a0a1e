#include "text/utf8.h"

namespace contexture {
namespace {

/// The bytes that may follow a lead byte: how many, and the range of the first of them (the rest are 80..BF).
struct Lead {
  uint8_t continuations;  ///< 0: not a lead byte
  uint8_t low, high;
};

Lead lead_of(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1, 0x80, 0xBF};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {2, 0x80, 0xBF};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3, 0x80, 0xBF};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Sequence next_utf8(std::string_view text) {
  using Kind = Utf8Sequence::Kind;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  if (byte(0) < 0x80) return {Kind::valid, 1};
  const Lead lead = lead_of(byte(0));
  if (lead.continuations == 0) return {Kind::invalid, 1};
  uint8_t low = lead.low, high = lead.high;
  for (size_t i = 1; i <= lead.continuations; ++i) {
    if (i == text.size()) return {Kind::incomplete, i};
    if (byte(i) < low || byte(i) > high) return {Kind::invalid, i};
    low = 0x80, high = 0xBF;
  }
  return {Kind::valid, size_t{lead.continuations} + 1};
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Sequence next = next_utf8(text.substr(at));
    if (next.kind != Utf8Sequence::Kind::valid) break;
    at += next.size;
  }
  return at;
}

}  // namespace contexture
