#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "contexture/graph_backend.h"
#include "kernels/rope.h"

namespace contexture {

/// How a tensor's numbers are stored.
enum class NumberType : uint8_t { f32 = CXG_FLOAT_32, i32 = CXG_INT_32, u8 = CXG_UFIXED_8, u16 = CXG_UFIXED_16 };

std::string_view name(NumberType type);
size_t bytes_of(NumberType type);
constexpr bool is_fixed_point(NumberType type) {
  return type == NumberType::u8 || type == NumberType::u16;
}
/// The largest raw number of a fixed-point type.
constexpr int32_t largest(NumberType type) {
  return type == NumberType::u8 ? 255 : 65535;
}

/// real = scale · (raw - zero_point), of fixed-point tensors.
struct Encoding {
  float scale = 0;
  int32_t zero_point = 0;
  bool operator==(const Encoding&) const = default;
};

/// A value of a graph: dense, the last dimension runs fastest.
struct GraphTensor {
  std::string name;
  NumberType type = NumberType::f32;
  std::vector<uint32_t> dims;
  Encoding encoding;

  size_t elements() const;
  size_t bytes() const { return elements() * bytes_of(type); }
  /// The dimension `from_end` places from the last (0).
  size_t dim(size_t from_end) const { return from_end < dims.size() ? dims[dims.size() - 1 - from_end] : 1; }
};

/// How a constant's numbers are stored; constants.h describes the bytes of each.
enum class ConstantKind : uint8_t {
  f32,         ///< dense
  u16,         ///< dense, one scale and zero point
  i16,         ///< dense, one scale
  i64,         ///< dense: biases of a linear, in units of its input's scale times its row's
  f32_panels,  ///< a matrix for float linears
  i8,          ///< a matrix, symmetric, a scale a row
  i4,          ///< a matrix, symmetric in [-7, 7], a scale a row
  i4_blocks,   ///< the same, each block of inputs with a factor 1…16 besides
};

std::string_view name(ConstantKind kind);

/// Numbers that no execution changes. Both graphs of a shard use the same.
struct GraphConstant {
  std::string name;
  ConstantKind kind = ConstantKind::f32;
  size_t rows = 1, columns = 0;
  Encoding encoding = {};                ///< of u16; of i16 the scale
  size_t block = 0;                      ///< of i4_blocks: inputs a block
  std::span<const std::byte> data = {};  ///< (constant_bytes)
};

/// What a node does. "fixed" says what differs for fixed-point numbers; docs/static_graphs.md has the arithmetic.
enum class Operator : uint8_t {
  gather,    ///< inputs: indices (n) i32; constants: table (rows, columns). out (n, columns): rows of the table
  rms_norm,  ///< x (…, columns of the constant); constants: weight. x / sqrt(mean(x²) + epsilon) · weight
  linear,  ///< x (…, columns); constants: weight (rows, columns)[, bias (rows)]. out (…, rows) = factor · (W · x + b)
  rope,     ///< x (tokens, heads · head_dim), cos, sin (tokens, width / 2): the first `width` of each head rotate
  permute,  ///< x seen with dimensions `view`, reordered: dimension i of the result is view[order[i]]
  concat,   ///< any number of inputs along the dimension `axis` from the end
  slice,    ///< [begin, begin + width) of the dimension `axis` from the end
  matmul,   ///< a (batch, M, K), b (batch, K, N). out = factor · a · b; float: terms where a is 0 are left out
  softcap,  ///< factor · tanh(x / factor)
  silu,     ///< x / (1 + exp(-x))
  gelu,     ///< by its tanh approximation
  mask,  ///< scores (…, rows, columns), mask (A, columns): row r takes mask row r mod A. float: -infinity where the
         ///< mask is below 0, else the score; fixed: their sum
  softmax,   ///< over the last dimension
  add,       ///< a + factor · b
  multiply,  ///< a · b
  convert,   ///< x in another encoding
};

std::string_view name(Operator op);

struct GraphNode {
  Operator op = Operator::convert;
  std::vector<uint32_t> inputs;     ///< places in Graph::tensors
  std::vector<uint32_t> constants;  ///< places in ShardProgram::constants
  uint32_t output = 0;
  double factor = 1;                            ///< linear, matmul, softcap, add
  double epsilon = 0;                           ///< rms_norm
  uint32_t axis = 0, begin = 0;                 ///< concat, slice
  uint32_t width = 0;                           ///< slice, rope
  uint32_t head_dim = 0;                        ///< rope
  RopeStyle style = RopeStyle::halves;          ///< rope
  std::vector<uint32_t> view = {}, order = {};  ///< permute
};

/// Fixed shapes; nodes in the order in which they run.
struct Graph {
  std::string name;
  std::vector<GraphTensor> tensors;
  std::vector<GraphNode> nodes;
  std::vector<uint32_t> inputs, outputs;  ///< places in `tensors`
};

/// A shard: what forward_i.bin holds.
struct ShardProgram {
  std::vector<GraphConstant> constants;
  std::vector<Graph> graphs;
};

/// Throws Error where a graph is not one: a place that is none, a value used before it is made or made twice, shapes,
/// types, encodings or attributes that do not fit each other, sizes that would not fit in memory. Looks at no data.
void check(const ShardProgram& program);

/// For people: every constant, input, output and node, a line each.
std::string to_text(const ShardProgram& program);

}  // namespace contexture
