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
#include "kernels/kv_rows-inl.h"
#include "kernels/lanes-inl.h"
#include "tensor/float16.h"

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

/// A score: scale · sum, soft-capped.
HWY_INLINE Floats scores_of(const Floats& sums, const AttentionShape& shape) {
  const Floats scores = mul(sums, splat(shape.scale));
  return shape.softcap == 0 ? scores : soft_capped(scores, shape.softcap);
}

/// scores[r][t] of kRows rows of q (dim) with all tokens of the run; up to 15 after them are overwritten.
template <class Kv, size_t kRows>
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
        KvLoad<Kv>::load(rows[i], b, floats_of_halves, k);
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
template <class Kv, size_t kRows>
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
        KvLoad<Kv>::load(run.rows[t - run.first], first_block + i, floats_of_halves, v + 2 * i);
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

/// Calls use(run, the format's type) for the tile's K or V.
template <bool kIsK, class Use>
HWY_INLINE void for_row_runs(const Tile& tile, const Use& use) {
  const auto format_of = [&](size_t i) { return kIsK ? tile.run[i].span->k_format : tile.run[i].span->v_format; };
  RowRun run;
  for (size_t i = 0; i < tile.runs;) {
    const Format format = format_of(i);
    run.rows = (kIsK ? tile.k : tile.v) + run.first;
    for (run.count = 0; i < tile.runs && format_of(i) == format; ++i) run.count += tile.run[i].count;
    with_kv_format(format, [&](auto kv) HWY_ATTR { use(run, kv); });
    run.first += run.count;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
