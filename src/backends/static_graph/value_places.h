#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "backends/static_graph/graph.h"

namespace contexture {

/// Where the values inside of a graph lie while it runs. They share one block: each is at the lowest place that is free
/// from the node that makes it to the last that reads it.
struct ValuePlaces {
  std::vector<std::pair<uint32_t, size_t>> offsets;  ///< tensor, offset
  size_t bytes = 0;                                  ///< of the block
};

/// Of a graph that has been checked.
ValuePlaces place_values(const Graph& graph);

}  // namespace contexture
