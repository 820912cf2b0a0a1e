#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/selection.h"

namespace contexture {

/// A place in a row as it would be sorted: larger keys first, equal ones in the order of their indices.
struct Boundary {
  float key;
  size_t index;
  double reached;  ///< the sum of weights up to here, this one's included
};

/// Memory of a search, which leaves nothing in it.
class BoundaryScratch {
 public:
  static size_t bytes_for(size_t count) { return count * (2 * sizeof(float) + sizeof(int32_t)); }
  void reserve(size_t count);
  /// Where two parts of a row may lie, one while the other is written.
  size_t half() const { return index_.size() / 2; }
  PartOfRow part(size_t from) { return {key_.data() + from, weight_.data() + from, index_.data() + from}; }

 private:
  std::vector<float> key_, weight_;
  std::vector<int32_t> index_;
};

/// The first element, in that order, at which the sum of weights exceeds `mass`; 0 ≤ mass < total, which is the sum of
/// all; `weight` null: each weighs 1. `scratch` has reserved room for `count`. Weights as of weigh
/// (kernels/selection.h), so that all sums are exact and the answer is that of a sort. It does not sort: a sample says
/// between which two keys the place should be, a pass over the row how much lies above them and what between, and what
/// lies between is the next row.
Boundary find_boundary(const RowKeys& key, const float* weight, size_t count, double total, double mass,
                       BoundaryScratch& scratch);

}  // namespace contexture
