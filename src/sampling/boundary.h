#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace contexture {

/// A place in a row as it would be sorted: larger keys first, equal ones in the order of their indices.
struct Boundary {
  float key;
  size_t index;
};

/// Memory of a search, which leaves nothing in it.
struct BoundaryScratch {
  std::vector<float> key, weight;
  std::vector<int32_t> index;
  void reserve(size_t count);
};

/// The first element, in that order, at which the sum of weights exceeds `mass`; 0 ≤ mass < total, which is the sum of
/// all. `weight` null: each weighs 1. Weights as of weigh (kernels/selection.h), so that all sums are exact and the
/// answer is that of a sort. It does not sort: a sample says between which two keys the place should be, a pass over
/// the row how much lies above each, and what lies between them is the next row.
Boundary find_boundary(std::span<const float> key, const float* weight, double total, double mass,
                       BoundaryScratch& scratch);

}  // namespace contexture
