#include "kernels/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/float16.h"
#include "tensor/q4_0.h"
#include "tensor/q4_1.h"
#include "tensor/q4_k.h"
#include "tensor/q5_0.h"
#include "tensor/q5_1.h"
#include "tensor/q5_k.h"
#include "tensor/q6_k.h"
#include "tensor/q8_0.h"

namespace contexture {
namespace {

constexpr size_t kRows = PackedMatrix::panel_rows;
constexpr size_t kUnit = PackedMatrix::unit_columns;

/// What one row of one unit holds, format by format brought to one shape.
struct UnitRow {
  uint8_t quants[kUnit];  // unsigned
  uint16_t scale, min;    // f16
  uint8_t scale8, min8;   // of sub-blocks
  int8_t half_scales[2];  // q6_k
  uint16_t d, dmin;       // f16, of the superblock
};

void read_nibbles(const uint8_t* nibbles, uint8_t* quants) {
  for (size_t i = 0; i < 16; ++i) {
    quants[i] = nibbles[i] & 15;
    quants[16 + i] = nibbles[i] >> 4;
  }
}

void read(const BlockQ4_0& b, size_t, UnitRow& row) {
  read_nibbles(b.nibbles, row.quants);
  row.scale = b.d;
}
void read(const BlockQ4_1& b, size_t, UnitRow& row) {
  read_nibbles(b.nibbles, row.quants);
  row.scale = b.d;
  row.min = b.m;
}
void read(const BlockQ5_0& b, size_t, UnitRow& row) {
  for (int i = 0; i < 32; ++i) row.quants[i] = static_cast<uint8_t>(b.q[i]);
  row.scale = b.d;
}
void read(const BlockQ5_1& b, size_t, UnitRow& row) {
  for (int i = 0; i < 32; ++i) row.quants[i] = static_cast<uint8_t>(b.q[i]);
  row.scale = b.d;
  row.min = b.m;
}
void read(const BlockQ8_0& b, size_t, UnitRow& row) {
  for (int i = 0; i < 32; ++i) row.quants[i] = static_cast<uint8_t>(b.q[i] + 128);
  row.scale = b.d;
}
template <class Block>
void read_scales(const Block& b, size_t unit, UnitRow& row) {
  row.scale8 = static_cast<uint8_t>(b.scales.scale(static_cast<int>(unit)));
  row.min8 = static_cast<uint8_t>(b.scales.minimum(static_cast<int>(unit)));
  row.d = b.d;
  row.dmin = b.dmin;
}
void read(const BlockQ4_K& b, size_t unit, UnitRow& row) {
  const size_t shift = unit % 2 * 4;
  for (size_t i = 0; i < 32; ++i) row.quants[i] = b.nibbles[unit / 2 * 32 + i] >> shift & 15;
  read_scales(b, unit, row);
}
void read(const BlockQ5_K& b, size_t unit, UnitRow& row) {
  const size_t shift = unit % 2 * 4;
  for (size_t i = 0; i < 32; ++i) {
    const int low = b.nibbles[unit / 2 * 32 + i] >> shift & 15;
    row.quants[i] = static_cast<uint8_t>(low | (b.fifth[i] >> unit & 1) << 4);
  }
  read_scales(b, unit, row);
}
void read(const BlockQ6_K& b, size_t unit, UnitRow& row) {
  for (size_t i = 0; i < 32; ++i) row.quants[i] = static_cast<uint8_t>(b.quant(static_cast<int>(unit * 32 + i)));
  row.half_scales[0] = b.scales[unit * 2];
  row.half_scales[1] = b.scales[unit * 2 + 1];
  row.d = b.d;
}

/// What a format's units consist of.
struct Parts {
  size_t superblock_units = 1;  // units that share d
  bool d = false, dmin = false;
  bool scale = false, min = false;  // f16
  bool scale8 = false, half_scales = false;
  int bits = 4;    // 4: low; 5: and fifth; 6: and upper; 8: bytes
  int offset = 0;  // of the quants: x = scale · (quant - offset)

  size_t header_bytes() const { return 32 * (size_t{d} + size_t{dmin}); }
  size_t unit_bytes() const {
    return 32 * (size_t{scale} + size_t{min} + size_t{scale8} + size_t{half_scales}) + static_cast<size_t>(bits) * 64;
  }
};

constexpr Parts parts_of(Format format) {
  switch (format) {
    case Format::q8_0:
      return {.scale = true, .bits = 8, .offset = 128};
    case Format::q4_0:
      return {.scale = true, .offset = 8};
    case Format::q4_1:
      return {.scale = true, .min = true};
    case Format::q5_0:
      return {.scale = true, .bits = 5, .offset = 16};
    case Format::q5_1:
      return {.scale = true, .min = true, .bits = 5};
    case Format::q4_k:
      return {.superblock_units = 8, .d = true, .dmin = true, .scale8 = true};
    case Format::q5_k:
      return {.superblock_units = 8, .d = true, .dmin = true, .scale8 = true, .bits = 5};
    case Format::q6_k:
      return {.superblock_units = 8, .d = true, .half_scales = true, .bits = 6, .offset = 32};
    default:
      return {};
  }
}

template <class T>
void put(std::byte*& to, const UnitRow* rows, T UnitRow::*member) {
  for (size_t r = 0; r < kRows; ++r) std::memcpy(to + r * sizeof(T), &(rows[r].*member), sizeof(T));
  to += kRows * sizeof(T);
}

/// The lowest `bits` of each quant's upper bits, beside each other in a byte.
void put_upper(std::byte*& to, const UnitRow* rows, size_t first_quant, size_t count, int bits) {
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t i = 0; i < 4; ++i) {
      int byte = 0;
      for (size_t v = 0; v < count; ++v) {
        byte |= rows[r].quants[first_quant + 4 * v + i] >> 4 << (v * static_cast<size_t>(bits));
      }
      *to++ = static_cast<std::byte>(byte);
    }
  }
}

void put_quants(std::byte*& to, const UnitRow* rows, int bits) {
  if (bits == 8) {
    for (size_t v = 0; v < 8; ++v) {
      for (size_t r = 0; r < kRows; ++r, to += 4) std::memcpy(to, rows[r].quants + 4 * v, 4);
    }
    return;
  }
  for (size_t r = 0; r < kRows; ++r) {
    uint8_t low[16];  // of its own, so that the compiler sees vectors
    for (size_t i = 0; i < 16; ++i) {
      low[i] = static_cast<uint8_t>((rows[r].quants[i] & 15) | (rows[r].quants[16 + i] & 15) << 4);
    }
    for (size_t v = 0; v < 4; ++v) std::memcpy(to + v * 64 + r * 4, low + 4 * v, 4);
  }
  to += 256;
  if (bits == 5) put_upper(to, rows, 0, 8, 1);
  if (bits == 6) {
    put_upper(to, rows, 0, 4, 2);
    put_upper(to, rows, 16, 4, 2);
  }
}

template <class Block>
void pack_blocks(const Matrix& from, size_t panel, std::byte* to) {
  constexpr size_t units_of_block = Block::elements / kUnit;
  const Parts parts = parts_of(from.format);
  const size_t units = from.columns / kUnit;
  for (size_t unit = 0; unit < units; ++unit) {
    UnitRow rows[kRows];
    for (size_t r = 0; r < kRows; ++r) {
      rows[r] = {};
      if (panel * kRows + r >= from.rows) continue;
      Block block;
      std::memcpy(&block, from.row(panel * kRows + r) + unit / units_of_block * sizeof(Block), sizeof(Block));
      read(block, unit % units_of_block, rows[r]);
    }
    if (unit % parts.superblock_units == 0) {
      if (parts.d) put(to, rows, &UnitRow::d);
      if (parts.dmin) put(to, rows, &UnitRow::dmin);
    }
    if (parts.scale) put(to, rows, &UnitRow::scale);
    if (parts.min) put(to, rows, &UnitRow::min);
    if (parts.scale8) {
      put(to, rows, &UnitRow::scale8);
      put(to, rows, &UnitRow::min8);
    }
    if (parts.half_scales) {
      for (size_t half = 0; half < 2; ++half) {
        for (size_t r = 0; r < kRows; ++r) *to++ = static_cast<std::byte>(rows[r].half_scales[half]);
      }
    }
    put_quants(to, rows, parts.bits);
  }
}

template <class Element>
void pack_floats(const Matrix& from, size_t panel, std::byte* to) {
  for (size_t r = 0; r < kRows; ++r) {
    const size_t row = panel * kRows + r;
    for (size_t column = 0; column < from.columns; ++column) {
      Element element = 0;
      if (row < from.rows) std::memcpy(&element, from.row(row) + column * sizeof(Element), sizeof(Element));
      std::memcpy(to + (column * kRows + r) * sizeof(Element), &element, sizeof(Element));
    }
  }
}

/// Reads a packed row's units as pack_blocks wrote them.
void decode_units(const PackedMatrix& w, size_t row, float* out) {
  const Parts parts = parts_of(w.format);
  const size_t r = row % kRows;
  const std::byte* at = w.panel(row / kRows);
  const auto half = [&](bool present) {
    uint16_t bits = 0;
    if (present) std::memcpy(&bits, at + 2 * r, 2), at += 32;
    return f16_to_f32(bits);
  };
  const auto byte = [&](size_t i) { return std::to_integer<int>(at[i]); };
  float d = 0, dmin = 0;
  for (size_t unit = 0; unit < w.columns / kUnit; ++unit, out += kUnit) {
    if (unit % parts.superblock_units == 0) d = half(parts.d), dmin = half(parts.dmin);
    float scales[2] = {half(parts.scale), 0}, min = half(parts.min);
    scales[1] = scales[0];
    if (parts.scale8) {
      scales[0] = scales[1] = d * static_cast<float>(byte(r));
      min = -(dmin * static_cast<float>(byte(kRows + r)));
      at += 32;
    }
    if (parts.half_scales) {
      for (size_t h = 0; h < 2; ++h) scales[h] = d * static_cast<float>(static_cast<int8_t>(byte(h * kRows + r)));
      at += 32;
    }
    for (size_t i = 0; i < kUnit; ++i) {
      const size_t v = i / 4, in_row = 4 * r + i % 4;
      int quant = parts.bits == 8 ? byte(v * 64 + in_row) : byte(v % 4 * 64 + in_row) >> (v / 4 * 4) & 15;
      if (parts.bits == 5) quant |= (byte(256 + in_row) >> v & 1) << 4;
      if (parts.bits == 6) quant |= (byte(256 + v / 4 * 64 + in_row) >> (v % 4 * 2) & 3) << 4;
      out[i] = scales[i / 16] * static_cast<float>(quant - parts.offset);
      if (parts.min || parts.scale8) out[i] += min;
    }
    at += static_cast<size_t>(parts.bits) * 64;
  }
}

}  // namespace

size_t PackedMatrix::panel_bytes() const {
  if (!is_quantised()) return bytes_of(format, columns) * panel_rows;
  const Parts parts = parts_of(format);
  const size_t units = columns / unit_columns;
  return units * parts.unit_bytes() + units / parts.superblock_units * parts.header_bytes();
}

PackedMatrix packed_shape(const Matrix& matrix) {
  return {matrix.format, matrix.rows, matrix.columns, nullptr};
}

void pack_panel(const Matrix& from, size_t panel, std::byte* to) {
  switch (from.format) {
    case Format::f32:
      return pack_floats<uint32_t>(from, panel, to);
    case Format::f16:
    case Format::bf16:
      return pack_floats<uint16_t>(from, panel, to);
    case Format::q8_0:
      return pack_blocks<BlockQ8_0>(from, panel, to);
    case Format::q4_0:
      return pack_blocks<BlockQ4_0>(from, panel, to);
    case Format::q4_1:
      return pack_blocks<BlockQ4_1>(from, panel, to);
    case Format::q5_0:
      return pack_blocks<BlockQ5_0>(from, panel, to);
    case Format::q5_1:
      return pack_blocks<BlockQ5_1>(from, panel, to);
    case Format::q4_k:
      return pack_blocks<BlockQ4_K>(from, panel, to);
    case Format::q5_k:
      return pack_blocks<BlockQ5_K>(from, panel, to);
    case Format::q6_k:
      return pack_blocks<BlockQ6_K>(from, panel, to);
    default:
      return;  // no model is loaded with it
  }
}

void decode_row(const PackedMatrix& w, size_t row, float* out) {
  if (w.is_quantised()) return decode_units(w, row, out);
  const size_t element = info(w.format).block_bytes;
  const std::byte* at = w.panel(row / kRows) + row % kRows * element;
  for (size_t column = 0; column < w.columns; ++column, at += kRows * element) {
    info(w.format).decode(at, out + column, 1);
  }
}

}  // namespace contexture
