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

/// One white space character, and where the text has one of these, no other begins or ends with it.
constexpr std::string_view kWhiteSpace[] = {
    "\t",           "\n",           "\v",           "\f",           "\r",           " ",
    "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81", "\xE2\x80\x82",
    "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86", "\xE2\x80\x87", "\xE2\x80\x88",
    "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F",
    "\xE3\x80\x80"};

}  // namespace

void append_utf8(std::string& text, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
  const auto tail = [&](int shift) { put(0x80 | (code_point >> shift & 0x3F)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6), tail(0);
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12), tail(6), tail(0);
  } else {
    put(0xF0 | code_point >> 18), tail(12), tail(6), tail(0);
  }
}

size_t white_space_prefix(std::string_view text) {
  size_t at = 0;
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view space : kWhiteSpace) {
      if (!text.substr(at).starts_with(space)) continue;
      at += space.size();
      found = true;
      break;
    }
  }
  return at;
}

size_t white_space_suffix(std::string_view text) {
  const size_t size = text.size();
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view space : kWhiteSpace) {
      if (!text.ends_with(space)) continue;
      text.remove_suffix(space.size());
      found = true;
      break;
    }
  }
  return size - text.size();
}

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
