#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "backends/static_graph/graph.h"

namespace contexture {

/// Executes a fixed-point graph a number at a time, in 64 and 128 bits, from what docs/static_graphs.md says of each
/// operator: shares no code with the backend, not even the reading of weights.
class FixedOracle {
 public:
  using Values = std::vector<int64_t>;  // raw numbers

  FixedOracle(const ShardProgram& program, const Graph& graph)
      : program_(program), graph_(graph), values_(graph.tensors.size()) {}

  void set(const std::string& input, Values raw) {
    for (const uint32_t i : graph_.inputs) {
      if (graph_.tensors[i].name == input) values_[i] = std::move(raw);
    }
  }
  const Values& of(uint32_t tensor) const { return values_[tensor]; }

  void run() {
    for (const GraphNode& node : graph_.nodes) {
      values_[node.output].assign(graph_.tensors[node.output].elements(), 0);
      run(node, values_[node.output]);
    }
  }

 private:
  __extension__ using Wide = __int128;

  struct Multiplier {
    Wide mantissa;
    int shift;
  };
  static Multiplier multiplier(double f) {
    int shift = 0;
    while (std::ldexp(f, shift) >= 0x1p31) --shift;
    while (std::ldexp(f, shift) < 0x1p30) ++shift;
    return {std::llround(std::ldexp(f, shift)), shift};
  }
  /// floor(v / 2^shift + 1/2)
  static int64_t half_up(Wide v, int shift) {
    const Wide whole = Wide{1} << shift, n = v + whole / 2;
    Wide q = n / whole;
    if (n % whole < 0) --q;
    return static_cast<int64_t>(q);
  }
  static int64_t times(Wide v, double f) {
    const Multiplier m = multiplier(f);
    return half_up(v * m.mantissa, m.shift);
  }

  const GraphTensor& tensor(uint32_t i) const { return graph_.tensors[i]; }
  static double scale(const GraphTensor& t) { return static_cast<double>(t.encoding.scale); }
  int64_t real(uint32_t t, size_t i) const { return values_[t][i] - tensor(t).encoding.zero_point; }
  static int64_t stored(const GraphTensor& t, int64_t v) {
    const int64_t raw = v + t.encoding.zero_point, most = t.type == NumberType::u8 ? 255 : 65535;
    return raw < 0 ? 0 : raw > most ? most : raw;
  }
  template <class T>
  static T number(const GraphConstant& c, size_t i, size_t offset = 0) {
    T v;
    std::memcpy(&v, c.data.data() + offset + i * sizeof(T), sizeof(T));
    return v;
  }

  /// A weight times its block's factor; from the table of constants.h.
  static int64_t weight(const GraphConstant& c, size_t row, size_t column) {
    const size_t panels = (c.rows + 15) / 16, units = (c.columns + 31) / 32, panel = row / 16;
    size_t at = panels * 16 * 8;
    int64_t factor = 1;
    if (c.kind == ConstantKind::i4_blocks) {
      const size_t blocks = (units * 32 + c.block - 1) / c.block;
      factor = number<uint8_t>(c, (panel * blocks + column / c.block) * 16 + row % 16, at);
      at += (panels * blocks * 16 + 63) / 64 * 64;
    }
    const size_t unit = panel * units + column / 32, i = column % 32;
    if (c.kind == ConstantKind::i8) return number<uint8_t>(c, unit * 512 + i / 4 * 64 + row % 16 * 4 + i % 4, at) - 128;
    const int byte = number<uint8_t>(c, unit * 256 + i % 16 / 4 * 64 + row % 16 * 4 + i % 4, at);
    return factor * ((i < 16 ? byte % 16 : byte / 16) - 8);
  }

  void run(const GraphNode& node, Values& out) {
    const GraphTensor& o = tensor(node.output);
    const uint32_t a = node.inputs[0], b = node.inputs.back();
    const GraphTensor &ta = tensor(a), &tb = tensor(b);
    const GraphConstant* c = node.constants.empty() ? nullptr : &program_.constants[node.constants[0]];
    switch (node.op) {
      case Operator::gather:
        for (size_t i = 0; i < out.size(); ++i) {
          out[i] = number<uint16_t>(*c, static_cast<size_t>(values_[a][i / c->columns]) * c->columns + i % c->columns);
        }
        return;
      case Operator::linear:
        return linear(node, *c, out);
      case Operator::rms_norm:
        return rms_norm(node, *c, out);
      case Operator::rope:
        return rope(node, out);
      case Operator::softmax:
        return softmax(node, out);
      case Operator::permute:
        return permute(node, out);
      case Operator::concat:
      case Operator::slice:
        return join_or_cut(node, out);
      case Operator::matmul: {
        const size_t terms = ta.dim(0), rows = ta.dim(1), columns = tb.dim(0);
        for (size_t i = 0; i < out.size(); ++i) {
          const size_t row = i / columns;
          Wide sum = 0;
          for (size_t k = 0; k < terms; ++k) {
            sum += Wide{real(a, row * terms + k)} * real(b, (row / rows * terms + k) * columns + i % columns);
          }
          out[i] = stored(o, times(sum, node.factor * scale(ta) * scale(tb) / scale(o)));
        }
        return;
      }
      case Operator::mask:
      case Operator::add: {
        // Both factors over the power of two of the larger one.
        const double fa = scale(ta) / scale(o),
                     fb = (node.op == Operator::add ? node.factor : 1) * scale(tb) / scale(o);
        const int shift = multiplier(std::max(fa, fb)).shift;
        const Wide ma = std::llround(std::ldexp(fa, shift)), mb = std::llround(std::ldexp(fb, shift));
        const size_t columns = ta.dim(0), period = tb.elements();
        (void)columns;
        for (size_t i = 0; i < out.size(); ++i) {
          out[i] = stored(o, half_up(real(a, i) * ma + real(b, i % period) * mb, shift));
        }
        return;
      }
      case Operator::multiply:
        for (size_t i = 0; i < out.size(); ++i) {
          out[i] = stored(o, times(Wide{real(a, i)} * real(b, i), scale(ta) * scale(tb) / scale(o)));
        }
        return;
      case Operator::convert:
        for (size_t i = 0; i < out.size(); ++i) out[i] = stored(o, times(real(a, i), scale(ta) / scale(o)));
        return;
      case Operator::silu:
      case Operator::gelu:
      case Operator::softcap:
        for (size_t i = 0; i < out.size(); ++i) {
          const double x = scale(ta) * static_cast<double>(real(a, i));
          const double y = node.op == Operator::silu ? x / (1 + std::exp(-x))
                           : node.op == Operator::gelu
                               ? 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
                               : node.factor * std::tanh(x / node.factor);
          out[i] = stored(o, static_cast<int64_t>(std::floor(y / scale(o) + 0.5)));
        }
        return;
    }
  }

  void linear(const GraphNode& node, const GraphConstant& c, Values& out) const {
    const GraphTensor &x = tensor(node.inputs[0]), &o = tensor(node.output);
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t t = i / c.rows, r = i % c.rows;
      Wide sum = node.constants.size() > 1 ? number<int64_t>(program_.constants[node.constants[1]], r) : 0;
      for (size_t k = 0; k < c.columns; ++k) sum += Wide{weight(c, r, k)} * real(node.inputs[0], t * c.columns + k);
      const double row_scale = static_cast<double>(number<float>(c, r));
      out[i] = stored(o, times(sum, node.factor * scale(x) / scale(o) * row_scale));
    }
  }

  void rms_norm(const GraphNode& node, const GraphConstant& c, Values& out) const {
    const GraphTensor &x = tensor(node.inputs[0]), &o = tensor(node.output);
    const double n = static_cast<double>(c.columns);
    const Multiplier m = multiplier(static_cast<double>(c.encoding.scale) * std::sqrt(n) / scale(o));
    for (size_t row = 0; row < out.size() / c.columns; ++row) {
      Wide squares = std::max<int64_t>(1, std::llround(n * node.epsilon / (scale(x) * scale(x))));
      for (size_t i = 0; i < c.columns; ++i)
        squares += Wide{real(node.inputs[0], row * c.columns + i)} * real(node.inputs[0], row * c.columns + i);
      int t = 0;
      while ((squares << (2 * t)) < (Wide{1} << 62)) ++t;
      Wide root = static_cast<Wide>(std::sqrt(static_cast<double>(squares << (2 * t))));
      while (root * root > (squares << (2 * t))) --root;
      while ((root + 1) * (root + 1) <= (squares << (2 * t))) ++root;
      const Wide inverse = (Wide{1} << 63) / root, mantissa = inverse * m.mantissa / (Wide{1} << 31);
      for (size_t i = row * c.columns; i < (row + 1) * c.columns; ++i) {
        const Wide product = Wide{real(node.inputs[0], i)} * number<int16_t>(c, i % c.columns);
        out[i] = stored(o, half_up(product * mantissa, 32 + m.shift - t));
      }
    }
  }

  void rope(const GraphNode& node, Values& out) const {
    const uint32_t x = node.inputs[0], cos = node.inputs[1], sin = node.inputs[2];
    const GraphTensor& o = tensor(node.output);
    const size_t half = node.width / 2, tokens = tensor(cos).elements() / half, per_token = out.size() / tokens;
    const double f = scale(tensor(x)) * scale(tensor(cos)) / scale(o);
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t t = i / per_token, in_head = i % per_token % node.head_dim, head = i - in_head;
      if (in_head >= node.width) {
        out[i] = stored(o, times(real(x, i), scale(tensor(x)) / scale(o)));
        continue;
      }
      const bool halves = node.style == RopeStyle::halves;
      const size_t pair = halves ? in_head % half : in_head / 2;
      const bool second = halves ? in_head >= half : in_head % 2 == 1;
      const Wide first_value = real(x, head + (halves ? pair : 2 * pair));
      const Wide second_value = real(x, head + (halves ? pair + half : 2 * pair + 1));
      const int64_t cosine = real(cos, t * half + pair), sine = real(sin, t * half + pair);
      out[i] = stored(
          o,
          times(second ? first_value * sine + second_value * cosine : first_value * cosine - second_value * sine, f));
    }
  }

  void softmax(const GraphNode& node, Values& out) const {
    const uint32_t x = node.inputs[0];
    const double s = scale(tensor(x));
    const size_t columns = tensor(x).dim(0);
    for (size_t row = 0; row < out.size() / columns; ++row) {
      int64_t highest = 0;
      for (size_t i = 0; i < columns; ++i) highest = std::max(highest, values_[x][row * columns + i]);
      std::vector<Wide> e(columns);
      Wide sum = 0;
      for (size_t i = 0; i < columns; ++i) {
        const int64_t d = highest - values_[x][row * columns + i];
        const Wide high = std::llround(0x1p31 * std::exp(-256.0 * static_cast<double>(d / 256) * s));
        const Wide low = std::llround(0x1p31 * std::exp(-static_cast<double>(d % 256) * s));
        sum += e[i] = half_up(high * low, 31);
      }
      const Wide inverse = (Wide{65535} << 47) / sum;
      for (size_t i = 0; i < columns; ++i) out[row * columns + i] = half_up(e[i] * inverse, 47);
    }
  }

  void permute(const GraphNode& node, Values& out) const {
    const size_t rank = node.view.size();
    for (size_t i = 0; i < out.size(); ++i) {
      std::vector<size_t> place(rank);
      for (size_t d = rank, rest = i; d-- > 0;) {
        const size_t size = node.view[node.order[d]];
        place[node.order[d]] = rest % size;
        rest /= size;
      }
      size_t from = 0;
      for (size_t d = 0; d < rank; ++d) from = from * node.view[d] + place[d];
      out[i] = values_[node.inputs[0]][from];
    }
  }

  void join_or_cut(const GraphNode& node, Values& out) const {
    const GraphTensor& o = tensor(node.output);
    size_t inner = 1;
    for (size_t d = 0; d < node.axis; ++d) inner *= o.dim(d);
    const size_t size = o.dim(node.axis);
    for (size_t i = 0; i < out.size(); ++i) {
      size_t along = i / inner % size + (node.op == Operator::slice ? node.begin : 0);
      size_t part = 0;
      while (node.op == Operator::concat && along >= tensor(node.inputs[part]).dim(node.axis))
        along -= tensor(node.inputs[part++]).dim(node.axis);
      const size_t part_size = tensor(node.inputs[part]).dim(node.axis);
      out[i] = values_[node.inputs[part]][(i / inner / size * part_size + along) * inner + i % inner];
    }
  }

  const ShardProgram& program_;
  const Graph& graph_;
  std::vector<Values> values_;
};

}  // namespace contexture
