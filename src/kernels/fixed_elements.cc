// Fixed-point numbers many at once: loops that compilers turn into vectors, compiled for each target; integers, so the
// same bits on all.

#include "kernels/fixed_elements.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/fixed_elements.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "kernels/lanes-inl.h"
#include "kernels/scale_fixed-inl.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

void sum_all(const FixedSum& f, const uint16_t* HWY_RESTRICT a, const uint16_t* HWY_RESTRICT b,
             uint16_t* HWY_RESTRICT out, size_t count) {
  const int64_t fa = f.a_factor, fb = f.b_factor, zero = f.out_zero;
  const int shift = f.shift;
  const int64_t start = (int64_t{1} << (shift - 1)) - f.a_zero * fa - f.b_zero * fb;
  for (size_t i = 0; i < count; ++i) out[i] = saturated(((a[i] * fa + b[i] * fb + start) >> shift) + zero, 65535);
}

void multiply_all(const FixedProductOfTwo& f, const uint16_t* HWY_RESTRICT a, const uint16_t* HWY_RESTRICT b,
                  uint16_t* HWY_RESTRICT out, size_t count) {
  const int64_t mantissa = f.factor.mantissa, az = f.a_zero, bz = f.b_zero, zero = f.out_zero;
  const auto shift = static_cast<int>(f.factor.shift);
  const int64_t half = int64_t{1} << (shift - 1);
  for (size_t i = 0; i < count; ++i) {
    out[i] = saturated((((a[i] - az) * (b[i] - bz) * mantissa + half) >> shift) + zero, 65535);
  }
}

void softmax_row(const FixedExponential& table, const uint16_t* HWY_RESTRICT x, size_t columns,
                 uint32_t* HWY_RESTRICT e, uint16_t* HWY_RESTRICT out) {
  uint16_t highest = 0;
  for (size_t i = 0; i < columns; ++i) highest = std::max(highest, x[i]);
  for (size_t i = 0; i < columns; ++i) {
    const int32_t d = highest - x[i];
    const uint64_t product = uint64_t{table.high[d >> 8]} * table.low[d & 255];
    e[i] = static_cast<uint32_t>((product + (uint64_t{1} << 30)) >> 31);
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < columns; ++i) sum += e[i];
  const uint64_t inverse = (uint64_t{65535} << 47) / sum;
  for (size_t i = 0; i < columns; ++i) {
    out[i] = static_cast<uint16_t>((e[i] * inverse + (uint64_t{1} << 46)) >> 47);
  }
}

/// kRows rows times kGroups · 16 columns, from column `first` on.
template <size_t kRows, size_t kGroups>
HWY_INLINE void product_tile(const FixedProduct& p, const uint16_t* HWY_RESTRICT a, const uint8_t* HWY_RESTRICT b,
                             size_t first, uint16_t* HWY_RESTRICT out) {
  constexpr size_t kTerms = 128;
  const hn::Rebind<uint8_t, IntTag> bytes;
  const auto zero = hn::Set(IntTag(), p.b_zero);
  alignas(64) int64_t sums[kRows][16 * kGroups] = {};
  for (size_t begin = 0; begin < p.terms; begin += kTerms) {
    hn::Vec<IntTag> part[kRows][kGroups * kParts];
    for (auto& row : part) {
      for (auto& v : row) v = hn::Zero(IntTag());
    }
    for (size_t k = begin; k < std::min(p.terms, begin + kTerms); ++k) {
      int32_t weight[kRows], any = 0;
      for (size_t r = 0; r < kRows; ++r) any |= weight[r] = a[r * p.terms + k] - p.a_zero;
      if (any == 0) continue;  // most of a masked row
      const uint8_t* HWY_RESTRICT at = b + k * p.columns + first;
      for (size_t v = 0; v < kGroups * kParts; ++v) {
        const auto number = hn::Sub(hn::PromoteTo(IntTag(), hn::LoadU(bytes, at + v * kLanes)), zero);
        for (size_t r = 0; r < kRows; ++r) {
          part[r][v] = hn::Add(part[r][v], hn::Mul(number, hn::Set(IntTag(), weight[r])));
        }
      }
    }
    for (size_t r = 0; r < kRows; ++r) {
      alignas(64) int32_t ints[16 * kGroups];
      for (size_t v = 0; v < kGroups * kParts; ++v) hn::Store(part[r][v], IntTag(), ints + v * kLanes);
      for (size_t i = 0; i < 16 * kGroups; ++i) sums[r][i] += ints[i];
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    scaled<0>(sums[r], 16 * kGroups, &p.factor, p.out_zero, out + r * p.columns + first);
  }
}

/// What no tile of 16 columns covers, and products with 16-bit numbers.
template <class B>
void product_columns(const FixedProduct& p, const uint16_t* HWY_RESTRICT a, const B* HWY_RESTRICT b, size_t first,
                     uint16_t* HWY_RESTRICT out) {
  constexpr size_t kColumns = 64;
  int64_t sums[kColumns];
  for (; first < p.columns; first += kColumns) {
    const size_t columns = std::min(kColumns, p.columns - first);
    std::fill_n(sums, columns, 0);
    for (size_t k = 0; k < p.terms; ++k) {
      const int64_t weight = int64_t{a[k]} - p.a_zero;
      if (weight == 0) continue;
      const B* HWY_RESTRICT row = b + k * p.columns + first;
      for (size_t i = 0; i < columns; ++i) sums[i] += weight * (int64_t{row[i]} - p.b_zero);
    }
    scaled<0>(sums, columns, &p.factor, p.out_zero, out + first);
  }
}

template <size_t kRows>
void product_rows(const FixedProduct& p, const uint16_t* a, const uint8_t* b, uint16_t* out) {
  constexpr size_t kGroups = kParts == 1 ? 2 : 1;  // whose sums stay in registers
  size_t first = 0;
  for (; first + 16 * kGroups <= p.columns; first += 16 * kGroups) product_tile<kRows, kGroups>(p, a, b, first, out);
  for (; first + 16 <= p.columns; first += 16) product_tile<kRows, 1>(p, a, b, first, out);
  for (size_t r = 0; first < p.columns && r < kRows; ++r) {
    product_columns(p, a + r * p.terms, b, first, out + r * p.columns);
  }
}

void product_with_bytes(const FixedProduct& p, const uint16_t* a, const uint8_t* b, uint16_t* out) {
  size_t r = 0;
  for (; r + 4 <= p.rows; r += 4) product_rows<4>(p, a + r * p.terms, b, out + r * p.columns);
  for (; r < p.rows; ++r) product_rows<1>(p, a + r * p.terms, b, out + r * p.columns);
}

void product_with_words(const FixedProduct& p, const uint16_t* a, const uint16_t* b, uint16_t* out) {
  for (size_t r = 0; r < p.rows; ++r) product_columns(p, a + r * p.terms, b, 0, out + r * p.columns);
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {
namespace {

HWY_EXPORT(sum_all);
HWY_EXPORT(multiply_all);
HWY_EXPORT(softmax_row);
HWY_EXPORT(product_with_bytes);
HWY_EXPORT(product_with_words);

}  // namespace

FixedExponential::FixedExponential(double scale) {
  for (size_t i = 0; i < 256; ++i) {
    high[i] = static_cast<uint32_t>(std::llround(0x1p31 * std::exp(-256.0 * static_cast<double>(i) * scale)));
    low[i] = static_cast<uint32_t>(std::llround(0x1p31 * std::exp(-static_cast<double>(i) * scale)));
  }
}

void fixed_sum(const FixedSum& f, const uint16_t* a, const uint16_t* b, uint16_t* out, size_t count) {
  HWY_DYNAMIC_DISPATCH(sum_all)(f, a, b, out, count);
}
void fixed_multiply(const FixedProductOfTwo& f, const uint16_t* a, const uint16_t* b, uint16_t* out, size_t count) {
  HWY_DYNAMIC_DISPATCH(multiply_all)(f, a, b, out, count);
}
void fixed_softmax(const FixedExponential& table, const uint16_t* x, size_t columns, uint32_t* e, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(softmax_row)(table, x, columns, e, out);
}
void fixed_product(const FixedProduct& p, const uint16_t* a, const uint8_t* b, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(product_with_bytes)(p, a, b, out);
}
void fixed_product(const FixedProduct& p, const uint16_t* a, const uint16_t* b, uint16_t* out) {
  HWY_DYNAMIC_DISPATCH(product_with_words)(p, a, b, out);
}

}  // namespace contexture
#endif
