#include "kernels/selection.h"

#include <algorithm>
#include <array>
#include <bit>
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
using IntVector = hn::Vec<IntTag>;
using FloatMask = hn::Mask<FloatTag>;
using DoubleTag = hn::Repartition<double, FloatTag>;
using DoubleVector = hn::Vec<DoubleTag>;

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kHighest = std::numeric_limits<float>::infinity();

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

  HWY_INLINE Doubles() {
    for (size_t p = 0; p < kParts; ++p) low[p] = high[p] = hn::Zero(DoubleTag());
  }
  HWY_INLINE void add(FloatVector x, size_t p) {
    low[p] = hn::Add(low[p], lower_half(x));
    high[p] = hn::Add(high[p], upper_half(x));
  }
  HWY_INLINE double sum() const {
    HWY_ALIGN double lane[16];
    constexpr size_t kHalf = kLanes / 2;
    for (size_t p = 0; p < kParts; ++p) {
      hn::StoreU(low[p], DoubleTag(), lane + p * kLanes);
      hn::StoreU(high[p], DoubleTag(), lane + p * kLanes + kHalf);
    }
    for (size_t apart = 8; apart > 0; apart /= 2) {
      for (size_t i = 0; i < apart; ++i) lane[i] += lane[i + apart];
    }
    return lane[0];
  }
};

/// The last numbers of a row, fewer than 16, filled up.
HWY_INLINE Floats load_rest(const float* HWY_RESTRICT x, size_t count, float filling) {
  float padded[16];
  for (size_t lane = 0; lane < 16; ++lane) padded[lane] = lane < count ? x[lane] : filling;
  return load(padded);
}

HWY_INLINE size_t whole_groups(size_t count) {
  return count / 16 * 16;
}

struct PeakPass {
  Floats largest = splat(kLowest);
  FloatMask nan[kParts];

  HWY_INLINE PeakPass() {
    for (size_t p = 0; p < kParts; ++p) nan[p] = hn::IsNaN(hn::Zero(FloatTag()));
  }
  HWY_INLINE void add(const Floats& x) {
    for (size_t p = 0; p < kParts; ++p) {
      nan[p] = hn::Or(nan[p], hn::IsNaN(x.part[p]));
      largest.part[p] = hn::Max(largest.part[p], x.part[p]);
    }
  }
};

RowPeak peak_of_simd(const float* HWY_RESTRICT x, size_t count) {
  PeakPass pass;
  const size_t whole = whole_groups(count);
  for (size_t i = 0; i < whole; i += 16) pass.add(load(x + i));
  if (whole < count) pass.add(load_rest(x + whole, count - whole, kLowest));
  FloatMask nan = pass.nan[0];
  for (size_t p = 1; p < kParts; ++p) nan = hn::Or(nan, pass.nan[p]);
  return {max_of(pass.largest), !hn::AllFalse(FloatTag(), nan)};
}

/// Vectors that are weighed in lockstep: alone, each would wait for its own last step most of the time.
constexpr size_t kTogether = 4;
constexpr size_t kWeighed = kTogether * kLanes;

/// exp((x - peak) · steep) on the grid, for x ≤ peak.
struct Weigher {
  FloatVector peak, steep;

  HWY_INLINE Weigher(float largest, float slope)
      : peak(hn::Set(FloatTag(), largest)), steep(hn::Set(FloatTag(), slope)) {}

  HWY_INLINE void operator()(const float* HWY_RESTRICT x, FloatVector* HWY_RESTRICT weight) const {
    const FloatTag d;
    FloatVector r[kTogether], shifted[kTogether], n[kTogether];
    // Below -80 all round to zero in the end.
    for (size_t v = 0; v < kTogether; ++v) {
      r[v] = hn::Max(hn::Mul(hn::Sub(hn::LoadU(d, x + v * kLanes), peak), steep), hn::Set(d, -80.f));
    }
    // The steps of exp_of_negative: the exponent is n · ln 2 + r, and e^r = 1 + r · (1 + r · q(r)).
    const auto shift = hn::Set(d, 12582912.f);
    for (size_t v = 0; v < kTogether; ++v) shifted[v] = hn::MulAdd(r[v], hn::Set(d, 1.44269504f), shift);
    for (size_t v = 0; v < kTogether; ++v) n[v] = hn::Sub(shifted[v], shift);
    for (size_t v = 0; v < kTogether; ++v) r[v] = hn::NegMulAdd(n[v], hn::Set(d, 0x1.62e43p-1f), r[v]);
    for (size_t v = 0; v < kTogether; ++v) r[v] = hn::NegMulAdd(n[v], hn::Set(d, -0x1.05c61p-29f), r[v]);
    for (size_t v = 0; v < kTogether; ++v) weight[v] = hn::Set(d, 0x1.6a23c8p-10f);
    for (const float c : {0x1.123a2p-7f, 0x1.5558f4p-5f, 0x1.555492p-3f, 0x1.fffffcp-2f, 1.f, 1.f}) {
      for (size_t v = 0; v < kTogether; ++v) weight[v] = hn::MulAdd(weight[v], r[v], hn::Set(d, c));
    }
    for (size_t v = 0; v < kTogether; ++v) {
      const auto exponent = hn::ShiftLeft<23>(hn::BitCast(IntTag(), shifted[v]));
      weight[v] = hn::BitCast(d, hn::Add(hn::BitCast(IntTag(), weight[v]), exponent));
    }
    // Numbers from 2^-11 to 1 are multiples of 2^-34. What is added to the others has units of that size; what is added
    // to these is the number itself, which changes nothing.
    for (size_t v = 0; v < kTogether; ++v) r[v] = hn::Max(weight[v], hn::Set(d, 0x1p-11f));
    for (size_t v = 0; v < kTogether; ++v) weight[v] = hn::Sub(hn::Add(weight[v], r[v]), r[v]);
  }
};

template <bool kStores>
HWY_INLINE double weigh_row(const float* HWY_RESTRICT x, size_t count, float largest, float slope,
                            float* HWY_RESTRICT weight) {
  const FloatTag d;
  const Weigher weigher(largest, slope);
  Doubles sum;
  FloatVector w[kTogether];
  size_t i = 0;
  for (; i + kWeighed <= count; i += kWeighed) {
    weigher(x + i, w);
    for (size_t v = 0; v < kTogether; ++v) {
      if (kStores) hn::StoreU(w[v], d, weight + i + v * kLanes);
      sum.add(w[v], v % kParts);
    }
  }
  if (i == count) return sum.sum();
  float rest[kWeighed];
  std::fill(std::copy(x + i, x + count, rest), rest + kWeighed, kLowest);
  weigher(rest, w);
  for (size_t v = 0; v < kTogether; ++v) {
    hn::StoreU(w[v], d, rest + v * kLanes);
    sum.add(w[v], v % kParts);
  }
  if (kStores) std::copy_n(rest, count - i, weight + i);
  return sum.sum();
}

double weigh_simd(const float* HWY_RESTRICT x, size_t count, float largest, float slope, float* HWY_RESTRICT weight) {
  return weight ? weigh_row<true>(x, count, largest, slope, weight)
                : weigh_row<false>(x, count, largest, slope, weight);
}

double sum_of_weights_simd(const float* HWY_RESTRICT weight, size_t count) {
  Doubles sum;
  const size_t whole = whole_groups(count);
  for (size_t i = 0; i < whole; i += 16) {
    for (size_t p = 0; p < kParts; ++p) sum.add(hn::LoadU(FloatTag(), weight + i + p * kLanes), p);
  }
  if (whole < count) {
    const Floats rest = load_rest(weight + whole, count - whole, 0);
    for (size_t p = 0; p < kParts; ++p) sum.add(rest.part[p], p);
  }
  return sum.sum();
}

HWY_INLINE FloatVector offset_share(FloatVector x, FloatVector weight, FloatVector peak) {
  return hn::IfThenElseZero(hn::Gt(weight, hn::Zero(FloatTag())), hn::Mul(weight, hn::Sub(x, peak)));
}

double weighted_offset_simd(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight, size_t count,
                            float largest) {
  const FloatTag d;
  const auto peak = hn::Set(d, largest);
  Doubles sum;
  const size_t whole = whole_groups(count);
  for (size_t i = 0; i < whole; i += 16) {
    for (size_t p = 0; p < kParts; ++p) {
      const size_t at = i + p * kLanes;
      sum.add(offset_share(hn::LoadU(d, x + at), hn::LoadU(d, weight + at), peak), p);
    }
  }
  if (whole < count) {
    const Floats rest = load_rest(x + whole, count - whole, largest),
                 weights = load_rest(weight + whole, count - whole, 0);
    for (size_t p = 0; p < kParts; ++p) sum.add(offset_share(rest.part[p], weights.part[p], peak), p);
  }
  return sum.sum();
}

struct SpreadPass {
  FloatVector middle;
  Doubles sum, squares;
  size_t finite = 0;

  HWY_INLINE void add(FloatVector x, size_t p) {
    const FloatTag d;
    const auto is_finite = hn::Gt(x, hn::Set(d, kLowest));
    finite += hn::CountTrue(d, is_finite);
    const auto offset = hn::IfThenElseZero(is_finite, hn::Sub(x, middle));
    const auto low = lower_half(offset), high = upper_half(offset);
    sum.low[p] = hn::Add(sum.low[p], low);
    sum.high[p] = hn::Add(sum.high[p], high);
    squares.low[p] = hn::MulAdd(low, low, squares.low[p]);
    squares.high[p] = hn::MulAdd(high, high, squares.high[p]);
  }
};

Spread spread_of_simd(const float* HWY_RESTRICT x, size_t count, float centre) {
  SpreadPass pass{hn::Set(FloatTag(), centre), {}, {}};
  const size_t whole = whole_groups(count);
  for (size_t i = 0; i < whole; i += 16) {
    for (size_t p = 0; p < kParts; ++p) pass.add(hn::LoadU(FloatTag(), x + i + p * kLanes), p);
  }
  if (whole < count) {
    const Floats rest = load_rest(x + whole, count - whole, kLowest);
    for (size_t p = 0; p < kParts; ++p) pass.add(rest.part[p], p);
  }
  if (pass.finite == 0) return {0, 0, 0};
  const double mean = pass.sum.sum() / static_cast<double>(pass.finite);
  const double variance = pass.squares.sum() / static_cast<double>(pass.finite) - mean * mean;
  return {pass.finite, mean + centre, std::sqrt(std::max(0.0, variance))};
}

size_t find_first_simd(const float* HWY_RESTRICT x, size_t count, float value) {
  const FloatTag d;
  const auto wanted = hn::Set(d, value);
  size_t i = 0;
  while (i + kLanes <= count && hn::AllFalse(d, hn::Eq(hn::LoadU(d, x + i), wanted))) i += kLanes;
  while (i < count && x[i] != value) ++i;
  return i;
}

LeastHeavy least_heavy_simd(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight, size_t count, float bound) {
  const FloatTag d;
  const IntTag integers;
  const auto least_weight = hn::Set(d, bound);
  auto least = hn::Set(d, kHighest);
  auto place = hn::Zero(integers), index = hn::Iota(integers, 0);
  LeastHeavy found{0, kHighest, 0};
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto v = hn::LoadU(d, x + i);
    const auto is_heavy = hn::Gt(hn::LoadU(d, weight + i), least_weight);
    const auto is_less = hn::And(is_heavy, hn::Le(v, least));
    found.count += hn::CountTrue(d, is_heavy);
    least = hn::IfThenElse(is_less, v, least);
    place = hn::IfThenElse(hn::RebindMask(integers, is_less), index, place);
    index = hn::Add(index, hn::Set(integers, static_cast<int32_t>(kLanes)));
  }
  HWY_ALIGN float values[kLanes];
  HWY_ALIGN int32_t places[kLanes];
  hn::Store(least, d, values);
  hn::Store(place, integers, places);
  const auto take = [&found](float value, size_t where) {
    if (value > found.least || (value == found.least && where < found.index)) return;
    found.least = value;
    found.index = where;
  };
  for (size_t lane = 0; lane < kLanes; ++lane) take(values[lane], static_cast<size_t>(places[lane]));
  for (; i < count; ++i) {
    if (!(weight[i] > bound)) continue;
    ++found.count;
    take(x[i], i);
  }
  return found;
}

template <bool kNear>
HWY_INLINE FloatVector key_of(FloatVector x, FloatVector centre) {
  return kNear ? hn::Neg(hn::Abs(hn::Sub(x, centre))) : x;
}

/// Elements at a time where few are taken: with fewer, whether there is one among them would be anybody's guess, and
/// the machine's would often be wrong.
constexpr size_t kStep = 32, kStepVectors = kStep / kLanes;

HWY_INLINE uint32_t bits_of(FloatMask mask) {
  uint8_t bytes[8] = {};
  hn::StoreMaskBits(FloatTag(), mask, bytes);
  return bytes[0] | static_cast<uint32_t>(bytes[1]) << 8;
}

/// Which lanes come first when those of a mask go side by side. (Highway's Compress has such a table, but with GCC 12
/// puts it on the stack each time.)
constexpr size_t kPackedLanes = std::min<size_t>(kLanes, 8);
struct PackingTable {
  uint8_t lane[size_t{1} << kPackedLanes][8];
};
constexpr PackingTable packing_table() {
  PackingTable table{};
  for (size_t bits = 0; bits < std::size(table.lane); ++bits) {
    size_t at = 0;
    for (size_t lane = 0; lane < kPackedLanes; ++lane) {
      if (bits >> lane & 1) table.lane[bits][at++] = static_cast<uint8_t>(lane);
    }
  }
  return table;
}
static constexpr PackingTable kPackingTable = packing_table();

struct Packing {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  hn::Mask<IntTag> mask;
  HWY_INLINE Packing(FloatMask floats, uint32_t /*bits*/) : mask(hn::RebindMask(IntTag(), floats)) {}
  HWY_INLINE IntVector operator()(IntVector v) const {
    return hn::Compress(v, mask);
  }
#else
  IntVector lanes;
  HWY_INLINE Packing(FloatMask /*floats*/, uint32_t bits)
      : lanes(hn::PromoteTo(IntTag(), hn::LoadU(hn::Rebind<uint8_t, IntTag>(), kPackingTable.lane[bits]))) {}
  HWY_INLINE IntVector operator()(IntVector v) const {
    return hn::TableLookupLanes(v, hn::IndicesFromVec(IntTag(), lanes));
  }
#endif
  HWY_INLINE FloatVector operator()(FloatVector v) const {
    return hn::BitCast(FloatTag(), (*this)(hn::BitCast(IntTag(), v)));
  }
};

/// Whole vectors are written, of which what was taken comes first: stores of some lanes are slow. Nothing is written
/// beyond what has been read. (The structs come as copies: the compiler takes each store for one that may change what a
/// reference refers to.)
template <bool kNear, bool kWeighted, bool kListed>
HWY_INLINE Split split(const WeightedRow row, float low, float high, const PartOfRow out) {
  const FloatTag d;
  const IntTag integers;
  const auto centre = hn::Set(d, row.key.centre), lowest = hn::Set(d, low), highest = hn::Set(d, high);
  const auto from_zero = hn::Iota(integers, 0);
  const bool sees_above = high < kHighest;
  Doubles above;
  double above_rest = 0;
  size_t counted = 0, at = 0, i = 0;
  for (; i + kStep <= row.count; i += kStep) {
    FloatVector key[kStepVectors];
    FloatMask between[kStepVectors];
    uint32_t bits[kStepVectors], any = 0;
    for (size_t v = 0; v < kStepVectors; ++v) {
      key[v] = key_of<kNear>(hn::LoadU(d, row.key.x + i + v * kLanes), centre);
      const auto is_above = hn::Gt(key[v], highest);
      if (kWeighted && sees_above) {
        above.add(hn::IfThenElseZero(is_above, hn::LoadU(d, row.weight + i + v * kLanes)), v % kParts);
      }
      if (!kWeighted) counted += hn::CountTrue(d, is_above);
      between[v] = hn::AndNot(is_above, hn::Ge(key[v], lowest));
      any |= bits[v] = bits_of(between[v]);
    }
    if (any == 0) continue;
    for (size_t v = 0; v < kStepVectors; ++v) {
      const size_t place = i + v * kLanes;
      const Packing packing(between[v], bits[v]);
      const auto weight = kWeighted ? hn::LoadU(d, row.weight + place) : key[v];
      const auto index = kListed ? hn::LoadU(integers, row.index + place)
                                 : hn::Add(from_zero, hn::Set(integers, static_cast<int32_t>(place)));
      hn::StoreU(packing(key[v]), d, out.key + at);
      if (kWeighted) hn::StoreU(packing(weight), d, out.weight + at);
      hn::StoreU(packing(index), integers, out.index + at);
      at += static_cast<size_t>(std::popcount(bits[v]));
    }
  }
  for (; i < row.count; ++i) {
    const float key = row.key[i], weight = kWeighted ? row.weight[i] : 1;
    if (key > high) above_rest += weight;
    if (!(key >= low && key <= high)) continue;
    out.key[at] = key;
    if (kWeighted) out.weight[at] = weight;
    out.index[at++] = kListed ? row.index[i] : static_cast<int32_t>(i);
  }
  return {above.sum() + static_cast<double>(counted) + above_rest, 0, at};
}

template <bool kNear>
HWY_INLINE Split split_by(const WeightedRow& row, float low, float high, const PartOfRow& out) {
  if (row.weight) {
    return row.index ? split<kNear, true, true>(row, low, high, out) : split<kNear, true, false>(row, low, high, out);
  }
  return row.index ? split<kNear, false, true>(row, low, high, out) : split<kNear, false, false>(row, low, high, out);
}

Split split_row_simd(const WeightedRow& row, float low, float high, const PartOfRow& out) {
  Split found = row.key.by_nearness ? split_by<true>(row, low, high, out) : split_by<false>(row, low, high, out);
  found.between = row.weight ? sum_of_weights_simd(out.weight, found.count) : static_cast<double>(found.count);
  return found;
}

template <bool kNear, bool kSecond, bool kIds>
HWY_INLINE size_t keep_rows(const CutRows rows, size_t from, size_t to, float low, float high, size_t at) {
  const FloatTag d;
  const IntTag integers;
  const auto centre = hn::Set(d, rows.key.centre), lowest = hn::Set(d, low), highest = hn::Set(d, high);
  const auto from_zero = hn::Iota(integers, 0);
  size_t i = from;
  for (; i + kStep <= to; i += kStep) {
    FloatMask kept[kStepVectors];
    uint32_t bits[kStepVectors], any = 0;
    for (size_t v = 0; v < kStepVectors; ++v) {
      const auto key = key_of<kNear>(hn::LoadU(d, rows.key.x + i + v * kLanes), centre);
      kept[v] = hn::And(hn::Ge(key, lowest), hn::Le(key, highest));
      any |= bits[v] = bits_of(kept[v]);
    }
    if (any == 0) continue;
    for (size_t v = 0; v < kStepVectors; ++v) {
      const size_t place = i + v * kLanes;
      const Packing packing(kept[v], bits[v]);
      const auto first = hn::LoadU(d, rows.in[0] + place);
      const auto second = kSecond ? hn::LoadU(d, rows.in[1] + place) : first;
      const auto id = kIds ? hn::LoadU(integers, rows.in_id + place)
                           : hn::Add(from_zero, hn::Set(integers, static_cast<int32_t>(place)));
      hn::StoreU(packing(first), d, rows.out[0] + at);
      if (kSecond) hn::StoreU(packing(second), d, rows.out[1] + at);
      hn::StoreU(packing(id), integers, rows.out_id + at);
      at += static_cast<size_t>(std::popcount(bits[v]));
    }
  }
  for (; i < to; ++i) {
    const float key = rows.key[i];
    if (!(key >= low && key <= high)) continue;
    rows.out[0][at] = rows.in[0][i];
    if (kSecond) rows.out[1][at] = rows.in[1][i];
    rows.out_id[at++] = kIds ? rows.in_id[i] : static_cast<int32_t>(i);
  }
  return at;
}

template <bool kNear>
HWY_INLINE size_t keep_by(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at) {
  if (rows.out[1]) {
    return rows.in_id ? keep_rows<kNear, true, true>(rows, from, to, low, high, at)
                      : keep_rows<kNear, true, false>(rows, from, to, low, high, at);
  }
  return rows.in_id ? keep_rows<kNear, false, true>(rows, from, to, low, high, at)
                    : keep_rows<kNear, false, false>(rows, from, to, low, high, at);
}

size_t keep_between_simd(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at) {
  return rows.key.by_nearness ? keep_by<true>(rows, from, to, low, high, at)
                              : keep_by<false>(rows, from, to, low, high, at);
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
HWY_EXPORT(find_first_simd);
HWY_EXPORT(least_heavy_simd);
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
size_t find_sum(const float* weight, size_t count, double mass) {
  constexpr size_t kBlock = 1024;
  double reached = 0;
  size_t i = 0;
  for (; i + kBlock < count; i += kBlock) {
    const double with_block = reached + sum_of_weights(weight + i, kBlock);
    if (with_block > mass) break;
    reached = with_block;
  }
  while (i + 1 < count && (reached += weight[i]) <= mass) ++i;
  return i;
}
double weighted_offset(const float* x, const float* weight, size_t count, float largest) {
  return HWY_DYNAMIC_DISPATCH(weighted_offset_simd)(x, weight, count, largest);
}
Spread spread_of(const float* x, size_t count, float centre) {
  return HWY_DYNAMIC_DISPATCH(spread_of_simd)(x, count, centre);
}
size_t find_first(const float* x, size_t count, float value) {
  return HWY_DYNAMIC_DISPATCH(find_first_simd)(x, count, value);
}
LeastHeavy least_heavy(const float* x, const float* weight, size_t count, float bound) {
  return HWY_DYNAMIC_DISPATCH(least_heavy_simd)(x, weight, count, bound);
}
Split split_row(const WeightedRow& row, float low, float high, const PartOfRow& between) {
  return HWY_DYNAMIC_DISPATCH(split_row_simd)(row, low, high, between);
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

Split split_row_plain(const WeightedRow& row, float low, float high, const PartOfRow& between) {
  Split split{};
  for (size_t i = 0; i < row.count; ++i) {
    const float key = row.key[i], weight = row.weight ? row.weight[i] : 1;
    if (key > high) split.above += weight;
    if (!(key >= low && key <= high)) continue;
    split.between += weight;
    between.key[split.count] = key;
    if (row.weight) between.weight[split.count] = weight;
    between.index[split.count++] = row.index ? row.index[i] : static_cast<int32_t>(i);
  }
  return split;
}

size_t keep_between_plain(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at) {
  for (size_t i = from; i < to; ++i) {
    const float key = rows.key[i];
    if (!(key >= low && key <= high)) continue;
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
