#include "backends/static_graph/executor.h"

#include <algorithm>
#include <cstring>

#include "backends/static_graph/value_places.h"
#include "base/error.h"

namespace contexture {
namespace {

/// Calls f(begin, end) for parts of `count` pieces of memory, about as many bytes each as are worth a thread.
template <class F>
void in_parts(ThreadPool& pool, size_t count, size_t bytes, const F& f) {
  const size_t part = std::max<size_t>(1, 32768 / bytes);
  pool.run((count + part - 1) / part, [&](size_t i, int) { f(i * part, std::min(count, (i + 1) * part)); });
}

NodeKernel gather(const NodeContext& c) {
  const size_t rows = c.constant(0).rows, count = c.in(0).elements();
  const size_t row_bytes = c.constant(0).columns * bytes_of(c.out().type);
  return [=] {
    const int32_t* indices = c.executor.data<int32_t>(c.node.inputs[0]);
    std::byte* out = c.executor.address(c.node.output);
    for (size_t i = 0; i < count; ++i) {
      const int64_t index = indices[i];
      if (index < 0 || static_cast<size_t>(index) >= rows) {
        fail("{}[{}] is {}; {} has rows 0 to {}", c.in(0).name, i, index, c.constant(0).name, rows - 1);
      }
      std::memcpy(out + i * row_bytes, c.constant(0).data.data() + static_cast<size_t>(index) * row_bytes, row_bytes);
    }
  };
}

template <class T>
NodeKernel permute_of(const NodeContext& c) {
  const size_t rank = c.node.view.size();
  std::vector<size_t> strides(rank, 1), sizes(rank), steps(rank);
  for (size_t i = rank - 1; i-- > 0;) strides[i] = strides[i + 1] * c.node.view[i + 1];
  for (size_t i = 0; i < rank; ++i) {
    sizes[i] = c.node.view[c.node.order[i]];
    steps[i] = strides[c.node.order[i]];
  }
  const size_t last = sizes.back(), last_step = steps.back(), runs = c.out().elements() / last;
  return [=] {
    const T* in = c.executor.data<T>(c.node.inputs[0]);
    T* out = c.executor.data<T>(c.node.output);
    in_parts(c.pool, runs, last * sizeof(T), [&](size_t begin, size_t end) {
      for (size_t run = begin; run < end; ++run) {
        size_t from = 0, rest = run;
        for (size_t i = rank - 1; i-- > 0;) {
          from += rest % sizes[i] * steps[i];
          rest /= sizes[i];
        }
        for (size_t i = 0; i < last; ++i) out[run * last + i] = in[from + i * last_step];
      }
    });
  };
}

NodeKernel permute(const NodeContext& c) {
  switch (bytes_of(c.out().type)) {
    case 1:
      return permute_of<uint8_t>(c);
    case 2:
      return permute_of<uint16_t>(c);
    default:
      return permute_of<uint32_t>(c);
  }
}

/// Bytes of one step of the dimension `axis` from the end.
size_t step_bytes(const GraphTensor& t, size_t axis) {
  size_t n = bytes_of(t.type);
  for (size_t i = 0; i < axis; ++i) n *= t.dim(i);
  return n;
}

NodeKernel concat(const NodeContext& c) {
  const size_t step = step_bytes(c.out(), c.node.axis), row = step * c.out().dim(c.node.axis);
  const size_t rows = c.out().bytes() / row;
  return [=] {
    in_parts(c.pool, rows, row, [&](size_t begin, size_t end) {
      std::byte* out = c.executor.address(c.node.output) + begin * row;
      for (const uint32_t i : c.node.inputs) {
        const size_t bytes = step * c.graph.tensors[i].dim(c.node.axis);
        const std::byte* in = c.executor.address(i) + begin * bytes;
        for (size_t r = 0; r < end - begin; ++r) std::memcpy(out + r * row, in + r * bytes, bytes);
        out += bytes;
      }
    });
  };
}

NodeKernel slice(const NodeContext& c) {
  const size_t step = step_bytes(c.in(0), c.node.axis), row = step * c.in(0).dim(c.node.axis);
  const size_t rows = c.in(0).bytes() / row, bytes = step * c.node.width;
  return [=] {
    const std::byte* in = c.executor.address(c.node.inputs[0]) + c.node.begin * step;
    std::byte* out = c.executor.address(c.node.output);
    for (size_t r = 0; r < rows; ++r) std::memcpy(out + r * bytes, in + r * row, bytes);
  };
}

}  // namespace

NodeKernel moving_kernel(const NodeContext& c) {
  switch (c.node.op) {
    case Operator::gather:
      return gather(c);
    case Operator::permute:
      return permute(c);
    case Operator::concat:
      return concat(c);
    case Operator::slice:
      return slice(c);
    default:
      return {};
  }
}

GraphExecutor::GraphExecutor(const ShardProgram& program, size_t graph, ThreadPool& pool)
    : program_(program), graph_(program.graphs[graph]), addresses_(graph_.tensors.size()) {
  const ValuePlaces places = place_values(graph_);
  arena_ = AlignedArray<std::byte>(places.bytes);
  for (const auto& [tensor, offset] : places.offsets) addresses_[tensor] = arena_.data() + offset;
  kernels_.reserve(graph_.nodes.size());
  uint32_t split_input = UINT32_MAX;
  for (const GraphNode& node : graph_.nodes) {
    const NodeContext context{program_, graph_, node, *this, pool, scratch_, split_input};
    NodeKernel kernel = moving_kernel(context);
    if (!kernel) {
      kernel = is_fixed_point(graph_.tensors[node.output].type) ? fixed_kernel(context) : float_kernel(context);
    }
    kernels_.push_back(std::move(kernel));
  }
}

void GraphExecutor::run() {
  for (size_t n = 0; n < kernels_.size(); ++n) {
    kernels_[n]();
    if (observer) observer(graph_.nodes[n].output);
  }
}

}  // namespace contexture
