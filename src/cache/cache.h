#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/books.h"
#include "cache/layout_options.h"
#include "kernels/span.h"

namespace contexture {

/// Where a token's K and V lie in every layer: a number that only the cache that gave it understands.
using Slot = int64_t;

/// What a token's K and V are.
struct CacheShape {
  size_t layers = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
  Format k_format = Format::f16;
  Format v_format = Format::f16;
};

/// Everything that decides a cache's bytes.
struct CachePlan {
  std::string layout = "paged";
  CacheShape shape = {};
  size_t sequences = 1;             // at once
  size_t context = 0;               // tokens a sequence
  size_t step_tokens = 0;           // of one sequence in one step, at most; 0: its whole context
  LayoutOptions options = {};       // of the layout, which declares them (cache/layout.h)
  std::optional<bool> rotate = {};  // K and V before they are stored; nothing said: where it helps (rotation_of)
  bool resumable = false;           // what is saved may go on in a longer context
};

/// Whether K and V are stored with every head rotated by a Hadamard matrix, which spreads outliers over all channels:
/// blocks of few bits then lose less (QuaRot, arXiv:2404.00456, §4). Q is rotated as K is, what attention makes of V is
/// rotated back. Nobody who reads or writes a cache but the forward pass need know.
struct Rotation {
  bool k = false, v = false;
  bool operator==(const Rotation&) const = default;
};

/// As the plan says; else the side that holds q4_0, where the head size is a power of two. Throws Error where rotation
/// is asked for and the head size is not one.
Rotation rotation_of(const CachePlan& plan);

/// For people: "paged, 512 tokens, K f16 V q4_0, V rotated"; its end alone: ", V rotated", or nothing.
std::string describe(const CachePlan& plan);
std::string describe(const Rotation& rotation);

/// Rows of a sequence as a cache holds them. A mixed cache may hold a token twice: hot and cold.
struct HeldRows {
  TokenSpan rows;
  bool cold = false;
};

/// Tokens whose rows a cache wants in order to restore a sequence: positions [first, end), in these formats.
struct WantedRows {
  Format k_format = Format::f16, v_format = Format::f16;
  bool cold = false;
  int64_t first = 0, end = 0;
  int64_t needed_from = 0;  // those before it are welcome where they are had exactly; they serve truncate
};

/// Holds the context of sequences. Sequences are written by append and store, read through views; attention knows
/// nothing else. Not thread-safe: one step at a time.
class Cache : public Books {
 public:
  const CacheShape& shape() const { return shape_; }
  const Rotation& rotation() const { return rotation_; }
  /// Values so far that lay beyond their format's range and were clamped to it (encode_kv_row).
  virtual size_t clamped_values() const = 0;

  /// Where the token at this position is kept; position < length.
  virtual Slot slot(SequenceId sequence, size_t position) const = 0;
  /// Writes K and V of one layer, in the cache's formats. k, v (slots, kv_heads, head_dim).
  virtual void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) = 0;
  /// Appends the sequence's block table to `spans`, as the queries of the tokens of the last append, and later ones,
  /// see it in every layer (CacheView); at most spans_of(plan). It holds until the books change: once a step.
  virtual void view(SequenceId sequence, std::vector<TokenSpan>& spans) const = 0;

  /// Saving and restoring (cache/saved_context.h). Appends everything that queries to come could read, every
  /// copy of a token in order of its position, as in `view` with the addresses of all layers.
  virtual void held(SequenceId sequence, std::vector<HeldRows>& held) const;
  /// Gives an empty sequence `length` tokens, whose rows are to be brought by `restore` before anything reads them;
  /// which, or nothing with nothing changed where there is no room.
  [[nodiscard]] virtual std::optional<std::vector<WantedRows>> reserve(SequenceId sequence, size_t length);
  /// Writes wanted rows as they were held, in the same formats. Call it by ascending positions.
  virtual void restore(size_t layer, SequenceId sequence, const HeldRows& held) = 0;

 protected:
  explicit Cache(const CachePlan& plan) : shape_(plan.shape), rotation_(rotation_of(plan)) {}
  const CacheShape shape_;
  const Rotation rotation_;
};

/// The list of layouts is in layout.cc.
std::vector<std::string_view> cache_layouts();

/// The exact bytes that make_cache allocates for K and V. Throws Error where the plan cannot be carried out: an unknown
/// layout, an option that it has not, a format that attention does not read, more bytes than can be counted.
size_t bytes_of(const CachePlan& plan);

/// Spans of a sequence's view, at most.
size_t spans_of(const CachePlan& plan);

/// Bytes of K and V that a query at a depth of `tokens` reads, in all layers.
size_t bytes_read(const CachePlan& plan, size_t tokens);

/// Throws Error as bytes_of, and where memory is short.
std::unique_ptr<Cache> make_cache(const CachePlan& plan);

}  // namespace contexture
