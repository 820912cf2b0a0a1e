// Products of block-quantised weights with int8 activations by AMX: a tile of 16 tokens times a panel of 16 rows in one
// instruction, for prompts. The integers are exact and the floats follow in the order of matmul.cc's tiles, so the bits
// are those of every other target.
//
// Written as assembly: compilers must be told to use AMX for a whole file, and only this target's machines may have it.

#if defined(CONTEXTURE_KERNELS_AMX_TILES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef CONTEXTURE_KERNELS_AMX_TILES_INL
#undef CONTEXTURE_KERNELS_AMX_TILES_INL
#else
#define CONTEXTURE_KERNELS_AMX_TILES_INL
#endif

#include "kernels/packed-inl.h"
#include "kernels/quantise.h"

#if HWY_TARGET == HWY_AVX3_DL

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

// Registers: products in 0 and 1, activations in 2 and 3, weights in 4 and 5. Operands in memory are named, rather than
// all memory, so that sums stay in registers around it.
using ProductTile = int32_t[16][16];
using WeightTile = int8_t[8][64];
using SumTile = float[16][16];  // (tokens, rows)
#define CONTEXTURE_MULTIPLY_TILE(P, A, W)                                                           \
  asm volatile("tilezero %%tmm" P "; tileloadd (%1,%2,1), %%tmm" A "; tileloadd (%3,%4,1), %%tmm" W \
               "; tdpbssd %%tmm" W ", %%tmm" A ", %%tmm" P "; tilestored %%tmm" P ", (%5,%4,1)"     \
               : "=m"(products)                                                                     \
               : "r"(from), "r"(token_stride), "r"(weights), "r"(vector), "r"(&products), "m"(activations), "m"(unit))
template <int kWhich>
HWY_INLINE void multiply_tile(const ActivationTile& activations, const int8_t* from, const WeightTile& unit,
                              const int8_t* weights, ProductTile& products) {
  const size_t token_stride = ActivationTile::columns, vector = 64;
  if constexpr (kWhich == 0) {
    CONTEXTURE_MULTIPLY_TILE("0", "2", "4");
  } else {
    CONTEXTURE_MULTIPLY_TILE("1", "3", "5");
  }
}
#undef CONTEXTURE_MULTIPLY_TILE

/// Gives the registers their shapes, for products of `columns` columns at a time, while it lives.
class TileRegisters {
 public:
  explicit TileRegisters(size_t columns) {
    struct {
      uint8_t palette = 1, first_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (size_t i = 0; i < 2; ++i) {
      shapes.row_bytes[i] = shapes.row_bytes[4 + i] = 64;
      shapes.rows[i] = shapes.rows[2 + i] = 16;
      shapes.row_bytes[2 + i] = static_cast<uint16_t>(columns);
      shapes.rows[4 + i] = static_cast<uint8_t>(columns / 4);
    }
    static_assert(sizeof(shapes) == 64);
    asm volatile("ldtilecfg %0" ::"m"(shapes));
  }
  ~TileRegisters() { asm volatile("tilerelease"); }
};

/// Some panels of 16 rows times the part's tokens, in chunks of columns: the weights of a chunk stay in the nearest
/// cache, and so do a tile's activations from the first panel to the last.
template <class Unit>
class PanelsOfTiles {
 public:
  explicit PanelsOfTiles(const ProductPart& part)
      : part_(part), blocks_(blocks_of(part.product->weights->columns)), panels_(part.last_panel - part.first_panel) {}

  void multiply(const ActivationTile* activations) {
    const std::byte* at[kGroupPanels];
    Unit units[kGroupPanels];  // a superblock's scales stay for eight blocks
    for (size_t p = 0; p < panels_; ++p) at[p] = part_.product->weights->panel(part_.first_panel + p);
    for (size_t first = 0; first < blocks_; first += kChunk) {
      const size_t count = std::min(kChunk, blocks_ - first);
      for (size_t p = 0; p < panels_; ++p) {
        for (size_t i = 0; i < count; ++i) {
          at[p] = units[p].read(at[p], first + i);
          store_unit(units[p], weights_[p][i]);
        }
      }
      for (size_t token = part_.first_token; token < part_.last_token; token += 16) {
        for (size_t p = 0; p < panels_; ++p) {
          add_chunk(activations + token / 16 * blocks_ + first, weights_[p], count, first == 0, sums_of(p, token));
        }
      }
    }
    for (size_t token = part_.first_token; token < part_.last_token; ++token) {
      for (size_t p = 0; p < panels_; ++p) {
        write_sums(load(sums_of(p, token)[token % 16]), *part_.product, part_.first_panel + p, token);
      }
    }
  }

 private:
  static constexpr size_t kChunk = 8;             // units of 32 columns
  static constexpr size_t kSums = Unit::kScales;  // of a unit, each with a scale of its own
  static constexpr size_t kColumns = 32 / kSums;
  static constexpr size_t kInFlight = 8;  // products that wait to become floats

  struct UnpackedUnit {
    int8_t quants[8][64];
    float scales[kSums][16], min[16];
  };

  static HWY_INLINE void store_unit(const Unit& unit, UnpackedUnit& to) {
    const auto offset = hn::Set(ByteTag(), static_cast<int8_t>(Unit::kQuantOffset));
    for (size_t v = 0; v < 8; ++v) hn::Store(hn::Sub(unit.w[v].part[0], offset), ByteTag(), to.quants[v]);
    if constexpr (kSums == 1) {
      store(unit.scale, to.scales[0]);
    } else {
      for (size_t s = 0; s < kSums; ++s) store(unit.scales[s], to.scales[s]);
    }
    if constexpr (Unit::kHasMin) store(unit.min, to.min);
  }

  template <int kWhich>
  HWY_INLINE void begin(const ActivationTile* activations, const UnpackedUnit* weights, size_t i) {
    const size_t block = i / kSums, part = i % kSums;
    multiply_tile<kWhich>(activations[block], activations[block].quants[0] + part * kColumns, weights[block].quants,
                          weights[block].quants[part * 8 / kSums], products_[i % kInFlight]);
  }

  HWY_INLINE void finish(const ActivationTile* activations, const UnpackedUnit* weights, size_t i, Floats* sums) const {
    const ActivationTile& a = activations[i / kSums];
    const UnpackedUnit& w = weights[i / kSums];
    const Floats scale = load(w.scales[i % kSums]);
    for (size_t t = 0; t < 16; ++t) {
      Ints product;
      product.part[0] = hn::Load(IntTag(), products_[i % kInFlight][t]);
      fma(to_floats(product), mul(scale, splat(a.scales[t])), sums[t]);
    }
    if constexpr (Unit::kHasMin) {
      const Floats min = load(w.min);
      for (size_t t = 0; t < 16; ++t) fma(min, splat(a.scaled_sums[t]), sums[t]);
    }
  }

  /// A tile's products with a panel's chunk of `count` units, added to its sums. Products are begun two ahead of their
  /// floats: what a tile register stores is read some time later.
  HWY_INLINE void add_chunk(const ActivationTile* activations, const UnpackedUnit* weights, size_t count, bool is_first,
                            SumTile& kept) {
    Floats sums[16];
    for (size_t t = 0; t < 16; ++t) sums[t] = is_first ? zeros() : load(kept[t]);
    const size_t steps = count * kSums;
    begin<0>(activations, weights, 0);
    if (steps > 1) begin<1>(activations, weights, 1);
    for (size_t i = 0; i < steps; i += 2) {
      if (i + 2 < steps) begin<0>(activations, weights, i + 2);
      if (i + 3 < steps) begin<1>(activations, weights, i + 3);
      finish(activations, weights, i, sums);
      if (i + 1 < steps) finish(activations, weights, i + 1, sums);
    }
    for (size_t t = 0; t < 16; ++t) store(sums[t], kept[t]);
  }

  SumTile& sums_of(size_t panel, size_t token) { return sums_[panel][(token - part_.first_token) / 16]; }

  const ProductPart& part_;
  size_t blocks_, panels_;
  alignas(64) UnpackedUnit weights_[kGroupPanels][kChunk];
  alignas(64) ProductTile products_[kInFlight];
  alignas(64) SumTile sums_[kGroupPanels][kTokensOfTiles / 16];  // between chunks
};

template <class Unit>
void multiply_tiles(const ProductPart& part, const ActivationTile* activations) {
  const TileRegisters registers(32 / Unit::kScales);
  PanelsOfTiles<Unit>(part).multiply(activations);
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#endif
#endif
