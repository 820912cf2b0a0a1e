// Products of weights with activations. Rows are taken in strips of four: a strip is unpacked once (unpack-inl.h) into
// memory that stays in the caches, then multiplied with every token of a block by the one kernel for int8 or the one
// for floats. Lanes run along the columns; each (row, token) has sums of its own, so tiles may have any shape.

#include "kernels/matmul.h"

#include <algorithm>
#include <cassert>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "kernels/lanes-inl.h"
#include "kernels/unpack-inl.h"

#ifndef CONTEXTURE_MATMUL_CONSTANTS
#define CONTEXTURE_MATMUL_CONSTANTS
namespace contexture {
constexpr size_t kStripRows = 4;
constexpr size_t kGroupRows = 32;                 // rows that a thread takes at once
constexpr size_t kTokenBlockBytes = 1024 * 1024;  // activations that should stay in a core's L2 cache
}  // namespace contexture
#endif

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

// Tiles of rows × tokens whose sums fit the registers: 32 of AVX-512, 16 of AVX2.
constexpr size_t kTileRows = kParts == 1 ? 4 : 2;
constexpr size_t kTileTokens = kParts == 1 ? 4 : 2;

struct Bytes {
  hn::Vec<ByteTag> part[kParts];
};

HWY_INLINE Bytes load_bytes(const int8_t* HWY_RESTRICT from) {
  Bytes b;
  for (size_t p = 0; p < kParts; ++p) b.part[p] = hn::LoadU(ByteTag(), from + p * kLanes * 4);
  return b;
}

#undef CONTEXTURE_VNNI  // the file is compiled once for each target
#if HWY_TARGET == HWY_AVX3_DL
#define CONTEXTURE_VNNI 1
#else
#define CONTEXTURE_VNNI 0
#endif

#if CONTEXTURE_VNNI
/// vpdpbusd: per 32-bit lane sum + Σ of four products unsigned w · signed a. Written as assembly since Highway 1.0.3
/// compiles this target, which implies VNNI, without the flag that the intrinsic asks for.
HWY_INLINE __m512i dot_unsigned_signed(__m512i sum, __m512i w, __m512i a) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
  return sum;
}
#endif

/// Weights as lane_products wants them: shifted to unsigned for vpdpbusd, else as they are.
HWY_INLINE Bytes load_weights(const int8_t* HWY_RESTRICT from) {
  Bytes b = load_bytes(from);
  if constexpr (CONTEXTURE_VNNI) {
    for (size_t p = 0; p < kParts; ++p) b.part[p] = hn::Xor(b.part[p], hn::Set(ByteTag(), int8_t{-128}));
  }
  return b;
}

/// Per 32-bit lane the sum of four products weight · activation, an exact integer on every target, as float.
HWY_INLINE Floats lane_products(const Bytes& w, const Bytes& a, const int32_t* HWY_RESTRICT bias) {
  Floats out;
  for (size_t p = 0; p < kParts; ++p) {
    hn::Vec<IntTag> sum;
#if CONTEXTURE_VNNI  // unsigned · signed; the bias takes the shift by 128 back
    sum.raw = dot_unsigned_signed(_mm512_loadu_si512(bias), w.part[p].raw, a.part[p].raw);
#elif HWY_TARGET == HWY_AVX3  // |w| · (a with w's sign): pairs reach 2 · 128 · 127, just within 16 bits
    const auto signed_a =
        _mm512_mask_sub_epi8(a.part[p].raw, _mm512_movepi8_mask(w.part[p].raw), _mm512_setzero_si512(), a.part[p].raw);
    const auto pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w.part[p].raw), signed_a);
    sum.raw = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif HWY_TARGET == HWY_AVX2
    const auto signed_a = _mm256_sign_epi8(a.part[p].raw, w.part[p].raw);
    const auto pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w.part[p].raw), signed_a);
    sum.raw = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else  // any other machine
    HWY_ALIGN int8_t wb[kLanes * 4], ab[kLanes * 4];
    HWY_ALIGN int32_t lane[kLanes];
    hn::Store(w.part[p], ByteTag(), wb);
    hn::Store(a.part[p], ByteTag(), ab);
    for (size_t i = 0; i < kLanes; ++i) {
      lane[i] = 0;
      for (size_t j = 0; j < 4; ++j) lane[i] += wb[i * 4 + j] * ab[i * 4 + j];
    }
    sum = hn::Load(IntTag(), lane);
#endif
    out.part[p] = hn::ConvertTo(FloatTag(), sum);
  }
  (void)bias;
  return out;
}

HWY_INLINE Floats convert(const int32_t* HWY_RESTRICT from) {
  Floats out;
  for (size_t p = 0; p < kParts; ++p) {
    out.part[p] = hn::ConvertTo(FloatTag(), hn::LoadU(IntTag(), from + p * kLanes));
  }
  return out;
}

template <size_t R, size_t T, bool kHasMinima>
HWY_INLINE void tile_quantised(const UnpackedRow* rows, const ActivationPair* const* tokens, size_t pairs,
                               float* const* out, size_t first_row) {
  Floats sums[R][T];
  for (size_t r = 0; r < R; ++r) {
    for (size_t t = 0; t < T; ++t) sums[r][t] = zeros();
  }
  for (size_t pair = 0; pair < pairs; ++pair) {
    Bytes w[R];
    Floats scales[R], minima[R];
    for (size_t r = 0; r < R; ++r) {
      w[r] = load_weights(rows[r].quants + pair * 64);
      scales[r] = load(rows[r].scales + pair * 16);
      if constexpr (kHasMinima) minima[r] = load(rows[r].minima + pair * 16);
    }
    for (size_t t = 0; t < T; ++t) {
      const ActivationPair& a = tokens[t][pair];
      const Bytes quants = load_bytes(a.quants);
      const Floats a_scales = load(a.scales);
      for (size_t r = 0; r < R; ++r) fma(lane_products(w[r], quants, a.bias), mul(scales[r], a_scales), sums[r][t]);
      if constexpr (kHasMinima) {
        const Floats scaled_bias = mul(convert(a.bias), a_scales);
        for (size_t r = 0; r < R; ++r) fma(scaled_bias, minima[r], sums[r][t]);
      }
    }
  }
  for (size_t r = 0; r < R; ++r) {
    for (size_t t = 0; t < T; ++t) out[t][first_row + r] = sum(sums[r][t]);
  }
}

template <size_t R, size_t T>
HWY_INLINE void tile_float(const float* const* rows, const float* const* tokens, size_t columns, float* const* out,
                           size_t first_row) {
  Floats sums[R][T];
  for (size_t r = 0; r < R; ++r) {
    for (size_t t = 0; t < T; ++t) sums[r][t] = zeros();
  }
  const size_t whole = columns / 16 * 16;
  for (size_t column = 0; column < whole; column += 16) {
    Floats w[R];
    for (size_t r = 0; r < R; ++r) w[r] = load(rows[r] + column);
    for (size_t t = 0; t < T; ++t) {
      const Floats x = load(tokens[t] + column);
      for (size_t r = 0; r < R; ++r) fma(w[r], x, sums[r][t]);
    }
  }
  if (whole < columns) {
    for (size_t r = 0; r < R; ++r) {
      for (size_t t = 0; t < T; ++t) {
        fma(load_partial(rows[r] + whole, columns - whole), load_partial(tokens[t] + whole, columns - whole),
            sums[r][t]);
      }
    }
  }
  for (size_t r = 0; r < R; ++r) {
    for (size_t t = 0; t < T; ++t) out[t][first_row + r] = sum(sums[r][t]);
  }
}

/// Calls tile(row in strip, rows of tile, token, tokens of tile), sizes as compile-time constants, over rows × tokens.
template <class Tile>
HWY_INLINE void for_tiles(size_t rows, size_t tokens, const Tile& tile) {
  constexpr auto one = std::integral_constant<size_t, 1>();
  constexpr auto tile_rows = std::integral_constant<size_t, kTileRows>();
  constexpr auto tile_tokens = std::integral_constant<size_t, kTileTokens>();
  size_t t = 0;
  for (; t + kTileTokens <= tokens; t += kTileTokens) {
    size_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) tile(r, tile_rows, t, tile_tokens);
    for (; r < rows; ++r) tile(r, one, t, tile_tokens);
  }
  for (; t < tokens; ++t) {
    size_t r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) tile(r, tile_rows, t, one);
    for (; r < rows; ++r) tile(r, one, t, one);
  }
}

const char* target_name() {
  return hwy::TargetName(HWY_TARGET);
}

/// Rows [first, last) of a quantised product for tokens [begin, end) of the group's activations.
void quantised_rows(const Product& product, const ActivationPair* activations, size_t first, size_t last, size_t begin,
                    size_t end, std::byte* scratch) {
  const Matrix& w = *product.weights;
  const QuantisedKernel kernel = quantised_kernel(w.format);
  const size_t pairs = pairs_of(w.columns);
  UnpackedRow strip[kStripRows];
  for (UnpackedRow& row : strip) {
    row.quants = reinterpret_cast<int8_t*>(scratch);
    row.scales = reinterpret_cast<float*>(scratch + pairs * 64);
    row.minima = row.scales + pairs * 16;
    scratch += pairs * 192;
  }
  for (size_t at = first; at < last; at += kStripRows) {
    const size_t rows = std::min(kStripRows, last - at);
    for (size_t r = 0; r < rows; ++r) kernel.unpack(w.row(at + r), w.columns, strip[r]);
    for_tiles(rows, end - begin, [&](size_t row, auto R, size_t token, auto T) HWY_ATTR {
      const ActivationPair* tokens[T];
      float* out[T];
      for (size_t t = 0; t < T; ++t) {
        tokens[t] = activations + (begin + token + t) * pairs;
        out[t] = product.out + (begin + token + t) * w.rows;
      }
      if (kernel.has_minima) {
        tile_quantised<R, T, true>(strip + row, tokens, pairs, out, at + row);
      } else {
        tile_quantised<R, T, false>(strip + row, tokens, pairs, out, at + row);
      }
    });
  }
}

/// The same for float weights; x (tokens, columns).
void float_rows(const Product& product, const float* x, size_t first, size_t last, size_t begin, size_t end,
                std::byte* scratch) {
  const Matrix& w = *product.weights;
  const float* strip[kStripRows];
  for (size_t at = first; at < last; at += kStripRows) {
    const size_t rows = std::min(kStripRows, last - at);
    for (size_t r = 0; r < rows; ++r) {
      if (w.format == Format::f32) {
        strip[r] = reinterpret_cast<const float*>(w.row(at + r));
        continue;
      }
      float* values = reinterpret_cast<float*>(scratch) + r * w.columns;
      unpack_floats(w.format, w.row(at + r), w.columns, values);
      strip[r] = values;
    }
    for_tiles(rows, end - begin, [&](size_t row, auto R, size_t token, auto T) HWY_ATTR {
      const float* tokens[T];
      float* out[T];
      for (size_t t = 0; t < T; ++t) {
        tokens[t] = x + (begin + token + t) * w.columns;
        out[t] = product.out + (begin + token + t) * w.rows;
      }
      tile_float<R, T>(strip + row, tokens, w.columns, out, at + row);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(quantised_rows);
HWY_EXPORT(target_name);
HWY_EXPORT(float_rows);

namespace {

// A strip holds, for each row and pair of blocks, 192 bytes of unpacked int8 weights, or 64 floats.
size_t bytes_of_strip(size_t columns) {
  return kStripRows * pairs_of(columns) * 256;
}

}  // namespace

MatmulScratch::MatmulScratch(size_t max_tokens, size_t max_columns, int threads)
    : strip_bytes_(bytes_of_strip(max_columns)),
      activations_(max_tokens * pairs_of(max_columns)),
      strips_(static_cast<size_t>(threads) * strip_bytes_) {}

size_t MatmulScratch::bytes_for(size_t max_tokens, size_t max_columns, int threads) {
  return AlignedArray<ActivationPair>::bytes_for(max_tokens * pairs_of(max_columns)) +
         AlignedArray<std::byte>::bytes_for(static_cast<size_t>(threads) * bytes_of_strip(max_columns));
}

void matmul(std::span<const Product> products, const float* x, size_t tokens, MatmulScratch& scratch,
            ThreadPool& pool) {
  const size_t columns = products[0].weights->columns;
  size_t groups = 0;
  bool quantised = false;
  for (const Product& p : products) {
    assert(p.weights->columns == columns);
    groups += (p.weights->rows + kGroupRows - 1) / kGroupRows;
    quantised |= p.weights->is_quantised();
  }
  const size_t pairs = pairs_of(columns);
  if (quantised) {
    pool.run(tokens, [&](size_t t, int) { quantise_row(x + t * columns, columns, scratch.activations() + t * pairs); });
  }
  const size_t block = std::max<size_t>(16, kTokenBlockBytes / (pairs * sizeof(ActivationPair)) / 4 * 4);
  const size_t blocks = (tokens + block - 1) / block;
  pool.run(groups * blocks, [&](size_t part, int thread) {
    const size_t begin = part / groups * block, end = std::min(tokens, begin + block);
    size_t group = part % groups;
    for (const Product& p : products) {
      const size_t groups_here = (p.weights->rows + kGroupRows - 1) / kGroupRows;
      if (group >= groups_here) {
        group -= groups_here;
        continue;
      }
      const size_t first = group * kGroupRows, last = std::min(p.weights->rows, first + kGroupRows);
      if (p.weights->is_quantised()) {
        HWY_DYNAMIC_DISPATCH(quantised_rows)
        (p, scratch.activations(), first, last, begin, end, scratch.strip(thread));
      } else {
        HWY_DYNAMIC_DISPATCH(float_rows)(p, x, first, last, begin, end, scratch.strip(thread));
      }
      return;
    }
  });
}

const char* kernel_target() {
  return HWY_DYNAMIC_DISPATCH(target_name)();
}

void decode_row(const Matrix& weights, size_t row, float* out) {
  info(weights.format).decode(weights.row(row), out, weights.columns);
}

void matmul_plain(const Matrix& weights, const float* x, double* out) {
  std::vector<float> row(weights.columns);
  std::vector<double> input(x, x + weights.columns);
  if (weights.is_quantised()) {
    std::vector<ActivationPair> pairs(pairs_of(weights.columns));
    quantise_row_plain(x, weights.columns, pairs.data());
    for (size_t i = 0; i < input.size(); ++i) {
      const ActivationPair& pair = pairs[i / 64];
      input[i] = static_cast<double>(pair.scales[i % 64 / 4]) * pair.quants[i % 64];
    }
  }
  for (size_t r = 0; r < weights.rows; ++r) {
    decode_row(weights, r, row.data());
    double sum = 0;
    for (size_t i = 0; i < row.size(); ++i) sum += static_cast<double>(row[i]) * input[i];
    out[r] = sum;
  }
}

}  // namespace contexture
#endif
