#include "kernels/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selection.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

using FloatVector = hn::Vec<FloatTag>;
using DoubleTag = hn::Repartition<double, FloatTag>;
using DoubleVector = hn::Vec<DoubleTag>;

HWY_INLINE DoubleVector lower_half(FloatVector x) {
  const hn::Half<FloatTag> half;
  return hn::PromoteTo(DoubleTag(), hn::LowerHalf(half, x));
}

HWY_INLINE DoubleVector upper_half(FloatVector x) {
  const hn::Half<FloatTag> half;
  return hn::PromoteTo(DoubleTag(), hn::UpperHalf(half, x));
}

/// 16 lanes of float64 sums, a lane for every sixteenth element, and the tree that they end in.
struct Doubles {
  DoubleVector low[kParts], high[kParts];
};

HWY_INLINE Doubles double_zeros() {
  Doubles d;
  for (size_t p = 0; p < kParts; ++p) d.low[p] = d.high[p] = hn::Zero(DoubleTag());
  return d;
}

HWY_INLINE void add_part(FloatVector x, size_t p, Doubles& sum) {
  sum.low[p] = hn::Add(sum.low[p], lower_half(x));
  sum.high[p] = hn::Add(sum.high[p], upper_half(x));
}

HWY_INLINE double sum_of(const Doubles& d) {
  HWY_ALIGN double lane[16];
  constexpr size_t kHalf = kLanes / 2;
  for (size_t p = 0; p < kParts; ++p) {
    hn::StoreU(d.low[p], DoubleTag(), lane + p * kLanes);
    hn::StoreU(d.high[p], DoubleTag(), lane + p * kLanes + kHalf);
  }
  for (size_t apart = 8; apart > 0; apart /= 2) {
    for (size_t i = 0; i < apart; ++i) lane[i] += lane[i + apart];
  }
  return lane[0];
}

/// 16 numbers of a row, its last ones filled up.
struct Group {
  Floats values;
  HWY_INLINE Group(const float* HWY_RESTRICT x, size_t i, size_t count, float filling) {
    if (i + 16 <= count) {
      values = load(x + i);
      return;
    }
    float padded[16];
    for (size_t lane = 0; lane < 16; ++lane) padded[lane] = i + lane < count ? x[i + lane] : filling;
    values = load(padded);
  }
};

constexpr float kLowest = -std::numeric_limits<float>::infinity();

RowPeak peak_of_simd(const float* HWY_RESTRICT x, size_t count) {
  const FloatTag d;
  Floats largest = splat(kLowest);
  auto nan = hn::Zero(IntTag());
  for (size_t i = 0; i < count; i += 16) {
    const Group group(x, i, count, kLowest);
    for (size_t p = 0; p < kParts; ++p) {
      const auto v = group.values.part[p];
      nan = hn::Or(nan, hn::BitCast(IntTag(), hn::VecFromMask(d, hn::IsNaN(v))));
      largest.part[p] = hn::Max(largest.part[p], v);
    }
  }
  return {max_of(largest), !hn::AllTrue(IntTag(), hn::Eq(nan, hn::Zero(IntTag())))};
}

/// To a multiple of 2^-34, of numbers from 0 to 1: those from 2^-11 on are; what is added to the others has units of
/// that size.
HWY_INLINE FloatVector on_grid(FloatVector w) {
  const FloatTag d;
  const auto shift = hn::Set(d, 0x1p-11f);
  return hn::IfThenElse(hn::Lt(w, shift), hn::Sub(hn::Add(w, shift), shift), w);
}

double weigh_simd(const float* HWY_RESTRICT x, size_t count, float largest, float slope, float* HWY_RESTRICT weight) {
  const FloatTag d;
  const auto peak = hn::Set(d, largest), steep = hn::Set(d, slope);
  Doubles sum = double_zeros();
  for (size_t i = 0; i < count; i += 16) {
    const Group group(x, i, count, kLowest);
    Floats weights;
    for (size_t p = 0; p < kParts; ++p) {
      weights.part[p] = on_grid(exp_of_negative(hn::Mul(hn::Sub(group.values.part[p], peak), steep)));
      add_part(weights.part[p], p, sum);
    }
    if (i + 16 <= count) {
      store(weights, weight + i);
      continue;
    }
    float rest[16];
    store(weights, rest);
    for (size_t r = 0; i + r < count; ++r) weight[i + r] = rest[r];
  }
  return sum_of(sum);
}

double sum_of_weights_simd(const float* HWY_RESTRICT weight, size_t count) {
  Doubles sum = double_zeros();
  for (size_t i = 0; i < count; i += 16) {
    const Group weights(weight, i, count, 0);
    for (size_t p = 0; p < kParts; ++p) add_part(weights.values.part[p], p, sum);
  }
  return sum_of(sum);
}

double weighted_offset_simd(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight, size_t count,
                            float largest) {
  const FloatTag d;
  const auto peak = hn::Set(d, largest);
  Doubles sum = double_zeros();
  for (size_t i = 0; i < count; i += 16) {
    const Group group(x, i, count, largest), weights(weight, i, count, 0);
    for (size_t p = 0; p < kParts; ++p) {
      const auto w = weights.values.part[p];
      const auto product = hn::Mul(w, hn::Sub(group.values.part[p], peak));
      add_part(hn::IfThenElseZero(hn::Gt(w, hn::Zero(d)), product), p, sum);
    }
  }
  return sum_of(sum);
}

Spread spread_of_simd(const float* HWY_RESTRICT x, size_t count, float centre) {
  const FloatTag d;
  const auto middle = hn::Set(d, centre), lowest = hn::Set(d, kLowest);
  Doubles sum = double_zeros(), squares = double_zeros();
  size_t finite = 0;
  for (size_t i = 0; i < count; i += 16) {
    const Group group(x, i, count, kLowest);
    for (size_t p = 0; p < kParts; ++p) {
      const auto v = group.values.part[p];
      const auto is_finite = hn::Gt(v, lowest);
      finite += hn::CountTrue(d, is_finite);
      const auto offset = hn::IfThenElseZero(is_finite, hn::Sub(v, middle));
      const auto low = lower_half(offset), high = upper_half(offset);
      sum.low[p] = hn::Add(sum.low[p], low);
      sum.high[p] = hn::Add(sum.high[p], high);
      squares.low[p] = hn::MulAdd(low, low, squares.low[p]);
      squares.high[p] = hn::MulAdd(high, high, squares.high[p]);
    }
  }
  if (finite == 0) return {0, 0, 0};
  const double mean = sum_of(sum) / static_cast<double>(finite);
  const double variance = sum_of(squares) / static_cast<double>(finite) - mean * mean;
  return {finite, mean + centre, std::sqrt(std::max(0.0, variance))};
}

void nearness_simd(const float* HWY_RESTRICT x, size_t count, float centre, float* HWY_RESTRICT key) {
  const FloatTag d;
  const auto middle = hn::Set(d, centre);
  const size_t whole = count / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    hn::StoreU(hn::Neg(hn::Abs(hn::Sub(hn::LoadU(d, x + i), middle))), d, key + i);
  }
  for (size_t i = whole; i < count; ++i) key[i] = -std::fabs(x[i] - centre);
}

size_t find_first_simd(const float* HWY_RESTRICT x, size_t count, float value) {
  const FloatTag d;
  const auto wanted = hn::Set(d, value);
  size_t i = 0;
  while (i + kLanes <= count && hn::AllFalse(d, hn::Eq(hn::LoadU(d, x + i), wanted))) i += kLanes;
  while (i < count && x[i] != value) ++i;
  return i;
}

WeightsAbove weigh_above(const float* HWY_RESTRICT key, const float* HWY_RESTRICT weight, size_t count,
                         const float* HWY_RESTRICT bounds) {
  const FloatTag d;
  const auto first = hn::Set(d, bounds[0]), second = hn::Set(d, bounds[1]);
  Doubles above_first = double_zeros(), above_second = double_zeros();
  for (size_t i = 0; i < count; i += 16) {
    const Group keys(key, i, count, kLowest), weights(weight, i, count, 0);
    for (size_t p = 0; p < kParts; ++p) {
      const auto k = keys.values.part[p], w = weights.values.part[p];
      add_part(hn::IfThenElseZero(hn::Gt(k, first), w), p, above_first);
      add_part(hn::IfThenElseZero(hn::Gt(k, second), w), p, above_second);
    }
  }
  return {{sum_of(above_first), sum_of(above_second)}};
}

WeightsAbove count_above(const float* HWY_RESTRICT key, size_t count, const float* HWY_RESTRICT bounds) {
  const FloatTag d;
  const auto first = hn::Set(d, bounds[0]), second = hn::Set(d, bounds[1]);
  size_t above[2] = {0, 0};
  const size_t whole = count / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    const auto k = hn::LoadU(d, key + i);
    above[0] += hn::CountTrue(d, hn::Gt(k, first));
    above[1] += hn::CountTrue(d, hn::Gt(k, second));
  }
  for (size_t i = whole; i < count; ++i) {
    above[0] += key[i] > bounds[0];
    above[1] += key[i] > bounds[1];
  }
  return {{static_cast<double>(above[0]), static_cast<double>(above[1])}};
}

WeightsAbove weights_above_simd(const float* HWY_RESTRICT key, const float* HWY_RESTRICT weight, size_t count,
                                const float* HWY_RESTRICT bounds) {
  return weight ? weigh_above(key, weight, count, bounds) : count_above(key, count, bounds);
}

/// A vector's elements of a mask, side by side. All of the vector is written: stores of a mask's lanes are slow.
template <class Tag>
HWY_INLINE void store_kept(hn::Vec<Tag> v, hn::Mask<Tag> mask, Tag d, hn::TFromD<Tag>* HWY_RESTRICT to) {
  hn::StoreU(hn::Compress(v, mask), d, to);
}

/// Whole vectors, then one element at a time: nothing is read or written beyond the rows, and what is read is read
/// before anything is written, since rows may be written over. (The pointers come as a copy: the compiler takes each
/// store for one that may change what a reference refers to.)
template <bool kSecond, bool kIds>
HWY_INLINE size_t keep_rows(const CutRows rows, size_t from, size_t to, float low, float high, size_t at) {
  const FloatTag d;
  const IntTag integers;
  const auto lowest = hn::Set(d, low), highest = hn::Set(d, high);
  const auto from_zero = hn::Iota(integers, 0);
  size_t i = from;
  for (; i + kLanes <= to; i += kLanes) {
    const auto key = hn::LoadU(d, rows.key + i);
    const auto mask = hn::And(hn::Ge(key, lowest), hn::Le(key, highest));
    if (hn::AllFalse(d, mask)) continue;
    const auto first = hn::LoadU(d, rows.in[0] + i);
    const auto second = kSecond ? hn::LoadU(d, rows.in[1] + i) : first;
    const auto id =
        kIds ? hn::LoadU(integers, rows.in_id + i) : hn::Add(from_zero, hn::Set(integers, static_cast<int32_t>(i)));
    store_kept(first, mask, d, rows.out[0] + at);
    if (kSecond) store_kept(second, mask, d, rows.out[1] + at);
    store_kept(id, hn::RebindMask(integers, mask), integers, rows.out_id + at);
    at += hn::CountTrue(d, mask);
  }
  for (; i < to; ++i) {
    if (!(rows.key[i] >= low && rows.key[i] <= high)) continue;
    rows.out[0][at] = rows.in[0][i];
    if (kSecond) rows.out[1][at] = rows.in[1][i];
    rows.out_id[at++] = kIds ? rows.in_id[i] : static_cast<int32_t>(i);
  }
  return at;
}

size_t keep_between_simd(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at) {
  if (rows.out[1]) {
    return rows.in_id ? keep_rows<true, true>(rows, from, to, low, high, at)
                      : keep_rows<true, false>(rows, from, to, low, high, at);
  }
  return rows.in_id ? keep_rows<false, true>(rows, from, to, low, high, at)
                    : keep_rows<false, false>(rows, from, to, low, high, at);
}

template <bool kWeighted>
HWY_INLINE Split split(const float* HWY_RESTRICT key, const float* HWY_RESTRICT weight, size_t count, float first,
                       float second, float* HWY_RESTRICT out_key, float* HWY_RESTRICT out_weight,
                       int32_t* HWY_RESTRICT out_index) {
  const FloatTag d;
  const IntTag integers;
  const auto upper = hn::Set(d, first), lower = hn::Set(d, second);
  const auto from_zero = hn::Iota(integers, 0);
  Doubles above_first = double_zeros(), above_second = double_zeros();
  size_t counts[2] = {0, 0}, at = 0;
  const size_t whole = count / 16 * 16;
  for (size_t i = 0; i < whole; i += kLanes) {
    const size_t part = i / kLanes % kParts;
    const auto k = hn::LoadU(d, key + i);
    const auto is_above = hn::Gt(k, upper), is_below = hn::Gt(k, lower);
    const auto w = kWeighted ? hn::LoadU(d, weight + i) : k;
    if (kWeighted) {
      add_part(hn::IfThenElseZero(is_above, w), part, above_first);
      add_part(hn::IfThenElseZero(is_below, w), part, above_second);
    } else {
      counts[0] += hn::CountTrue(d, is_above);
      counts[1] += hn::CountTrue(d, is_below);
    }
    const auto between = hn::AndNot(is_above, is_below);
    if (hn::AllFalse(d, between)) continue;
    store_kept(k, between, d, out_key + at);
    if (kWeighted) store_kept(w, between, d, out_weight + at);
    const auto index = hn::Add(from_zero, hn::Set(integers, static_cast<int32_t>(i)));
    store_kept(index, hn::RebindMask(integers, between), integers, out_index + at);
    at += hn::CountTrue(d, between);
  }
  Split found{{{kWeighted ? sum_of(above_first) : static_cast<double>(counts[0]),
                kWeighted ? sum_of(above_second) : static_cast<double>(counts[1])}},
              at};
  for (size_t i = whole; i < count; ++i) {
    const float w = kWeighted ? weight[i] : 1;
    if (key[i] > first) found.above.sum[0] += w;
    if (key[i] > second) found.above.sum[1] += w;
    if (key[i] > first || !(key[i] > second)) continue;
    out_key[found.count] = key[i];
    if (kWeighted) out_weight[found.count] = w;
    out_index[found.count++] = static_cast<int32_t>(i);
  }
  return found;
}

Split split_row_simd(const float* key, const float* weight, size_t count, const float* bounds, float* out_key,
                     float* out_weight, int32_t* out_index) {
  return weight ? split<true>(key, weight, count, bounds[0], bounds[1], out_key, out_weight, out_index)
                : split<false>(key, weight, count, bounds[0], bounds[1], out_key, out_weight, out_index);
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(peak_of_simd);
HWY_EXPORT(weigh_simd);
HWY_EXPORT(sum_of_weights_simd);
HWY_EXPORT(weighted_offset_simd);
HWY_EXPORT(spread_of_simd);
HWY_EXPORT(nearness_simd);
HWY_EXPORT(find_first_simd);
HWY_EXPORT(weights_above_simd);
HWY_EXPORT(split_row_simd);
HWY_EXPORT(keep_between_simd);

RowPeak peak_of(const float* x, size_t count) {
  return HWY_DYNAMIC_DISPATCH(peak_of_simd)(x, count);
}
double weigh(const float* x, size_t count, float largest, float slope, float* weight) {
  return HWY_DYNAMIC_DISPATCH(weigh_simd)(x, count, largest, slope, weight);
}
double sum_of_weights(const float* weight, size_t count) {
  return HWY_DYNAMIC_DISPATCH(sum_of_weights_simd)(weight, count);
}
double weighted_offset(const float* x, const float* weight, size_t count, float largest) {
  return HWY_DYNAMIC_DISPATCH(weighted_offset_simd)(x, weight, count, largest);
}
Spread spread_of(const float* x, size_t count, float centre) {
  return HWY_DYNAMIC_DISPATCH(spread_of_simd)(x, count, centre);
}
void nearness(const float* x, size_t count, float centre, float* key) {
  HWY_DYNAMIC_DISPATCH(nearness_simd)(x, count, centre, key);
}
size_t find_first(const float* x, size_t count, float value) {
  return HWY_DYNAMIC_DISPATCH(find_first_simd)(x, count, value);
}
WeightsAbove weights_above(const float* key, const float* weight, size_t count, const float bounds[2]) {
  return HWY_DYNAMIC_DISPATCH(weights_above_simd)(key, weight, count, bounds);
}
Split split_row(const float* key, const float* weight, size_t count, const float bounds[2], float* out_key,
                float* out_weight, int32_t* out_index) {
  return HWY_DYNAMIC_DISPATCH(split_row_simd)(key, weight, count, bounds, out_key, out_weight, out_index);
}
size_t keep_between(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at) {
  return HWY_DYNAMIC_DISPATCH(keep_between_simd)(rows, from, to, low, high, at);
}

double weigh_plain(const float* x, size_t count, float largest, float slope, float* weight) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    const double exact = std::exp((static_cast<double>(x[i]) - largest) * slope);
    weight[i] = static_cast<float>(std::nearbyint(exact * 0x1p34) * 0x1p-34);
    sum += weight[i];
  }
  return sum;
}

WeightsAbove weights_above_plain(const float* key, const float* weight, size_t count, const float bounds[2]) {
  WeightsAbove above{};
  for (size_t b = 0; b < 2; ++b) {
    for (size_t i = 0; i < count; ++i) {
      if (key[i] > bounds[b]) above.sum[b] += weight ? weight[i] : 1;
    }
  }
  return above;
}

size_t keep_between_plain(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at) {
  for (size_t i = from; i < to; ++i) {
    if (!(rows.key[i] >= low && rows.key[i] <= high)) continue;
    const int32_t id = rows.in_id ? rows.in_id[i] : static_cast<int32_t>(i);
    for (size_t r = 0; r < 2; ++r) {
      if (rows.out[r]) rows.out[r][at] = rows.in[r][i];
    }
    rows.out_id[at++] = id;
  }
  return at;
}

}  // namespace contexture
#endif
