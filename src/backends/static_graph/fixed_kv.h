#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace contexture {

/// How the K and V of compiled graphs are kept in fixed buffers. A graph of A tokens reads C - A columns of cache (its
/// *window*) and writes the A columns of its own tokens beside it; between two executions those become cache. K lies
/// with a row a channel (D, window), V with a row a token (window, D).
///
/// smart_mask: token t is column t. Buffers never move; new columns are copied into their places, for K one a row.
///
/// shift_pointer: the window's address moves forward by a column a token, so that tokens end where the window ends
/// (right-aligned) and what was written right behind the window is the window's last column. V's outputs are bound
/// there, and nothing is copied; K's rows are interleaved with what follows them, so that K is copied all the same. A
/// row (K) or head (V) more than there are holds what stands out.
///
/// Both: "shift pointer" and "smart mask" of ExecuTorch's Qualcomm example (KV cache update mechanism).
enum class KvUpdate : uint8_t { smart_mask, shift_pointer };
std::string_view name(KvUpdate update);
std::optional<KvUpdate> kv_update_named(std::string_view name);

struct FixedKvShape {
  size_t layers = 0, heads = 0, head_dim = 0;
  size_t context = 0;        ///< C
  size_t chunk = 0;          ///< the largest A of the graphs
  size_t step = 1;           ///< the smallest
  size_t element_bytes = 1;  ///< of K and V as they are stored
  bool per_head = true;      ///< a tensor a head; else one for all heads of a layer

  size_t columns() const { return context - step; }  ///< of cache, at most
  size_t tensors() const { return per_head ? heads : 1; }
  size_t rows() const { return per_head ? head_dim : heads * head_dim; }  ///< of a K tensor
  bool operator==(const FixedKvShape&) const = default;
};

/// Bytes of one layer.
struct FixedKvBytes {
  size_t k_in = 0, v_in = 0, k_out = 0, v_out = 0;
  size_t total() const { return k_in + v_in + k_out + v_out; }
  bool operator==(const FixedKvBytes&) const = default;
};

/// Columns [first, last) of a window.
struct Columns {
  size_t first = 0, last = 0;
};

/// Addresses and copies; the memory is the caller's, and so is what is in it.
class FixedKv {
 public:
  /// Throws Error where the update cannot be done: shift_pointer needs a tensor a head.
  FixedKv(const FixedKvShape& shape, KvUpdate update);

  const FixedKvShape& shape() const { return shape_; }
  KvUpdate update() const { return update_; }
  const FixedKvBytes& layer_bytes() const { return bytes_; }
  size_t bytes() const { return shape_.layers * bytes_.total(); }
  /// `memory` of bytes() bytes, which hold nothing yet.
  void attach(std::byte* memory);

  size_t length() const { return length_; }  ///< tokens held
  size_t tokens() const { return tokens_; }  ///< A of the graph that the buffers are arranged for
  size_t window() const { return shape_.context - tokens_; }
  Columns visible() const;  ///< columns of the window that hold tokens

  /// Where the present graph's tensors lie: bytes from the start of the memory. `tensor`: the head, or 0.
  size_t k_in(size_t layer, size_t tensor) const;
  size_t v_in(size_t layer, size_t tensor) const;
  size_t k_out(size_t layer, size_t tensor) const;
  size_t v_out(size_t layer, size_t tensor) const;

  /// Graphs of `tokens` tokens are next; their window must hold what is held.
  void arrange(size_t tokens);
  /// The first `count` columns that the graph has written become cache; the window must have room.
  void append(size_t count);
  /// Forgets all but the first `length` tokens.
  void truncate(size_t length);

  /// Bytes that were copied since the beginning.
  struct Moved {
    size_t k = 0, v = 0;    ///< by append
    size_t rearranged = 0;  ///< by arrange
  };
  const Moved& moved() const { return moved_; }

 private:
  bool shifts() const { return update_ == KvUpdate::shift_pointer; }
  size_t k_base(size_t layer, size_t tensor) const;
  size_t v_base(size_t layer, size_t tensor) const;
  size_t k_token(size_t row, size_t window) const;
  void move_within(size_t base, size_t blocks, size_t old_stride, size_t new_stride, size_t first, size_t length);

  FixedKvShape shape_;
  KvUpdate update_;
  FixedKvBytes bytes_;
  std::byte* memory_ = nullptr;
  size_t tokens_ = 0;
  size_t length_ = 0;
  Moved moved_;
};

}  // namespace contexture
