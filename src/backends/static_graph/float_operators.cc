// Float graphs: plain, and near enough to the engine's own forward pass to check everything else against it.

#include <algorithm>
#include <cmath>
#include <memory>

#include "backends/static_graph/executor.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"

namespace contexture {
namespace {

NodeKernel rms_norm_kernel(const NodeContext& c) {
  const size_t columns = c.constant(0).columns, rows = c.in(0).elements() / columns;
  const float* weight = c.constant_data<float>(0);
  return [=] {
    const float* x = c.executor.data<float>(c.node.inputs[0]);
    float* out = c.executor.data<float>(c.node.output);
    c.pool.run(rows, [&](size_t r, int) {
      rms_norm(x + r * columns, weight, static_cast<float>(c.node.epsilon), columns, out + r * columns);
    });
  };
}

NodeKernel linear_kernel(const NodeContext& c) {
  const GraphConstant& w = c.constant(0);
  const PackedMatrix matrix{.format = Format::f32, .rows = w.rows, .columns = w.columns, .data = w.data.data()};
  const size_t tokens = c.in(0).elements() / w.columns;
  const float* bias = c.node.constants.size() > 1 ? c.constant_data<float>(1) : nullptr;
  const float factor = static_cast<float>(c.node.factor);
  const auto scratch = std::make_shared<MatmulScratch>(0, 0);  // float products need none
  return [=] {
    float* out = c.executor.data<float>(c.node.output);
    const Product product{&matrix, out};
    matmul({&product, 1}, c.executor.data<float>(c.node.inputs[0]), tokens, *scratch, c.pool);
    for (size_t t = 0; bias && t < tokens; ++t) add_scaled(out + t * matrix.rows, bias, 1, matrix.rows);
    if (factor != 1) multiply_by(out, factor, tokens * matrix.rows);
  };
}

NodeKernel rope_kernel(const NodeContext& c) {
  const size_t half = c.node.width / 2, tokens = c.in(1).elements() / half, per_token = c.in(0).elements() / tokens;
  const bool interleaved = c.node.style == RopeStyle::interleaved;
  const size_t step = interleaved ? 2 : 1, apart = interleaved ? 1 : half, head_dim = c.node.head_dim;
  return [=] {
    const float* x = c.executor.data<float>(c.node.inputs[0]);
    const float* cos = c.executor.data<float>(c.node.inputs[1]);
    const float* sin = c.executor.data<float>(c.node.inputs[2]);
    float* out = c.executor.data<float>(c.node.output);
    std::copy_n(x, tokens * per_token, out);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t head = t * per_token; head < (t + 1) * per_token; head += head_dim) {
        for (size_t i = 0; i < half; ++i) {
          const float a = x[head + i * step], b = x[head + i * step + apart];
          out[head + i * step] = a * cos[t * half + i] - b * sin[t * half + i];
          out[head + i * step + apart] = a * sin[t * half + i] + b * cos[t * half + i];
        }
      }
    }
  };
}

/// Row by row of the output: sums of b's rows, those that a has something of. What an unused column of V holds, NaN
/// even, is not looked at.
NodeKernel matmul_kernel(const NodeContext& c) {
  const size_t terms = c.in(0).dim(0), rows = c.in(0).dim(1), columns = c.in(1).dim(0);
  const size_t batch_rows = c.in(0).elements() / terms;
  const float factor = static_cast<float>(c.node.factor);
  return [=] {
    const float* a = c.executor.data<float>(c.node.inputs[0]);
    const float* b = c.executor.data<float>(c.node.inputs[1]);
    float* out = c.executor.data<float>(c.node.output);
    c.pool.run(batch_rows, [&](size_t r, int) {
      const float* row_b = b + r / rows * terms * columns;
      float* row = out + r * columns;
      std::fill_n(row, columns, 0.f);
      for (size_t k = 0; k < terms; ++k, row_b += columns) {
        const float weight = a[r * terms + k];
        if (weight == 0) continue;
        for (size_t i = 0; i < columns; ++i) row[i] += weight * row_b[i];
      }
      for (size_t i = 0; i < columns; ++i) row[i] *= factor;
    });
  };
}

NodeKernel mask_kernel(const NodeContext& c) {
  const size_t columns = c.in(0).dim(0), rows = c.in(0).elements() / columns;
  const size_t mask_rows = c.in(1).elements() / columns;
  return [=] {
    const float* scores = c.executor.data<float>(c.node.inputs[0]);
    const float* mask = c.executor.data<float>(c.node.inputs[1]);
    float* out = c.executor.data<float>(c.node.output);
    for (size_t r = 0; r < rows; ++r) {
      const float* m = mask + r % mask_rows * columns;
      for (size_t i = r * columns; i < (r + 1) * columns; ++i) out[i] = m[i - r * columns] < 0 ? -INFINITY : scores[i];
    }
  };
}

NodeKernel softmax_kernel(const NodeContext& c) {
  const size_t columns = c.in(0).dim(0), rows = c.in(0).elements() / columns;
  return [=] {
    const float* in = c.executor.data<float>(c.node.inputs[0]);
    float* out = c.executor.data<float>(c.node.output);
    c.pool.run(rows, [&](size_t r, int) {
      const float *x = in + r * columns, highest = *std::max_element(x, x + columns);
      float *to = out + r * columns, sum = 0;
      if (highest == -INFINITY) return static_cast<void>(std::fill_n(to, columns, 0.f));  // a row that is all masked
      for (size_t i = 0; i < columns; ++i) sum += to[i] = std::exp(x[i] - highest);
      for (size_t i = 0; i < columns; ++i) to[i] /= sum;
    });
  };
}

/// out = f(a, b) element by element; `b` is `a` where there is one input.
template <class F>
NodeKernel elementwise(const NodeContext& c, F f) {
  constexpr size_t kPart = 4096;
  const size_t count = c.out().elements();
  return [=] {
    const float* a = c.executor.data<float>(c.node.inputs[0]);
    const float* b = c.executor.data<float>(c.node.inputs.back());
    float* out = c.executor.data<float>(c.node.output);
    c.pool.run((count + kPart - 1) / kPart, [&](size_t part, int) {
      for (size_t i = part * kPart; i < std::min(count, (part + 1) * kPart); ++i) out[i] = f(a[i], b[i]);
    });
  };
}

}  // namespace

NodeKernel float_kernel(const NodeContext& c) {
  const float factor = static_cast<float>(c.node.factor);
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
      return elementwise(c, [=](float x, float) { return factor * std::tanh(x / factor); });
    case Operator::silu:
      return elementwise(c, [](float x, float) { return x / (1 + std::exp(-x)); });
    case Operator::gelu:
      return elementwise(
          c, [](float x, float) { return 0.5f * x * (1 + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x))); });
    case Operator::add:
      return elementwise(c, [=](float a, float b) { return a + factor * b; });
    case Operator::multiply:
      return elementwise(c, [](float a, float b) { return a * b; });
    default:
      return {};
  }
}

}  // namespace contexture
