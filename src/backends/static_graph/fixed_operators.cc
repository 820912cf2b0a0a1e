// Fixed-point graphs, in integers: exact sums, and one rounding where a result gets its encoding
// (kernels/fixed_point.h). Tables (of exp, silu, gelu, tanh) and factors between encodings are made once, when a graph
// is loaded.

#include <algorithm>
#include <cmath>
#include <memory>

#include "backends/static_graph/constants.h"
#include "backends/static_graph/executor.h"
#include "base/error.h"
#include "kernels/fixed_elements.h"
#include "kernels/fixed_linear.h"
#include "kernels/fixed_point.h"

namespace contexture {
namespace {

constexpr size_t kPart = 4096;  // elements that a thread takes at once

double scale_of(const GraphTensor& t) {
  return static_cast<double>(t.encoding.scale);
}

/// A fixed-point tensor's raw numbers and their zero point, of 8 or 16 bits.
struct Raw {
  const uint8_t* bytes;
  const uint16_t* words;
  int32_t zero;

  int64_t operator[](size_t i) const { return int64_t{words ? words[i] : bytes[i]} - zero; }
};

Raw raw_input(const NodeContext& c, size_t i) {
  const GraphTensor& t = c.in(i);
  const std::byte* at = c.executor.address(c.node.inputs[i]);
  return {reinterpret_cast<const uint8_t*>(at),
          t.type == NumberType::u16 ? reinterpret_cast<const uint16_t*>(at) : nullptr, t.encoding.zero_point};
}

/// Calls f(begin, end) for parts of [0, count).
template <class F>
void in_parts(ThreadPool& pool, size_t count, const F& f) {
  pool.run((count + kPart - 1) / kPart,
           [&](size_t part, int) { f(part * kPart, std::min(count, (part + 1) * kPart)); });
}

/// Writes a result, its zero point added, to a tensor of 8 or 16 bits.
class Output {
 public:
  explicit Output(const NodeContext& c)
      : at_(c.executor.address(c.node.output)),
        zero_(c.out().encoding.zero_point),
        bytes_(c.out().type == NumberType::u8) {}
  void set(size_t i, int64_t value) const {
    if (bytes_) {
      reinterpret_cast<uint8_t*>(at_)[i] = static_cast<uint8_t>(saturated(value + zero_, 255));
    } else {
      reinterpret_cast<uint16_t*>(at_)[i] = saturated(value + zero_, 65535);
    }
  }

 private:
  std::byte* at_;
  int32_t zero_;
  bool bytes_;
};

bool all_words(const NodeContext& c) {
  return std::ranges::all_of(c.node.inputs, [&](uint32_t i) { return c.graph.tensors[i].type == NumberType::u16; }) &&
         c.out().type == NumberType::u16;
}

/// a · fa + b · fb with one rounding: both factors over one power of two.
FixedSum sum_of(const NodeContext& c, double fa, double fb) {
  const FixedFactor larger = fixed_factor(std::max(fa, fb));
  fixed_factor(std::min(fa, fb));  // refuses what is out of range
  const auto shift = static_cast<int>(larger.shift);
  return {.a_factor = std::llround(std::ldexp(fa, shift)),
          .b_factor = std::llround(std::ldexp(fb, shift)),
          .shift = shift,
          .a_zero = c.in(0).encoding.zero_point,
          .b_zero = c.in(1).encoding.zero_point,
          .out_zero = c.out().encoding.zero_point};
}

/// Rows of a with the rows of b that they take, in turn.
NodeKernel sum_kernel(const NodeContext& c, const FixedSum& sum, size_t row) {
  const size_t rows = c.in(0).elements() / row, b_rows = c.in(1).elements() / row;
  if (all_words(c) && sum.shift <= kMaxSumShift) {
    return [=] {
      const uint16_t* a = c.executor.data<uint16_t>(c.node.inputs[0]);
      const uint16_t* b = c.executor.data<uint16_t>(c.node.inputs[1]);
      uint16_t* out = c.executor.data<uint16_t>(c.node.output);
      c.pool.run(rows, [&](size_t r, int) { fixed_sum(sum, a + r * row, b + r % b_rows * row, out + r * row, row); });
    };
  }
  return [=] {
    const Raw a = raw_input(c, 0), b = raw_input(c, 1);
    const Output out(c);
    c.pool.run(rows, [&](size_t r, int) {
      for (size_t i = 0; i < row; ++i) {
        const Int128 exact = static_cast<Int128>(a[r * row + i]) * sum.a_factor +
                             static_cast<Int128>(b[r % b_rows * row + i]) * sum.b_factor;
        out.set(r * row + i, rounded_shift(exact, sum.shift));
      }
    });
  };
}

NodeKernel add_kernel(const NodeContext& c) {
  const double out = scale_of(c.out());
  return sum_kernel(c, sum_of(c, scale_of(c.in(0)) / out, c.node.factor * scale_of(c.in(1)) / out), c.in(0).dim(0));
}

NodeKernel mask_kernel(const NodeContext& c) {
  const double out = scale_of(c.out());
  return sum_kernel(c, sum_of(c, scale_of(c.in(0)) / out, scale_of(c.in(1)) / out), c.in(0).dim(0));
}

NodeKernel multiply_kernel(const NodeContext& c) {
  const FixedFactor factor = fixed_factor(scale_of(c.in(0)) * scale_of(c.in(1)) / scale_of(c.out()));
  if (all_words(c) && factor.shift <= kMaxProductShift) {
    const FixedProductOfTwo product{.factor = factor,
                                    .a_zero = c.in(0).encoding.zero_point,
                                    .b_zero = c.in(1).encoding.zero_point,
                                    .out_zero = c.out().encoding.zero_point};
    return [=] {
      const uint16_t* a = c.executor.data<uint16_t>(c.node.inputs[0]);
      const uint16_t* b = c.executor.data<uint16_t>(c.node.inputs[1]);
      uint16_t* out = c.executor.data<uint16_t>(c.node.output);
      in_parts(c.pool, c.out().elements(), [&](size_t begin, size_t end) {
        fixed_multiply(product, a + begin, b + begin, out + begin, end - begin);
      });
    };
  }
  return [=] {
    const Raw a = raw_input(c, 0), b = raw_input(c, 1);
    const Output out(c);
    in_parts(c.pool, c.out().elements(), [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) out.set(i, times(a[i] * b[i], factor));
    });
  };
}

NodeKernel convert_kernel(const NodeContext& c) {
  const FixedFactor factor = fixed_factor(scale_of(c.in(0)) / scale_of(c.out()));
  return [=] {
    const Raw x = raw_input(c, 0);
    const Output out(c);
    in_parts(c.pool, c.out().elements(), [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) out.set(i, times(x[i], factor));
    });
  };
}

/// A function of one number as a table of all 65,536: its exact value, rounded.
NodeKernel table_kernel(const NodeContext& c, double (*f)(double x, double factor)) {
  const auto table = std::make_shared<std::vector<uint16_t>>(65536);
  const double in = scale_of(c.in(0)), out = scale_of(c.out());
  for (size_t raw = 0; raw < table->size(); ++raw) {
    const double x = in * (static_cast<double>(raw) - c.in(0).encoding.zero_point);
    const double y = std::floor(f(x, c.node.factor) / out + 0.5) + c.out().encoding.zero_point;
    (*table)[raw] = static_cast<uint16_t>(std::clamp(y, 0.0, 65535.0));
  }
  return [=] {
    const uint16_t* x = c.executor.data<uint16_t>(c.node.inputs[0]);
    uint16_t* to = c.executor.data<uint16_t>(c.node.output);
    const std::vector<uint16_t>& values = *table;
    in_parts(c.pool, c.out().elements(), [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) to[i] = values[x[i]];
    });
  };
}

double silu(double x, double) {
  return x / (1 + std::exp(-x));
}
double gelu(double x, double) {
  return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}
double capped(double x, double cap) {
  return cap * std::tanh(x / cap);
}

/// x / sqrt(mean(x²) + epsilon) · w. With d and w raw numbers and S = Σ d² + columns · epsilon / scale²:
///
///   out = d · w · m / sqrt(S), m = scale of w · sqrt(columns) / scale of out
///
/// S is exact; with t so that 2^62 ≤ S · 4^t < 2^64 its root has 32 bits, and 2^t · floor(2^63 / root) is 2^63 /
/// sqrt(S).
NodeKernel rms_norm_kernel(const NodeContext& c) {
  const size_t columns = c.constant(0).columns, rows = c.in(0).elements() / columns;
  const double scale = scale_of(c.in(0)), count = static_cast<double>(columns);
  const FixedFactor factor =
      fixed_factor(static_cast<double>(c.constant(0).encoding.scale) * std::sqrt(count) / scale_of(c.out()));
  const auto epsilon = static_cast<uint64_t>(std::llround(std::min(count * c.node.epsilon / (scale * scale), 0x1p61)));
  const int16_t* weight = c.constant_data<int16_t>(0);
  return [=] {
    const Raw x = raw_input(c, 0);
    const Output out(c);
    c.pool.run(rows, [&](size_t r, int) {
      uint64_t squares = std::max<uint64_t>(1, epsilon);
      for (size_t i = r * columns; i < (r + 1) * columns; ++i) squares += static_cast<uint64_t>(x[i] * x[i]);
      const int half_shift = __builtin_clzll(squares) / 2;
      const uint64_t root = integer_root(squares << (2 * half_shift));
      const auto inverse = static_cast<int64_t>((uint64_t{1} << 63) / root);                               // ≤ 2^32
      const auto mantissa = static_cast<int64_t>((static_cast<Int128>(inverse) * factor.mantissa) >> 31);  // < 2^32
      const int64_t shift = std::max<int64_t>(1, 32 + factor.shift - half_shift);
      for (size_t i = 0; i < columns; ++i) {
        out.set(r * columns + i, rounded_shift(static_cast<Int128>(x[r * columns + i] * weight[i]) * mantissa, shift));
      }
    });
  };
}

NodeKernel rope_kernel(const NodeContext& c) {
  const size_t half = c.node.width / 2, tokens = c.in(1).elements() / half, per_token = c.in(0).elements() / tokens;
  const bool interleaved = c.node.style == RopeStyle::interleaved;
  const size_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half, head_dim = c.node.head_dim;
  const FixedFactor rotate = fixed_factor(scale_of(c.in(0)) * scale_of(c.in(1)) / scale_of(c.out()));
  const FixedFactor keep = fixed_factor(scale_of(c.in(0)) / scale_of(c.out()));
  return [=] {
    const Raw x = raw_input(c, 0), cos = raw_input(c, 1), sin = raw_input(c, 2);
    const Output out(c);
    c.pool.run(tokens, [&](size_t t, int) {
      for (size_t head = t * per_token; head < (t + 1) * per_token; head += head_dim) {
        for (size_t i = 0; i < half; ++i) {
          const size_t first = head + i * step, second = first + apart;
          const int64_t a = x[first], b = x[second], cosine = cos[t * half + i], sine = sin[t * half + i];
          out.set(first, times(a * cosine - b * sine, rotate));
          out.set(second, times(a * sine + b * cosine, rotate));
        }
        for (size_t i = 2 * half; i < head_dim; ++i) out.set(head + i, times(x[head + i], keep));
      }
    });
  };
}

/// kernels/fixed_elements.h has the arithmetic; its 65,535 is a probability of 1, and so is nearly always the output's.
NodeKernel softmax_kernel(const NodeContext& c) {
  const auto table = std::make_shared<FixedExponential>(scale_of(c.in(0)));
  const FixedFactor factor = fixed_factor(1.0 / 65535 / scale_of(c.out()));
  const bool plain = c.out().encoding.zero_point == 0 && std::fabs(scale_of(c.out()) * 65535 - 1) < 1e-6;
  const size_t columns = c.in(0).dim(0), rows = c.in(0).elements() / columns;
  const auto scratch = std::make_shared<std::vector<std::vector<uint32_t>>>(static_cast<size_t>(c.pool.threads()));
  for (auto& s : *scratch) s.resize(columns);
  return [=] {
    const uint16_t* in = c.executor.data<uint16_t>(c.node.inputs[0]);
    uint16_t* p = c.executor.data<uint16_t>(c.node.output);
    const Output out(c);
    c.pool.run(rows, [&](size_t r, int thread) {
      const size_t at = r * columns;
      fixed_softmax(*table, in + at, columns, (*scratch)[static_cast<size_t>(thread)].data(), p + at);
      for (size_t i = at; !plain && i < at + columns; ++i) out.set(i, times(p[i], factor));
    });
  };
}

NodeKernel matmul_kernel(const NodeContext& c) {
  constexpr size_t kRows = 16;  // that a thread takes at once
  const size_t rows = c.in(0).dim(1), parts = (rows + kRows - 1) / kRows;
  const FixedProduct product{
      .terms = c.in(0).dim(0),
      .columns = c.in(1).dim(0),
      .a_zero = c.in(0).encoding.zero_point,
      .b_zero = c.in(1).encoding.zero_point,
      .out_zero = c.out().encoding.zero_point,
      .factor = fixed_factor(c.node.factor * scale_of(c.in(0)) * scale_of(c.in(1)) / scale_of(c.out()))};
  if (c.out().type != NumberType::u16) fail("{}: products have 16 bits", c.out().name);
  const size_t batch = c.in(0).elements() / (product.terms * rows);
  const bool bytes = c.in(1).type == NumberType::u8;
  return [=] {
    const uint16_t* a = c.executor.data<uint16_t>(c.node.inputs[0]);
    const uint8_t* b8 = c.executor.data<uint8_t>(c.node.inputs[1]);
    const uint16_t* b16 = c.executor.data<uint16_t>(c.node.inputs[1]);
    uint16_t* out = c.executor.data<uint16_t>(c.node.output);
    c.pool.run(batch * parts, [&](size_t i, int) {
      const size_t head = i / parts, first = i % parts * kRows, row = head * rows + first;
      const size_t begin = head * product.terms * product.columns;
      FixedProduct part = product;
      part.rows = std::min(kRows, rows - first);
      if (bytes) {
        fixed_product(part, a + row * product.terms, b8 + begin, out + row * product.columns);
      } else {
        fixed_product(part, a + row * product.terms, b16 + begin, out + row * product.columns);
      }
    });
  };
}

NodeKernel linear_kernel(const NodeContext& c) {
  const GraphConstant& w = c.constant(0);
  const MatrixParts parts = parts_of(w);
  const std::byte* data = w.data.data();
  const auto scales = std::make_shared<std::vector<FixedFactor>>(w.rows);
  const double between = c.node.factor * scale_of(c.in(0)) / scale_of(c.out());
  const float* row_scales = reinterpret_cast<const float*>(data + parts.scales);
  for (size_t r = 0; r < w.rows; ++r) (*scales)[r] = fixed_factor(between * static_cast<double>(row_scales[r]));
  if (c.out().type != NumberType::u16) fail("{}: linears make 16 bits", c.out().name);
  const size_t tokens = c.in(0).elements() / w.columns;
  c.scratch.reserve(tokens, w.columns);
  const bool split = c.split_input != c.node.inputs[0];
  c.split_input = c.node.inputs[0];
  const int64_t* bias = c.node.constants.size() > 1 ? c.constant_data<int64_t>(1) : nullptr;
  for (size_t r = 0; bias && r < w.rows; ++r) {
    if (std::abs(bias[r] / 2) > int64_t{1} << 58) fail("{}: a bias is beyond all sums", c.constant(1).name);
  }
  const FixedLinear linear{.rows = w.rows,
                           .columns = w.columns,
                           .bits = w.kind == ConstantKind::i8 ? 8 : 4,
                           .block = w.block,
                           .quants = data + parts.quants,
                           .sums = reinterpret_cast<const int32_t*>(data + parts.sums),
                           .factors = reinterpret_cast<const uint8_t*>(data + parts.factors),
                           .bias = bias,
                           .scale = scales->data(),
                           .input_zero = c.in(0).encoding.zero_point,
                           .output_zero = c.out().encoding.zero_point};
  return [=] {
    (void)scales;  // kept for `linear`
    if (split) {
      split_into_planes(c.executor.data<uint16_t>(c.node.inputs[0]), tokens, linear.columns, c.scratch, c.pool);
    }
    fixed_linear(linear, c.scratch, tokens, c.executor.data<uint16_t>(c.node.output), c.pool);
  };
}

}  // namespace

NodeKernel fixed_kernel(const NodeContext& c) {
  switch (c.node.op) {
    case Operator::rms_norm:
      return rms_norm_kernel(c);
    case Operator::linear:
      return linear_kernel(c);
    case Operator::rope:
      return rope_kernel(c);
    case Operator::matmul:
      return matmul_kernel(c);
    case Operator::mask:
      return mask_kernel(c);
    case Operator::softmax:
      return softmax_kernel(c);
    case Operator::softcap:
      return table_kernel(c, capped);
    case Operator::silu:
      return table_kernel(c, silu);
    case Operator::gelu:
      return table_kernel(c, gelu);
    case Operator::add:
      return add_kernel(c);
    case Operator::multiply:
      return multiply_kernel(c);
    case Operator::convert:
      return convert_kernel(c);
    default:
      return {};
  }
}

}  // namespace contexture
