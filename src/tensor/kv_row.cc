#include "tensor/kv_row.h"

#include <cassert>

#include "base/error.h"
#include "tensor/kv_formats.h"

namespace contexture {
namespace {

template <class Kv>
size_t encode_row(const float* in, std::byte* row, size_t count) {
  size_t beyond = 0;
  for (size_t i = 0; i < count; ++i) beyond += std::fabs(in[i]) > Kv::reach;
  if (beyond == 0) {
    Kv::encode(in, row, count);
    return 0;
  }
  // In pieces that no format's blocks straddle; NaN passes std::clamp unchanged.
  constexpr size_t kPiece = 32;
  float clamped[kPiece];
  for (size_t at = 0; at < count; at += kPiece) {
    const size_t here = std::min(kPiece, count - at);
    for (size_t i = 0; i < here; ++i) clamped[i] = std::clamp(in[at + i], -Kv::reach, Kv::reach);
    Kv::encode(clamped, row, here);
    row += Kv::bytes(here);
  }
  return beyond;
}

template <class Kv>
void row_error_bounds(const float* in, float* bounds, size_t count) {
  for (size_t at = 0; at < count; at += 32) {
    const size_t here = std::min<size_t>(32, count - at);
    float largest = 0;
    for (size_t i = 0; i < here; ++i) largest = std::max(largest, std::fabs(in[at + i]));
    for (size_t i = 0; i < here; ++i) bounds[at + i] = Kv::error_bound(std::fabs(in[at + i]), largest);
  }
}

}  // namespace

void refuse_kv_format(Format format) {
  fail("K and V cannot be held in {}; choose {}", name(format), kv_format_names());
}

std::span<const Format> kv_formats() {
  return KvFormats::formats;
}

bool is_kv_format(Format format) {
  return std::ranges::find(kv_formats(), format) != kv_formats().end();
}

std::string kv_format_names() {
  std::string names;
  for (const Format format : kv_formats()) {
    if (!names.empty()) names += format == kv_formats().back() ? " or " : ", ";
    names += name(format);
  }
  return names;
}

size_t kv_row_bytes(Format format, size_t count) {
  assert(count % 2 == 0);
  return with_kv_format(format, [&](auto kv) { return kv.bytes(count); });
}

size_t encode_kv_row(Format format, const float* in, std::byte* row, size_t count) {
  return with_kv_format(format, [&](auto kv) { return encode_row<decltype(kv)>(in, row, count); });
}

void decode_kv_row(Format format, const std::byte* row, float* out, size_t count) {
  with_kv_format(format, [&](auto kv) { kv.decode(row, out, count); });
}

void kv_row_error_bounds(Format format, const float* in, float* bounds, size_t count) {
  with_kv_format(format, [&](auto kv) { row_error_bounds<decltype(kv)>(in, bounds, count); });
}

}  // namespace contexture
