#include "backends/static_graph/fixed_kv.h"

#include <cassert>
#include <cstring>

#include "base/error.h"

namespace contexture {

std::string_view name(KvUpdate update) {
  return update == KvUpdate::smart_mask ? "smart-mask" : "shift-pointer";
}

std::optional<KvUpdate> kv_update_named(std::string_view name) {
  if (name == "smart-mask") return KvUpdate::smart_mask;
  if (name == "shift-pointer") return KvUpdate::shift_pointer;
  return std::nullopt;
}

FixedKv::FixedKv(const FixedKvShape& shape, KvUpdate update) : shape_(shape), update_(update), tokens_(shape.chunk) {
  assert(shape.step >= 1 && shape.step <= shape.chunk && shape.chunk <= shape.context);
  if (shifts() && !shape.per_head && shape.columns() > 0) {
    fail(
        "shift-pointer needs a K and a V tensor a head and this directory has one for all heads of a layer, whose V "
        "would be copied all the same; run with --kv-updater smart-mask or compile without --kv-layout per-layer");
  }
  const size_t heads = shape.heads, d = shape.head_dim, e = shape.element_bytes, columns = shape.columns();
  bytes_.k_out = heads * d * shape.chunk * e;
  if (columns == 0) {
    update_ = KvUpdate::smart_mask;  // there is no cache: nothing shifts
    bytes_.v_out = bytes_.k_out;
  } else if (shifts()) {
    bytes_.k_in = heads * (d + 1) * columns * e;
    bytes_.v_in = (heads + 1) * d * shape.context * e;  // the outputs too
  } else {
    bytes_.k_in = bytes_.v_in = heads * d * columns * e;
    bytes_.v_out = bytes_.k_out;
  }
}

void FixedKv::attach(std::byte* memory) {
  memory_ = memory;
  length_ = 0;
}

Columns FixedKv::visible() const {
  return shifts() ? Columns{window() - length_, window()} : Columns{0, length_};
}

size_t FixedKv::k_base(size_t layer, size_t tensor) const {
  const size_t rows = shape_.rows() + (shifts() ? 1 : 0);
  return layer * bytes_.total() + tensor * rows * shape_.columns() * shape_.element_bytes;
}

/// A head's stride in a shifting block is the whole context: what a chunk writes behind the window ends where the next
/// head's window begins.
size_t FixedKv::v_base(size_t layer, size_t tensor) const {
  const size_t stride = shifts() ? shape_.context : shape_.columns();
  return layer * bytes_.total() + bytes_.k_in + tensor * stride * shape_.head_dim * shape_.element_bytes;
}

size_t FixedKv::k_in(size_t layer, size_t tensor) const {
  return k_base(layer, tensor) + (shifts() ? length_ * shape_.element_bytes : 0);
}

size_t FixedKv::v_in(size_t layer, size_t tensor) const {
  const size_t row = shifts() ? shape_.columns() - window() + length_ : 0;
  return v_base(layer, tensor) + row * shape_.head_dim * shape_.element_bytes;
}

size_t FixedKv::k_out(size_t layer, size_t tensor) const {
  return layer * bytes_.total() + bytes_.k_in + bytes_.v_in +
         tensor * shape_.rows() * shape_.chunk * shape_.element_bytes;
}

size_t FixedKv::v_out(size_t layer, size_t tensor) const {
  if (shifts()) return v_base(layer, tensor) + (shape_.columns() + length_) * shape_.head_dim * shape_.element_bytes;
  return layer * bytes_.total() + bytes_.k_in + bytes_.v_in + bytes_.k_out +
         tensor * shape_.rows() * shape_.chunk * shape_.element_bytes;
}

/// Where token 0 of a row stands, in elements from the tensor's base. Right-aligned in a window that begins `length`
/// elements late, the tokens of a row stand where the next row of an unshifted window would begin.
size_t FixedKv::k_token(size_t row, size_t window) const {
  return (row + (shifts() ? 1 : 0)) * window;
}

/// Moves blocks apart or together: block i from (first + i) * old_stride to (first + i) * new_stride. Last to first
/// when they move apart, first to last when together, so that none is overwritten before it has moved.
void FixedKv::move_within(size_t base, size_t blocks, size_t old_stride, size_t new_stride, size_t first,
                          size_t length) {
  std::byte* const memory = memory_ + base;
  for (size_t i = 0; i < blocks; ++i) {
    const size_t block = first + (new_stride > old_stride ? blocks - 1 - i : i);
    if (block == 0) continue;
    std::memmove(memory + block * new_stride, memory + block * old_stride, length);
    moved_.rearranged += length;
  }
}

void FixedKv::arrange(size_t tokens) {
  assert(tokens == shape_.chunk || tokens == shape_.step);
  const size_t from = window(), to = shape_.context - tokens;
  assert(length_ <= to);
  tokens_ = tokens;
  if (from == to || length_ == 0) return;
  const size_t e = shape_.element_bytes, d = shape_.head_dim;
  for (size_t layer = 0; layer < shape_.layers; ++layer) {
    for (size_t tensor = 0; tensor < shape_.tensors(); ++tensor) {
      move_within(k_base(layer, tensor), shape_.rows(), from * e, to * e, shifts() ? 1 : 0, length_ * e);
    }
    // Where every head's V is a tensor of its own, its rows stay where they are.
    if (!shape_.per_head) move_within(v_base(layer, 0), shape_.heads, from * d * e, to * d * e, 0, length_ * d * e);
  }
}

void FixedKv::append(size_t count) {
  assert(count <= tokens_ && length_ + count <= window());
  const size_t e = shape_.element_bytes, row_bytes = shape_.head_dim * e;
  for (size_t layer = 0; layer < shape_.layers; ++layer) {
    for (size_t tensor = 0; tensor < shape_.tensors(); ++tensor) {
      std::byte* const k = memory_ + k_base(layer, tensor);
      const std::byte* const k_new = memory_ + k_out(layer, tensor);
      for (size_t row = 0; row < shape_.rows(); ++row) {
        std::memcpy(k + (k_token(row, window()) + length_) * e, k_new + row * tokens_ * e, count * e);
      }
      if (shifts()) continue;
      std::byte* const v = memory_ + v_base(layer, tensor);
      const std::byte* const v_new = memory_ + v_out(layer, tensor);
      for (size_t head = 0; head < shape_.heads / shape_.tensors(); ++head) {
        std::memcpy(v + (head * window() + length_) * row_bytes, v_new + head * tokens_ * row_bytes, count * row_bytes);
      }
    }
  }
  const size_t moved = shape_.layers * shape_.heads * count * row_bytes;
  moved_.k += moved;
  if (!shifts()) moved_.v += moved;
  length_ += count;
}

void FixedKv::truncate(size_t length) {
  assert(length <= length_);
  length_ = length;
}

}  // namespace contexture
