#include "backends/static_graph/attention_mask.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"

namespace contexture {
namespace {

constexpr float kMaskedFloat = -65535;

/// Calls `body` with the mask as numbers of the tensor's type.
template <class Body>
void with_elements(uint32_t type, std::byte* mask, const Body& body) {
  switch (type) {
    case CXG_FLOAT_32:
      return body(reinterpret_cast<float*>(mask));
    case CXG_UFIXED_16:
      return body(reinterpret_cast<uint16_t*>(mask));
    case CXG_UFIXED_8:
      return body(reinterpret_cast<uint8_t*>(mask));
  }
  assert(false);
}

}  // namespace

AttentionMask::AttentionMask(const cxg_tensor& tensor) : type_(tensor.type), attend_(0), masked_(kMaskedFloat) {
  element_bytes_ = type_ == CXG_FLOAT_32 ? 4 : type_ == CXG_UFIXED_16 ? 2 : 1;
  if (type_ == CXG_FLOAT_32) return;
  if (type_ != CXG_UFIXED_8 && type_ != CXG_UFIXED_16) {
    fail("the attention mask is stored as type {} and should be float or ufixed; compile the model again", type_);
  }
  const int64_t largest = type_ == CXG_UFIXED_16 ? 65535 : 255;
  const int64_t attend = -static_cast<int64_t>(tensor.offset);
  if (attend <= 0 || attend > largest || !(tensor.scale > 0)) {
    fail("the attention mask's encoding, scale {} offset {}, has no 0 or nothing below it; compile the model again",
         tensor.scale, tensor.offset);
  }
  attend_ = static_cast<float>(attend);
  masked_ = 0;
}

void AttentionMask::fill(std::byte* mask, size_t tokens, size_t context, Columns visible) const {
  with_elements(type_, mask, [&](auto* numbers) {
    using Number = std::remove_pointer_t<decltype(numbers)>;
    const auto attend = static_cast<Number>(attend_), masked = static_cast<Number>(masked_);
    const size_t window = context - tokens;
    for (size_t i = 0; i < tokens; ++i) {
      Number* const row = numbers + i * context;
      std::fill_n(row, context, masked);
      std::fill(row + visible.first, row + visible.last, attend);
      std::fill_n(row + window, i + 1, attend);
    }
  });
}

void AttentionMask::show(std::byte* mask, size_t tokens, size_t context, Columns fresh) const {
  with_elements(type_, mask, [&](auto* numbers) {
    using Number = std::remove_pointer_t<decltype(numbers)>;
    for (size_t i = 0; i < tokens; ++i) {
      Number* const row = numbers + i * context;
      std::fill(row + fresh.first, row + fresh.last, static_cast<Number>(attend_));
    }
  });
}

}  // namespace contexture
