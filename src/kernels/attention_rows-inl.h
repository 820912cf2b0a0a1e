// Scores and weighted sums of a few queries straight from a cache's rows, which become floats in registers: decoding
// reads each row once, and a tile of floats in between would be written and read for nothing. Each sum has the order of
// the tiles' sums (attention.cc), so its bits do not depend on the way. Included once per target.

#if defined(CONTEXTURE_KERNELS_ATTENTION_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_ATTENTION_ROWS_INL
#undef CONTEXTURE_KERNELS_ATTENTION_ROWS_INL
#else
#define CONTEXTURE_KERNELS_ATTENTION_ROWS_INL
#endif

#include "kernels/attention_tile.h"
#include "kernels/elements-inl.h"
#include "kernels/lanes-inl.h"
#include "tensor/float16.h"
#include "tensor/kv_row.h"
#include "tensor/q4_0.h"
#include "tensor/q8_0.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// Heads that are read so: whole blocks of every format.
HWY_INLINE bool can_read_rows(size_t head_dim) {
  return head_dim % 32 == 0 && head_dim <= 256;
}

/// Tokens of a tile that follow each other and have one format, and their rows of K or of V.
struct RowRun {
  size_t first = 0, count = 0;
  const std::byte* const* rows;  // (count)
};

/// A block's scale in every lane: from a table, since each conversion would be two instructions of those that multiply.
HWY_INLINE Floats splat_scale(const std::byte* half, const float* floats_of_halves) {
  uint16_t bits;
  std::memcpy(&bits, half, 2);
  return splat(floats_of_halves[bits]);
}

/// 32 channels of a row, as unpack_rows makes them.
template <Format kFormat>
HWY_INLINE void load_block(const std::byte* row, size_t block, const float* floats_of_halves, Floats* to) {
  if constexpr (kFormat == Format::q8_0) {
    const std::byte* at = row + block * sizeof(BlockQ8_0);
    const Floats scale = splat_scale(at, floats_of_halves);
    to[0] = mul(load_small_ints<int8_t>(at + 2), scale);
    to[1] = mul(load_small_ints<int8_t>(at + 18), scale);
  } else if constexpr (kFormat == Format::q4_0) {
    const std::byte* at = row + block * sizeof(BlockQ4_0);
    const uint8_t* nibbles = reinterpret_cast<const uint8_t*>(at + 2);
    const hn::Rebind<uint8_t, FloatTag> d8;
    // (quant - 8) · scale in one rounding; 8 · scale is exact.
    const Floats scale = splat_scale(at, floats_of_halves), offset = mul(scale, splat(-8));
    for (size_t p = 0; p < kParts; ++p) {
      const auto both = hn::PromoteTo(IntTag(), hn::LoadU(d8, nibbles + p * kLanes));
      const auto low = hn::And(both, hn::Set(IntTag(), 15)), high = hn::ShiftRight<4>(both);
      to[0].part[p] = hn::MulAdd(hn::ConvertTo(FloatTag(), low), scale.part[p], offset.part[p]);
      to[1].part[p] = hn::MulAdd(hn::ConvertTo(FloatTag(), high), scale.part[p], offset.part[p]);
    }
  } else {
    constexpr size_t kBytes = kFormat == Format::f32 ? 4 : 2;
    to[0] = load_elements<kFormat>(row + block * 32 * kBytes);
    to[1] = load_elements<kFormat>(row + (block * 32 + 16) * kBytes);
  }
}

/// A score: scale · sum, soft-capped.
HWY_INLINE Floats scores_of(const Floats& sums, const AttentionShape& shape) {
  const Floats scores = mul(sums, splat(shape.scale));
  return shape.softcap == 0 ? scores : soft_capped(scores, shape.softcap);
}

/// scores[r][t] of kRows rows of q (dim) with all tokens of the run; up to 15 after them are overwritten.
template <Format kFormat, size_t kRows>
HWY_INLINE void row_scores(const RowRun& run, const float* HWY_RESTRICT q, const AttentionShape& shape,
                           float* HWY_RESTRICT scores, size_t stride, const Ahead& ahead) {
  constexpr size_t kTokens = 16 / kRows;
  const size_t dim = shape.head_dim, blocks = dim / 32;
  const float* floats_of_halves = f16_table();
  for (size_t t = 0; t < run.count; t += kTokens) {
    ahead.ask(run.first + t, kTokens);
    const std::byte* rows[kTokens];
    for (size_t i = 0; i < kTokens; ++i) rows[i] = run.rows[std::min(t + i, run.count - 1)];
    Floats sums[16];  // (rows, tokens)
    for (size_t i = 0; i < 16; ++i) sums[i] = zeros();
    for (size_t b = 0; b < blocks; ++b) {
      for (size_t i = 0; i < kTokens; ++i) {
        Floats k[2];
        load_block<kFormat>(rows[i], b, floats_of_halves, k);
        for (size_t r = 0; r < kRows; ++r) {
          fma(load(q + r * dim + b * 32), k[0], sums[r * kTokens + i]);
          fma(load(q + r * dim + b * 32 + 16), k[1], sums[r * kTokens + i]);
        }
      }
    }
    HWY_ALIGN float all[16];
    store(scores_of(sums_of_16(sums), shape), all);
    for (size_t r = 0; r < kRows; ++r) {
      std::memcpy(scores + r * stride + run.first + t, all + r * kTokens, kTokens * sizeof(float));
    }
  }
}

/// values[r][d] += Σ_t p[r][t] · v[t][d] over the run's tokens in [begin, end) of the tile.
template <Format kFormat, size_t kRows>
HWY_INLINE void row_values(const RowRun& run, size_t begin, size_t end, const float* HWY_RESTRICT p, size_t stride,
                           size_t dim, float* HWY_RESTRICT values, const Ahead& ahead) {
  const float* floats_of_halves = f16_table();
  const auto some = [&](size_t first_block, auto blocks_at_once) HWY_ATTR {
    Floats sums[kRows][2 * blocks_at_once];
    float* to = values + first_block * 32;
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < 2 * blocks_at_once; ++i) sums[r][i] = load(to + r * dim + i * 16);
    }
    for (size_t t = begin; t < end; ++t) {
      if (first_block == 0 && t % 4 == 0) ahead.ask(t, 4);
      Floats v[2 * blocks_at_once];
      for (size_t i = 0; i < blocks_at_once; ++i) {
        load_block<kFormat>(run.rows[t - run.first], first_block + i, floats_of_halves, v + 2 * i);
      }
      for (size_t r = 0; r < kRows; ++r) {
        const Floats weight = splat(p[r * stride + t]);
        for (size_t i = 0; i < 2 * blocks_at_once; ++i) fma(weight, v[i], sums[r][i]);
      }
    }
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t i = 0; i < 2 * blocks_at_once; ++i) store(sums[r][i], to + r * dim + i * 16);
    }
  };
  constexpr size_t kBlocks = kParts == 1 ? 2 : 1;
  size_t block = 0;
  for (; block + kBlocks <= dim / 32; block += kBlocks) some(block, std::integral_constant<size_t, kBlocks>());
  for (; block < dim / 32; ++block) some(block, std::integral_constant<size_t, 1>());
}

/// Calls use(run, format) for the tile's K or V, format a compile-time constant: the list is that of is_kv_format.
template <bool kIsK, class Use>
HWY_INLINE void for_row_runs(const Tile& tile, const Use& use) {
  const auto format_of = [&](size_t i) { return kIsK ? tile.run[i].span->k_format : tile.run[i].span->v_format; };
  RowRun run;
  for (size_t i = 0; i < tile.runs;) {
    const Format format = format_of(i);
    run.rows = (kIsK ? tile.k : tile.v) + run.first;
    for (run.count = 0; i < tile.runs && format_of(i) == format; ++i) run.count += tile.run[i].count;
    switch (format) {
      case Format::f32:
        use(run, std::integral_constant<Format, Format::f32>());
        break;
      case Format::f16:
        use(run, std::integral_constant<Format, Format::f16>());
        break;
      case Format::bf16:
        use(run, std::integral_constant<Format, Format::bf16>());
        break;
      case Format::q8_0:
        use(run, std::integral_constant<Format, Format::q8_0>());
        break;
      case Format::q4_0:
        use(run, std::integral_constant<Format, Format::q4_0>());
        break;
      default:
        break;  // no plan is made with it
    }
    run.first += run.count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
