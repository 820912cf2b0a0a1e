// Products of packed weights with activations. A lane owns a row: a tile is one panel of 16 rows times some tokens, its
// sums stay in registers, and each (row, token) adds up unit by unit from the first column to the last, whatever tile
// it is in: the same bits for one token and for 512.

#include "kernels/matmul.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/amx.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "kernels/lanes-inl.h"
#include "kernels/packed-inl.h"

#ifndef CONTEXTURE_MATMUL_CONSTANTS
#define CONTEXTURE_MATMUL_CONSTANTS
namespace contexture {

constexpr size_t kPanelRows = PackedMatrix::panel_rows;
constexpr size_t kFewestForTiles = 28;            // tokens; below, unpacking weights for AMX costs more than it gives
constexpr size_t kGroupPanels = 4;                // that a thread takes at once
constexpr size_t kTokenBlockBytes = 1024 * 1024;  // activations that should stay in a core's L2 cache

constexpr size_t kTokensOfTiles = 512;  // that are multiplied at once, at most
constexpr const char* kAmx = "AMX";     // AVX3_DL, and tiles for prompts

inline size_t round_up_16(size_t n) {
  return (n + 15) / 16 * 16;
}

/// Some panels of one product, some tokens of its input.
struct ProductPart {
  const Product* product;
  size_t first_panel = 0, last_panel = 0, first_token = 0, last_token = 0;
};

/// The quantised input, as one or the other.
struct Activations {
  const ActivationBlock* rows = nullptr;  // (tokens, blocks)
  const ActivationTile* tiles = nullptr;  // (tokens / 16 rounded up, blocks)
};

}  // namespace contexture
#endif

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// Writes a token's sums of one panel: those that are rows of the matrix.
HWY_INLINE void write_sums(const Floats& sums, const Product& product, size_t panel, size_t token) {
  const size_t rows = product.weights->rows, first = panel * kPanelRows;
  float* out = product.out + token * rows + first;
  if (first + kPanelRows <= rows) return store(sums, out);
  float all[kPanelRows];
  store(sums, all);
  std::copy_n(all, rows - first, out);
}

/// kPanels panels of block-quantised weights times kTokens tokens. activations (tokens, blocks). Panels are read side
/// by side: a core has more reads in flight from several places than from one.
template <class Unit, size_t kTokens, size_t kPanels>
HWY_INLINE void tile_quantised(const Product& product, const ActivationBlock* activations, size_t first_panel,
                               size_t first_token) {
  const size_t blocks = blocks_of(product.weights->columns);
  const ActivationBlock* HWY_RESTRICT tokens = activations + first_token * blocks;
  const std::byte* at[kPanels];
  Unit units[kPanels];  // a superblock's scales stay for eight blocks
  Floats sums[kPanels][kTokens];
  for (size_t p = 0; p < kPanels; ++p) {
    at[p] = product.weights->panel(first_panel + p);
    for (size_t t = 0; t < kTokens; ++t) sums[p][t] = zeros();
  }
  for (size_t block = 0; block < blocks; ++block) {
    for (size_t p = 0; p < kPanels; ++p) {
      at[p] = units[p].read(at[p], block);
      for (size_t t = 0; t < kTokens; ++t) units[p].multiply(tokens[t * blocks + block], sums[p][t]);
    }
  }
  for (size_t p = 0; p < kPanels; ++p) {
    for (size_t t = 0; t < kTokens; ++t) write_sums(sums[p][t], product, first_panel + p, first_token + t);
  }
}

/// The part's panels of float weights times kTokens tokens, x (tokens, columns). Sums of kRun columns are added to the
/// whole: an error grows with the root of 256 + columns / 256 rather than of the columns.
template <Format kFormat, size_t kTokens>
HWY_INLINE void tile_float(const ProductPart& part, const float* x, size_t first_token) {
  constexpr size_t kRun = 256, kBytes = kFormat == Format::f32 ? 64 : 32;
  const size_t columns = part.product->weights->columns, panels_here = part.last_panel - part.first_panel;
  const float* HWY_RESTRICT tokens = x + first_token * columns;
  // A run of each token's inputs, a cache line more than 1 kB apart: rows of x are a multiple of 4 kB apart and would
  // push each other out of the nearest cache.
  float inputs[kTokens][kRun + 16];
  Floats totals[kGroupPanels][kTokens];
  for (size_t begin = 0; begin < columns; begin += kRun) {
    const size_t count = std::min(columns - begin, kRun);
    for (size_t t = 0; t < kTokens; ++t) {
      const float* from = tokens + t * columns + begin;
      size_t i = 0;
      for (; i + 16 <= count; i += 16) store(load(from + i), inputs[t] + i);
      for (; i < count; ++i) inputs[t][i] = from[i];
    }
    // Some panels side by side, where registers hold their sums: several places are read from.
    const auto add_run = [&](size_t first_panel, auto panels) HWY_ATTR {
      const std::byte* at[panels];
      Floats sums[panels][kTokens];
      for (size_t p = 0; p < panels; ++p) {
        at[p] = part.product->weights->panel(part.first_panel + first_panel + p) + begin * kBytes;
        for (size_t t = 0; t < kTokens; ++t) sums[p][t] = zeros();
      }
      for (size_t i = 0; i < count; ++i) {
        for (size_t p = 0; p < panels; ++p, at[p - 1] += kBytes) {
          hwy::Prefetch(at[p] + kPrefetchBytes);
          const Floats w = load_elements<kFormat>(at[p]);
          for (size_t t = 0; t < kTokens; ++t) fma(splat(inputs[t][i]), w, sums[p][t]);
        }
      }
      for (size_t p = 0; p < panels; ++p) {
        for (size_t t = 0; t < kTokens; ++t) {
          Floats& total = totals[first_panel + p][t];
          total = begin == 0 ? sums[p][t] : add(total, sums[p][t]);
        }
      }
    };
    constexpr size_t kPanels = kTokens >= 16 / kParts ? 1 : kTokens >= 8 / kParts ? 2 : kGroupPanels;
    size_t p = 0;
    for (; p + kPanels <= panels_here; p += kPanels) add_run(p, std::integral_constant<size_t, kPanels>());
    for (; p < panels_here; ++p) add_run(p, std::integral_constant<size_t, 1>());
  }
  for (size_t p = 0; p < panels_here; ++p) {
    for (size_t t = 0; t < kTokens; ++t) {
      write_sums(totals[p][t], *part.product, part.first_panel + p, first_token + t);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#include "kernels/amx_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

/// Calls tile(token, tokens of the tile), the second a compile-time constant, over the part.
template <class Tile>
HWY_INLINE void for_tiles(const ProductPart& part, const Tile& tile) {
  size_t token = part.first_token;
  const auto while_they_fit = [&](auto tokens) HWY_ATTR {
    for (; token + tokens <= part.last_token; token += tokens) tile(token, tokens);
  };
  if constexpr (kParts == 1) while_they_fit(std::integral_constant<size_t, 16>());
  if constexpr (kParts == 1) while_they_fit(std::integral_constant<size_t, 8>());
  while_they_fit(std::integral_constant<size_t, 4>());
  while_they_fit(std::integral_constant<size_t, 2>());
  while_they_fit(std::integral_constant<size_t, 1>());
}

#if HWY_TARGET == HWY_AVX3_DL
bool has_tiles() {
  return amx_may_be_used();
}
#else
template <class Unit>
void multiply_tiles(const ProductPart&, const ActivationTile*) {}
bool has_tiles() {
  return false;
}
#endif

template <class Unit>
void multiply_quantised(const ProductPart& part, const Activations& activations) {
  if (activations.tiles) return multiply_tiles<Unit>(part, activations.tiles);
  for_tiles(part, [&](size_t token, auto tokens) HWY_ATTR {
    // More tokens are bound by arithmetic, except with quants of 8 bits, of which twice as many bytes are read.
    constexpr size_t kPanels = tokens <= 4 / kParts ? kGroupPanels : tokens == 8 && Unit::kQuantOffset == 128 ? 2 : 1;
    size_t panel = part.first_panel;
    for (; panel + kPanels <= part.last_panel; panel += kPanels) {
      tile_quantised<Unit, tokens, kPanels>(*part.product, activations.rows, panel, token);
    }
    for (; panel < part.last_panel; ++panel) {
      tile_quantised<Unit, tokens, 1>(*part.product, activations.rows, panel, token);
    }
  });
}

template <Format kFormat>
void multiply_floats(const ProductPart& part, const float* x) {
  for_tiles(part, [&](size_t token, auto tokens) HWY_ATTR { tile_float<kFormat, tokens>(part, x, token); });
}

/// The crossing from run time to compile time: the list of formats that can be multiplied.
void multiply_part(const ProductPart& part, const float* x, const Activations& activations) {
  switch (part.product->weights->format) {
    case Format::f32:
      return multiply_floats<Format::f32>(part, x);
    case Format::f16:
      return multiply_floats<Format::f16>(part, x);
    case Format::bf16:
      return multiply_floats<Format::bf16>(part, x);
    case Format::q8_0:
      return multiply_quantised<HalfScaleUnit<8, 128>>(part, activations);
    case Format::q4_0:
      return multiply_quantised<HalfScaleUnit<4, 8>>(part, activations);
    case Format::q4_1:
      return multiply_quantised<HalfMinimumUnit<4>>(part, activations);
    case Format::q5_0:
      return multiply_quantised<HalfScaleUnit<5, 16>>(part, activations);
    case Format::q5_1:
      return multiply_quantised<HalfMinimumUnit<5>>(part, activations);
    case Format::q4_k:
      return multiply_quantised<SuperblockUnit<4>>(part, activations);
    case Format::q5_k:
      return multiply_quantised<SuperblockUnit<5>>(part, activations);
    case Format::q6_k:
      return multiply_quantised<SixBitUnit>(part, activations);
    default:
      assert(false && "no weights are arranged in it");
  }
}

const char* target_name() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(multiply_part);
HWY_EXPORT(target_name);
HWY_EXPORT(has_tiles);

/// Whole tiles of tokens, wherever the machine may use them: a plan does not depend on the machine.
static size_t scratch_blocks(size_t max_tokens, size_t max_columns) {
  return (max_tokens < kFewestForTiles ? max_tokens : round_up_16(max_tokens)) * blocks_of(max_columns);
}

MatmulScratch::MatmulScratch(size_t max_tokens, size_t max_columns)
    : activations_(scratch_blocks(max_tokens, max_columns)) {}

size_t MatmulScratch::bytes_for(size_t max_tokens, size_t max_columns) {
  return AlignedArray<ActivationBlock>::bytes_for(scratch_blocks(max_tokens, max_columns));
}

/// The input of a group, quantised.
static Activations quantise(const float* x, size_t tokens, size_t columns, MatmulScratch& scratch, ThreadPool& pool) {
  const size_t blocks = blocks_of(columns);
  if (tokens < kFewestForTiles || !HWY_DYNAMIC_DISPATCH(has_tiles)()) {
    ActivationBlock* rows = scratch.activations();
    pool.run(tokens, [&](size_t t, int) { quantise_row(x + t * columns, columns, rows + t * blocks); });
    return {.rows = rows};
  }
  auto* tiles = reinterpret_cast<ActivationTile*>(scratch.activations());
  pool.run(round_up_16(tokens) / 16, [&](size_t i, int) {
    const size_t first = i * 16;
    quantise_tile(x + first * columns, std::min<size_t>(16, tokens - first), columns, tiles + i * blocks);
  });
  return {.tiles = tiles};
}

void matmul(std::span<const Product> products, const float* x, size_t tokens, MatmulScratch& scratch,
            ThreadPool& pool) {
  const size_t columns = products[0].weights->columns;
  bool quantised = false;
  for (const Product& p : products) {
    assert(p.weights->columns == columns);
    quantised |= p.weights->is_quantised();
  }
  Activations activations;
  if (quantised) activations = quantise(x, tokens, columns, scratch, pool);

  const auto groups_of = [](const Product& p) { return (p.weights->panels() + kGroupPanels - 1) / kGroupPanels; };
  size_t groups = 0;
  for (const Product& p : products) groups += groups_of(p);
  const size_t token_bytes = activations.tiles ? columns * sizeof(ActivationTile) / 512 : columns * sizeof(float);
  const size_t token_block = std::clamp<size_t>(kTokenBlockBytes / token_bytes / 16 * 16, 16, kTokensOfTiles);
  const size_t token_blocks = (tokens + token_block - 1) / token_block;
  pool.run(groups * token_blocks, [&](size_t i, int) {
    ProductPart part{.product = products.data(), .first_token = i / groups * token_block};
    part.last_token = std::min(tokens, part.first_token + token_block);
    size_t group = i % groups;
    for (; group >= groups_of(*part.product); ++part.product) group -= groups_of(*part.product);
    part.first_panel = group * kGroupPanels;
    part.last_panel = std::min(part.product->weights->panels(), part.first_panel + kGroupPanels);
    HWY_DYNAMIC_DISPATCH(multiply_part)(part, x, activations);
  });
}

const char* kernel_target() {
  return HWY_DYNAMIC_DISPATCH(has_tiles)() ? kAmx : HWY_DYNAMIC_DISPATCH(target_name)();
}

void limit_kernel_target(std::string_view name) {
  std::string names;
  if (HWY_DYNAMIC_DISPATCH(has_tiles)()) {
    if (name == kAmx) return;
    names += fmt::format(" {}", kAmx);
  }
  for (int64_t left = hwy::SupportedTargets() & HWY_TARGETS; left != 0; left &= left - 1) {
    const int64_t target = left & -left;  // the lower the bit, the better the target
    if (name == hwy::TargetName(target)) {
      disable_amx();
      return hwy::DisableTargets(target - 1);
    }
    names += fmt::format(" {}", hwy::TargetName(target));
  }
  fail("this machine has no {}; it has:{}", name, names);
}

void matmul_plain(const PackedMatrix& weights, const float* x, double* out) {
  std::vector<float> row(weights.columns);
  std::vector<double> input(x, x + weights.columns);
  if (weights.is_quantised()) {
    std::vector<ActivationBlock> blocks(blocks_of(weights.columns));
    quantise_row_plain(x, weights.columns, blocks.data());
    for (size_t i = 0; i < input.size(); ++i) {
      input[i] = static_cast<double>(blocks[i / 32].scale) * blocks[i / 32].quants[i % 32];
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
