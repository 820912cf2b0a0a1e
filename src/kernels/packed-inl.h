// How each format's packed units (packed_matrix.h) are read into vectors and multiplied with int8 activations: a lane
// is a row. Included once per target, after lanes-inl.h.

#if defined(CONTEXTURE_KERNELS_PACKED_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_PACKED_INL
#undef CONTEXTURE_KERNELS_PACKED_INL
#else
#define CONTEXTURE_KERNELS_PACKED_INL
#endif

#include <cstring>

#include "hwy/cache_control.h"
#include "kernels/elements-inl.h"
#include "kernels/packed_matrix.h"
#include "kernels/quantise.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

constexpr size_t kPrefetchBytes = 2048;

/// 64 bytes, four of each of 16 rows.
struct Bytes {
  hn::Vec<ByteTag> part[kParts];
};
struct Ints {
  hn::Vec<IntTag> part[kParts];
};

HWY_INLINE const int8_t* as_int8(const std::byte* from) {
  return reinterpret_cast<const int8_t*>(from);
}

HWY_INLINE Bytes load_bytes(const std::byte* from) {
  Bytes b;
  for (size_t p = 0; p < kParts; ++p) b.part[p] = hn::LoadU(ByteTag(), as_int8(from) + p * kLanes * 4);
  return b;
}

/// (bytes >> kShift) & mask, byte by byte.
template <int kShift>
HWY_INLINE Bytes bits_of(const Bytes& bytes, int8_t mask) {
  Bytes b;
  const hn::Repartition<uint16_t, ByteTag> d16;
  for (size_t p = 0; p < kParts; ++p) {
    auto shifted = bytes.part[p];
    if constexpr (kShift > 0) shifted = hn::BitCast(ByteTag(), hn::ShiftRight<kShift>(hn::BitCast(d16, shifted)));
    b.part[p] = hn::And(shifted, hn::Set(ByteTag(), mask));
  }
  return b;
}

/// low | (bytes >> kShift) & mask moved to bit 4.
template <int kShift>
HWY_INLINE Bytes with_upper_bits(const Bytes& low, const Bytes& upper, int8_t mask) {
  Bytes b;
  const hn::Repartition<uint16_t, ByteTag> d16;
  const auto mask_at_4 = hn::Set(ByteTag(), static_cast<int8_t>(mask << 4));
  for (size_t p = 0; p < kParts; ++p) {
    auto moved = hn::BitCast(d16, upper.part[p]);
    if constexpr (kShift < 4) moved = hn::ShiftLeft<4 - kShift>(moved);
    if constexpr (kShift > 4) moved = hn::ShiftRight<kShift - 4>(moved);
    b.part[p] = hn::Or(low.part[p], hn::And(hn::BitCast(ByteTag(), moved), mask_at_4));
  }
  return b;
}

HWY_INLINE Floats to_floats(const Ints& ints) {
  Floats f;
  for (size_t p = 0; p < kParts; ++p) f.part[p] = hn::ConvertTo(FloatTag(), ints.part[p]);
  return f;
}

template <int kShift>
HWY_INLINE Ints shifted_splat(int32_t value) {
  Ints i;
  for (size_t p = 0; p < kParts; ++p) i.part[p] = hn::ShiftLeft<kShift>(hn::Set(IntTag(), value));
  return i;
}

HWY_INLINE Ints zero_ints() {
  Ints i;
  for (size_t p = 0; p < kParts; ++p) i.part[p] = hn::Zero(IntTag());
  return i;
}

#undef CONTEXTURE_VNNI  // the file is compiled once for each target
#if HWY_TARGET == HWY_AVX3_DL
#define CONTEXTURE_VNNI 1
#else
#define CONTEXTURE_VNNI 0
#endif

#if HWY_TARGET == HWY_NEON
/// Four activations, in every lane.
HWY_INLINE int8x16_t four_of(const int8_t* a) {
  int32_t four;
  std::memcpy(&four, a, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
#endif

/// sum += per lane Σ of four products of unsigned weights below 2^kBits with the four signed activations at `a`, over
/// kCount vectors of weights and as many fours: exact integers on every target.
template <int kBits, size_t kCount>
HWY_INLINE void dot(const Bytes* w, const int8_t* HWY_RESTRICT a, Ints& sum) {
#if CONTEXTURE_VNNI
  // vpdpbusd with the four activations broadcast. Written as assembly since Highway 1.0.3 compiles this target, which
  // implies VNNI, without the flag that the intrinsic asks for.
  for (size_t v = 0; v < kCount; ++v) {
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(sum.part[0].raw)
        : "v"(w[v].part[0].raw), "m"(*reinterpret_cast<const int32_t*>(a + 4 * v)));
  }
#elif HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  const hn::Repartition<int16_t, ByteTag> d16;
  // vpmaddubsw adds two products in 16 bits: so many of those sums fit before they must widen.
  constexpr size_t kFits = kBits == 4 ? 8 : kBits == 5 ? 4 : kBits == 6 ? 2 : 1;
  for (size_t p = 0; p < kParts; ++p) {
    for (size_t first = 0; first < kCount; first += kFits) {
      auto pairs = hn::Zero(d16);
      for (size_t v = first; v < first + kFits && v < kCount; ++v) {
        int32_t four;
        std::memcpy(&four, a + 4 * v, 4);
        const auto activations = hn::BitCast(ByteTag(), hn::Set(IntTag(), four));
        auto weights = w[v].part[p];
        auto signed_activations = activations;
        if constexpr (kBits == 8) {  // 255 · 127 · 2 would not fit: back to signed weights, |w| times a with w's sign
          weights = hn::Xor(weights, hn::Set(ByteTag(), int8_t{-128}));
          const auto negative = hn::IfThenElse(hn::Lt(weights, hn::Zero(ByteTag())), hn::Neg(activations), activations);
          signed_activations = negative;
          weights = hn::Abs(weights);
        }
#if HWY_TARGET == HWY_AVX3
        const decltype(pairs) products{_mm512_maddubs_epi16(weights.raw, signed_activations.raw)};
#else
        const decltype(pairs) products{_mm256_maddubs_epi16(weights.raw, signed_activations.raw)};
#endif
        pairs = hn::Add(pairs, products);
      }
#if HWY_TARGET == HWY_AVX3
      const decltype(hn::Zero(IntTag())) wide{_mm512_madd_epi16(pairs.raw, _mm512_set1_epi16(1))};
#else
      const decltype(hn::Zero(IntTag())) wide{_mm256_madd_epi16(pairs.raw, _mm256_set1_epi16(1))};
#endif
      sum.part[p] = hn::Add(sum.part[p], wide);
    }
    if constexpr (kBits == 8) {  // the caller takes 128 · Σ a back, for unsigned weights
      int32_t shift = 0;
      for (size_t i = 0; i < 4 * kCount; ++i) shift += a[i];
      sum.part[p] = hn::Add(sum.part[p], hn::Set(IntTag(), 128 * shift));
    }
  }
#elif HWY_TARGET == HWY_NEON
  for (size_t p = 0; p < kParts; ++p) {
    int32x4_t wide = sum.part[p].raw;
    int32_t shift = 0;  // Σ a, where signed weights need it
#if defined(__ARM_FEATURE_DOTPROD)
    for (size_t v = 0; v < kCount; ++v) {
      const int8x16_t activations = four_of(a + 4 * v);
      int8x16_t weights = w[v].part[p].raw;
      if constexpr (kBits == 8) {
        weights = veorq_s8(weights, vdupq_n_s8(-128));
        shift += a[4 * v] + a[4 * v + 1] + a[4 * v + 2] + a[4 * v + 3];
      }
      wide = vdotq_s32(wide, weights, activations);
    }
#else
    // Products of the first two rows' bytes and of the other two's add up in 16 bits while they fit, then widen.
    constexpr size_t kFits = kBits == 4 ? 8 : kBits == 5 ? 4 : kBits == 6 ? 2 : 1;
    for (size_t first = 0; first < kCount; first += kFits) {
      int16x8_t low = vdupq_n_s16(0), high = low;
      for (size_t v = first; v < first + kFits && v < kCount; ++v) {
        const int8x16_t activations = four_of(a + 4 * v);
        int8x16_t weights = w[v].part[p].raw;
        if constexpr (kBits == 8) {
          weights = veorq_s8(weights, vdupq_n_s8(-128));
          shift += a[4 * v] + a[4 * v + 1] + a[4 * v + 2] + a[4 * v + 3];
        }
        low = vmlal_s8(low, vget_low_s8(weights), vget_low_s8(activations));
        high = vmlal_high_s8(high, weights, activations);
      }
      if constexpr (kBits == 8) {  // two products of 128 · 128 do not fit
        wide = vaddq_s32(wide, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
      } else {
        wide = vpadalq_s16(wide, vpaddq_s16(low, high));
      }
    }
#endif
    if constexpr (kBits == 8) wide = vaddq_s32(wide, vdupq_n_s32(128 * shift));
    sum.part[p].raw = wide;
  }
#else  // any other machine
  for (size_t p = 0; p < kParts; ++p) {
    HWY_ALIGN int32_t lane[kLanes];
    hn::Store(sum.part[p], IntTag(), lane);
    for (size_t v = 0; v < kCount; ++v) {
      HWY_ALIGN int8_t bytes[kLanes * 4];
      hn::Store(w[v].part[p], ByteTag(), bytes);
      for (size_t i = 0; i < kLanes * 4; ++i) lane[i / 4] += static_cast<uint8_t>(bytes[i]) * a[4 * v + i % 4];
    }
    sum.part[p] = hn::Load(IntTag(), lane);
  }
#endif
}

/// The quants of a unit in eight vectors; the address after them.
template <int kBits>
HWY_INLINE const std::byte* read_quants(const std::byte* at, Bytes* w) {
  for (size_t line = 0; line < kBits; ++line) hwy::Prefetch(at + kPrefetchBytes + line * 64);
  if constexpr (kBits == 8) {
    for (size_t v = 0; v < 8; ++v) w[v] = load_bytes(at + v * 64);
    return at + 512;
  }
  for (size_t v = 0; v < 4; ++v) {
    const Bytes nibbles = load_bytes(at + v * 64);
    w[v] = bits_of<0>(nibbles, 15);
    w[4 + v] = bits_of<4>(nibbles, 15);
  }
  at += 256;
  if constexpr (kBits == 5) {
    const Bytes fifth = load_bytes(at);
    w[0] = with_upper_bits<0>(w[0], fifth, 1);
    w[1] = with_upper_bits<1>(w[1], fifth, 1);
    w[2] = with_upper_bits<2>(w[2], fifth, 1);
    w[3] = with_upper_bits<3>(w[3], fifth, 1);
    w[4] = with_upper_bits<4>(w[4], fifth, 1);
    w[5] = with_upper_bits<5>(w[5], fifth, 1);
    w[6] = with_upper_bits<6>(w[6], fifth, 1);
    w[7] = with_upper_bits<7>(w[7], fifth, 1);
    at += 64;
  }
  if constexpr (kBits == 6) {
    for (size_t half = 0; half < 2; ++half) {
      const Bytes upper = load_bytes(at + half * 64);
      Bytes* first = w + half * 4;
      first[0] = with_upper_bits<0>(first[0], upper, 3);
      first[1] = with_upper_bits<2>(first[1], upper, 3);
      first[2] = with_upper_bits<4>(first[2], upper, 3);
      first[3] = with_upper_bits<6>(first[3], upper, 3);
    }
    at += 128;
  }
  return at;
}

constexpr int log2_of(int value) {
  return value == 1 ? 0 : 1 + log2_of(value / 2);
}

// A unit reads itself: read(at, index) takes 32 columns of 16 rows and returns the address of the next; multiply adds
// their products with a token's block to its sums. kScales: how many scales a row of it has; kQuantOffset: what its
// quants are shifted by; kHasMin: whether a minimum is added.

/// x = scale · (q - kOffset): q4_0, q5_0, q8_0.
template <int kBits, int kOffset>
struct HalfScaleUnit {
  static constexpr size_t kScales = 1;
  static constexpr int kQuantOffset = kOffset;
  static constexpr bool kHasMin = false;
  Bytes w[8];
  Floats scale;

  HWY_INLINE const std::byte* read(const std::byte* at, size_t) {
    scale = load_halves(at);
    return read_quants<kBits>(at + 32, w);
  }
  HWY_INLINE void multiply(const ActivationBlock& a, Floats& sums) const {
    Ints sum = shifted_splat<log2_of(kOffset)>(a.negative_sum);
    dot<kBits, 8>(w, a.quants, sum);
    fma(to_floats(sum), mul(scale, splat(a.scale)), sums);
  }
};

/// x = scale · q + min: q4_1, q5_1.
template <int kBits>
struct HalfMinimumUnit {
  static constexpr size_t kScales = 1;
  static constexpr int kQuantOffset = 0;
  static constexpr bool kHasMin = true;
  Bytes w[8];
  Floats scale, min;

  HWY_INLINE const std::byte* read(const std::byte* at, size_t) {
    scale = load_halves(at);
    min = load_halves(at + 32);
    return read_quants<kBits>(at + 64, w);
  }
  HWY_INLINE void multiply(const ActivationBlock& a, Floats& sums) const {
    Ints sum = zero_ints();
    dot<kBits, 8>(w, a.quants, sum);
    fma(to_floats(sum), mul(scale, splat(a.scale)), sums);
    fma(min, splat(a.scaled_sum), sums);
  }
};

/// x = d · scale · q - dmin · min: q4_k, q5_k.
template <int kBits>
struct SuperblockUnit {
  static constexpr size_t kScales = 1;
  static constexpr int kQuantOffset = 0;
  static constexpr bool kHasMin = true;
  Bytes w[8];
  Floats d, dmin, scale, min;

  HWY_INLINE const std::byte* read(const std::byte* at, size_t index) {
    if (index % 8 == 0) {
      d = load_halves(at);
      dmin = mul(load_halves(at + 32), splat(-1));
      at += 64;
    }
    scale = mul(d, load_small_ints<uint8_t>(at));
    min = mul(dmin, load_small_ints<uint8_t>(at + 16));
    return read_quants<kBits>(at + 32, w);
  }
  HWY_INLINE void multiply(const ActivationBlock& a, Floats& sums) const {
    Ints sum = zero_ints();
    dot<kBits, 8>(w, a.quants, sum);
    fma(to_floats(sum), mul(scale, splat(a.scale)), sums);
    fma(min, splat(a.scaled_sum), sums);
  }
};

/// x = d · scale · (q - 32), a scale for each half of the unit: q6_k.
struct SixBitUnit {
  static constexpr size_t kScales = 2;
  static constexpr int kQuantOffset = 32;
  static constexpr bool kHasMin = false;
  Bytes w[8];
  Floats d, scales[2];

  HWY_INLINE const std::byte* read(const std::byte* at, size_t index) {
    if (index % 8 == 0) {
      d = load_halves(at);
      at += 32;
    }
    scales[0] = mul(d, load_small_ints<int8_t>(at));
    scales[1] = mul(d, load_small_ints<int8_t>(at + 16));
    return read_quants<6>(at + 32, w);
  }
  HWY_INLINE void multiply(const ActivationBlock& a, Floats& sums) const {
    Ints low = shifted_splat<5>(a.negative_sum_of_half);
    Ints high = shifted_splat<5>(a.negative_sum - a.negative_sum_of_half);
    dot<6, 4>(w, a.quants, low);
    dot<6, 4>(w + 4, a.quants + 16, high);
    const Floats scale = splat(a.scale);
    fma(to_floats(low), mul(scales[0], scale), sums);
    fma(to_floats(high), mul(scales[1], scale), sums);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
