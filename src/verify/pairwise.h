#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace contexture {

/// One value of every dimension.
using Choice = std::vector<size_t>;

/// Few choices in which every value of every dimension meets every value of every other one. `sizes`: how many values
/// each dimension has, at least one. The same for the same sizes.
std::vector<Choice> pairwise(std::span<const size_t> sizes);

/// All choices there are.
std::vector<Choice> everything(std::span<const size_t> sizes);

}  // namespace contexture
