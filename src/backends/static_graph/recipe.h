#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/static_graph/graph.h"

namespace contexture {

/// How a model's numbers are stored in its graphs: activations as floats or 16 bits, linears in 4 or 8 bits.
struct Recipe {
  /// An exception: this linear in these layers has so many bits.
  struct Keep {
    std::string linear;  ///< "ffn_down"
    size_t first_layer = 0, last_layer = SIZE_MAX;
    size_t bits = 8;
  };

  std::string name = "float";  ///< as it was asked for, overrides included: "16a4w-block 32, output=8"
  bool fixed_point = false;
  size_t weight_bits = 4;
  size_t block = 0;  ///< inputs that share a factor; 0: a scale an output alone
  size_t kv_bits = 32;
  std::vector<Keep> keep;

  /// How a linear is stored; of the last linear ("output") the layer does not matter.
  ConstantKind kind_of(std::string_view linear, size_t layer) const;
};

/// `name`: "float", "16a4w", "16a4w-block", "16a8w". `keep`: "output=8,ffn_down[0-3]=8,attn_v[2]=8". `block`: of
/// 16a4w-block, 16, 32 or 64. `kv_bits`: 8 or 16; of float graphs K and V are floats whatever it says. Throws Error for
/// what is none of these.
Recipe parse_recipe(std::string_view name, std::string_view keep = {}, size_t block = 32, size_t kv_bits = 8);

/// The names that parse_recipe knows.
std::vector<std::string> recipe_names();

}  // namespace contexture
