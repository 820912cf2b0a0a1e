#include "tensor/float16.h"

#include <array>
#include <cstddef>

namespace contexture {

const float* f16_table() {
  static const auto table = [] {
    std::array<float, 65536> floats;
    for (size_t i = 0; i < floats.size(); ++i) floats[i] = f16_to_f32(static_cast<uint16_t>(i));
    return floats;
  }();
  return table.data();
}

}  // namespace contexture
