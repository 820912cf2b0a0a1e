// Linears in fixed-point numbers: 16-bit activations as two planes of bytes, so that a product is two of the int8 dot
// products of packed-inl.h, exact on every target.

#include "kernels/fixed_linear.h"

#include <algorithm>
#include <cassert>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/fixed_linear.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "kernels/lanes-inl.h"
#include "kernels/packed-inl.h"
#include "kernels/scale_fixed-inl.h"

#ifndef CONTEXTURE_FIXED_LINEAR_CONSTANTS
#define CONTEXTURE_FIXED_LINEAR_CONSTANTS
namespace contexture {

constexpr size_t kFixedPanelRows = 16;
constexpr size_t kFixedGroupPanels = 4;  // that a thread takes at once

struct FixedPart {
  const FixedLinear* linear;
  const FixedUnit* units;  // (tokens, units)
  uint16_t* out;           // (tokens, rows)
  size_t first_panel, last_panel, tokens;
};

}  // namespace contexture
#endif

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

HWY_INLINE void store_ints(const Ints& ints, int32_t* to) {
  for (size_t p = 0; p < kParts; ++p) hn::StoreU(ints.part[p], IntTag(), to + p * kLanes);
}

/// sum += of each row its factor times `part`.
HWY_INLINE void add_times(const Ints& part, const uint8_t* factors, Ints& sum) {
  const hn::Rebind<uint8_t, IntTag> bytes;
  for (size_t p = 0; p < kParts; ++p) {
    const auto factor = hn::PromoteTo(IntTag(), hn::LoadU(bytes, factors + p * kLanes));
    sum.part[p] = hn::Add(sum.part[p], hn::Mul(part.part[p], factor));
  }
}

/// packed-inl.h's dot, for activations that may be -128: where it works with weights' signs it would negate them.
template <int kBits, size_t kCount>
HWY_INLINE void dot_plane(const Bytes* w, const int8_t* HWY_RESTRICT a, Ints& sum) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  if constexpr (kBits == 8) {  // in 16 bits: even bytes, then odd ones
    const hn::Repartition<int16_t, ByteTag> d16;
    const hn::RebindToUnsigned<decltype(d16)> du16;
    for (size_t v = 0; v < kCount; ++v) {
      int32_t four;
      std::memcpy(&four, a + 4 * v, 4);
      const auto x = hn::BitCast(d16, hn::Set(IntTag(), four));
      const auto x_even = hn::ShiftRight<8>(hn::ShiftLeft<8>(x)), x_odd = hn::ShiftRight<8>(x);
      for (size_t p = 0; p < kParts; ++p) {
        const auto w_even = hn::And(hn::BitCast(d16, w[v].part[p]), hn::Set(d16, 255));
        const auto w_odd = hn::BitCast(d16, hn::ShiftRight<8>(hn::BitCast(du16, w[v].part[p])));
#if HWY_TARGET == HWY_AVX3
        const hn::Vec<IntTag> even{_mm512_madd_epi16(w_even.raw, x_even.raw)};
        const hn::Vec<IntTag> odd{_mm512_madd_epi16(w_odd.raw, x_odd.raw)};
#else
        const hn::Vec<IntTag> even{_mm256_madd_epi16(w_even.raw, x_even.raw)};
        const hn::Vec<IntTag> odd{_mm256_madd_epi16(w_odd.raw, x_odd.raw)};
#endif
        sum.part[p] = hn::Add(sum.part[p], hn::Add(even, odd));
      }
    }
    return;
  }
#endif
  dot<kBits, kCount>(w, a, sum);
}

/// Both planes of some tokens times one panel; each lane a row.
template <size_t kTokens>
struct PlaneSums {
  Ints high[kTokens], low[kTokens];
};

/// One panel times kTokens tokens. kBlock 0: the weights' offset is taken back at the end, by the caller.
template <int kBits, size_t kBlock, size_t kTokens>
HWY_INLINE void panel_sums(const FixedLinear& linear, size_t panel, const FixedUnit* tokens, PlaneSums<kTokens>& s) {
  constexpr int kOffsetLog2 = kBits == 4 ? 3 : 7;
  const size_t units = (linear.columns + FixedUnit::columns - 1) / FixedUnit::columns;
  const size_t blocks = kBlock == 0 ? 0 : (units * FixedUnit::columns + kBlock - 1) / kBlock;
  const std::byte* HWY_RESTRICT at = linear.quants + panel * units * (kBits == 4 ? 256 : 512);
  const uint8_t* HWY_RESTRICT factors = linear.factors + panel * blocks * kFixedPanelRows;
  for (size_t t = 0; t < kTokens; ++t) s.high[t] = s.low[t] = zero_ints();
  Bytes w[8];
  for (size_t unit = 0; unit < units; ++unit) {
    at = read_quants<kBits>(at, w);
    for (size_t t = 0; t < kTokens; ++t) {
      const FixedUnit& x = tokens[t * units + unit];
      if constexpr (kBlock == 0) {
        dot_plane<kBits, 8>(w, x.high, s.high[t]);
        dot_plane<kBits, 8>(w, x.low, s.low[t]);
      } else if constexpr (kBlock == 16) {
        for (size_t half = 0; half < 2; ++half) {
          Ints high = shifted_splat<kOffsetLog2>(x.negative_high[half]);
          Ints low = shifted_splat<kOffsetLog2>(x.negative_low[half]);
          dot_plane<kBits, 4>(w + 4 * half, x.high + 16 * half, high);
          dot_plane<kBits, 4>(w + 4 * half, x.low + 16 * half, low);
          const uint8_t* factor = factors + (2 * unit + half) * kFixedPanelRows;
          add_times(high, factor, s.high[t]);
          add_times(low, factor, s.low[t]);
        }
      } else {
        Ints high = shifted_splat<kOffsetLog2>(x.negative_high[0] + x.negative_high[1]);
        Ints low = shifted_splat<kOffsetLog2>(x.negative_low[0] + x.negative_low[1]);
        dot_plane<kBits, 8>(w, x.high, high);
        dot_plane<kBits, 8>(w, x.low, low);
        const uint8_t* factor = factors + unit * FixedUnit::columns / kBlock * kFixedPanelRows;
        add_times(high, factor, s.high[t]);
        add_times(low, factor, s.low[t]);
      }
    }
  }
}

/// Both planes, the zero point and the bias together, in the output's encoding.
template <size_t kTokens>
HWY_INLINE void write_rows(const FixedPart& part, size_t panel, size_t first_token, const PlaneSums<kTokens>& s,
                           const int64_t* corrections) {
  const FixedLinear& linear = *part.linear;
  const size_t first = panel * kFixedPanelRows, rows = std::min(kFixedPanelRows, linear.rows - first);
  for (size_t t = 0; t < kTokens; ++t) {
    alignas(64) int32_t high[kFixedPanelRows], low[kFixedPanelRows];
    alignas(64) int64_t sums[kFixedPanelRows];
    store_ints(s.high[t], high);
    store_ints(s.low[t], low);
    const int64_t zero = FixedUnit::offset - linear.input_zero;
    for (size_t r = 0; r < kFixedPanelRows; ++r) {  // a panel's sums are as many as its rows, the last one's too
      sums[r] = int64_t{256} * high[r] + low[r] + corrections[t] + zero * linear.sums[first + r];
    }
    for (size_t r = 0; linear.bias && r < rows; ++r) sums[r] += linear.bias[first + r];
    scaled<1>(sums, rows, linear.scale + first, linear.output_zero, part.out + (first_token + t) * linear.rows + first);
  }
}

template <int kBits, size_t kBlock, size_t kTokens>
HWY_INLINE void fixed_tile(const FixedPart& part, size_t panel, size_t first_token) {
  const size_t units = (part.linear->columns + FixedUnit::columns - 1) / FixedUnit::columns;
  const FixedUnit* tokens = part.units + first_token * units;
  PlaneSums<kTokens> sums;
  panel_sums<kBits, kBlock, kTokens>(*part.linear, panel, tokens, sums);
  int64_t corrections[kTokens] = {};  // what the weights' offset added
  for (size_t t = 0; kBlock == 0 && t < kTokens; ++t) {
    int64_t high = 0, low = 0;
    for (size_t u = 0; u < units; ++u) {
      const FixedUnit& x = tokens[t * units + u];
      high += x.negative_high[0] + x.negative_high[1];
      low += x.negative_low[0] + x.negative_low[1];
    }
    corrections[t] = (256 * high + low) * (kBits == 4 ? 8 : 128);
  }
  write_rows<kTokens>(part, panel, first_token, sums, corrections);
}

template <int kBits, size_t kBlock>
void multiply_fixed(const FixedPart& part) {
  for (size_t panel = part.first_panel; panel < part.last_panel; ++panel) {
    size_t token = 0;
    const auto while_they_fit = [&](auto tokens) HWY_ATTR {
      for (; token + tokens <= part.tokens; token += tokens) fixed_tile<kBits, kBlock, tokens>(part, panel, token);
    };
    if constexpr (kParts == 1) while_they_fit(std::integral_constant<size_t, 8>());
    while_they_fit(std::integral_constant<size_t, 4>());
    while_they_fit(std::integral_constant<size_t, 1>());
  }
}

HWY_INLINE void split_unit(const uint16_t* HWY_RESTRICT x, FixedUnit& unit) {
  for (size_t i = 0; i < FixedUnit::columns; ++i) {
    unit.high[i] = static_cast<int8_t>((x[i] >> 8) - 128);
    unit.low[i] = static_cast<int8_t>((x[i] & 255) - 128);
  }
  for (size_t half = 0; half < 2; ++half) {
    int32_t high = 0, low = 0;
    for (size_t i = 16 * half; i < 16 * (half + 1); ++i) {
      high += unit.high[i];
      low += unit.low[i];
    }
    unit.negative_high[half] = -high;
    unit.negative_low[half] = -low;
  }
}

/// What the last unit has too many is 0 in both planes.
void split_row(const uint16_t* HWY_RESTRICT x, size_t columns, FixedUnit* HWY_RESTRICT units) {
  size_t begin = 0;
  for (; begin + FixedUnit::columns <= columns; begin += FixedUnit::columns) split_unit(x + begin, *units++);
  if (begin == columns) return;
  uint16_t padded[FixedUnit::columns];
  std::fill_n(padded, FixedUnit::columns, static_cast<uint16_t>(FixedUnit::offset));
  std::copy(x + begin, x + columns, padded);
  split_unit(padded, *units);
}

/// The crossing from run time to compile time: bits and blocks that there are.
void multiply_fixed_part(const FixedPart& part) {
  if (part.linear->bits == 8) return multiply_fixed<8, 0>(part);
  switch (part.linear->block) {
    case 0:
      return multiply_fixed<4, 0>(part);
    case 16:
      return multiply_fixed<4, 16>(part);
    case 32:
      return multiply_fixed<4, 32>(part);
    case 64:
      return multiply_fixed<4, 64>(part);
    default:
      return;  // no graph is loaded with it
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {
namespace {

HWY_EXPORT(multiply_fixed_part);
HWY_EXPORT(split_row);

}  // namespace

void split_into_planes(const uint16_t* x, size_t tokens, size_t columns, FixedScratch& scratch, ThreadPool& pool) {
  const size_t units = (columns + FixedUnit::columns - 1) / FixedUnit::columns;
  assert(scratch.units.size() >= tokens * units);
  pool.run(tokens, [&](size_t t, int) {
    HWY_DYNAMIC_DISPATCH(split_row)(x + t * columns, columns, scratch.units.data() + t * units);
  });
}

void fixed_linear(const FixedLinear& linear, const FixedScratch& x, size_t tokens, uint16_t* out, ThreadPool& pool) {
  const size_t panels = (linear.rows + kFixedPanelRows - 1) / kFixedPanelRows;
  pool.run((panels + kFixedGroupPanels - 1) / kFixedGroupPanels, [&](size_t group, int) {
    const FixedPart part{.linear = &linear,
                         .units = x.units.data(),
                         .out = out,
                         .first_panel = group * kFixedGroupPanels,
                         .last_panel = std::min(panels, (group + 1) * kFixedGroupPanels),
                         .tokens = tokens};
    HWY_DYNAMIC_DISPATCH(multiply_fixed_part)(part);
  });
}

void fixed_linear_plain(const FixedLinear& linear, const uint16_t* x, size_t tokens, uint16_t* out) {
  const size_t units = (linear.columns + 31) / 32;
  const size_t blocks = linear.block == 0 ? 0 : (units * 32 + linear.block - 1) / linear.block;
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t r = 0; r < linear.rows; ++r) {
      const size_t panel = r / 16, in_panel = r % 16;
      int64_t sum = linear.bias ? linear.bias[r] : 0;
      for (size_t c = 0; c < linear.columns; ++c) {
        const size_t unit = panel * units + c / 32, i = c % 32;
        int64_t weight;
        if (linear.bits == 8) {
          weight = std::to_integer<int>(linear.quants[unit * 512 + i / 4 * 64 + in_panel * 4 + i % 4]) - 128;
        } else {
          const int byte = std::to_integer<int>(linear.quants[unit * 256 + i % 16 / 4 * 64 + in_panel * 4 + i % 4]);
          weight = (i < 16 ? byte & 15 : byte >> 4) - 8;
        }
        if (linear.block != 0) weight *= linear.factors[(panel * blocks + c / linear.block) * 16 + in_panel];
        sum += weight * (int64_t{x[t * linear.columns + c]} - linear.input_zero);
      }
      out[t * linear.rows + r] = saturated(times(sum, linear.scale[r]) + linear.output_zero, 65535);
    }
  }
}

}  // namespace contexture
#endif
