#include "backends/static_graph/graph.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <set>

#include "backends/static_graph/constants.h"
#include "base/error.h"

namespace contexture {
namespace {

constexpr size_t kMaxElements = size_t{1} << 36;
constexpr size_t kMaxRank = 6;

/// Checks one node against the shapes and types of what it reads and writes.
class NodeCheck {
 public:
  NodeCheck(const ShardProgram& program, const Graph& graph, const GraphNode& node)
      : program_(program), graph_(graph), node_(node), out_(graph.tensors[node.output]) {}

  void run() {
    switch (node_.op) {
      case Operator::gather:
        return gather();
      case Operator::rms_norm:
        return rms_norm();
      case Operator::linear:
        return linear();
      case Operator::rope:
        return rope();
      case Operator::permute:
        return permute();
      case Operator::concat:
        return concat();
      case Operator::slice:
        return slice();
      case Operator::matmul:
        return matmul();
      case Operator::softcap:
      case Operator::silu:
      case Operator::gelu:
      case Operator::softmax:
        expect(1, 0, 0);
        one_arithmetic();
        need(!is_fixed_point(out_.type) || (in(0).type == NumberType::u16 && out_.type == NumberType::u16),
             "fixed-point tensors have 16 bits here");
        return same_size(in(0));
      case Operator::mask:
        return mask();
      case Operator::add:
      case Operator::multiply:
        expect(2, 0, 0);
        one_arithmetic();
        same_size(in(0));
        return same_size(in(1));
      case Operator::convert:
        expect(1, 0, 0);
        need(is_fixed_point(in(0).type) && is_fixed_point(out_.type), "only fixed-point tensors are converted");
        return same_size(in(0));
    }
    refuse("no such operator");
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("graph {}: {} that makes {}: {}", printable(graph_.name), name(node_.op), printable(out_.name), what);
  }
  void need(bool holds, std::string_view what) const {
    if (!holds) refuse(what);
  }
  const GraphTensor& in(size_t i) const { return graph_.tensors[node_.inputs[i]]; }
  const GraphConstant& constant(size_t i) const { return program_.constants[node_.constants[i]]; }

  void expect(size_t inputs, size_t constants, size_t optional_constants) const {
    need(node_.inputs.size() == inputs, "wrong number of inputs");
    need(node_.constants.size() >= constants && node_.constants.size() <= constants + optional_constants,
         "wrong number of constants");
    need(std::isfinite(node_.factor) && std::isfinite(node_.epsilon) && node_.epsilon >= 0, "a factor is no number");
    need(node_.factor > 0, "its factor is not positive");
  }
  void same_size(const GraphTensor& other) const {
    need(other.elements() == out_.elements(), "inputs and output differ in size");
  }
  /// All floats, or all fixed-point; what reads indices checks them apart.
  void one_arithmetic() const {
    need(out_.type != NumberType::i32, "makes integers");
    for (const uint32_t i : node_.inputs) {
      const NumberType type = graph_.tensors[i].type;
      need(type != NumberType::i32 && is_fixed_point(type) == is_fixed_point(out_.type),
           "mixes floats, integers and fixed-point numbers");
    }
  }
  bool fixed() const { return is_fixed_point(out_.type); }

  void gather() const {
    expect(1, 1, 0);
    const GraphConstant& table = constant(0);
    need(in(0).type == NumberType::i32, "indices are i32");
    need(table.kind == (fixed() ? ConstantKind::u16 : ConstantKind::f32), "the table is of another type");
    need(!fixed() || (out_.type == NumberType::u16 && table.encoding == out_.encoding), "the table's encoding differs");
    need(in(0).elements() * table.columns == out_.elements(), "sizes differ");
  }

  void rms_norm() const {
    expect(1, 1, 0);
    one_arithmetic();
    const GraphConstant& weight = constant(0);
    need(weight.kind == (fixed() ? ConstantKind::i16 : ConstantKind::f32), "the weight is of another type");
    need(!fixed() || in(0).type == NumberType::u16, "its input has 16 bits");
    need(weight.rows == 1 && in(0).elements() % weight.columns == 0, "the weight does not fit the input");
    need(!fixed() || weight.columns <= kMaxFixedColumns, "too many columns for the sum of their squares");
    same_size(in(0));
  }

  void linear() const {
    expect(1, 1, 1);
    one_arithmetic();
    const GraphConstant& weight = constant(0);
    const bool integers =
        weight.kind == ConstantKind::i8 || weight.kind == ConstantKind::i4 || weight.kind == ConstantKind::i4_blocks;
    need(fixed() ? integers : weight.kind == ConstantKind::f32_panels, "the weight is of another type");
    need(!fixed() || in(0).type == NumberType::u16, "its input has 16 bits");
    need(!fixed() || weight.columns <= kMaxFixedColumns, "too many inputs for 32-bit sums");
    need(in(0).elements() % weight.columns == 0 && in(0).dim(0) == weight.columns, "the weight does not fit the input");
    need(in(0).elements() / weight.columns * weight.rows == out_.elements() && out_.dim(0) == weight.rows,
         "the weight does not fit the output");
    if (node_.constants.size() < 2) return;
    const GraphConstant& bias = constant(1);
    need(bias.kind == (fixed() ? ConstantKind::i64 : ConstantKind::f32), "the bias is of another type");
    need(bias.rows == 1 && bias.columns == weight.rows, "the bias does not fit the output");
  }

  void rope() const {
    expect(3, 0, 0);
    one_arithmetic();
    same_size(in(0));
    const GraphTensor &cos = in(1), &sin = in(2);
    need(cos.elements() == sin.elements() && cos.type == sin.type && cos.encoding == sin.encoding,
         "cos and sin differ");
    need(!fixed() || (in(0).type == NumberType::u16 && cos.type == NumberType::u16), "its inputs have 16 bits");
    const size_t width = node_.width, head_dim = node_.head_dim;
    need(width >= 2 && width % 2 == 0 && width <= head_dim, "rotates no part of a head");
    need(cos.elements() % (width / 2) == 0, "cos does not fit the width");
    const size_t tokens = cos.elements() / (width / 2);
    need(in(0).elements() % (tokens * head_dim) == 0, "cos does not fit the input");
  }

  void moved() const {
    for (const uint32_t i : node_.inputs) {
      need(graph_.tensors[i].type == out_.type && graph_.tensors[i].encoding == out_.encoding,
           "moves numbers and must not change their encoding");
    }
  }

  void permute() const {
    expect(1, 0, 0);
    moved();
    same_size(in(0));
    const size_t rank = node_.view.size();
    need(rank >= 1 && rank <= kMaxRank && node_.order.size() == rank, "wrong number of dimensions");
    size_t elements = 1;
    for (const uint32_t d : node_.view) {
      need(d >= 1 && d <= out_.elements(), "a dimension is out of range");
      elements *= d;
      need(elements <= out_.elements(), "dimensions do not fit the input");
    }
    need(elements == out_.elements(), "dimensions do not fit the input");
    need(std::set<uint32_t>(node_.order.begin(), node_.order.end()).size() == rank, "no order");
    for (const uint32_t o : node_.order) need(o < rank, "no order");
  }

  /// Elements after one another that one step of the dimension `axis` from the end skips.
  static size_t inner(const GraphTensor& t, size_t axis) {
    size_t n = 1;
    for (size_t i = 0; i < axis; ++i) n *= t.dim(i);
    return n;
  }

  void concat() const {
    need(!node_.inputs.empty(), "nothing to join");
    expect(node_.inputs.size(), 0, 0);
    need(node_.axis < kMaxRank, "no such dimension");
    moved();
    const size_t stride = inner(out_, node_.axis), outer = out_.elements() / (stride * out_.dim(node_.axis));
    size_t total = 0;
    for (const uint32_t i : node_.inputs) {
      const GraphTensor& t = graph_.tensors[i];
      need(inner(t, node_.axis) == stride && t.elements() / (stride * t.dim(node_.axis)) == outer, "shapes differ");
      total += t.dim(node_.axis);
    }
    need(total == out_.dim(node_.axis), "the parts do not add up");
  }

  void slice() const {
    expect(1, 0, 0);
    need(node_.axis < kMaxRank, "no such dimension");
    moved();
    const size_t stride = inner(in(0), node_.axis), size = in(0).dim(node_.axis);
    need(node_.width >= 1 && node_.begin < size && node_.width <= size - node_.begin, "out of range");
    need(in(0).elements() / size * node_.width == out_.elements() && stride >= 1, "shapes differ");
  }

  void matmul() const {
    expect(2, 0, 0);
    one_arithmetic();
    const GraphTensor &a = in(0), &b = in(1);
    need(!fixed() || a.type == NumberType::u16, "its first input has 16 bits");
    need(a.dim(0) == b.dim(1), "inner dimensions differ");
    need(!fixed() || a.dim(0) <= kMaxFixedColumns, "too many terms");
    need(out_.dim(1) == a.dim(1) && out_.dim(0) == b.dim(0), "the output's shape differs");
    const size_t batch = a.elements() / (a.dim(0) * a.dim(1));
    need(batch == b.elements() / (b.dim(0) * b.dim(1)) && batch == out_.elements() / (out_.dim(0) * out_.dim(1)),
         "batches differ");
  }

  void mask() const {
    expect(2, 0, 0);
    one_arithmetic();
    same_size(in(0));
    need(in(0).dim(0) == in(1).dim(0) && out_.dim(0) == in(0).dim(0), "columns differ");
    const size_t rows = in(0).elements() / in(0).dim(0), mask_rows = in(1).elements() / in(1).dim(0);
    need(rows % mask_rows == 0, "the mask's rows do not fit");
  }

  const ShardProgram& program_;
  const Graph& graph_;
  const GraphNode& node_;
  const GraphTensor& out_;
};

void check_tensor(const Graph& graph, const GraphTensor& tensor) {
  const auto refuse = [&](std::string_view what) {
    fail("graph {}: tensor {}: {}", printable(graph.name), printable(tensor.name), what);
  };
  if (tensor.dims.empty() || tensor.dims.size() > kMaxRank) refuse("has no shape");
  size_t elements = 1;
  for (const uint32_t d : tensor.dims) {
    if (d == 0) refuse("has no elements");
    if (elements > kMaxElements / d) refuse("is too large");
    elements *= d;
  }
  switch (tensor.type) {
    case NumberType::f32:
    case NumberType::i32:
      if (tensor.encoding != Encoding()) refuse("has an encoding and is not fixed-point");
      return;
    case NumberType::u8:
    case NumberType::u16:
      if (!(std::isnormal(tensor.encoding.scale) && tensor.encoding.scale > 0)) refuse("has no scale");
      if (tensor.encoding.zero_point < 0 || tensor.encoding.zero_point > largest(tensor.type)) {
        refuse("has a zero point outside of its range");
      }
      return;
  }
  refuse("has no type");
}

void check_constant(const GraphConstant& constant) {
  const auto refuse = [&](std::string_view what) { fail("constant {}: {}", printable(constant.name), what); };
  if (constant.rows == 0 || constant.columns == 0 || constant.rows > kMaxElements ||
      constant.columns > kMaxElements / constant.rows) {
    refuse("its size is out of range");
  }
  if (constant.kind > ConstantKind::i4_blocks) refuse("no such kind");
  const bool scaled = constant.kind == ConstantKind::u16 || constant.kind == ConstantKind::i16;
  if (scaled && !(std::isnormal(constant.encoding.scale) && constant.encoding.scale > 0)) refuse("has no scale");
  if (constant.encoding.zero_point < 0 || constant.encoding.zero_point > 65535) refuse("no such zero point");
  const size_t b = constant.block;
  if (constant.kind == ConstantKind::i4_blocks ? b != 16 && b != 32 && b != 64 : b != 0) refuse("no such block");
}

void check_graph(const ShardProgram& program, const Graph& graph) {
  enum : uint8_t { unmade, given, made };
  const size_t count = graph.tensors.size();
  const auto refuse = [&](std::string_view what) { fail("graph {}: {}", printable(graph.name), what); };
  const auto place = [&](uint32_t i) {
    if (i >= count) refuse("a tensor's number is out of range");
    return i;
  };
  for (const GraphTensor& tensor : graph.tensors) check_tensor(graph, tensor);
  std::vector<uint8_t> state(count, unmade);
  std::set<std::string_view> names;
  for (const uint32_t i : graph.inputs) {
    if (state[place(i)] != unmade) refuse("an input is there twice");
    state[i] = given;
    if (!names.insert(graph.tensors[i].name).second) refuse("two inputs or outputs have one name");
  }
  for (const GraphNode& node : graph.nodes) {
    for (const uint32_t i : node.inputs) {
      if (state[place(i)] == unmade) refuse("a tensor is read before it is made");
    }
    for (const uint32_t c : node.constants) {
      if (c >= program.constants.size()) refuse("a constant's number is out of range");
    }
    if (state[place(node.output)] != unmade) refuse("a tensor is made twice");
    state[node.output] = made;
    NodeCheck(program, graph, node).run();
  }
  for (const uint32_t i : graph.outputs) {
    if (state[place(i)] != made) refuse("an output is not made");
    if (!names.insert(graph.tensors[i].name).second) refuse("two inputs or outputs have one name");
  }
}

std::string text_of(const GraphTensor& tensor) {
  std::string text = fmt::format("{} {}[{}]", tensor.name, name(tensor.type), fmt::join(tensor.dims, ","));
  if (is_fixed_point(tensor.type)) {
    text += fmt::format(" scale {:.6g} zero {}", tensor.encoding.scale, tensor.encoding.zero_point);
  }
  return text;
}

std::string attributes_of(const GraphNode& node) {
  std::string text;
  if (node.factor != 1) text += fmt::format(" factor {:.6g}", node.factor);
  if (node.op == Operator::rms_norm) text += fmt::format(" epsilon {:.6g}", node.epsilon);
  if (node.op == Operator::concat) text += fmt::format(" axis -{}", node.axis + 1);
  if (node.op == Operator::slice)
    text += fmt::format(" axis -{} [{}, {})", node.axis + 1, node.begin, node.begin + node.width);
  if (node.op == Operator::rope) {
    text += fmt::format(" {} of {}, {}", node.width, node.head_dim,
                        node.style == RopeStyle::halves ? "halves" : "interleaved");
  }
  if (node.op == Operator::permute) {
    text += fmt::format(" [{}] order {}", fmt::join(node.view, ","), fmt::join(node.order, ","));
  }
  return text;
}

}  // namespace

std::string_view name(NumberType type) {
  switch (type) {
    case NumberType::f32:
      return "f32";
    case NumberType::i32:
      return "i32";
    case NumberType::u8:
      return "u8";
    case NumberType::u16:
      return "u16";
  }
  return "?";
}

size_t bytes_of(NumberType type) {
  return type == NumberType::u8 ? 1 : type == NumberType::u16 ? 2 : 4;
}

std::string_view name(ConstantKind kind) {
  constexpr std::string_view names[] = {"f32", "u16", "i16", "i64", "f32_panels", "i8", "i4", "i4_blocks"};
  return static_cast<size_t>(kind) < std::size(names) ? names[static_cast<size_t>(kind)] : "?";
}

std::string_view name(Operator op) {
  constexpr std::string_view names[] = {"gather",  "rms_norm", "linear",   "rope",   "permute", "concat",
                                        "slice",   "matmul",   "softcap",  "silu",   "gelu",    "mask",
                                        "softmax", "add",      "multiply", "convert"};
  return static_cast<size_t>(op) < std::size(names) ? names[static_cast<size_t>(op)] : "?";
}

size_t GraphTensor::elements() const {
  size_t n = 1;
  for (const uint32_t d : dims) n *= d;
  return n;
}

void check(const ShardProgram& program) {
  for (const GraphConstant& constant : program.constants) check_constant(constant);
  if (program.graphs.empty()) fail("no graph");
  std::set<std::string_view> names;
  for (const Graph& graph : program.graphs) {
    if (!names.insert(graph.name).second) fail("two graphs are called {}", printable(graph.name));
    check_graph(program, graph);
  }
}

std::string to_text(const ShardProgram& program) {
  std::string text;
  for (const GraphConstant& c : program.constants) {
    text += fmt::format("constant {} {}[{},{}]", c.name, name(c.kind), c.rows, c.columns);
    if (c.block) text += fmt::format(" block {}", c.block);
    if (c.encoding.scale != 0) text += fmt::format(" scale {:.6g} zero {}", c.encoding.scale, c.encoding.zero_point);
    text += "\n";
  }
  for (const Graph& graph : program.graphs) {
    text += fmt::format("\ngraph {}\n", graph.name);
    for (const uint32_t i : graph.inputs) text += fmt::format("  input  {}\n", text_of(graph.tensors[i]));
    for (const GraphNode& node : graph.nodes) {
      std::vector<std::string_view> from;
      for (const uint32_t i : node.inputs) from.push_back(graph.tensors[i].name);
      for (const uint32_t i : node.constants) from.push_back(program.constants[i].name);
      text += fmt::format("  {} = {}({}){}\n", text_of(graph.tensors[node.output]), name(node.op),
                          fmt::join(from, ", "), attributes_of(node));
    }
    for (const uint32_t i : graph.outputs) text += fmt::format("  output {}\n", text_of(graph.tensors[i]));
  }
  return text;
}

}  // namespace contexture
