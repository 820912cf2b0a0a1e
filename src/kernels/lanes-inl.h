// Sixteen float lanes, whatever the width of the machine's vectors: one on AVX-512, two halves on AVX2, four quarters
// on NEON. Every sum in this folder runs in these lanes and ends in the same tree, so its bits do not depend on the
// target.
//
// Included once per target, inside no namespace, after hwy/highway.h.

#if defined(CONTEXTURE_KERNELS_LANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_LANES_INL
#undef CONTEXTURE_KERNELS_LANES_INL
#else
#define CONTEXTURE_KERNELS_LANES_INL
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using IntTag = hn::RebindToSigned<FloatTag>;
using ByteTag = hn::CappedTag<int8_t, 64>;
constexpr size_t kLanes = hn::MaxLanes(FloatTag());
constexpr size_t kParts = 16 / kLanes;

struct Floats {
  hn::Vec<FloatTag> part[kParts];
};

HWY_INLINE Floats zeros() {
  Floats f;
  for (size_t p = 0; p < kParts; ++p) f.part[p] = hn::Zero(FloatTag());
  return f;
}

HWY_INLINE Floats splat(float value) {
  Floats f;
  for (size_t p = 0; p < kParts; ++p) f.part[p] = hn::Set(FloatTag(), value);
  return f;
}

HWY_INLINE Floats load(const float* HWY_RESTRICT from) {
  Floats f;
  for (size_t p = 0; p < kParts; ++p) f.part[p] = hn::LoadU(FloatTag(), from + p * kLanes);
  return f;
}

HWY_INLINE void store(const Floats& f, float* HWY_RESTRICT to) {
  for (size_t p = 0; p < kParts; ++p) hn::StoreU(f.part[p], FloatTag(), to + p * kLanes);
}

/// The first `count` < 16 floats, zeros after them.
HWY_INLINE Floats load_partial(const float* HWY_RESTRICT from, size_t count) {
  float padded[16] = {};
  for (size_t i = 0; i < count; ++i) padded[i] = from[i];
  return load(padded);
}

HWY_INLINE Floats add(const Floats& a, const Floats& b) {
  Floats f;
  for (size_t p = 0; p < kParts; ++p) f.part[p] = hn::Add(a.part[p], b.part[p]);
  return f;
}

HWY_INLINE Floats mul(const Floats& a, const Floats& b) {
  Floats f;
  for (size_t p = 0; p < kParts; ++p) f.part[p] = hn::Mul(a.part[p], b.part[p]);
  return f;
}

HWY_INLINE void fma(const Floats& a, const Floats& b, Floats& sum) {
  for (size_t p = 0; p < kParts; ++p) sum.part[p] = hn::MulAdd(a.part[p], b.part[p], sum.part[p]);
}

/// e^x for x ≤ 0, within one unit in the last place; zero below the smallest normal number, NaN stays NaN. Highway's
/// Exp costs twice as much: it also serves what lies outside.
HWY_INLINE hn::Vec<FloatTag> exp_of_negative(hn::Vec<FloatTag> x) {
  const FloatTag d;
  // x = n · ln 2 + r: adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
  const auto shift = hn::Set(d, 12582912.f);
  const auto shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), shift);
  const auto n = hn::Sub(shifted, shift);
  auto r = hn::NegMulAdd(n, hn::Set(d, 0x1.62e43p-1f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -0x1.05c61p-29f), r);
  // e^r = 1 + r · (1 + r · q(r)), |r| ≤ ln 2 / 2: q is a minimax fit, good to 0.05 · 2^-24 of e^r.
  auto q = hn::Set(d, 0x1.6a23c8p-10f);
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.123a2p-7f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.5558f4p-5f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.555492p-3f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.fffffcp-2f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.f));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(IntTag(), shifted));
  const auto power = hn::BitCast(d, hn::Add(hn::BitCast(IntTag(), q), exponent));
  // x · 0 is NaN where x is.
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.33654f)), hn::MulAdd(x, hn::Zero(d), power));
}

/// cap · tanh(x / cap); NaN stays NaN.
HWY_INLINE Floats soft_capped(const Floats& x, float cap) {
  const FloatTag d;
  Floats f;
  for (size_t p = 0; p < kParts; ++p) {
    const auto capped = hn::Mul(hn::Set(d, cap), hn::Tanh(d, hn::Div(x.part[p], hn::Set(d, cap))));
    f.part[p] = hn::IfThenElse(hn::IsNaN(x.part[p]), x.part[p], capped);
  }
  return f;
}

/// Lane by lane the larger; of a NaN in `a` and a number in `b` the number, or NaN, as the machine has it.
HWY_INLINE Floats larger(const Floats& a, const Floats& b) {
  Floats f;
  for (size_t p = 0; p < kParts; ++p) f.part[p] = hn::Max(a.part[p], b.part[p]);
  return f;
}

HWY_INLINE float max_of(const Floats& f) {
  auto all = f.part[0];
  for (size_t p = 1; p < kParts; ++p) all = hn::Max(all, f.part[p]);
  return hn::GetLane(hn::MaxOfLanes(FloatTag(), all));
}

/// The sum of the lanes, always in this tree: lanes 8 apart, then 4, 2, 1.
HWY_INLINE float sum(const Floats& f) {
  HWY_ALIGN float lane[16];
  store(f, lane);
  using Four = hn::FixedTag<float, 4>;
  const auto eight_low = hn::Add(hn::Load(Four(), lane), hn::Load(Four(), lane + 8));
  const auto eight_high = hn::Add(hn::Load(Four(), lane + 4), hn::Load(Four(), lane + 12));
  hn::Store(hn::Add(eight_low, eight_high), Four(), lane);
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
/// Lanes of both, 16 / kBlocks apart, added: the low half of each pair of runs from a, the high one from b.
template <int kFrom>
HWY_INLINE __m512 add_halves(__m512 a, __m512 b);
template <>
HWY_INLINE __m512 add_halves<8>(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
template <>
HWY_INLINE __m512 add_halves<4>(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
template <>
HWY_INLINE __m512 add_halves<2>(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
template <>
HWY_INLINE __m512 add_halves<1>(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}
#endif

/// Lane i: the sum of v[i]'s lanes, in the tree of `sum`.
HWY_INLINE Floats sums_of_16(const Floats* v) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  // Four rounds of a transposition in which halves are added instead of kept.
  __m512 eight[8], four[4], two[2];
  for (int i = 0; i < 8; ++i) eight[i] = add_halves<8>(v[i].part[0].raw, v[i + 8].part[0].raw);
  for (int i = 0; i < 4; ++i) four[i] = add_halves<4>(eight[i], eight[i + 4]);
  for (int i = 0; i < 2; ++i) two[i] = add_halves<2>(four[i], four[i + 2]);
  const __m512 one = add_halves<1>(two[0], two[1]);
  // Where each row's sum has come to lie.
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  Floats f;
  f.part[0].raw = _mm512_permutexvar_ps(order, one);
  return f;
#elif HWY_TARGET == HWY_AVX2
  // The same for eight rows at a time, after their halves of eight lanes are added.
  Floats f;
  for (size_t half = 0; half < 2; ++half) {
    const Floats* row = v + 8 * half;
    __m256 eight[8], four[4], two[2];
    for (size_t i = 0; i < 8; ++i) eight[i] = _mm256_add_ps(row[i].part[0].raw, row[i].part[1].raw);
    for (size_t i = 0; i < 4; ++i) {
      four[i] = _mm256_add_ps(_mm256_permute2f128_ps(eight[i], eight[i + 4], 0x20),
                              _mm256_permute2f128_ps(eight[i], eight[i + 4], 0x31));
    }
    for (size_t i = 0; i < 2; ++i) {
      two[i] =
          _mm256_add_ps(_mm256_shuffle_ps(four[i], four[i + 2], 0x44), _mm256_shuffle_ps(four[i], four[i + 2], 0xee));
    }
    const __m256 one = _mm256_add_ps(_mm256_shuffle_ps(two[0], two[1], 0x88), _mm256_shuffle_ps(two[0], two[1], 0xdd));
    f.part[half].raw = _mm256_permute_ps(one, 0xd8);
  }
  return f;
#else
  float sums[16];
  for (size_t i = 0; i < 16; ++i) sums[i] = sum(v[i]);
  return load(sums);
#endif
}

/// to[c · stride + r] = from[r · row + c]: 16 rows of 16 floats, their rows become columns.
HWY_INLINE void transpose_16(const float* HWY_RESTRICT from, size_t row, float* HWY_RESTRICT to, size_t stride) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  // Pairs of rows, then fours, inside each quarter of a vector; then quarters change places.
  __m512 v[16], w[16];
  for (size_t i = 0; i < 16; ++i) v[i] = _mm512_loadu_ps(from + i * row);
  for (size_t i = 0; i < 16; i += 2) {
    w[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  for (size_t i = 0; i < 16; i += 4) {  // v[i + c]: column 4q + c of rows i…i+3 in quarter q
    v[i] = _mm512_shuffle_ps(w[i], w[i + 2], 0x44);
    v[i + 1] = _mm512_shuffle_ps(w[i], w[i + 2], 0xee);
    v[i + 2] = _mm512_shuffle_ps(w[i + 1], w[i + 3], 0x44);
    v[i + 3] = _mm512_shuffle_ps(w[i + 1], w[i + 3], 0xee);
  }
  for (size_t c = 0; c < 4; ++c) {
    const __m512 even_low = _mm512_shuffle_f32x4(v[c], v[4 + c], 0x88),
                 odd_low = _mm512_shuffle_f32x4(v[c], v[4 + c], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0x88),
                 odd_high = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0xdd);
    _mm512_storeu_ps(to + c * stride, _mm512_shuffle_f32x4(even_low, even_high, 0x88));
    _mm512_storeu_ps(to + (4 + c) * stride, _mm512_shuffle_f32x4(odd_low, odd_high, 0x88));
    _mm512_storeu_ps(to + (8 + c) * stride, _mm512_shuffle_f32x4(even_low, even_high, 0xdd));
    _mm512_storeu_ps(to + (12 + c) * stride, _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd));
  }
#else
  // Four rows of four at a time.
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> wide;
  for (size_t r = 0; r < 16; r += 4) {
    for (size_t c = 0; c < 16; c += 4) {
      const float* block = from + r * row + c;
      const auto a = hn::LoadU(d, block), b = hn::LoadU(d, block + row);
      const auto e = hn::LoadU(d, block + 2 * row), f = hn::LoadU(d, block + 3 * row);
      const auto ab_low = hn::BitCast(wide, hn::InterleaveLower(d, a, b)),
                 ab_high = hn::BitCast(wide, hn::InterleaveUpper(d, a, b));
      const auto ef_low = hn::BitCast(wide, hn::InterleaveLower(d, e, f)),
                 ef_high = hn::BitCast(wide, hn::InterleaveUpper(d, e, f));
      float* out = to + c * stride + r;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, ab_low, ef_low)), d, out);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, ab_low, ef_low)), d, out + stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, ab_high, ef_high)), d, out + 2 * stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, ab_high, ef_high)), d, out + 3 * stride);
    }
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
